//! The plan: the one thing a user writes. Text in, types out; no I/O.
//!
//! [`parse`] reads a file's text, [`ShortForm`] arguments; both give a [`Checked`] plan or every
//! problem with its place and its remedy. docs/plan.md describes the fields.

mod items;
mod problem;
mod read;
mod recipient;
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
pub use problem::{PlanError, Position, Problem, ProblemKind};
pub use read::{Checked, MAX_TEXT, parse, suggest};
pub use recipient::{Recipient, RecipientError, find_private_key};
pub use running::{
    Accept, Address, Coverage, ExecHook, Hook, HookTime, HttpHook, JobNetworkPolicy, Jobs, Limits, Notify,
    Objectives, OnError, Retention, Schedule,
};
pub use schema::{FieldDoc, fields, schema};
pub use selection::{Glob, GlobError, exclusions, picks_out};
pub use short::{DEFAULT_NAME, ShortForm, recipient_argument};
pub use spec::{
    ApiVersion, BackupPlan, Cluster, ClusterScoped, Consistency, EVENTS, Epoch, EpochAge, Kind, LockMode,
    Metadata, ObjectLock, Patterns, Repository, Resources, Spec, Writer,
};
pub use validate::LEAST_MEMORY;
pub use value::{Day, Period, Rate, Size, ValueError};

impl Spec {
    /// Who can decrypt.
    #[must_use]
    pub fn owners(&self) -> Vec<crate::pipeline::owner::Owner> {
        self.recipients.iter().map(|recipient| recipient.owner().clone()).collect()
    }
}

impl BackupPlan {
    /// The plan's name.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// The items that it declares, in the order resources, databases, volumes. Claims stand as the
    /// plan writes them, also where that is a glob.
    #[must_use]
    pub fn items(&self) -> Vec<ItemName> {
        let resources = self.spec.resources.iter().map(|_| ItemName::Resources);
        let databases = self.spec.databases.iter().map(Database::item);
        let volumes = self.spec.volumes.iter().flat_map(Volume::items);
        resources.chain(databases).chain(volumes).collect()
    }

    /// Makes the names of files absolute: those that are relative are meant from `folder`, where
    /// the plan lies, so that a plan works from wherever kbak is started.
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
