//! `kbak completion`: completion scripts for shells.

use clap::Args;
use clap_complete::Shell;

use crate::cli::failure::{Exit, Failure};
use crate::cli::shell::output;

/// Arguments of `kbak completion`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  source <(kbak completion bash)
  kbak completion zsh > \"${fpath[1]}/_kbak\"
  kbak completion fish > ~/.config/fish/completions/kbak.fish")]
pub struct CompletionArgs {
    /// The shell
    #[arg(value_enum)]
    pub shell: Shell,
}

/// Prints the script.
pub(crate) fn run(args: CompletionArgs, mut program: clap::Command) -> Result<Exit, Failure> {
    let mut script = Vec::new();
    clap_complete::generate(args.shell, &mut program, "kbak", &mut script);
    output::write(|out| out.write_all(&script))?;
    Ok(Exit::Safe)
}
