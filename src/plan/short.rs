//! Plans from arguments, without a file, for laptops and scripts. They become the same
//! [`BackupPlan`] and pass the same checks.

use std::path::PathBuf;

use super::items::{Database, Engine, Tls, Volume};
use super::problem::{PlanError, Problem, ProblemKind};
use super::read::{Checked, check_built};
use super::recipient::Recipient;
use super::running::Limits;
use super::spec::{
    ApiVersion, BackupPlan, Cluster, Epoch, Kind, Metadata, Repository, Resources, Spec, Writer,
};

/// The plan's name where nobody gives one.
pub const DEFAULT_NAME: &str = "default";

/// What arguments say.
#[derive(Debug, Clone, Default)]
pub struct ShortForm {
    /// The plan's name; default [`DEFAULT_NAME`].
    pub name: Option<String>,
    /// `--repo` and what belongs to it.
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
    /// `--database`: `postgresql://user@host:port/name?sslmode=verify-full`.
    pub databases: Vec<String>,
    /// `--database-password-file`.
    pub password_file: Option<PathBuf>,
    /// `--resources`.
    pub resources: bool,
    /// `--context` and `--kubeconfig`.
    pub cluster: Option<Cluster>,
    /// `--memory`, `--upload`, `--parallel`.
    pub limits: Limits,
}

impl ShortForm {
    /// The plan, checked.
    ///
    /// # Errors
    /// Everything that is wrong with it. No text of a private key or of an address with a password
    /// is repeated.
    pub fn plan(self) -> Result<Checked, PlanError> {
        let recipients = self.recipients.iter().map(|text| recipient_argument(text)).collect::<Result<_, PlanError>>()?;
        let databases = self
            .databases
            .iter()
            .map(|url| {
                let database = database(url)?;
                Ok(Database { password_file: self.password_file.clone(), ..database })
            })
            .collect::<Result<_, PlanError>>()?;
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
                databases,
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

/// Reads `--recipient`. The text is never repeated: it may be a private key.
///
/// # Errors
/// That it is none, and what to do.
pub fn recipient_argument(text: &str) -> Result<Recipient, PlanError> {
    use super::recipient::RecipientError as E;
    text.parse().map_err(|error| {
        let (kind, remedy) = match error {
            E::PrivateKey => (
                ProblemKind::PrivateKey,
                "give the public key; this private key now stands in the shell's history and the process list",
            ),
            E::FileName => (ProblemKind::BadValue, "give the key itself: --recipient \"$(cat owner.pub)\""),
            E::Owner(_) => (ProblemKind::BadValue, "copy the whole key again"),
        };
        Problem::new(kind, "--recipient", error.to_string()).remedy(remedy).into()
    })
}

/// A database from its URL. libpq's form, without a password: arguments are seen by every user of
/// the machine.
fn database(text: &str) -> Result<Database, PlanError> {
    let problem = |kind, message: String| Problem::new(kind, "--database", message);
    let form = "write postgresql://user@host:5432/name?sslmode=verify-full";
    let url = url::Url::parse(text)
        .map_err(|error| problem(ProblemKind::BadValue, format!("no address: {error}")).remedy(form))?;
    if url.password().is_some() {
        let remedy = "leave it out and use --database-password-file; this password now stands in the \
                      shell's history and the process list";
        let message = "the address carries a password".to_owned();
        return Err(problem(ProblemKind::PrivateKey, message).remedy(remedy).into());
    }
    let engine = match url.scheme() {
        "postgresql" | "postgres" => Engine::Postgresql,
        other => {
            let message = format!("there is no engine {other} that takes an address");
            return Err(problem(ProblemKind::BadValue, message).remedy(form).into());
        }
    };
    let mut host = url.host_str().filter(|host| !host.is_empty()).map(decoded);
    let mut tls = Tls::VerifyFull;
    let mut ca_file = None;
    for (key, value) in url.query_pairs() {
        match (&*key, &*value) {
            ("host", value) => host = Some(value.to_owned()),
            ("sslmode", "verify-full") => tls = Tls::VerifyFull,
            ("sslmode", "require") => tls = Tls::Require,
            ("sslmode", "disable" | "allow" | "prefer") => tls = Tls::AllowPlaintext,
            ("sslrootcert", file) => ca_file = Some(PathBuf::from(file)),
            ("password", _) => {
                let message = "the address carries a password".to_owned();
                let remedy = "use --database-password-file";
                return Err(problem(ProblemKind::PrivateKey, message).remedy(remedy).into());
            }
            (key, _) => {
                let message =
                    format!("the address says {key}, which kbak does not take, or not with this value");
                return Err(problem(ProblemKind::BadValue, message).remedy(form).into());
            }
        }
    }
    let one = decoded(url.path().trim_start_matches('/'));
    if one.contains(['*', '?']) || (!one.is_empty() && super::selection::Glob::new(&one).is_err()) {
        let message = format!("{one:?} is no name that --database takes");
        let remedy = "write a plan, with databases and the names or a glob";
        return Err(problem(ProblemKind::BadValue, message).remedy(remedy).into());
    }
    let name = if one.is_empty() { "postgresql".to_owned() } else { item_name(&one) };
    Ok(Database {
        name,
        engine,
        transport: None,
        image: None,
        namespace: None,
        service: None,
        host: Some(host.unwrap_or_else(|| "localhost".into())),
        port: url.port(),
        pod: None,
        container: None,
        databases: if one.is_empty() { vec!["*".into()] } else { vec![one.clone()] },
        user: Some(decoded(url.username())).filter(|user| !user.is_empty()),
        user_file: None,
        password_file: None,
        secret_ref: None,
        tls,
        ca_file,
        command: None,
        objectives: None,
    })
}

fn decoded(text: &str) -> String {
    percent_encoding::percent_decode_str(text).decode_utf8_lossy().into_owned()
}

/// A database's name as an item's: what a plan's name may not hold becomes `-`.
fn item_name(database: &str) -> String {
    let fine = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-.".contains(c);
    let text: String =
        database.to_lowercase().chars().map(|c| if fine(c) { c } else { '-' }).take(63).collect();
    match text.trim_matches(['-', '.']) {
        "" | "resources" => "postgresql".into(),
        name => name.to_owned(),
    }
}
