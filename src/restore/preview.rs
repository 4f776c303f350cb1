//! Plans a restore, and changes nothing.

use super::databases::{self, DatabasesPreview};
use super::error::ItemError;
use super::folder::{Look, look_at_folder};
use super::job::{FolderTarget, ResourcesTarget, RestoreJob};
use super::resources;
use super::run::subdirectory;
use super::streams::{self, SnapshotResources};
use crate::format::body::Item;
use crate::source::database::is_database_dump;
use crate::target::kubernetes::{Decision, FileFormat, Plan, UnmatchedSelector, preview_directory};

/// The amount of an item that a restore would bring.
#[derive(Debug)]
pub enum ItemPreview {
    /// The entries of a folder.
    Folder(Look),
    /// This number of databases; what would be done with each, if a server is the target.
    Databases(u64, DatabasesPreview),
    /// This number of objects, before any selection.
    Objects(u64),
}

/// The plan for the resources of a snapshot.
#[derive(Debug, Default)]
pub struct ResourcesPreview {
    /// The plan, if a cluster is the target.
    pub plan: Option<Plan>,
    /// The address of that cluster, and the context.
    pub cluster: Option<String>,
    /// Selectors that match no object, if files are the target.
    pub unmatched: Vec<UnmatchedSelector>,
}

impl RestoreJob<'_> {
    /// Measures an item, and checks that the target of a folder would take it.
    ///
    /// # Errors
    /// [`ItemError`] if the snapshot cannot be read, or the target refuses.
    pub async fn preview_item(&self, item: &Item) -> Result<ItemPreview, ItemError> {
        match item.kind.as_str() {
            "database" => {
                let dumps = item.streams.iter().filter(|stream| is_database_dump(&stream.format)).count();
                let databases = match &self.database {
                    Some(target) => databases::preview(self, item, target).await?,
                    None => DatabasesPreview::default(),
                };
                Ok(ItemPreview::Databases(dumps as u64, databases))
            }
            "volume" => {
                let reader = self.snapshot.read(streams::only_stream(item)?)?;
                let target = match &self.folder {
                    Some(FolderTarget::Directory { to, options }) => {
                        Some((subdirectory(to, item, self.items.len() > 1), options))
                    }
                    _ => None,
                };
                let target = target.as_ref().map(|(to, options)| (to, *options));
                Ok(ItemPreview::Folder(look_at_folder(&reader, self.paths.as_ref(), target).await?))
            }
            _ => Ok(ItemPreview::Objects(item.streams.iter().map(|stream| stream.members).sum())),
        }
    }

    /// Returns the databases of an item that the restore would drop, each with the number of objects in it.
    ///
    /// # Errors
    /// [`ItemError`] if the server does not answer.
    pub async fn dropped_databases(&self, item: &Item) -> Result<Vec<(String, u64)>, ItemError> {
        match &self.database {
            Some(target) if item.kind == "database" => databases::dropped(item, target).await,
            _ => Ok(Vec::new()),
        }
    }

    /// Plans the restore of resources. `server` sends each object to the API server, in a dry run;
    /// `decided` receives the decision for each object.
    ///
    /// # Errors
    /// [`ItemError`] if the snapshot or the cluster cannot be read, or the plan has another hash than the
    /// job says.
    pub async fn preview_resources(
        &self,
        server: bool,
        decided: &mut (dyn FnMut(&Decision) + Send),
    ) -> Result<ResourcesPreview, ItemError> {
        let mut preview = ResourcesPreview::default();
        for item in self.items.iter().filter(|item| item.kind == "resources") {
            match &self.resources {
                Some(ResourcesTarget::Directory { to, config }) => {
                    let source = SnapshotResources::new(self.snapshot, item)?;
                    let config = resources::of_item(config, item);
                    preview
                        .unmatched
                        .extend(preview_directory(&source, to, FileFormat::Yaml, &config).await?);
                }
                Some(ResourcesTarget::Cluster { cluster, config, plan_hash }) => {
                    let target = (cluster, config, plan_hash.as_deref());
                    let (plan, cluster) = resources::plan(self, item, target, server, decided).await?;
                    (preview.plan, preview.cluster) = (Some(plan), Some(cluster));
                }
                None => {}
            }
        }
        Ok(preview)
    }
}
