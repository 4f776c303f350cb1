//! Plans built from command-line arguments, without a file, for laptops and scripts. The result is the same
//! [`BackupPlan`] and passes the same checks.

use std::path::PathBuf;

use super::items::{Database, Volume};
use super::problem::{PlanError, Problem, ProblemKind};
use super::read::{Checked, check_built};
use super::recipient::Recipient;
use super::running::Limits;
use super::spec::{
    ApiVersion, BackupPlan, Cluster, Epoch, Kind, Metadata, Repository, Resources, Spec, Writer,
};

/// The plan's name if none is given.
pub const DEFAULT_NAME: &str = "default";

/// A plan as command-line arguments.
#[derive(Debug, Clone, Default)]
pub struct ShortForm {
    /// The plan's name; default [`DEFAULT_NAME`].
    pub name: Option<String>,
    /// `--repo` and the other options of the store.
    pub repository: Repository,
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
    pub databases: Vec<Database>,
    /// `--resources`.
    pub resources: bool,
    /// `--context` and `--kubeconfig`.
    pub cluster: Option<Cluster>,
    /// `--memory`, `--upload`, `--parallel`.
    pub limits: Limits,
}

impl ShortForm {
    /// Builds the plan and checks it.
    ///
    /// # Errors
    /// Returns the problems of the plan. The text of a private key is never repeated.
    pub fn plan(self) -> Result<Checked, PlanError> {
        let recipients =
            self.recipients.iter().map(|text| recipient_argument(text)).collect::<Result<_, PlanError>>()?;
        let folder = |path| Volume { exclude: self.exclude.clone(), ..Volume::folder(path) };
        check_built(BackupPlan {
            api_version: ApiVersion::V1,
            kind: Kind::BackupPlan,
            metadata: Metadata { name: self.name.unwrap_or_else(|| DEFAULT_NAME.into()) },
            spec: Spec {
                repository: self.repository,
                recipients,
                writer: Writer {
                    key_file: self.writer_key,
                    epoch_file: self.epoch_file,
                    epoch_secret: None,
                    signers_file: None,
                },
                epoch: Epoch::default(),
                cluster: self.cluster,
                resources: self.resources.then(Resources::default),
                databases: self.databases,
                volumes: self.paths.into_iter().map(folder).collect(),
                hooks: Vec::new(),
                accept: Vec::new(),
                coverage: None,
                objectives: None,
                jobs: None,
                retention: None,
                schedule: None,
                limits: self.limits,
                notify: Vec::new(),
            },
        })
    }
}

/// Parses `--recipient`. The text is never repeated: it may be a private key.
///
/// # Errors
/// Fails if the text is no recipient. The error has a remedy.
pub fn recipient_argument(text: &str) -> Result<Recipient, PlanError> {
    use super::recipient::RecipientError as E;
    text.parse().map_err(|error| {
        let (kind, remedy) = match error {
            E::PrivateKey => (
                ProblemKind::PrivateKey,
                "give the public key; this private key now stands in the shell's history and the process list",
            ),
            E::FileName => (ProblemKind::BadValue, "give the key itself: --recipient \"$(cat owner.pub)\""),
            E::Damaged | E::Owner(_) => (ProblemKind::BadValue, "copy the whole key again"),
        };
        Problem::new(kind, "--recipient", error.to_string()).remedy(remedy).into()
    })
}
