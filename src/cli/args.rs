//! The verbs, as clap parses them.

use clap::{Parser, Subcommand};

use super::options::ProgressMode;
use crate::cli::shell::logging::LogLevel;
use crate::cli::shell::output::OutputFormat;
use crate::cli::verbs::backup::BackupArgs;
use crate::cli::verbs::cat::CatArgs;
use crate::cli::verbs::check::CheckArgs;
use crate::cli::verbs::completion::CompletionArgs;
use crate::cli::verbs::diff::DiffArgs;
use crate::cli::verbs::epoch::{EpochAction, EpochArgs};
use crate::cli::verbs::export::ExportArgs;
use crate::cli::verbs::init::InitArgs;
use crate::cli::verbs::keygen::KeygenArgs;
use crate::cli::verbs::keys::{KeysAction, KeysArgs};
use crate::cli::verbs::ls::{FindArgs, LsArgs};
use crate::cli::verbs::man::ManArgs;
use crate::cli::verbs::plan::{PlanAction, PlanArgs};
use crate::cli::verbs::rbac::RbacArgs;
use crate::cli::verbs::restore::RestoreArgs;
use crate::cli::verbs::show::ShowArgs;
use crate::cli::verbs::snapshots::SnapshotsArgs;
use crate::cli::verbs::verify::VerifyArgs;

/// Encrypted, verifiable, restorable backups of Kubernetes clusters into any S3-compatible bucket.
#[derive(Debug, Parser)]
#[command(
    name = "kbak",
    version,
    propagate_version = false,
    disable_help_subcommand = true,
    max_term_width = 100,
    after_long_help = "\
Exit codes, whose meaning never changes:
  0  all declared items are safe, or their gap is accepted in the plan
  1  a bug in kbak, or diff found differences
  2  usage or configuration, or check found problems
  3  partial: some declared item is not safe, or not restored; it is named
  4  tampered or damaged data
  5  store or cluster unreachable
  6  interrupted; running again resumes"
)]
pub struct Cli {
    /// The detail of the log on standard error
    #[arg(long, global = true, value_name = "LEVEL", default_value = "warn", hide_possible_values = false)]
    pub log_level: LogLevel,
    #[command(subcommand)]
    pub verb: Verb,
}

/// The program's verbs, which are clap subcommands.
#[derive(Debug, Subcommand)]
pub enum Verb {
    /// Create a repository: writer's key, first epoch, pin and recovery sheet
    Init(Box<InitArgs>),
    /// Create the key of an owner, who can restore
    Keygen(KeygenArgs),
    /// Check a plan's file, draft one from a cluster, or print the schema
    Plan(PlanArgs),
    /// Test everything that a plan needs, and print a remedy for each problem
    Check(Box<CheckArgs>),
    /// Back up the items of a plan, or a folder, a database, a cluster's resources
    Backup(Box<BackupArgs>),
    /// Restore a snapshot, or a part of it
    Restore(Box<RestoreArgs>),
    /// List snapshots
    #[command(visible_alias = "list")]
    Snapshots(Box<SnapshotsArgs>),
    /// Show a snapshot: its items, streams, gaps
    Show(Box<ShowArgs>),
    /// List a folder or a kind in a snapshot
    Ls(Box<LsArgs>),
    /// Write a file, an object or a stream of a snapshot to standard output
    Cat(Box<CatArgs>),
    /// Find paths in a snapshot
    Find(Box<FindArgs>),
    /// Compare two snapshots, or one with the live cluster
    Diff(Box<DiffArgs>),
    /// Write a snapshot as plain files: tar, dumps, JSON lines
    Export(Box<ExportArgs>),
    /// Verify that the stored objects are complete and as signed, with or without a key
    Verify(Box<VerifyArgs>),
    /// Check, add and list the owners that can open epochs
    Keys(Box<KeysArgs>),
    /// Open, list and close epochs, each with keys of its own
    Epoch(Box<EpochArgs>),
    /// Print the accounts, roles and bindings that a plan needs in a cluster
    Rbac(RbacArgs),
    /// Print a completion script for a shell
    Completion(CompletionArgs),
    /// Print manual pages
    Man(ManArgs),
}

impl Verb {
    /// Returns the verb's `--progress` option; `None` if the verb has no such option.
    pub(super) fn progress(&self) -> Option<ProgressMode> {
        match self {
            Self::Backup(args) => Some(args.run.progress),
            Self::Restore(args) => Some(args.run.progress),
            Self::Verify(args) => Some(args.run.progress),
            _ => None,
        }
    }

    /// Returns the verb's output format; `Table` if it has no choice between table, JSON and YAML.
    pub(super) fn format(&self) -> OutputFormat {
        match self {
            Self::Plan(PlanArgs {
                action: PlanAction::Check { output, .. } | PlanAction::Schema { output, .. },
            }) => output.output,
            Self::Plan(PlanArgs { action: PlanAction::Init(_) }) => OutputFormat::Table,
            Self::Check(args) => args.output.output,
            Self::Backup(args) => args.output.output,
            Self::Restore(args) => args.output.output,
            Self::Diff(args) => args.output.output,
            Self::Verify(args) => args.output.output,
            Self::Snapshots(args) => args.output.output,
            Self::Show(args) => args.output.output,
            Self::Ls(args) => args.output.output,
            Self::Find(args) => args.output.output,
            Self::Keys(args) => match &args.action {
                KeysAction::Check(args) | KeysAction::List(args) => args.output.output,
                KeysAction::Add(args) => args.output.output,
                KeysAction::CutOff(_) => OutputFormat::Table,
            },
            Self::Init(args) => args.output.output,
            Self::Epoch(args) => match &args.action {
                EpochAction::List(args) => args.output.output,
                EpochAction::New(_) | EpochAction::Close(_) => OutputFormat::Table,
            },
            Self::Cat(_)
            | Self::Export(_)
            | Self::Keygen(_)
            | Self::Rbac(_)
            | Self::Completion(_)
            | Self::Man(_) => OutputFormat::Table,
        }
    }
}
