//! `kbak keygen`: generates the key of an owner.

use std::path::{Path, PathBuf};

use clap::Args;
use zeroize::Zeroizing;

use crate::cli::failure::{Exit, Failure};
use crate::cli::options::keyring::read_identity;
use crate::cli::shell::console::{Console, PassphrasePrompt, ask_new_passphrase, passphrase_file};
use crate::cli::shell::output;
use crate::format::sign::SigningKey;
use crate::keys::private_file;
use crate::keys::{Owner, OwnerKey, WorkFactor};
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

/// Runs `kbak keygen`: generates a key, or prints the public key of a key file.
pub(crate) fn run(args: KeygenArgs, console: &Console) -> Result<Exit, Failure> {
    output::open(Exit::Usage)?;
    if let Some(file) = &args.public {
        return show_public(file, args.passphrase_file.as_deref());
    }
    let runtime = Runtime::real();
    let owner = OwnerKey::generate(&runtime, &args.comment);
    let text = file_text(&owner, &args)?;
    if let Some(file) = &args.output {
        private_file::create(file, 0o600, text.as_bytes())?;
    }
    if args.paper {
        output::text(&paper(&owner, &text, args.no_passphrase))?;
    }
    let file = args.output.as_ref().map(|file| file.display().to_string());
    if let Some(file) = &file {
        let how = if args.no_passphrase { "WITHOUT a passphrase" } else { "encrypted with the passphrase" };
        console.good(&format!(
            "{file} written, mode 0600, {how}: keep it out of the cluster, and a copy elsewhere"
        ));
        console.say("  the public key follows; give it to kbak init with --recipient \"…\"");
    }
    if !args.paper {
        output::text(&format!("{}\n", owner.public().to_line()))?;
    }
    Ok(Exit::Safe)
}

/// Returns the key file's text, encrypted with a passphrase unless `--no-passphrase` is given.
fn file_text(owner: &OwnerKey, args: &KeygenArgs) -> Result<Zeroizing<String>, Failure> {
    if args.no_passphrase {
        return Ok(owner.to_text());
    }
    let passphrase = match &args.passphrase_file {
        Some(file) => passphrase_file(file)?,
        None => ask_new_passphrase("the new key")?,
    };
    owner.encrypt(&passphrase, WorkFactor::Second).map(Zeroizing::new).map_err(|error| {
        Failure::new(Exit::Bug, "the new key cannot be encrypted with a passphrase").because(error)
    })
}

/// Renders the private key as a page to print and store.
fn paper(owner: &OwnerKey, text: &str, clear: bool) -> Zeroizing<String> {
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

fn show_public(file: &Path, passphrase: Option<&Path>) -> Result<Exit, Failure> {
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
        let what = format!("{} does not tell its public key", file.display());
        return Err(Failure::new(Exit::Usage, what).remedy("ask its plugin, as in age-plugin-yubikey --list"));
    }
    output::text(&lines)?;
    Ok(Exit::Safe)
}
