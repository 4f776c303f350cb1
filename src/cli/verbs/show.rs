//! `kbak show`: one snapshot, with its items and streams by name.

use clap::Args;
use jiff::tz::TimeZone;

use super::snapshot_details::SnapshotDetails;
use crate::cli::failure::{Exit, Failure};
use crate::cli::options::{OutputArgs, ReadArgs, reading};
use crate::cli::shell::console::Console;
use crate::cli::shell::output::{self, OutputFormat};

/// Arguments of `kbak show`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak show --repo s3://backups/prod --signer kbak.pub --identity owner.key
  kbak show 42 --repo … --signer … --identity … -o yaml")]
pub struct ShowArgs {
    /// latest, a number, or the first digits of a hash
    #[arg(value_name = "SNAPSHOT", default_value = "latest")]
    pub snapshot: String,
    #[command(flatten)]
    pub repository: ReadArgs,
    #[command(flatten)]
    pub output: OutputArgs,
}

/// Runs `kbak show`.
pub(crate) fn run(args: &ShowArgs, console: &Console) -> Result<Exit, Failure> {
    let shown = reading::with_snapshot(&args.repository, &args.snapshot, console, |opened| async move {
        Ok(SnapshotDetails::of(&opened))
    })?;
    if args.output.output == OutputFormat::Table {
        output::write_text(&shown.text(&TimeZone::system()))?;
    } else {
        output::write_value(&shown, args.output.output)?;
    }
    Ok(Exit::Safe)
}
