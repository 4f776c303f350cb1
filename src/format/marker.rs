//! `kbak.json`: the constant object that marks a repository. A signed epoch states the format version.

use bytes::Bytes;

use super::{ids::ObjectHash, layout, object::SealedObject};

/// The content of the marker, in all versions of the format.
pub const MARKER: &[u8] = br#"{"kbak":1}"#;

/// The error for a kbak.json with other content than the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("kbak.json has unexpected content: it is damaged, or not written by kbak")]
pub struct WrongMarker;

/// Returns the marker as an object to store.
#[must_use]
pub fn marker() -> SealedObject {
    SealedObject::new(layout::marker(), Bytes::from_static(MARKER), ObjectHash::of(MARKER))
}

/// Compares bytes from a store with the marker.
pub fn check(bytes: &[u8]) -> Result<(), WrongMarker> {
    if bytes == MARKER { Ok(()) } else { Err(WrongMarker) }
}
