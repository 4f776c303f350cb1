//! The types of a backup plan and its defaults. Doc comments become the descriptions of the JSON Schema,
//! those of fields also the table in docs/plan.md.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::items::{DatabaseSpec, VolumeSpec};
use super::notify::Notify;
use super::recipient::Recipient;
use super::run_settings::{
    AcceptedGap, CoverageMode, Hook, Jobs, Objectives, Retention, RunLimits, Schedule,
};
use super::value::Period;

/// The one value of `apiVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub enum ApiVersion {
    /// The first version.
    #[default]
    #[serde(rename = "kbak.dev/v1")]
    V1,
}

/// The one value of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[schemars(rename = "Kind")]
pub enum BackupPlanKind {
    /// A backup plan.
    #[default]
    BackupPlan,
}

/// A backup plan: the data to back up, the repository, and the owners. It has one chain of snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupPlan {
    /// Always `kbak.dev/v1`.
    pub api_version: ApiVersion,
    /// Always `BackupPlan`.
    pub kind: BackupPlanKind,
    /// The plan's name.
    pub metadata: Metadata,
    /// The plan itself.
    pub spec: BackupSpec,
}

/// The plan's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// The name of the chain of snapshots in the repository: lower-case letters, digits and `-`, at most 63
    /// characters. Another name is another chain.
    #[schemars(length(max = 63), regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"))]
    pub name: String,
}

/// The content of a backup plan.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Spec")]
pub struct BackupSpec {
    /// The repository that stores the backups.
    pub repository: RepositorySpec,
    /// Public keys of the owners, who can restore; at least one.
    pub recipients: Vec<Recipient>,
    /// The writer, which signs the backups.
    pub writer: WriterSpec,
    /// The time for which the keys of one epoch are used.
    #[serde(default)]
    pub epoch: EpochSpec,
    /// The cluster to read. Default: the one kbak runs in, else the kubeconfig's current context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<ClusterSpec>,
    /// The cluster's resources to back up. Default: none.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<ResourcesSpec>,
    /// Databases to back up; each is an item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<DatabaseSpec>,
    /// Volumes and folders to back up.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<VolumeSpec>,
    /// Commands or requests to run before and after an item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Accepted gaps, each with a reason and an end date. Default: none.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<AcceptedGap>,
    /// The report of things in the cluster that the plan does not declare. Default: `warn` where the plan
    /// reads a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<CoverageMode>,
    /// The objectives of all items: the age of the last good copy, the duration of a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
    /// Settings of the Jobs that kbak starts in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Jobs>,
    /// The snapshots that prune keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// When the next run is expected.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// Limits of a run.
    #[serde(default)]
    pub limits: RunLimits,
    /// The zstd level of new chunks, 1 to 9: a higher one stores less and takes longer. It can change from run to
    /// run. Default: the epoch's, which is 2.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub compression_level: Option<u8>,
    /// Receivers of notices about runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
}

/// The repository that stores the backups. It never contains credentials.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Repository")]
pub struct RepositorySpec {
    /// `s3://bucket/prefix` or `file:///folder`.
    #[schemars(regex(pattern = "^(s3|file)://"))]
    pub url: String,
    /// The store's address, for any S3-compatible store: `https://s3.example.eu`. Default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(regex(pattern = "^https?://"))]
    pub endpoint: Option<String>,
    /// The store's region. Default: as AWS tools find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Put the bucket into the path, not into the host name. Default: `true` with an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// An AWS credentials file. Default: web identity, profile, environment, as AWS tools do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// A file with CA certificates (PEM) for the store, instead of the system's. Receivers of notices are
    /// trusted by both.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Lock each object when it is stored, so that nobody can delete it before a date.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
}

/// Object Lock of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    /// `governance` (privileged users can remove the lock) or `compliance` (nobody can).
    pub mode: LockMode,
    /// The time that the lock lasts after the epoch is closed.
    pub keep: Period,
}

/// The modes of Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Privileged users can remove the lock.
    Governance,
    /// Nobody can remove the lock.
    Compliance,
}

/// The writer, which signs the backups.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Writer")]
pub struct WriterSpec {
    /// The writer's key file, made by `kbak init`.
    pub key_file: PathBuf,
    /// The file of the current epoch's secret. Default: the key file's name and `.epoch`, or
    /// `.<plan>.epoch` for a plan that is not named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_file: Option<PathBuf>,
    /// The Secret that holds the current epoch's secret, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(
        length(max = 253),
        regex(pattern = r"^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$")
    )]
    pub epoch_secret: Option<String>,
    /// A file in the format of OpenSSH allowed signers: keys whose trust, distrust, prune and drill records
    /// count.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers_file: Option<PathBuf>,
}

