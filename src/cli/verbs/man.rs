//! `kbak man`: manual pages.

use std::path::PathBuf;

use clap::Args;

use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::output;

/// Arguments of `kbak man`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak man | man -l -
  kbak man --folder /usr/local/share/man/man1")]
pub struct ManArgs {
    /// Write a page for every verb into this folder, instead of the first page to standard output
    #[arg(long, value_name = "FOLDER")]
    pub folder: Option<PathBuf>,
}

/// Prints the first manual page, or writes all pages into a folder.
pub(crate) fn run(args: ManArgs, program: clap::Command) -> Result<Exit, Failure> {
    match args.folder {
        Some(folder) => clap_mangen::generate_to(program, &folder).map_err(|error| {
            Failure::usage(format!("manual pages cannot be written to {}", folder.display()))
                .because(error)
                .remedy("give an existing folder that you may write to; mkdir -p creates one")
        })?,
        None => output::write(|out| clap_mangen::Man::new(program).render(&mut &mut *out))?,
    }
    Ok(Exit::Safe)
}
