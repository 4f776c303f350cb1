//! Index objects: the pack and offset of each chunk. A hint for deduplication, and the map for finding
//! other copies of a damaged chunk; a restore never needs one.
//!
//! An object is a header and an age file. The run that made it signs the place and the age file with a key of
//! its own, so that whoever has the domain's key alone cannot make the writer believe in an index:
//!
//! ```text
//! magic `kbakih01`, Ed25519 public key of the run 32 B, signature 64 B over
//!     "kbak v1 index" ‖ 0 ‖ folder of the object's key ‖ SHA-256 of the age file
//! the age file
//! ```
//!
//! Plaintext (little-endian), sealed under the domain's index passphrase:
//!
//! ```text
//! magic `kbakix01`, packs u32, entries u32, replaced u32, zeros 4
//! replaced ×  32 B SHA-256 of an index object that this one merges
//! packs    ×  48 B SHA-256, size u64, class u8 (0 data, 1 metadata), zeros 7; sorted by SHA-256
//! entries  ×  32 B first half of the chunk id, pack u32, offset u32, length u32, plain u32; sorted
//! zeros to a Padmé length
//! ```

use bytes::Bytes;

use super::ids::{NameId, ObjectHash};
use super::layout::{EpochPath, ObjectClass};
use super::sign::{KeyError, PublicKey, SigningKey};
use super::symmetric::{self, put_counts, take, take_u32};
use super::{container::ContainerError, derive::DomainKey, object::SealedObject, pack::PackClass, padme};

/// The largest index object, in bytes of plaintext.
pub const MAX_INDEX: u64 = 16 << 20;
/// The most entries that one object holds, so that it stays within 8 MiB.
pub const MAX_ENTRIES: usize = (8 << 20) / ENTRY - 4096;

const MAGIC: &[u8; 8] = b"kbakix01";

/// The length of the header before the age file, in bytes.
pub const HEADER: usize = 8 + 32 + 64;

const HEADER_MAGIC: &[u8; 8] = b"kbakih01";

/// The header of an index object: the run that claims to have made it, and its signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IndexHeader {
    /// The run's public key, as the object claims.
    pub run: PublicKey,
    signature: [u8; 64],
}

impl IndexHeader {
    /// Splits an object into its header and its age file.
    #[must_use]
    pub fn split(object: &[u8]) -> Option<(Self, &[u8])> {
        let mut rest = object.strip_prefix(HEADER_MAGIC.as_slice())?;
        let run = PublicKey(take(&mut rest)?);
        Some((Self { run, signature: take(&mut rest)? }, rest))
    }

    /// True if the run signed this age file as an index object of this domain.
    #[must_use]
    pub fn verifies(&self, path: &EpochPath, domain: NameId, sealed: &[u8]) -> bool {
        self.run.verifies(&signed_message(path, domain, ObjectHash::of(sealed)), &self.signature)
    }
}

fn signed_message(path: &EpochPath, domain: NameId, sealed: ObjectHash) -> Vec<u8> {
    let folder = path.class_prefix(domain, ObjectClass::Index);
    [b"kbak v1 index\0", folder.as_bytes(), &sealed.0].concat()
}

/// A pack that an index names.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexedPack {
    /// The pack's SHA-256, which is its name.
    pub hash: ObjectHash,
    /// The size of the stored pack, in bytes.
    pub size: u64,
    /// The class of the pack.
    pub class: PackClass,
}

/// The first half of a chunk id: enough to find a chunk, never enough to trust one.
pub type ShortId = [u8; 16];

/// The location of one chunk.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct IndexEntry {
    /// The first half of the chunk's id.
    pub id: ShortId,
    /// The chunk's pack, as a position in [`Index::packs`].
    pub pack: u32,
    /// The offset of the frame in the pack's plaintext, in bytes.
    pub offset: u32,
    /// The frame's length in bytes.
    pub length: u32,
    /// The chunk's length in bytes.
    pub plain: u32,
}

/// The length of an entry, in bytes.
pub const ENTRY: usize = 32;

impl IndexEntry {
    /// Encodes the entry as in an index object.
    pub fn to_bytes(&self) -> [u8; ENTRY] {
        let mut bytes = [0; ENTRY];
        bytes[..16].copy_from_slice(&self.id);
        for (position, number) in [self.pack, self.offset, self.length, self.plain].into_iter().enumerate() {
            bytes[16 + 4 * position..20 + 4 * position].copy_from_slice(&number.to_le_bytes());
        }
        bytes
    }

    /// Decodes the bytes of [`IndexEntry::to_bytes`].
    #[must_use]
    pub fn from_bytes(bytes: &[u8; ENTRY]) -> Self {
        let id = std::array::from_fn(|at| bytes[at]);
        let number = |at: usize| u32::from_le_bytes([bytes[at], bytes[at + 1], bytes[at + 2], bytes[at + 3]]);
        Self { id, pack: number(16), offset: number(20), length: number(24), plain: number(28) }
    }
}

/// The content of one index object.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Index {
    /// The index objects that this one merges.
    pub replaces: Vec<ObjectHash>,
    /// The packs that the entries refer to.
    pub packs: Vec<IndexedPack>,
    /// One entry per chunk.
    pub entries: Vec<IndexEntry>,
}

