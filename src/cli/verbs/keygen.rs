//! `kbak keygen`: generates the key of an owner.

use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::key_files::read_identity;
use crate::cli::shell::console::Console;
use crate::cli::shell::output;
use crate::cli::shell::passphrase::{PassphrasePrompt, ask_new_passphrase, read_passphrase_file};
use crate::format::sign::SigningKey;
use crate::keys::{Owner, OwnerKey, WorkFactor, private_file};
use crate::runtime::Runtime;

/// Arguments of `kbak keygen`.
#[derive(Debug, Args)]
#[command(after_long_help = "\
Examples:
  kbak keygen -o owner.key --comment ops@example
      asks for a passphrase, writes owner.key (0600), prints the public key

  kbak init … --recipient \"$(kbak keygen -o owner.key)\"
      only the public key goes to standard output

  kbak keygen --public owner.key
      prints the public key of a key file again

The file is an age identity that stock `age -d -i owner.key` opens too. With the file
and its passphrase, every backup for this owner can be read; without any owner's key, none can.
Create two, and keep them apart.")]
pub struct KeygenArgs {
    /// The file of the private key; an existing file is never overwritten
    #[arg(short, long, value_name = "FILE", required_unless_present_any = ["public", "paper"])]
    pub output: Option<PathBuf>,
    /// The owner's name, which the public key and kbak.pub contain
    #[arg(long, value_name = "TEXT", default_value = "")]
    pub comment: String,
    /// Do not encrypt the file: only its permissions protect it
    #[arg(long, conflicts_with = "passphrase_file")]
    pub no_passphrase: bool,
    /// Read the passphrase from the first line of this file, such as /dev/fd/3
    #[arg(long, value_name = "FILE")]
    pub passphrase_file: Option<PathBuf>,
    /// Print the private key as a page to keep, instead of or beside a file
    #[arg(long)]
    pub paper: bool,
    /// Print the public key of this private key, and create none
    #[arg(long, value_name = "FILE", conflicts_with_all = ["output", "paper", "no_passphrase", "comment"])]
    pub public: Option<PathBuf>,
}

/// Runs `kbak keygen`: generates a key, or prints the public key of a key file.
pub(crate) fn run(args: KeygenArgs, console: &Console) -> Result<Exit, Failure> {
    output::require_open(Exit::Usage)?;
    if let Some(file) = &args.public {
        return print_public_key(file, args.passphrase_file.as_deref());
    }
    let runtime = Runtime::real();
    let owner = OwnerKey::generate(&runtime, &args.comment);
    let text = file_text(&owner, &args)?;
    if let Some(file) = &args.output {
        private_file::create(file, 0o600, text.as_bytes())?;
    }
    if args.paper {
        output::write_text(&render_paper(&owner, &text, args.no_passphrase))?;
    }
    let file = args.output.as_ref().map(|file| file.display().to_string());
    if let Some(file) = &file {
        let how = if args.no_passphrase { "WITHOUT a passphrase" } else { "encrypted with the passphrase" };
        console.success(&format!(
            "{file} written, mode 0600, {how}: keep it out of the cluster, and a copy elsewhere"
        ));
        console.line("  the public key follows; give it to kbak init with --recipient \"…\"");
    }
    if !args.paper {
        output::write_text(&format!("{}\n", owner.public().to_line()))?;
    }
    Ok(Exit::Safe)
}

/// Returns the key file's text, encrypted with a passphrase unless `--no-passphrase` is given.
fn file_text(owner: &OwnerKey, args: &KeygenArgs) -> Result<Zeroizing<String>, Failure> {
    if args.no_passphrase {
        return Ok(owner.to_text());
    }
    let passphrase = match &args.passphrase_file {
        Some(file) => read_passphrase_file(file)?,
        None => ask_new_passphrase("the new key")?,
    };
    owner.encrypt(&passphrase, WorkFactor::Second).map(Zeroizing::new).map_err(|error| {
        Failure::new(Exit::Bug, "the new key cannot be encrypted with a passphrase").because(error)
    })
}

/// Renders the private key as a page to print and store.
fn render_paper(owner: &OwnerKey, text: &str, clear: bool) -> Zeroizing<String> {
    let open = if clear {
        "It is NOT protected by a passphrase: whoever reads this page reads every backup."
    } else {
        "It is protected by a passphrase, which is not on this page."
    };
    Zeroizing::new(format!(
        "kbak: the private key of an owner\n\npublic key: {}\n\n{open}\nTo restore, type everything below the \
         line into a file and give it to kbak with --identity,\nor to age with -i.\n\n{}\n{text}",
        owner.public().to_line(),
        "-".repeat(64)
    ))
}

fn print_public_key(file: &Path, passphrase: Option<&Path>) -> Result<Exit, Failure> {
    let prompt = PassphrasePrompt::shared(passphrase)?;
    let identity = read_identity(file, &prompt)?;
    let mut lines = String::new();
    for recipient in identity.recipients() {
        let signing = identity.signing().map(SigningKey::public);
        let owner = Owner { recipient: recipient.clone(), signing, comment: identity.comment().to_owned() };
        lines.push_str(&owner.to_line());
        lines.push('\n');
    }
    if lines.is_empty() {
        let what = format!("{} does not contain its public key", file.display());
        return Err(Failure::usage(what).remedy("ask its plugin, as in age-plugin-yubikey --list"));
    }
    output::write_text(&lines)?;
    Ok(Exit::Safe)
}
