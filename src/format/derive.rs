//! Key derivation: all keys that are derived from an epoch's secret, and the names key.
//!
//! BLAKE3 `derive_key` with one context string per use (BLAKE3 paper, section 2.5); the contexts
//! are listed in docs/format.md. A domain's key gives the chunk ids, the cut points and the
//! passphrases of that domain only. So a tenant who reads a mover's key endangers no other domain.

use zeroize::{Zeroize, ZeroizeOnDrop};

use super::ids::{ChunkId, NameId, ObjectHash, to_hex};
use crate::report::text::opaque_debug;

/// 32 secret bytes. They never appear in debug output and are wiped when dropped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct SecretKey([u8; 32]);

impl SecretKey {
    /// Creates a key from its bytes.
    #[must_use]
    pub fn new(bytes: [u8; 32]) -> Self {
        Self(bytes)
    }

    /// Returns the bytes, to be written into a wrap or a 0600 file only.
    pub fn expose(&self) -> &[u8; 32] {
        &self.0
    }

    fn derive(context: &str, material: &[&[u8]]) -> Self {
        let mut hasher = blake3::Hasher::new_derive_key(context);
        for part in material {
            hasher.update(part);
        }
        Self(*hasher.finalize().as_bytes())
    }
}

opaque_debug!(SecretKey: "SecretKey(…)");

/// The root of an epoch's derivations (K_epoch).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EpochSecret(pub SecretKey);

impl EpochSecret {
    /// Returns the commitment for epoch.json. It binds a wrap to its epoch and reveals nothing.
    pub fn commitment(&self) -> [u8; 32] {
        SecretKey::derive("kbak v1 epoch commitment", &[&self.0.0]).0
    }

    /// Derives the key of one domain.
    pub fn domain(&self, domain: &str) -> DomainKey {
        DomainKey::new(&SecretKey::derive("kbak v1 domain", &[&self.0.0, domain.as_bytes()]))
    }
}

/// The kind of content of a chunk. Every kind has its own id key, so that no chunk of one kind can be
/// taken for one of another (cf. CVE-2023-36811).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ChunkKind {
    /// Bytes of a stream.
    Data = 0,
    /// A part of a stream's list of slices.
    List = 1,
    /// Lines of a catalog.
    Catalog = 2,
}

impl ChunkKind {
    /// Returns the byte that encodes the kind in a pack's table.
    #[must_use]
    pub fn code(self) -> u8 {
        self as u8
    }

    /// Returns the kind that a byte encodes.
    #[must_use]
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Data, Self::List, Self::Catalog].into_iter().find(|kind| kind.code() == code)
    }
}

/// The key of one domain of one epoch, with the keys derived from it.
#[derive(Clone)]
pub struct DomainKey {
    ids: [SecretKey; 3],
    gear: Box<[u64; 256]>,
    cut: SecretKey,
    member: SecretKey,
    index: SecretKey,
    index_tag: SecretKey,
    cache: SecretKey,
    record: SecretKey,
    state: SecretKey,
}

impl DomainKey {
    /// Derives all keys of the domain from its key.
    #[must_use]
    pub fn new(key: &SecretKey) -> Self {
        let derive = |context| SecretKey::derive(context, &[&key.0]);
        let mut table = [0u8; 2048];
        blake3::Hasher::new_derive_key("kbak v1 gear").update(&key.0).finalize_xof().fill(&mut table);
        let mut gear = Box::new([0u64; 256]);
        for (word, bytes) in gear.iter_mut().zip(table.chunks_exact(8)) {
            *word = u64::from_le_bytes(std::array::from_fn(|at| bytes[at]));
        }
        table.zeroize();
        Self {
            ids: [derive("kbak v1 id data"), derive("kbak v1 id list"), derive("kbak v1 id catalog")],
            gear,
            cut: derive("kbak v1 cut"),
            member: derive("kbak v1 member"),
            index: derive("kbak v1 index"),
            index_tag: derive("kbak v1 index tag"),
            cache: derive("kbak v1 cache"),
            record: derive("kbak v1 record"),
            state: derive("kbak v1 state"),
        }
    }

