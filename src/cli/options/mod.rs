//! Groups of options that several verbs share.

pub(crate) mod chain;
pub(crate) mod declared;
pub(crate) mod keyring;
pub(crate) mod reading;
pub(crate) mod resource_args;
pub(crate) mod sources;
pub(crate) mod store;

use std::path::PathBuf;

use clap::{Args, ValueEnum};

use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::output::Format;
use crate::plan::{LEAST_MEMORY, Rate, Repository, Size};

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
    /// Certificates (PEM) that sign the store's
    #[arg(long, value_name = "FILE")]
    pub ca_file: Option<PathBuf>,
}

impl StoreArgs {
    /// Returns `plan` with the given options in place of its values.
    #[must_use]
    pub fn over(&self, plan: Repository) -> Repository {
        Repository {
            url: self.repo.clone().unwrap_or(plan.url),
            endpoint: self.endpoint.clone().or(plan.endpoint),
            region: self.region.clone().or(plan.region),
            path_style: self.path_style.or(plan.path_style),
            credentials_file: self.credentials_file.clone().or(plan.credentials_file),
            ca_file: self.ca_file.clone().or(plan.ca_file),
            object_lock: plan.object_lock,
        }
    }
}

/// The form of progress on standard error.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, ValueEnum)]
pub enum Progress {
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
    /// How progress is shown, on standard error
    #[arg(long, value_name = "HOW", default_value = "auto")]
    pub progress: Progress,
    /// The most memory that the process may have resident [default: the plan's, or 128Mi]
    #[arg(long, value_name = "SIZE")]
    pub memory: Option<Size>,
    /// The most that is sent to the store, as in 50Mi/s
    #[arg(long, value_name = "RATE")]
    pub upload: Option<Rate>,
    /// Write OpenMetrics text there when the run ends
    #[arg(long, value_name = "FILE")]
    pub metrics_file: Option<PathBuf>,
    /// Write the report as JSON there when the run ends
    #[arg(long, value_name = "FILE")]
    pub report_file: Option<PathBuf>,
    /// Where Kubernetes reads a pod's last words [default: /dev/termination-log in a pod]
    #[arg(long, value_name = "FILE")]
    pub termination_log: Option<PathBuf>,
}

/// Refuses a memory limit below the minimum that a run needs.
pub(crate) fn enough(memory: Option<Size>) -> Result<(), Failure> {
    let Some(memory) = memory.filter(|memory| *memory < LEAST_MEMORY) else { return Ok(()) };
    let what = format!("--memory {memory} is under the least, {LEAST_MEMORY}");
    Err(Failure::new(Exit::Usage, what).remedy("leave it out, or give more"))
}

/// The option for the output format.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct OutputArgs {
    /// How it is written, on standard output
    #[arg(short, long, value_name = "FORMAT", default_value = "table")]
    pub output: Format,
}

/// Sets the help of `--output` for verbs that write line by line. A long list is streamed, never held as
/// one document.
pub(crate) fn line_by_line(output: clap::Arg) -> clap::Arg {
    output.hide_possible_values(true).help(
        "How it is written, on standard output: table for people, json with one object a line, yaml \
         with one document for each",
    )
}

/// Options for identities, pinned signers, and filters by plan and writer.
#[derive(Debug, Clone, Default, Args)]
#[command(next_help_heading = "Keys")]
pub struct ReaderArgs {
    /// A private key that opens the backup: an age identity or an SSH key; repeatable
    #[arg(long, value_name = "FILE")]
    pub identity: Vec<PathBuf>,
    /// The pinned writers: kbak.pub, made by init
    #[arg(long, value_name = "FILE")]
    pub signer: Option<PathBuf>,
    /// The identity's passphrase is the first line of this file; /dev/fd/3 works
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Only this plan's snapshots: its id, or as much of it as tells it apart
    #[arg(long, value_name = "ID")]
    pub plan_id: Option<String>,
    /// Only this writer's snapshots: its id, or as much of it as tells it apart
    #[arg(long, value_name = "ID")]
    pub writer: Option<String>,
}

/// Arguments of every verb that reads a repository.
#[derive(Debug, Clone, Default, Args)]
pub struct ReadArgs {
    /// Options for the repository's store.
    #[command(flatten)]
    pub store: StoreArgs,
    /// Options for identities, pinned signers and filters.
    #[command(flatten)]
    pub reader: ReaderArgs,
}
