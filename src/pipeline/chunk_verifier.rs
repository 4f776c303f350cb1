//! Proves chunks: bytes of a pack count only if they decode to a chunk with the id that is named.

use std::sync::Arc;

use bytes::Bytes;

use super::ReadError;
use super::codec::{Codec, CodecError};
use crate::format::container::ContainerError;
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::{ids::ChunkId, layout::ObjectKey};

/// Decodes the frames of a pack and verifies each chunk by its id.
pub(super) struct ChunkVerifier {
    codec: Codec,
    key: Arc<DomainKey>,
    object: ObjectKey,
}

impl ChunkVerifier {
    /// Creates a verifier for the pack `object` of the domain with `key`.
    pub(super) fn new(codec: Codec, key: Arc<DomainKey>, object: ObjectKey) -> Self {
        Self { codec, key, object }
    }

    /// Returns the error for a fault of the pack.
    pub(super) fn damaged(&self, what: String) -> ReadError {
        ReadError::Damaged { object: self.object.to_string(), what }
    }

    /// Decodes a chunk's frame to `length` bytes and verifies them against `id`; `namer` is the
    /// source of the id in messages.
    pub(super) fn decode_verified(
        &self,
        frame: &[u8],
        length: u32,
        kind: ChunkKind,
        id: ChunkId,
        namer: &str,
    ) -> Result<Bytes, ReadError> {
        let plain = self.codec.decode(frame, length as usize).map_err(|error| match error {
            CodecError::Zstd(_) => self.damaged("a chunk in it does not decompress".into()),
            other => self.damaged(other.to_string()),
        })?;
        if self.key.chunk_id(kind, &plain) != id {
            return Err(self.damaged(format!("a chunk in it is not the one that {namer} names")));
        }
        Ok(plain.into_bytes())
    }
}

/// Returns the fault of a pack whose age file does not open.
pub(super) fn container_text(error: &ContainerError) -> String {
    match error {
        ContainerError::WrongKey => "it is not encrypted to its epoch".into(),
        ContainerError::Damaged(_) => "it does not decrypt".into(),
        other => other.to_string(),
    }
}