    /// Returns the id of a chunk of `kind`.
    pub fn chunk_id(&self, kind: ChunkKind, plaintext: &[u8]) -> ChunkId {
        ChunkId(*blake3::keyed_hash(&self.ids[usize::from(kind.code())].0, plaintext).as_bytes())
    }

    /// The gear table of the chunker: a secret word for each value of the byte that enters the window.
    pub fn gear(&self) -> &[u64; 256] {
        &self.gear
    }

    /// Returns 64 keyed bits of a path. Segments, list parts and caches are cut where some of the bits
    /// are zero, so that an inserted file moves no later boundary.
    pub fn cut(&self, path: &[u8]) -> u64 {
        u64::from_le_bytes(first_bytes(&blake3::keyed_hash(&self.cut.0, path)))
    }

    /// Returns the digest of a member for the scan cache, over the bytes that a walk sees of it.
    pub fn member(&self, seen: &[u8]) -> [u8; 16] {
        first_bytes(&blake3::keyed_hash(&self.member.0, seen))
    }

    /// Returns the end of the key of the index object with this hash, so that a listing alone discards what
    /// nobody made who has the domain's key.
    pub fn index_tag(&self, hash: ObjectHash) -> [u8; 16] {
        first_bytes(&blake3::keyed_hash(&self.index_tag.0, &hash.0))
    }

    /// Returns the passphrase of the symmetric objects of `class`. Packs and pack references have none.
    pub fn passphrase(&self, class: super::layout::ObjectClass) -> Option<Passphrase> {
        use super::layout::ObjectClass;
        let key = match class {
            ObjectClass::Index => &self.index,
            ObjectClass::Cache => &self.cache,
            ObjectClass::Record => &self.record,
            ObjectClass::State => &self.state,
            ObjectClass::Pack | ObjectClass::PackRefs => return None,
        };
        Some(Passphrase(to_hex(&key.0)))
    }
}

opaque_debug!(DomainKey: "DomainKey(…)");

/// The passphrase of a symmetric age file: a key in hex. It needs no work factor above 1.
#[derive(Clone, Zeroize, ZeroizeOnDrop)]
pub struct Passphrase(String);

impl Passphrase {
    /// Returns the passphrase as text.
    pub fn expose(&self) -> &str {
        &self.0
    }
}

opaque_debug!(Passphrase: "Passphrase(…)");

/// The names key: derives the ids of names in paths and envelopes. It is fixed for the life of a
/// repository, so that retention and status see one id for years.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NamesKey(pub SecretKey);

impl NamesKey {
    /// Returns the id of `name` among names of one kind (`plan`, `domain`, `item`).
    pub fn id(&self, kind: &str, name: &str) -> NameId {
        let mut hasher = blake3::Hasher::new_keyed(&self.0.0);
        hasher.update(kind.as_bytes()).update(&[0]).update(name.as_bytes());
        NameId(first_bytes(&hasher.finalize()))
    }
}

/// Returns the first bytes of a hash, at most 32.
fn first_bytes<const N: usize>(hash: &blake3::Hash) -> [u8; N] {
    std::array::from_fn(|at| hash.as_bytes()[at])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunk_ids_differ_between_kinds_and_domains() {
        let epoch = EpochSecret(SecretKey::new([7; 32]));
        let (a, b) = (epoch.domain("namespace/a"), epoch.domain("namespace/b"));
        let data = a.chunk_id(ChunkKind::Data, b"x");
        assert_ne!(data, a.chunk_id(ChunkKind::List, b"x"));
        assert_ne!(data, b.chunk_id(ChunkKind::Data, b"x"));
        assert_ne!(a.gear()[0], b.gear()[0]);
    }

    #[test]
    fn secrets_are_absent_from_debug_output() {
        let secret = SecretKey::new([0x41; 32]);
        let shown = format!("{secret:?}{:?}{:?}", EpochSecret(secret.clone()), DomainKey::new(&secret));
        assert!(!shown.contains("41") && !shown.contains("65"), "{shown}");
    }
}
