//! Plans built from command-line arguments, without a file, for laptops and scripts. The result is the same
//! [`BackupPlan`] and passes the same checks.

use std::path::PathBuf;

use super::items::{DatabaseSpec, VolumeSpec};
use super::parse::{ValidPlan, check_plan};
use super::problem::{PlanError, Problem, ProblemKind};
use super::recipient::Recipient;
use super::run_settings::RunLimits;
use super::spec::{
    ApiVersion, BackupPlan, BackupPlanKind, BackupSpec, ClusterSpec, Metadata, RepositorySpec, ResourcesSpec,
    WriterSpec,
};

/// The plan's name if none is given.
pub const DEFAULT_PLAN_NAME: &str = "default";

/// A plan as command-line arguments.
#[derive(Debug, Clone, Default)]
pub struct PlanArguments {
    /// The plan's name; default [`DEFAULT_PLAN_NAME`].
    pub name: Option<String>,
    /// `--repo` and the other options of the store.
    pub repository: RepositorySpec,
    /// `--recipient`.
    pub recipients: Vec<String>,
    /// `--writer-key`.
    pub writer_key: PathBuf,
    /// `--epoch-file`.
    pub epoch_file: Option<PathBuf>,
    /// `--path`: absolute paths.
    pub paths: Vec<PathBuf>,
    /// `--exclude`: for every path.
    pub exclude: Vec<String>,
    /// `--database`, read into the plan's form.
    pub databases: Vec<DatabaseSpec>,
    /// `--resources`.
    pub resources: bool,
    /// `--context` and `--kubeconfig`.
    pub cluster: Option<ClusterSpec>,
    /// `--memory`, `--upload`, `--parallel`.
    pub limits: RunLimits,
}

impl PlanArguments {
    /// Builds the plan and checks it.
    pub fn into_plan(self) -> Result<ValidPlan, PlanError> {
        let recipients = self.recipients.iter().map(|text| parse_recipient_argument(text));
        let recipients = recipients.collect::<Result<_, PlanError>>()?;
        let folder = |path| VolumeSpec { exclude: self.exclude.clone(), ..VolumeSpec::folder(path) };
        check_plan(BackupPlan {
            api_version: ApiVersion::V1,
            kind: BackupPlanKind::BackupPlan,
            metadata: Metadata { name: self.name.unwrap_or_else(|| DEFAULT_PLAN_NAME.into()) },
            spec: BackupSpec {
                repository: self.repository,
                recipients,
                writer: WriterSpec {
                    key_file: self.writer_key,
                    epoch_file: self.epoch_file,
                    ..WriterSpec::default()
                },
                cluster: self.cluster,
                resources: self.resources.then(ResourcesSpec::default),
                databases: self.databases,
                volumes: self.paths.into_iter().map(folder).collect(),
                limits: self.limits,
                ..BackupSpec::default()
            },
        })
    }
}

/// Parses `--recipient`. The text is never repeated: it may be a private key.
/// Fails if the text is no recipient. The error has a remedy.
pub fn parse_recipient_argument(text: &str) -> Result<Recipient, PlanError> {
    use super::recipient::RecipientError as E;
    text.parse().map_err(|error| {
        let (kind, remedy) = match error {
            E::PrivateKey => (
                ProblemKind::PrivateKey,
                "give the public key; this private key is now in the shell's history and the process list",
            ),
            E::FileName => (ProblemKind::BadValue, "give the key itself: --recipient \"$(cat owner.pub)\""),
            E::Damaged | E::Owner(_) => (ProblemKind::BadValue, "copy the whole key again"),
        };
        Problem::new(kind, "--recipient", error.to_string()).remedy(remedy).into()
    })
}
