//! Pack references: the packs that a snapshot needs in one domain. Stored unencrypted, so that anyone
//! can verify and prune without a key; named in the signed envelope by hash, so it cannot be changed.
//!
//! ```text
//! magic `kbaknd01`, store tag 8 B, then 56 B per pack: SHA-256, size u64 little-endian, ETag print 16 B;
//! sorted, no pack twice
//! ```
//!
//! ETags are noted where the store gives the MD5 of the content as ETag. A pack whose listed ETag is another one
//! was overwritten: the writer stores its chunks anew, and verify reads it. They count only at the store whose
//! address the tag is of, since a copy of a bucket may have others.

use bytes::Bytes;

use crate::format::ids::{NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::{object::SealedObject, symmetric::take};

const MAGIC: &[u8; 8] = b"kbaknd01";
const ENTRY: u64 = 56;

/// The largest object of pack references, in bytes: 1.2 million packs.
pub const MAX_PACK_REFS: u64 = 64 << 20;

/// The start of a hash of a store's address; zeros if no ETags are noted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct StoreTag([u8; 8]);

impl StoreTag {
    /// Returns the tag of a store by its address.
    #[must_use]
    pub fn of(address: &str) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = ObjectHash::of(address.as_bytes()).0;
        Self([a, b, c, d, e, f, g, h])
    }
}

/// The start of a hash of an ETag; zeros if it is not known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct EtagPrint([u8; 16]);

impl EtagPrint {
    /// Returns the print of an ETag as a store lists it.
    #[must_use]
    pub fn of(etag: &str) -> Self {
        let hash = ObjectHash::of(etag.trim_matches('"').as_bytes());
        Self(std::array::from_fn(|at| hash.0[at]))
    }

    /// True if both are known, and differ.
    #[must_use]
    pub fn contradicts(self, other: Self) -> bool {
        self != other && self != Self::default() && other != Self::default()
    }
}

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
    etags: Option<Etags>,
}

/// The ETags of packs, in the order of the packs.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Etags {
    store: StoreTag,
    prints: Vec<EtagPrint>,
}

impl PackRefs {
    /// Sorts `packs` and removes duplicates.
    #[must_use]
    pub fn new(mut packs: Vec<PackName>) -> Self {
        packs.sort_unstable();
        packs.dedup();
        Self { packs, etags: None }
    }

    /// Notes the ETags that a store lists.
    #[must_use]
    pub fn with_etags(self, store: StoreTag, etag: impl Fn(&ObjectHash) -> EtagPrint) -> Self {
        let prints = self.packs.iter().map(|pack| etag(&pack.hash)).collect();
        Self { etags: Some(Etags { store, prints }), ..self }
    }

    /// Returns the same packs for an object with another name: with the tag of no store, so no ETags count.
    #[must_use]
    pub fn renamed(self, instead_of: ObjectHash) -> Self {
        let [a, b, c, d, e, f, g, h, ..] = ObjectHash::of(&instead_of.0).0;
        // A tag of zeros, once in 2^64, says that there are no prints: here it says the same.
        self.with_etags(StoreTag([a, b, c, d, e, f, g, h]), |_| EtagPrint::default())
    }

    /// Returns the packs with the ETags that count at a store.
    pub fn with_prints(&self, store: StoreTag) -> impl Iterator<Item = (PackName, EtagPrint)> + '_ {
        let etags = self.etags.as_ref().filter(|etags| etags.store == store);
        let print = move |at: usize| etags.map(|etags| etags.prints[at]).unwrap_or_default();
        self.packs.iter().enumerate().map(move |(at, pack)| (*pack, print(at)))
    }

    /// Returns the packs in order of their hash.
    pub fn packs(&self) -> &[PackName] {
        &self.packs
    }

    /// Encodes the object. The same packs give the same object, so an unchanged domain adds none.
    pub fn seal(&self, path: &EpochPath, domain: NameId) -> SealedObject {
        let mut out = Vec::with_capacity(16 + self.packs.len() * 56);
        let store = self.etags.as_ref().map(|etags| etags.store).unwrap_or_default();
        out.extend_from_slice(MAGIC);
        out.extend_from_slice(&store.0);
        for (pack, print) in self.with_prints(store) {
            out.extend_from_slice(&pack.hash.0);
            out.extend_from_slice(&pack.size.to_le_bytes());
            out.extend_from_slice(&print.0);
        }
        let hash = ObjectHash::of(&out);
        SealedObject::new(path.in_domain(domain, ObjectClass::PackRefs, hash), Bytes::from(out), hash)
    }

    /// Decodes an object whose hash was checked. Returns `None` if its format is invalid.
    #[must_use]
    pub fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(MAGIC.as_slice())?;
        let store = StoreTag(take(&mut rest)?);
        (rest.len() as u64).is_multiple_of(ENTRY).then_some(())?;
        let (mut packs, mut prints) = (Vec::with_capacity(rest.len() / 56), Vec::new());
        while !rest.is_empty() {
            let (hash, size) = (ObjectHash(take(&mut rest)?), u64::from_le_bytes(take(&mut rest)?));
            packs.push(PackName { hash, size });
            prints.push(EtagPrint(take(&mut rest)?));
        }
        let noted = store != StoreTag::default();
        (noted || prints.iter().all(|print| *print == EtagPrint::default())).then_some(())?;
        let etags = noted.then_some(Etags { store, prints });
        packs.windows(2).all(|pair| pair[0].hash < pair[1].hash).then_some(Self { packs, etags })
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
        let mut swapped = object.bytes()[..16].to_vec();
        swapped.extend_from_slice(&object.bytes()[72..128]);
        swapped.extend_from_slice(&object.bytes()[16..72]);
        assert_eq!(PackRefs::parse(&swapped), None);
        assert_eq!(PackRefs::parse(&object.bytes()[..50]), None);
    }

    #[test]
    fn etags_count_at_their_store_only() {
        let pack = PackName { hash: ObjectHash([1; 32]), size: 5 };
        let here = StoreTag::of("s3://bucket");
        let needs = PackRefs::new(vec![pack]).with_etags(here, |_| EtagPrint::of("\"abc\""));
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        let read = PackRefs::parse(needs.seal(&path, NameId([4; 8])).bytes()).unwrap();
        assert_eq!(read, needs);
        let print = |store| read.with_prints(StoreTag::of(store)).next().unwrap().1;
        assert!(!print("s3://bucket").contradicts(EtagPrint::of("abc")), "quotes do not matter");
        assert!(print("s3://bucket").contradicts(EtagPrint::of("abd")));
        assert!(!print("s3://copy").contradicts(EtagPrint::of("abd")));
    }
}