/// The time for which an epoch is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Epoch")]
pub struct EpochSpec {
    /// `auto`, or a period from 30d to 1y. `auto` is refused with a compliance lock.
    pub max_age: EpochAge,
    /// The maximum duration of a run that began while the epoch was open.
    pub max_run: Period,
}

impl Default for EpochSpec {
    fn default() -> Self {
        Self { max_age: EpochAge::Auto, max_run: Period::hours(24) }
    }
}

impl EpochSpec {
    /// Returns the time for which runs start in an epoch. `auto` is half the reach of the retention, from 30
    /// to 365 days; 90 days without a retention. Then the kept snapshots are in at most three epochs, each
    /// with one full copy. Longer epochs would delay pruning, which frees space only in closed ones.
    pub fn age(&self, retention: Option<&Retention>) -> Period {
        let EpochAge::Fixed(age) = self.max_age else {
            let reach = retention.map_or(Period::days(180), Retention::reach);
            let half = Period::seconds(reach.duration().as_secs() / 2);
            return half.clamp(Period::days(30), Period::days(365));
        };
        age
    }
}

/// The age at which an epoch ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochAge {
    /// Chosen by the plan's retention: see [`EpochSpec::age`].
    Auto,
    /// A fixed period.
    Fixed(Period),
}

impl Serialize for EpochAge {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        match self {
            Self::Auto => serializer.serialize_str("auto"),
            Self::Fixed(period) => period.serialize(serializer),
        }
    }
}

impl<'de> Deserialize<'de> for EpochAge {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let text = String::deserialize(deserializer)?;
        if text == "auto" {
            return Ok(Self::Auto);
        }
        text.parse().map(Self::Fixed).map_err(D::Error::custom)
    }
}

impl JsonSchema for EpochAge {
    fn schema_name() -> Cow<'static, str> {
        "EpochAge".into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({ "anyOf": [{ "const": "auto" }, generator.subschema_for::<Period>()] })
    }
}

/// The cluster to read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Cluster")]
pub struct ClusterSpec {
    /// A kubeconfig file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_file: Option<PathBuf>,
    /// A context of the kubeconfig.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// The cluster's resources to back up. Default: all except events.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Resources")]
pub struct ResourcesSpec {
    /// Namespaces, by name or glob.
    pub namespaces: NamePatterns,
    /// Kinds, as `plural.group` (`deployments.apps`, `secrets`), by name or glob. Events are excluded unless
    /// `include` names them: `['*', events]`.
    pub kinds: NamePatterns,
    /// A label selector, as kubectl takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Cluster-scoped objects: `auto` (those that the selected objects need), `all` or `none`.
    pub cluster_scoped: ClusterScoped,
    /// Handling of a kind that is not proven to be at the revision of the others: `strict` (a gap, so
    /// the run is partial) or `best-effort` (reported, and counts as safe).
    pub consistency: ConsistencyPolicy,
    /// Objectives of this item. Default: those of the plan.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
}

/// The kinds that are excluded unless a plan includes them by name or a glob other than `*`: events live for an
/// hour and describe the past.
pub const EVENT_KINDS: [&str; 2] = ["events", "events.events.k8s.io"];

/// Names or globs (`*` any text, `?` one character). A name is selected if an `include` matches and no
/// `exclude` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Patterns")]
pub struct NamePatterns {
    /// Names or globs to select. Default: all.
    pub include: Vec<String>,
    /// Names or globs to exclude from these. Default: none.
    pub exclude: Vec<String>,
}

impl Default for NamePatterns {
    fn default() -> Self {
        Self { include: vec!["*".into()], exclude: Vec::new() }
    }
}

/// The cluster-scoped objects to back up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum ClusterScoped {
    /// All if every namespace is selected, else those that the selected objects need.
    #[default]
    Auto,
    /// All.
    All,
    /// None.
    None,
}

/// Handling of a kind that is not proven to be at the revision of the others. Its objects are backed up
/// either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
#[schemars(rename = "Consistency")]
pub enum ConsistencyPolicy {
    /// The kind is a gap: the run is partial, unless the plan accepts the gap.
    #[default]
    Strict,
    /// The kind is reported and counts as safe.
    BestEffort,
}
