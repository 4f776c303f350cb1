//! Reads keys from files: owners' identities and public keys, the pin, the writer's key.

use std::io::Read as _;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::cli::failure::Failure;
use crate::cli::shell::passphrase::PassphrasePrompt;
use crate::format::signers::Signers;
use crate::keys::private_file::{self, FileError};
use crate::keys::recovery_sheet::owners_in_pin;
use crate::keys::writer_key::WriterKey;
use crate::keys::{Identity, IdentityError, KeyForm, Owner, Prompt};

/// The size limit of an identity, pin or recipients' file, in bytes.
const MAX_BYTES: u64 = 1 << 20;

/// Reads an owner's private key; `prompt` supplies the passphrase of an age file. An unencrypted key that
/// other users can read is refused, as ssh does.
pub(crate) fn read_identity(file: &Path, prompt: &Arc<dyn Prompt>) -> Result<Arc<Identity>, Failure> {
    let label = file.display().to_string();
    let mut bytes = Zeroizing::new(Vec::with_capacity(8192));
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_end(&mut bytes));
    let what = || format!("{label}: the identity cannot be read");
    read.map_err(|error| Failure::usage(what()).because(error))?;
    if !Identity::is_encrypted(&bytes)
        && let Err(error @ FileError::Exposed { .. }) = private_file::read(file)
    {
        return Err(error.into());
    }
    let identity = Identity::parse(&label, &bytes, prompt).map_err(|error| {
        let remedy = match &error {
            IdentityError::NoPassphrase(_) => "run it on a terminal, or give --passphrase-file FILE",
            IdentityError::Passphrase(_) => {
                "run it again with the right one; --passphrase-file takes a file's first line"
            }
            IdentityError::Form { form: KeyForm::Putty, .. } => {
                "convert it: puttygen KEY.ppk -O private-openssh -o NEW.key"
            }
            IdentityError::Form { .. } => {
                "convert a copy of it: ssh-keygen -p -f COPY writes the same key in OpenSSH's form"
            }
            IdentityError::Unsupported { .. } => {
                "give an age identity, or an SSH key of type ed25519 or RSA: these are the ones that age can use"
            }
            IdentityError::Public(_) => "give the file that kbak keygen or ssh-keygen wrote without .pub",
            _ => "",
        };
        Failure::usage(error.to_string()).remedy_if(remedy)
    })?;
    Ok(Arc::new(identity))
}

/// Identities, and the prompt for their passphrases.
pub(crate) type IdentitiesAndPrompt = (Vec<Arc<Identity>>, Arc<dyn Prompt>);

/// Reads identities from files; the passphrase of encrypted ones may come from a file, too.
pub(crate) fn read_identities(
    files: &[PathBuf],
    passphrase_file: Option<&Path>,
) -> Result<IdentitiesAndPrompt, Failure> {
    let prompt = PassphrasePrompt::shared(passphrase_file)?;
    let read = files.iter().map(|file| read_identity(file, &prompt)).collect::<Result<_, _>>()?;
    Ok((read, prompt))
}

/// The pin: the trusted signers, and the owners with their names.
#[derive(Debug)]
pub(crate) struct Pin {
    /// The trusted signers.
    pub(crate) signers: Signers,
    /// The owners, for display only.
    pub(crate) owners: Vec<Owner>,
}

/// Reads the pin. A pin without signers is refused.
pub(crate) fn read_pin(file: &Path) -> Result<Pin, Failure> {
    let text = read_text(file, "the pinned signers")?;
    let signers = Signers::parse(&text).map_err(|error| {
        Failure::usage(format!("{}: not an OpenSSH allowed-signers file", file.display()))
            .because(error)
            .remedy("give kbak.pub, which kbak init wrote")
    })?;
    if signers.is_empty() {
        let what = format!("{}: the pin contains no signer", file.display());
        return Err(Failure::usage(what).remedy("give kbak.pub, which kbak init wrote"));
    }
    Ok(Pin { signers, owners: owners_in_pin(&text) })
}

/// Reads the pin. Fails if no file is given.
pub(crate) fn read_required_pin(file: Option<&Path>) -> Result<Pin, Failure> {
    let what = "no signer is pinned: anyone who can write to the store could have made its content";
    let remedy = "give --signer kbak.pub, which kbak init wrote beside the writer's key";
    read_pin(file.ok_or_else(|| Failure::usage(what).remedy(remedy))?)
}

/// Reads the writer's key. Also returns a warning about its file, if there is one.
pub(crate) fn read_writer_key(file: &Path) -> Result<(WriterKey, Option<String>), Failure> {
    Ok(WriterKey::read(file)?)
}

/// Reads owners from `--recipient` and `--recipients-file`.
pub(crate) fn read_owners(given: &[String], file: Option<&Path>) -> Result<Vec<Owner>, Failure> {
    let parse = |text: &String| match crate::plan::parse_recipient_argument(text) {
        Ok(recipient) => Ok(recipient.owner().clone()),
        Err(error) => Err(error.failure("--recipient")),
    };
    let mut owners: Vec<Owner> = given.iter().map(parse).collect::<Result<_, _>>()?;
    if let Some(file) = file {
        let lines = read_text(file, "the recipients")?;
        let more = Owner::parse_lines(&lines)
            .map_err(|(line, error)| Failure::usage(format!("{}, line {line}: {error}", file.display())))?;
        owners.extend(more);
    }
    Ok(owners)
}

/// Reads a text file of up to 1 MiB; `what` names it in the failure.
pub(crate) fn read_text(file: &Path, what: &str) -> Result<String, Failure> {
    let mut text = String::new();
    let read = std::fs::File::open(file).and_then(|file| file.take(MAX_BYTES).read_to_string(&mut text));
    let what = || format!("{}: {what} cannot be read", file.display());
    read.map_err(|error| Failure::usage(what()).because(error))?;
    Ok(text)
}
