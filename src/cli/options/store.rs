//! Opens the store that a plan or the arguments name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::StoreArgs;
use crate::keys::recovery_sheet::RepositoryLocation;
use crate::plan::{Rate, Repository};
use crate::report::event::Reporter;
use crate::runtime::Runtime;
use crate::store::Store;
use crate::store::open::{StoreOptions, open};

/// Returns the options of a repository's store; `create` makes a missing folder, never a bucket.
pub(crate) fn options(repository: &Repository, upload: Option<Rate>, create: bool) -> StoreOptions {
    let mut options = StoreOptions::new(repository.url.clone())
        .upload_limit(upload.and_then(|rate| std::num::NonZeroU64::new(rate.per_second())));
    options.endpoint.clone_from(&repository.endpoint);
    options.region.clone_from(&repository.region);
    options.path_style = repository.path_style;
    options.credentials_file.clone_from(&repository.credentials_file);
    options.ca_file.clone_from(&repository.ca_file);
    options.create = create;
    options
}

/// Returns the repository that the arguments name, for verbs without a plan.
pub(crate) fn without_plan(args: &StoreArgs) -> Result<Repository, Failure> {
    if args.repo.is_none() {
        return Err(Failure::new(Exit::Usage, "no repository is named")
            .remedy("give --repo s3://bucket/prefix or --repo file:///folder"));
    }
    Ok(args.over(Repository::default()))
}

/// Opens the store.
pub(crate) async fn store(
    options: &StoreOptions,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<Arc<dyn Store>, Failure> {
    open(options, runtime, reporter).await.map_err(Failure::from)
}

/// Returns the repository's location for the recovery sheet.
pub(crate) fn whereabouts(repository: &Repository) -> RepositoryLocation {
    RepositoryLocation {
        url: repository.url.clone(),
        endpoint: repository.endpoint.clone(),
        region: repository.region.clone(),
        path_style: repository.path_style.unwrap_or(false),
    }
}

/// The folders of a file store that do not exist yet. On drop, those that were created and are empty are
/// removed, so that a failure leaves no folder behind.
pub(crate) struct Fresh(Vec<PathBuf>);

impl Fresh {
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

impl Drop for Fresh {
    fn drop(&mut self) {
        // The deepest comes first; the first that is not empty or was never created ends the loop.
        for folder in &self.0 {
            if std::fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}
