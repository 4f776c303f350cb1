//! Groups of options that several verbs share, and what they open: plan, keys, store, snapshot, report files.

pub(super) mod chain;
pub(super) mod database_url;
pub(super) mod key_files;
pub(super) mod notices;
pub(super) mod plan_args;
pub(super) mod reading;
pub(super) mod resource_args;
pub(super) mod restore_values;
pub(super) mod run_report;
pub(super) mod store;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::failure::Failure;
use crate::cli::shell::output::OutputFormat;
use crate::plan::{BackupSpec, MIN_MEMORY, Rate, RepositorySpec, Size};

/// Options for the repository's location and credentials.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Repository")]
pub struct StoreArgs {
    /// s3://bucket/prefix or file:///folder
    #[arg(long, value_name = "URL")]
    pub repo: Option<String>,
    /// The store's address, for any S3-compatible store
    #[arg(long, value_name = "URL")]
    pub endpoint: Option<String>,
    /// The store's region
    #[arg(long)]
    pub region: Option<String>,
    /// Put the bucket into the path, not into the host name [default: with --endpoint]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, require_equals = true, default_missing_value = "true")]
    pub path_style: Option<bool>,
    /// An AWS credentials file [default: web identity, profile, environment]
    #[arg(long, value_name = "FILE")]
    pub credentials_file: Option<PathBuf>,
    /// CA certificates (PEM) for the store
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl StoreArgs {
    /// Returns `repository` with the given options in place of its values.
    pub fn apply_to(&self, repository: RepositorySpec) -> RepositorySpec {
        RepositorySpec {
            url: given(self.repo.as_deref()).unwrap_or(repository.url),
            endpoint: given(self.endpoint.as_deref()).or(repository.endpoint),
            region: given(self.region.as_deref()).or(repository.region),
            path_style: self.path_style.or(repository.path_style),
            credentials_file: self.credentials_file.clone().or(repository.credentials_file),
            ca_file: self.ca_file.clone().or(repository.ca_file),
            object_lock: repository.object_lock,
        }
    }
}

/// Returns the value of an argument without blanks and line breaks around it: manifests insert variables and
/// Secrets into arguments. An empty one counts as not given.
fn given(argument: Option<&str>) -> Option<String> {
    argument.map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// The form of progress on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum ProgressMode {
    /// Bars on a terminal, lines elsewhere
    #[default]
    Auto,
    /// Lines
    Plain,
    /// One JSON object a line, and nothing else; the last holds the report
    Json,
    /// Nothing until the end
    None,
}

/// Options of a run: progress, limits and report files.
#[derive(Debug, Clone, Args)]
#[command(next_help_heading = "Run")]
pub struct RunArgs {
    /// The form of progress on standard error
    #[arg(long, value_name = "MODE", default_value = "auto")]
    pub progress: ProgressMode,
    /// The limit of the process's resident memory [default: the plan's, or 128Mi]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// The limit of the upload rate, as in 50Mi/s
    #[arg(long, value_name = "RATE")]
    pub upload: Option<Rate>,
    /// Write metrics to this file at the end, as OpenMetrics text
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Write the report to this file at the end, as JSON
    #[arg(long, value_name = "FILE")]
    pub report_file: Option<PathBuf>,
    /// Write the pod's termination message to this file [default: /dev/termination-log in a pod]
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
}

/// Refuses a memory limit below the minimum of a run.
pub(crate) fn check_memory(memory: Option<Size>) -> Result<(), Failure> {
    let Some(memory) = memory.filter(|memory| *memory < MIN_MEMORY) else { return Ok(()) };
    let what = format!("--memory {memory} is less than the minimum, {MIN_MEMORY}");
    Err(Failure::usage(what).remedy("omit it, or give at least the minimum"))
}

/// The option for the output format.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// The format on standard output
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: OutputFormat,
}

/// Sets the help of `--output` for verbs that write line by line. A long list is streamed.
pub(crate) fn line_by_line(output: clap::Arg) -> clap::Arg {
    output.hide_possible_values(true).help(
        "The format on standard output: table for people, json with one object a line, yaml with one \
         document for each",
    )
}

/// Options for identities, pinned signers, and filters by plan and writer.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Keys")]
pub struct ReaderArgs {
    /// A private key of an owner: an age identity or an SSH key; repeatable
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The trusted signers: kbak.pub, written by init
    #[arg(long, value_name = "FILE")]
    pub signer: Option<PathBuf>,
    /// Read the identity's passphrase from the first line of this file, such as /dev/fd/3
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Only snapshots of this plan: its id, or a unique prefix of it
    #[arg(long, value_name = "ID")]
    pub plan_id: Option<String>,
    /// Only snapshots of this writer: its id, or a unique prefix of it
    #[arg(long, value_name = "ID")]
    pub writer: Option<String>,
}

impl ReadArgs {
    /// Returns the options with the repository, the access and the signers of a plan. Options that would name
    /// another repository or other signers than the plan are refused.
    pub(crate) fn with_plan(&self, spec: &BackupSpec) -> Result<Self, Failure> {
        let given = &self.store;
        let contradictions = [
            ("--repo", given.repo.is_some(), "repository.url"),
            ("--endpoint", given.endpoint.is_some(), "repository.endpoint"),
            ("--region", given.region.is_some(), "repository.region"),
            ("--path-style", given.path_style.is_some(), "repository.pathStyle"),
            (
                "--signer",
                self.reader.signer.is_some() && spec.writer.signers_file.is_some(),
                "writer.signersFile",
            ),
        ];
        if let Some((option, _, field)) = contradictions.into_iter().find(|(_, given, _)| *given) {
            return Err(Failure::usage(format!("--plan and {option} contradict each other"))
                .remedy(format!("leave out {option}: the plan has {field}; or leave out --plan")));
        }
        let RepositorySpec { url, endpoint, region, path_style, credentials_file, ca_file, .. } =
            given.apply_to(spec.repository.clone());
        let store = StoreArgs { repo: Some(url), endpoint, region, path_style, credentials_file, ca_file };
        let signer = self.reader.signer.clone().or_else(|| spec.writer.signers_file.clone());
        Ok(Self { store, reader: ReaderArgs { signer, ..self.reader.clone() } })
    }
}

/// Arguments of every verb that reads a repository.
#[derive(Debug, Clone, Default, Args)]
pub struct ReadArgs {
    #[command(flatten)]
    pub store: StoreArgs,
    #[command(flatten)]
    pub reader: ReaderArgs,
}
