//! Backup plans and restore plans: parsing, validation and JSON Schema. Pure: no I/O.
//!
//! [`parse`] reads the text of a file, [`ShortForm`] command-line arguments. Both give a [`Checked`] plan or
//! all problems, each with position and remedy. docs/plan.md describes the fields.

mod items;
mod labels;
mod problem;
mod read;
mod recipient;
mod restore;
mod running;
mod schema;
mod selection;
mod short;
mod spec;
mod supported;
mod tree;
mod validate;
mod value;

use std::path::{Path, PathBuf};

pub use items::{
    CommandRecipe, Database, Engine, ItemName, Method, SecretRef, Tls, Transport, Volume, item_name,
};
pub use labels::{LabelSelector, LabelSelectorError};
pub use problem::{PlanError, Position, Problem, ProblemKind};
pub use read::{Checked, MAX_TEXT, parse, suggest};
pub use recipient::{Recipient, RecipientError, find_private_key};
pub use restore::{
    AllowName, ExistingName, Map, Match, Modify, ObjectName, ObjectNameError, ProfileName, ReleaseName,
    RestoreKind, RestorePlan, RestoreSpec, ScopeName, Select, is_namespace, parse_restore,
};
pub use running::{
    Accept, Address, Coverage, ExecHook, Hook, HookTime, HttpHook, JobNetworkPolicy, Jobs, Limits, Notify,
    Objectives, OnError, Retention, Schedule, UNCOVERED, item_matches,
};
pub use schema::{FieldDoc, fields, restore_fields, restore_schema, schema};
pub use selection::{Glob, GlobError, exclusions, picks_out};
pub use short::{DEFAULT_NAME, ShortForm, recipient_argument};
pub use spec::{
    ApiVersion, BackupPlan, Cluster, ClusterScoped, Consistency, EVENTS, Epoch, EpochAge, Kind, LockMode,
    Metadata, ObjectLock, Patterns, Repository, Resources, Spec, Writer,
};
pub use validate::LEAST_MEMORY;
pub use value::{Day, Period, Rate, Size, ValueError};

impl Spec {
    /// Returns the owners, who can decrypt the backups.
    #[must_use]
    pub fn owners(&self) -> Vec<crate::keys::Owner> {
        self.recipients.iter().map(|recipient| recipient.owner().clone()).collect()
    }
}

impl BackupPlan {
    /// Returns the plan's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Returns the declared items in the order resources, databases, volumes. Names of claims are as the plan
    /// writes them, globs included.
    #[must_use]
    pub fn items(&self) -> Vec<ItemName> {
        let resources = self.spec.resources.iter().map(|_| ItemName::Resources);
        let databases = self.spec.databases.iter().map(Database::item);
        let volumes = self.spec.volumes.iter().flat_map(Volume::items);
        resources.chain(databases).chain(volumes).collect()
    }

    /// Makes relative file names absolute. They are relative to `folder`, the folder of the plan's file, so
    /// that kbak can be started from any folder.
    pub fn resolve_files(&mut self, folder: &Path) {
        let absolute = |file: &mut PathBuf| *file = folder.join(&*file);
        let spec = &mut self.spec;
        absolute(&mut spec.writer.key_file);
        let optional = [
            &mut spec.repository.credentials_file,
            &mut spec.repository.ca_file,
            &mut spec.writer.epoch_file,
            &mut spec.writer.signers_file,
        ];
        optional.into_iter().flatten().for_each(absolute);
        spec.cluster.iter_mut().flat_map(|cluster| &mut cluster.kubeconfig_file).for_each(absolute);
        for database in &mut spec.databases {
            let files = [&mut database.user_file, &mut database.password_file, &mut database.ca_file];
            files.into_iter().flatten().for_each(absolute);
        }
    }
}
