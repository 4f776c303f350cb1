//! Opening the store that arguments name.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::options::StoreArgs;
use crate::plan::{Rate, Repository};
use crate::report::event::Reporter;
use crate::report::failure::{Exit, Failure};
use crate::repository::sheet::Whereabouts;
use crate::store::Store;
use crate::store::open::{StoreOptions, open};
use crate::world::World;

/// What the store is told, from a plan's repository or the arguments alone.
pub(super) fn options(repository: &Repository, upload: Option<Rate>, create: bool) -> StoreOptions {
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

/// The repository of a verb that has no plan.
pub(super) fn without_plan(args: &StoreArgs) -> Result<Repository, Failure> {
    if args.repo.is_none() {
        return Err(Failure::new(Exit::Usage, "no repository is named")
            .remedy("give --repo s3://bucket/prefix or --repo file:///folder"));
    }
    Ok(args.over(Repository::default()))
}

/// Opens it.
pub(super) async fn store(
    options: &StoreOptions,
    world: &World,
    reporter: &Reporter,
) -> Result<Arc<dyn Store>, Failure> {
    open(options, world, reporter).await.map_err(Failure::from)
}

/// Where it is, for people.
pub(super) fn whereabouts(repository: &Repository) -> Whereabouts {
    Whereabouts {
        url: repository.url.clone(),
        endpoint: repository.endpoint.clone(),
        region: repository.region.clone(),
        path_style: repository.path_style.unwrap_or(false),
    }
}

/// The folders that a store in a folder still lacks. Those that come to be go again when it is
/// dropped, if they are empty: what fails leaves no folder behind.
pub(super) struct Fresh(Vec<PathBuf>);

impl Fresh {
    /// Of the store at `url`, before it is opened.
    pub(super) fn of(url: &str) -> Self {
        let folder = url.strip_prefix("file://").map(Path::new);
        let lacking = folder.into_iter().flat_map(Path::ancestors).take_while(|folder| !folder.exists());
        Self(lacking.map(Path::to_owned).collect())
    }

    /// They stay.
    pub(super) fn keep(mut self) {
        self.0.clear();
    }
}

impl Drop for Fresh {
    fn drop(&mut self) {
        // The deepest first; one that holds something, or was never made, ends it.
        for folder in &self.0 {
            if std::fs::remove_dir(folder).is_err() {
                return;
            }
        }
    }
}
