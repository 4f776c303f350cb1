//! Reports of failed runs: JSON in an age file to the epoch's recipient, among the writer's records.
//! Not signed: a report only informs people, and kbak decides nothing from it.

use bytes::Bytes;

use super::container::{ContainerError, DataIdentity, DataRecipient, Key, Sealer, open as open_container};
use super::ids::WriterId;
use super::layout;
use super::object::Sealed;
use super::padme;

/// The longest report, in bytes of plaintext; it must fit the readers' limit for records.
pub const MAX_REPORT: usize = 256 << 10;

/// Encrypts the text of a report; padding with spaces hides its length.
///
/// # Errors
/// If the text is longer than [`MAX_REPORT`] or cannot be encrypted.
pub fn seal(text: &str, writer: WriterId, recipient: &DataRecipient) -> Result<Sealed, ContainerError> {
    if text.len() > MAX_REPORT {
        return Err(ContainerError::TooLarge { limit: MAX_REPORT as u64 });
    }
    let mut padded = text.as_bytes().to_vec();
    padded.resize(usize::try_from(padme::padded(text.len() as u64)).unwrap_or(text.len()), b' ');
    let mut sealer = Sealer::to_recipient(recipient, padded.len() + padded.len() / 2048 + 4096)?;
    sealer.write(&padded)?;
    let (bytes, hash) = sealer.finish()?;
    Ok(Sealed::new(layout::record(writer, hash), bytes, hash))
}

/// Decrypts a report whose name was checked.
///
/// # Errors
/// If the report is of another epoch or damaged.
pub fn open(sealed: &Bytes, identity: &DataIdentity) -> Result<Vec<u8>, ContainerError> {
    open_container(sealed, &Key::Identity(identity), 2 * MAX_REPORT as u64)
}
