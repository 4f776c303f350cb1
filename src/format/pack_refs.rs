//! Pack references: the packs that a snapshot needs in one domain. Stored unencrypted, so that anyone
//! can verify and prune without a key; named in the signed envelope by hash, so it cannot be changed.
//!
//! ```text
//! magic `kbaknd01`, then 40 B per pack: SHA-256, size u64 little-endian; sorted, no pack twice
//! ```

use bytes::Bytes;

use crate::format::ids::{NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::{object::SealedObject, symmetric::take};

const MAGIC: &[u8; 8] = b"kbaknd01";
const ENTRY: u64 = 40;

/// The largest object of pack references, in bytes: 1.6 million packs.
pub const MAX_PACK_REFS: u64 = 64 << 20;

/// A pack by name and size.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackName {
    /// The SHA-256 of the stored pack.
    pub hash: ObjectHash,
    /// The size of the stored pack, in bytes.
    pub size: u64,
}

/// The packs that a snapshot needs in one domain, sorted.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct PackRefs {
    packs: Vec<PackName>,
}

impl PackRefs {
    /// Sorts `packs` and removes duplicates.
    #[must_use]
    pub fn new(mut packs: Vec<PackName>) -> Self {
        packs.sort_unstable();
        packs.dedup();
        Self { packs }
    }

    /// Returns the packs in order of their hash.
    pub fn packs(&self) -> &[PackName] {
        &self.packs
    }

    /// Encodes the object. The same packs give the same object, so an unchanged domain adds none.
    pub fn seal(&self, path: &EpochPath, domain: NameId) -> SealedObject {
        let mut out = Vec::with_capacity(8 + self.packs.len() * 40);
        out.extend_from_slice(MAGIC);
        for pack in &self.packs {
            out.extend_from_slice(&pack.hash.0);
            out.extend_from_slice(&pack.size.to_le_bytes());
        }
        let hash = ObjectHash::of(&out);
        SealedObject::new(path.in_domain(domain, ObjectClass::PackRefs, hash), Bytes::from(out), hash)
    }

    /// Decodes an object whose hash was checked. Returns `None` if its format is invalid.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC.as_slice())?;
        (rest.len() as u64).is_multiple_of(ENTRY).then_some(())?;
        let mut packs = Vec::with_capacity(rest.len() / 40);
        while !rest.is_empty() {
            let (hash, size) = (ObjectHash(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
            packs.push(PackName { hash, size });
        }
        packs.windows(2).all(|pair| pair[0].hash < pair[1].hash).then_some(Self { packs })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::ids::{EpochId, WriterId};

    #[test]
    fn unsorted_or_truncated_lists_are_rejected() {
        let pack = |b: u8| PackName { hash: ObjectHash([b; 32]), size: u64::from(b) };
        let needs = PackRefs::new(vec![pack(3), pack(1), pack(3)]);
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        let object = needs.seal(&path, NameId([4; 8]));
        assert_eq!(PackRefs::parse(object.bytes()), Some(needs));
        let mut swapped = object.bytes()[..8].to_vec();
        swapped.extend_from_slice(&object.bytes()[48..88]);
        swapped.extend_from_slice(&object.bytes()[8..48]);
        assert_eq!(PackRefs::parse(&swapped), None);
        assert_eq!(PackRefs::parse(&object.bytes()[..50]), None);
    }
}
