//! References to chunks and packs of this run, whose packs may still be open.

use std::sync::{Arc, OnceLock};

use crate::format::{ids::ChunkId, list::ChunkLocation, pack_refs::PackName};

/// A reference to a pack, whose name is set when the pack is sealed.
#[derive(Debug, Clone)]
pub struct PackRef(Arc<OnceLock<PackName>>);

impl PackRef {
    pub(super) fn open() -> Self {
        Self(Arc::default())
    }

    /// Creates a reference to a pack that is already stored.
    #[must_use]
    pub fn stored(name: PackName) -> Self {
        let pack = Self::open();
        pack.set_name(name);
        pack
    }

    pub(super) fn set_name(&self, name: PackName) {
        let _ = self.0.set(name);
    }

    /// Returns the pack's name, or none before the pack is sealed.
    #[must_use]
    pub fn name(&self) -> Option<PackName> {
        self.0.get().copied()
    }
}

/// A reference to a chunk in a pack.
#[derive(Debug, Clone)]
pub struct ChunkRef {
    /// The pack.
    pub pack: PackRef,
    /// The chunk's id.
    pub id: ChunkId,
    /// The offset of its frame in the pack's plaintext.
    pub offset: u32,
    /// The length of its frame in bytes.
    pub length: u32,
    /// The length of its plaintext in bytes.
    pub plain: u32,
}

impl ChunkRef {
    /// Returns the chunk's location, or none before its pack is sealed.
    #[must_use]
    pub fn location(&self) -> Option<ChunkLocation> {
        let pack = self.pack.name()?;
        Some(ChunkLocation { pack, offset: self.offset, length: self.length, plain: self.plain })
    }
}
