//! `kbak.json`: the constant that says what a bucket is. It never changes; what is newer says so in
//! a signed epoch.

use bytes::Bytes;

use super::ids::ObjectHash;
use super::layout;
use super::object::Sealed;

/// The bytes, for ever.
pub const MARKER: &[u8] = br#"{"kbak":1}"#;

/// The marker is there and is not the marker.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("kbak.json does not hold what it holds in every repository: it is damaged, or not kbak's")]
pub struct NotTheMarker;

/// The object to store.
#[must_use]
pub fn marker() -> Sealed {
    Sealed::new(layout::marker(), Bytes::from_static(MARKER), ObjectHash::of(MARKER))
}

/// Compares what a store gave.
pub fn check(bytes: &[u8]) -> Result<(), NotTheMarker> {
    if bytes == MARKER { Ok(()) } else { Err(NotTheMarker) }
}
