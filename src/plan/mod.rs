//! Backup plans and restore plans: parsing, validation and JSON Schema. Pure: no I/O.
//!
//! [`parse()`] reads the text of a file, [`PlanArguments`] command-line arguments. Both return a [`ValidPlan`]
//! or all problems, each with position and remedy. docs/plan.md describes the fields.

mod arguments;
mod items;
mod labels;
mod notice_template;
mod notify;
mod parse;
mod policy;
mod problem;
mod recipient;
mod restore_spec;
mod run_settings;
mod schema;
mod selection;
mod source_tree;
mod spec;
mod supported;
mod validate;
mod value;

use std::path::{Path, PathBuf};

use jiff::Timestamp;

pub use crate::report::coverage::UNCOVERED;
pub use arguments::{DEFAULT_PLAN_NAME, PlanArguments, parse_recipient_argument};
pub use items::{
    CommandRecipe, DatabaseEngine, DatabaseSpec, DumpTransport, ItemName, ReadMethod, SecretRef, TlsMode,
    VolumeSpec, sanitize_item_name,
};
pub use labels::{LabelSelector, LabelSelectorError};
pub use notice_template::{NAMING_FIELDS, NOTICE_FIELDS, NoticeTemplate, NoticeTemplateError};
pub use notify::{MetricsTarget, Notify, NotifyTarget, NotifyVerb, NotifyWhen, WebhookTarget};
pub use parse::{MAX_PLAN_BYTES, ValidPlan, parse, parse_restore};
pub use policy::{ExistingPolicy, Permission, Profile, Scope, SideEffect};
pub use problem::{PlanError, Position, Problem, ProblemKind, suggest};
pub use recipient::{Recipient, RecipientError, find_private_key};
pub use restore_spec::{Mapping, Match, Modify, RestorePlan, RestorePlanKind, RestoreSpec, Select};
pub use run_settings::{
    AcceptedGap, CoverageMode, ExecHook, Hook, HookTime, HttpHook, JobNetworkPolicy, Jobs, Objectives,
    OnError, Retention, RunLimits, Schedule, item_matches,
};
pub use schema::{FieldDoc, fields, restore_fields, restore_schema, schema};
pub use selection::{
    EscapedGlobError, Glob, GlobError, ObjectName, ObjectNameError, excluding_terms, includes_by_label,
    is_namespace,
};
pub use spec::{
    ApiVersion, BackupPlan, BackupPlanKind, BackupSpec, ClusterScoped, ClusterSpec, ConsistencyPolicy,
    EVENT_KINDS, EpochAge, EpochSpec, LockMode, Metadata, NamePatterns, ObjectLock, RepositorySpec,
    ResourcesSpec, WriterSpec,
};
pub use validate::{COMPRESSION_LEVELS, MIN_MEMORY, check_receiver_address};
pub use value::{Day, Period, Rate, Size, ValueError};

impl BackupSpec {
    /// Returns the owners, who can decrypt the backups.
    pub fn owners(&self) -> Vec<crate::keys::Owner> {
        self.recipients.iter().map(|recipient| recipient.owner().clone()).collect()
    }

    /// Returns the time at which the next complete snapshot is due after one at `last`.
    #[must_use]
    pub fn next_due(&self, last: Option<Timestamp>) -> Option<Timestamp> {
        last?.checked_add(self.schedule?.next.duration()).ok()
    }

    /// Returns the gaps that the plan accepts at `now`, each as item and code.
    #[must_use]
    pub fn accepted_gaps(&self, now: Timestamp) -> Vec<(String, String)> {
        let current = self.accept.iter().filter(|accept| !accept.is_expired(now));
        current.map(|accept| (accept.item.clone(), accept.gap.clone())).collect()
    }

    /// Returns the expired entries of `accept`, each as item and warning.
    #[must_use]
    pub fn expired_acceptances(&self, now: Timestamp) -> Vec<(String, String)> {
        let warning = |accept: &AcceptedGap| {
            let until = accept.until;
            (
                accept.item.clone(),
                format!("the gap {} was accepted until {until}: it counts again", accept.gap),
            )
        };
        self.accept.iter().filter(|accept| accept.is_expired(now)).map(warning).collect()
    }
}

impl AcceptedGap {
    fn is_expired(&self, now: Timestamp) -> bool {
        self.until.date() < now.to_zoned_datetime(jiff::tz::TimeZone::UTC).date()
    }
}

impl BackupPlan {
    /// Returns the plan's name.
    pub fn name(&self) -> &str {
        &self.metadata.name
    }

    /// Returns the declared items in the order resources, databases, volumes, with globs as written.
    pub fn items(&self) -> Vec<ItemName> {
        let resources = self.spec.resources.iter().map(|_| ItemName::Resources);
        let databases = self.spec.databases.iter().map(DatabaseSpec::item);
        let volumes = self.spec.volumes.iter().flat_map(VolumeSpec::items);
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
        spec.notify.iter_mut().filter_map(Notify::url_file_mut).for_each(absolute);
        for database in &mut spec.databases {
            let files = [&mut database.user_file, &mut database.password_file, &mut database.ca_file];
            files.into_iter().flatten().for_each(absolute);
        }
    }
}
