//! Reports of failed runs: JSON in an age file to the epoch's recipient, among the writer's records.
//! The writer signs its key, so that nobody else can fill a list of failures. kbak decides nothing from it.

use bytes::Bytes;

use super::container::{
    ContainerError, ContainerKey, DataIdentity, DataRecipient, Sealer, open as open_container,
};
use super::sign::{KeyError, SigningKey};
use super::{ids::WriterId, layout, object::SealedObject, padme};

/// The longest report, in bytes of plaintext; it must fit the readers' limit for records.
pub const MAX_REPORT: usize = 256 << 10;

/// An error while sealing a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// It is too long or cannot be encrypted.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its key cannot be signed.
    #[error(transparent)]
    Key(#[from] KeyError),
}

/// Encrypts the text of a report; padding with spaces hides its length.
/// Fails if the text is longer than [`MAX_REPORT`] or cannot be encrypted.
pub fn seal(
    text: &str,
    writer: WriterId,
    recipient: &DataRecipient,
    key: &SigningKey,
) -> Result<SealedObject, ReportError> {
    if text.len() > MAX_REPORT {
        return Err(ContainerError::TooLarge { limit: MAX_REPORT as u64 }.into());
    }
    let mut padded = text.as_bytes().to_vec();
    padme::pad(&mut padded, b' ');
    let mut sealer = Sealer::to_recipient(recipient, padded.len())?;
    sealer.write(&padded)?;
    let (bytes, hash) = sealer.finish()?;
    let object = key.sign_key(layout::record(writer, layout::REPORTS, hash))?;
    Ok(SealedObject::new(object, bytes, hash))
}

/// Decrypts a report whose name was checked. Fails if the report is of another epoch or damaged.
pub fn open(sealed: &Bytes, identity: &DataIdentity) -> Result<Vec<u8>, ContainerError> {
    open_container(sealed, &ContainerKey::Identity(identity), 2 * MAX_REPORT as u64)
}
