//! The types of a backup plan and its defaults. Doc comments become the descriptions of the JSON Schema,
//! those of fields also the table in docs/plan.md.

use std::borrow::Cow;
use std::path::PathBuf;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::de::{Deserializer, Error as _};
use serde::{Deserialize, Serialize, Serializer};

use super::items::{Database, Volume};
use super::recipient::Recipient;
use super::running::{Accept, Coverage, Hook, Jobs, Limits, Notify, Objectives, Retention, Schedule};
use super::value::Period;

/// The one value of `apiVersion`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub enum ApiVersion {
    /// The first.
    #[default]
    #[serde(rename = "kbak.dev/v1")]
    V1,
}

/// The one value of `kind`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
pub enum Kind {
    /// What this type is.
    #[default]
    BackupPlan,
}

/// What one user file declares: what to back up, to where, for whom. It owns a chain of snapshots.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BackupPlan {
    /// Always `kbak.dev/v1`.
    pub api_version: ApiVersion,
    /// Always `BackupPlan`.
    pub kind: Kind,
    /// The plan's name.
    pub metadata: Metadata,
    /// What it declares.
    pub spec: Spec,
}

/// The plan's name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Metadata {
    /// Names the chain of snapshots in the repository: lower-case letters, digits and `-`, at most
    /// 63. Another name is another chain.
    pub name: String,
}

/// What a plan declares.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Spec {
    /// Where backups go.
    pub repository: Repository,
    /// Who can restore: public keys only, at least one.
    pub recipients: Vec<Recipient>,
    /// Who signs.
    pub writer: Writer,
    /// For how long the keys of one epoch are used.
    #[serde(default)]
    pub epoch: Epoch,
    /// Which cluster is read; default: the one kbak runs in, else the kubeconfig's current context.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cluster: Option<Cluster>,
    /// The cluster's resources; without it none are backed up.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub resources: Option<Resources>,
    /// Databases, each one an item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub databases: Vec<Database>,
    /// Volumes and folders.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub volumes: Vec<Volume>,
    /// What to run before and after an item.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub hooks: Vec<Hook>,
    /// Gaps that are known, with a reason and an end. Nothing is accepted by default.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<Accept>,
    /// What to do about things in the cluster that no plan declares.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub coverage: Option<Coverage>,
    /// What the plan promises: how old the last good copy may be, how long a restore may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
    /// How the Jobs look that kbak starts in the cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub jobs: Option<Jobs>,
    /// Which snapshots prune keeps.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub retention: Option<Retention>,
    /// When the next run is promised.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub schedule: Option<Schedule>,
    /// What a run may use.
    #[serde(default)]
    pub limits: Limits,
    /// Who is told of runs.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub notify: Vec<Notify>,
}

/// Where backups go. Credentials never stand here.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Repository {
    /// `s3://bucket/prefix` or `file:///folder`.
    pub url: String,
    /// The store's address, for any S3-compatible store: `https://s3.example.eu`. Default: AWS.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub endpoint: Option<String>,
    /// The store's region; default: as AWS tools find it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub region: Option<String>,
    /// Put the bucket into the path, not into the host name. Default: true with an endpoint.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub path_style: Option<bool>,
    /// An AWS credentials file. Default: web identity, profile, environment, as AWS tools do.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub credentials_file: Option<PathBuf>,
    /// Certificates (PEM) that sign the store's, beside the system's own.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ca_file: Option<PathBuf>,
    /// Lock every object when it is stored, so that nobody can delete it before.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub object_lock: Option<ObjectLock>,
}

/// Object Lock of the store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ObjectLock {
    /// `governance` (some may lift it) or `compliance` (nobody may).
    pub mode: LockMode,
    /// For how long after the epoch can change no more.
    pub keep: Period,
}

/// The modes of Object Lock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum LockMode {
    /// Some may lift it.
    Governance,
    /// Nobody may.
    Compliance,
}

/// Who signs.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Writer {
    /// The writer's key file, made by `kbak init`.
    pub key_file: PathBuf,
    /// The current epoch's secret. Default: the key file's name and `.epoch`, or `.<plan>.epoch` for a
    /// plan that is not named `default`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_file: Option<PathBuf>,
    /// The Secret that holds the current epoch's secret, in a cluster.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub epoch_secret: Option<String>,
    /// Keys whose trust, distrust, prune and drill records count, as OpenSSH allowed signers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub signers_file: Option<PathBuf>,
}

/// How long an epoch lives.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Epoch {
    /// `auto`, or a period from 30d to 1y. `auto` is refused with a compliance lock.
    pub max_age: EpochAge,
    /// How long a run may take that began while the epoch was open.
    pub max_run: Period,
}

impl Default for Epoch {
    fn default() -> Self {
        Self { max_age: EpochAge::Auto, max_run: Period::hours(24) }
    }
}

impl Epoch {
    /// Returns the time for which runs start in an epoch. `auto` is half the reach of the retention, from 30
    /// to 365 days; 90 days without a retention. Then the kept snapshots are in at most three epochs, each
    /// with one full copy. Longer epochs would delay pruning, which frees space only in closed ones.
    #[must_use]
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
    /// Chosen by the plan's retention: see [`Epoch::age`].
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

/// Which cluster is read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Cluster {
    /// A kubeconfig file.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kubeconfig_file: Option<PathBuf>,
    /// A context in it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub context: Option<String>,
}

/// Which of the cluster's resources are backed up. Default: all, but events.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Resources {
    /// Namespaces, by name or glob.
    pub namespaces: Patterns,
    /// Kinds, as `plural.group` (`deployments.apps`, `secrets`), by name or glob.
    pub kinds: Patterns,
    /// A label selector, as kubectl takes it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub selector: Option<String>,
    /// Objects without a namespace: `auto` (those that what is selected needs), `all` or `none`.
    pub cluster_scoped: ClusterScoped,
    /// What becomes of a kind that cannot be proved to be of the same moment as the rest: `strict` (a
    /// gap, so the run is partial) or `best-effort` (it is named, and counts as safe).
    pub consistency: Consistency,
    /// What is promised for the resources, where it differs from the plan's.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub objectives: Option<Objectives>,
}

/// The kinds that are excluded by default: events live for an hour and describe the past.
pub const EVENTS: [&str; 2] = ["events", "events.events.k8s.io"];

impl Default for Resources {
    fn default() -> Self {
        Self {
            namespaces: Patterns::default(),
            kinds: Patterns { exclude: EVENTS.map(str::to_owned).to_vec(), ..Patterns::default() },
            selector: None,
            cluster_scoped: ClusterScoped::Auto,
            consistency: Consistency::Strict,
            objectives: None,
        }
    }
}

/// Names or globs (`*` any text, `?` one character): what some `include` matches and no `exclude` does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Patterns {
    /// What is taken; default everything.
    pub include: Vec<String>,
    /// What is left out of that; default nothing.
    pub exclude: Vec<String>,
}

impl Default for Patterns {
    fn default() -> Self {
        Self { include: vec!["*".into()], exclude: Vec::new() }
    }
}

/// Which objects without a namespace are backed up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "lowercase")]
pub enum ClusterScoped {
    /// All where every namespace is selected, else those that what is selected needs.
    #[default]
    Auto,
    /// All.
    All,
    /// None.
    None,
}

/// What becomes of a kind that cannot be proved to be of the same moment as the rest. Its objects are
/// backed up either way.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "kebab-case")]
pub enum Consistency {
    /// It is a gap: the run is partial, unless the plan accepts it.
    #[default]
    Strict,
    /// It is named, and counts as safe.
    BestEffort,
}