/// The reason that an index object is rejected.
#[derive(Debug, thiserror::Error)]
pub enum IndexError {
    /// Not made with this domain's key, or damaged.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its header or plaintext is not that of an index.
    #[error("the index is malformed")]
    Malformed,
    /// The run's key does not sign.
    #[error("the index cannot be signed")]
    Sign(#[from] KeyError),
}

impl Index {
    /// Sorts packs and entries into their canonical order, renumbering the packs.
    pub fn sort(&mut self) {
        let mut order: Vec<usize> = (0..self.packs.len()).collect();
        order.sort_by_key(|&at| self.packs[at].hash);
        let mut position = vec![0u32; order.len()];
        for (new, &old) in order.iter().enumerate() {
            position[old] = u32::try_from(new).unwrap_or(u32::MAX);
        }
        self.packs = order.iter().map(|&old| self.packs[old]).collect();
        for entry in &mut self.entries {
            entry.pack = position[entry.pack as usize];
        }
        self.entries.sort_unstable();
        self.replaces.sort_unstable();
    }

    /// Encrypts a sorted index, and signs it with the key of the `run`.
    pub fn seal(
        &self,
        path: &EpochPath,
        domain: NameId,
        key: &DomainKey,
        run: &SigningKey,
    ) -> Result<SealedObject, IndexError> {
        let bare = 24 + self.replaces.len() * 32 + self.packs.len() * 48 + self.entries.len() * ENTRY;
        let mut out = Vec::with_capacity(bare + bare / 8);
        out.extend_from_slice(MAGIC);
        put_counts(&mut out, &[self.packs.len(), self.entries.len(), self.replaces.len(), 0]);
        for hash in &self.replaces {
            out.extend_from_slice(&hash.0);
        }
        for pack in &self.packs {
            out.extend_from_slice(&pack.hash.0);
            out.extend_from_slice(&pack.size.to_le_bytes());
            out.extend_from_slice(&[u8::from(pack.class == PackClass::Metadata), 0, 0, 0, 0, 0, 0, 0]);
        }
        for entry in &self.entries {
            out.extend_from_slice(&entry.to_bytes());
        }
        padme::pad(&mut out, 0);
        let (sealed, sealed_hash) = symmetric::encrypt(key, ObjectClass::Index, &out)?;
        let signature = run.sign_bytes(&signed_message(path, domain, sealed_hash))?;
        let bytes = Bytes::from([HEADER_MAGIC.as_slice(), &run.public().0, &signature, &sealed].concat());
        let hash = ObjectHash::of(&bytes);
        Ok(SealedObject::new(path.index(domain, hash, key.index_tag(hash)), bytes, hash))
    }

    /// Decrypts an index object and checks its format. Whose it is, [`IndexHeader`] says.
    pub fn open(object: &[u8], key: &DomainKey) -> Result<Self, IndexError> {
        let (_, sealed) = IndexHeader::split(object).ok_or(IndexError::Malformed)?;
        Self::parse(&symmetric::open(sealed, key, ObjectClass::Index, MAX_INDEX)?)
            .ok_or(IndexError::Malformed)
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let packs = take_u32(&mut rest)? as usize;
        let entries = take_u32(&mut rest)? as usize;
        let replaced = take_u32(&mut rest)? as usize;
        (take_u32(&mut rest)? == 0).then_some(())?;
        let needed = packs.checked_mul(48)? + entries.checked_mul(ENTRY)? + replaced.checked_mul(32)?;
        (needed <= rest.len()).then_some(())?;
        let mut index = Self::default();
        for _ in 0..replaced {
            index.replaces.push(ObjectHash(take(&mut rest)?));
        }
        index.packs.reserve_exact(packs);
        for _ in 0..packs {
            let (hash, size) = (ObjectHash(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
            let class = match take::<8>(&mut rest)? {
                [0, 0, 0, 0, 0, 0, 0, 0] => PackClass::Data,
                [1, 0, 0, 0, 0, 0, 0, 0] => PackClass::Metadata,
                _ => return None,
            };
            index.packs.push(IndexedPack { hash, size, class });
        }
        index.entries.reserve_exact(entries);
        for _ in 0..entries {
            let entry = IndexEntry::from_bytes(&take(&mut rest)?);
            ((entry.pack as usize) < packs).then_some(())?;
            index.entries.push(entry);
        }
        let sorted = index.packs.windows(2).all(|w| w[0].hash < w[1].hash)
            && index.entries.windows(2).all(|w| w[0].id <= w[1].id);
        (sorted && rest.iter().all(|&byte| byte == 0)).then_some(index)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::format::derive::SecretKey;
    use crate::format::ids::{EpochId, WriterId};

    #[test]
    fn sorted_index_opens_after_sealing() {
        let pack = |b: u8| IndexedPack { hash: ObjectHash([b; 32]), size: 9, class: PackClass::Data };
        let entry = |b: u8, pack| IndexEntry { id: [b; 16], pack, offset: 1, length: 2, plain: 3 };
        let mut index = Index {
            replaces: vec![],
            packs: vec![pack(9), pack(1)],
            entries: vec![entry(5, 0), entry(2, 1)],
        };
        index.sort();
        assert_eq!(index.packs[0].hash, ObjectHash([1; 32]));
        assert_eq!(index.entries[0], entry(2, 0));
        let key = DomainKey::new(&SecretKey::new([3; 32]));
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        let (run, domain) = (SigningKey::from_seed(&[5; 32].into()), NameId([4; 8]));
        let sealed = index.seal(&path, domain, &key, &run).unwrap();
        assert_eq!(Index::open(sealed.bytes(), &key).unwrap(), index);
        let (header, age) = IndexHeader::split(sealed.bytes()).unwrap();
        assert!(header.run == run.public() && header.verifies(&path, domain, age));
        assert!(!header.verifies(&path, NameId([5; 8]), age), "of another domain");
        assert!(!header.verifies(&path, domain, &age[1..]), "of another content");
    }

    #[test]
    fn counts_beyond_the_content_are_rejected() {
        let mut bytes = MAGIC.to_vec();
        bytes.extend_from_slice(&[0xff; 12]);
        bytes.extend_from_slice(&[0; 4]);
        assert_eq!(Index::parse(&bytes), None);
    }
}
