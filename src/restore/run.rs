//! Runs a restore: the items one after the other, each into the target of its kind.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use super::error::{ItemError, RestoreStreamError};
use super::folder::into_folder;
use super::job::{FolderTarget, RestoreJob, RestoreObserver, Restored};
use super::{databases, resources, streams};
use crate::format::body::Item;
use crate::report::event::{Event, Meter};
use crate::source::volume::parse_exclude_patterns;
use crate::target::volume::{DeletionExceptions, Destination, TargetOptions};

impl RestoreJob<'_> {
    /// Restores the items one after the other. If one of several fails or is damaged, the others are
    /// still restored.
    ///
    /// # Errors
    /// The error of a single item; of several, one that the others would meet too: an unreachable store
    /// or cluster, an interruption.
    pub async fn run(&self, observer: &dyn RestoreObserver) -> Result<(), ItemError> {
        for item in &self.items {
            self.reporter.event(Event::ItemStarted { item: item.name.clone() });
            let unit = match item.kind.as_str() {
                "resources" => "objects",
                "database" => "bytes",
                _ => "files",
            };
            let meter = self.reporter.meter(&item.name, unit);
            let result = self.restore(item, observer, &meter).await;
            meter.end();
            match result {
                Err(error) if self.items.len() == 1 || error.ends_run() => return Err(error),
                result => observer.finished(item, result),
            }
        }
        Ok(())
    }

    async fn restore(
        &self,
        item: &Item,
        observer: &dyn RestoreObserver,
        meter: &Arc<Meter>,
    ) -> Result<Restored, ItemError> {
        match (item.kind.as_str(), &self.folder, &self.database, &self.resources) {
            ("volume", Some(FolderTarget::Directory { to, options }), ..) => {
                restore_folder(self, item, to, options, meter).await
            }
            ("volume", Some(FolderTarget::Archive(output)), ..) => {
                let reader = self.snapshot.read(streams::only_stream(item)?)?;
                let written = streams::into_writer(&reader, &mut *output.lock().await, meter).await;
                written.map_err(|error| match error {
                    RestoreStreamError::Output(error) => ItemError::Archive(error),
                    other => other.into(),
                })?;
                Ok(Restored::Archive(reader.body().length))
            }
            ("database", _, Some(target), _) => {
                databases::restore(self, item, target, meter).await.map(Restored::Databases)
            }
            ("resources", _, _, Some(target)) => {
                resources::restore(self, item, target, observer, meter).await
            }
            ("volume" | "database" | "resources", ..) => Err(ItemError::NoTarget(item.name.clone())),
            (kind, ..) => Err(ItemError::UnknownKind { item: item.name.clone(), kind: kind.to_owned() }),
        }
    }
}

/// Restores an item into a directory, or into the item's subdirectory if there are several.
async fn restore_folder(
    job: &RestoreJob<'_>,
    item: &Item,
    to: &Path,
    options: &TargetOptions,
    meter: &Arc<Meter>,
) -> Result<Restored, ItemError> {
    let reader = job.snapshot.read(streams::only_stream(item)?)?;
    let to = subdirectory(to, item, job.items.len() > 1);
    let deletion_exceptions = deletion_exceptions(item, &job.snapshot.body().items)?;
    let options = TargetOptions { deletion_exceptions, ..options.clone() };
    let (report, absent) =
        into_folder(&reader, job.paths.as_ref(), to.clone(), options, job.runtime, meter).await?;
    Ok(Restored::Folder { target: to.path(), report, absent })
}

/// Returns the target of an item: `to`, or the subdirectory of the item's name if there are several items.
#[must_use]
pub fn subdirectory(to: &Path, item: &Item, several: bool) -> Destination {
    let name = if several { item.name.trim_start_matches("path/") } else { "" };
    Destination { base: to.to_owned(), subfolder: PathBuf::from(name) }
}

/// Returns the paths that a restore of an item never deletes: its gaps and excluded paths, and the folders
/// of other items in it.
fn deletion_exceptions(item: &Item, all: &[Item]) -> Result<DeletionExceptions, ItemError> {
    let lacks = item.gaps.iter().chain(&item.notes).map(|gap| gap.object.bytes());
    let all_named = lacks.clone().all(|path| !path.is_empty());
    let others = all.iter().filter_map(|other| path_inside(other, item)).map(|path| path.as_bytes().to_vec());
    let paths = lacks.filter(|path| !path.is_empty()).map(<[u8]>::to_vec).chain(others).collect();
    let excluded = item.facts.get("exclude").cloned().unwrap_or_default();
    let excluded: Vec<String> = serde_json::from_value(excluded).unwrap_or_default();
    let excluded = parse_exclude_patterns(&excluded)
        .map_err(|source| ItemError::Excluded { item: item.name.clone(), source })?;
    Ok(DeletionExceptions { paths, excluded, all_named })
}

/// Sorts outer folders before the folders inside them, whose files an outer one would take for foreign.
pub fn outer_folders_first(items: &mut [&Item]) {
    let all = items.to_vec();
    items.sort_by_key(|item| all.iter().filter(|outer| path_inside(item, outer).is_some()).count());
}

/// Returns the path of the inner folder in the outer one; `None` if it is not inside.
#[must_use]
pub fn path_inside<'a>(inner: &'a Item, outer: &Item) -> Option<&'a str> {
    let both = inner.kind == "volume" && outer.kind == "volume";
    inner.name.strip_prefix(&outer.name)?.strip_prefix('/').filter(|rest| both && !rest.is_empty())
}
