//! Opens the store that a plan or the arguments name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::StoreArgs;
use crate::cli::failure::Failure;
use crate::keys::recovery_sheet::RepositoryLocation;
use crate::plan::{Rate, RepositorySpec};
use crate::report::event::Reporter;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::limit::Rates;
use crate::store::open::open;
use crate::store::options::StoreOptions;

/// Returns the options of a repository's store; `create` makes a missing folder, never a bucket.
pub(crate) fn store_options(repository: &RepositorySpec, upload: Option<Rate>, create: bool) -> StoreOptions {
    let RepositorySpec { url, endpoint, region, path_style, credentials_file, ca_file, .. } =
        repository.clone();
    let upload = upload.and_then(|rate| std::num::NonZeroU64::new(rate.per_second()));
    let rates = Rates { upload, download: None };
    StoreOptions { url, endpoint, region, path_style, credentials_file, ca_file, rates, create }
}

/// Returns the repository that the arguments name, for verbs without a plan.
pub(crate) fn repository_argument(args: &StoreArgs) -> Result<RepositorySpec, Failure> {
    if super::given(args.repo.as_deref()).is_none() {
        return Err(Failure::usage("no repository is given")
            .remedy("give --repo s3://bucket/prefix or --repo file:///folder"));
    }
    Ok(args.apply_to(RepositorySpec::default()))
}

/// Opens a repository's store, with the options of [`store_options`].
pub(crate) async fn open_store(
    repository: &RepositorySpec,
    upload: Option<Rate>,
    create: bool,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<Arc<dyn Store>, Failure> {
    Ok(open(&store_options(repository, upload, create), runtime, reporter).await?)
}

/// Returns the repository's location for the recovery sheet.
pub(crate) fn repository_location(repository: &RepositorySpec) -> RepositoryLocation {
    RepositoryLocation {
        url: repository.url.clone(),
        endpoint: repository.endpoint.clone(),
        region: repository.region.clone(),
        path_style: repository.path_style.unwrap_or(false),
    }
}

/// The folders of a file store that do not exist yet. On drop, those that were created and are empty are
/// removed, so that a failure leaves no folder behind.
pub(crate) struct NewFolders(Vec<PathBuf>);

impl NewFolders {
    /// Lists the missing folders of the store at `url`. Call this before the store is opened.
    pub(crate) fn of(url: &str) -> Self {
        let folder = url.strip_prefix("file://").map(Path::new);
        let lacking = folder.into_iter().flat_map(Path::ancestors).take_while(|folder| !folder.exists());
        Self(lacking.map(Path::to_owned).collect())
    }

    /// Keeps the folders.
    pub(crate) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for NewFolders {
    fn drop(&mut self) {
        // The deepest comes first; the first that is not empty or was never created ends the loop.
        for folder in &self.0 {
            if std::fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}
