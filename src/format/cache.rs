//! The scan cache: digests of each member's metadata, so that unchanged files need not be opened.
//!
//! One root object names the groups of a stream in walk order. One object per group holds, for every member,
//! a keyed digest of its metadata and its length in the stream, and the slices that contain the group's
//! bytes. No names are stored. Both are symmetric objects of class cache; numbers are little-endian.
//!
//! ```text
//! root    magic `kbakcr01`, count u32, zeros 4; count × (key u64, SHA-256 of the group's object)
//! group   magic `kbakcg01`, packs u32, members u32, slices u32, zeros 4
//!         packs   × (SHA-256, size u64)
//!         members × (digest 16, length u64); a digest of zeros is no digest
//!         slices  × (pack u32, offset u32, length u32, plain u32, skip u32, take u32, id 32)
//! ```
//!
//! Both are followed by zeros to a Padmé length. A group's key is the cut hash of its first path. That
//! hash also decides which paths begin a group, so groups stay the same after files come and go.

use super::ids::{ChunkId, NameId, ObjectHash};
use super::layout::{EpochPath, ObjectClass};
use super::list::{ChunkLocation, Slice, number_packs};
use super::symmetric::{self, put_counts, take, take_u32, take_u64};
use super::{container::ContainerError, derive::DomainKey, object::SealedObject, padme};
use crate::format::pack_refs::PackName;

/// The largest cache object, in bytes of plaintext.
pub const MAX_CACHE: u64 = 32 << 20;
/// The value that stands for no digest.
pub const NO_DIGEST: [u8; 16] = [0; 16];

const ROOT: &[u8; 8] = b"kbakcr01";
const GROUP: &[u8; 8] = b"kbakcg01";

/// One group in a root.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct GroupRef {
    /// The cut hash of the group's first path.
    pub key: u64,
    /// The SHA-256 of the group's object.
    pub object: ObjectHash,
}

/// One member of a group.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CachedMember {
    /// The digest of its metadata; [`NO_DIGEST`] if its content may change without a new digest.
    pub digest: [u8; 16],
    /// The member's length in the stream, in bytes.
    pub length: u64,
}

/// A group of members, as the last walk found it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CachedGroup {
    /// The members in walk order.
    pub members: Vec<CachedMember>,
    /// The slices that contain the group's bytes, in order.
    pub slices: Vec<Slice>,
}

/// The reason that a cache object is rejected.
#[derive(Debug, thiserror::Error)]
pub enum CacheError {
    /// It cannot be decrypted.
    #[error(transparent)]
    Container(#[from] ContainerError),
    /// Its plaintext is malformed.
    #[error("the scan cache is malformed")]
    Malformed,
}

/// Encrypts a root object.
pub fn seal_root(
    groups: &[GroupRef],
    path: &EpochPath,
    domain: NameId,
    key: &DomainKey,
) -> Result<SealedObject, ContainerError> {
    let mut out = ROOT.to_vec();
    put_counts(&mut out, &[groups.len(), 0]);
    for group in groups {
        out.extend_from_slice(&group.key.to_le_bytes());
        out.extend_from_slice(&group.object.0);
    }
    padme::pad(&mut out, 0);
    symmetric::seal(path, domain, key, ObjectClass::Cache, &out)
}

/// Decrypts a root object.
pub fn open_root(sealed: &[u8], key: &DomainKey) -> Result<Vec<GroupRef>, CacheError> {
    let bytes = symmetric::open(sealed, key, ObjectClass::Cache, MAX_CACHE)?;
    let read = || {
        let mut rest = bytes.strip_prefix(ROOT.as_slice())?;
        let count = take_u32(&mut rest)? as usize;
        (take_u32(&mut rest)? == 0 && count.checked_mul(40)? <= rest.len()).then_some(())?;
        let mut groups = Vec::with_capacity(count);
        for _ in 0..count {
            groups.push(GroupRef { key: take_u64(&mut rest)?, object: ObjectHash(take(&mut rest)?) });
        }
        rest.iter().all(|&byte| byte == 0).then_some(groups)
    };
    read().ok_or(CacheError::Malformed)
}

impl CachedGroup {
    /// Encodes the group: the same group gives the same bytes.
    pub fn to_bytes(&self) -> Vec<u8> {
        let (packs, numbers) = number_packs(&self.slices);
        let mut out = GROUP.to_vec();
        put_counts(&mut out, &[packs.len(), self.members.len(), self.slices.len(), 0]);
        for pack in &packs {
            out.extend_from_slice(&pack.hash.0);
            out.extend_from_slice(&pack.size.to_le_bytes());
        }
        for member in &self.members {
            out.extend_from_slice(&member.digest);
            out.extend_from_slice(&member.length.to_le_bytes());
        }
        for (slice, number) in self.slices.iter().zip(numbers) {
            let number = u32::try_from(number).unwrap_or(u32::MAX);
            let ChunkLocation { offset, length, plain, .. } = slice.location;
            for value in [number, offset, length, plain, slice.skip, slice.take] {
                out.extend_from_slice(&value.to_le_bytes());
            }
            out.extend_from_slice(&slice.id.0);
        }
        padme::pad(&mut out, 0);
        out
    }

    /// Encrypts the bytes of [`CachedGroup::to_bytes`].
    pub fn seal(
        bytes: &[u8],
        path: &EpochPath,
        domain: NameId,
        key: &DomainKey,
    ) -> Result<SealedObject, ContainerError> {
        symmetric::seal(path, domain, key, ObjectClass::Cache, bytes)
    }

    /// Decrypts a group. Also returns its plaintext, for comparison with a later one.
    pub fn open(sealed: &[u8], key: &DomainKey) -> Result<(Self, Vec<u8>), CacheError> {
        let bytes = symmetric::open(sealed, key, ObjectClass::Cache, MAX_CACHE)?;
        let group = Self::parse(&bytes).ok_or(CacheError::Malformed)?;
        Ok((group, bytes))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let mut rest = bytes.strip_prefix(GROUP.as_slice())?;
        let packs = take_u32(&mut rest)? as usize;
        let members = take_u32(&mut rest)? as usize;
        let slices = take_u32(&mut rest)? as usize;
        (take_u32(&mut rest)? == 0).then_some(())?;
        let needed = packs.checked_mul(40)? + members.checked_mul(24)? + slices.checked_mul(56)?;
        (needed <= rest.len()).then_some(())?;
        let mut names = Vec::with_capacity(packs);
        for _ in 0..packs {
            names.push(PackName { hash: ObjectHash(take(&mut rest)?), size: take_u64(&mut rest)? });
        }
        let mut group = Self { members: Vec::with_capacity(members), slices: Vec::with_capacity(slices) };
        for _ in 0..members {
            group.members.push(CachedMember { digest: take(&mut rest)?, length: take_u64(&mut rest)? });
        }
        for _ in 0..slices {
            let pack = *names.get(take_u32(&mut rest)? as usize)?;
            let (offset, length) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
            let plain = take_u32(&mut rest)?;
            let (skip, wanted) = (take_u32(&mut rest)?, take_u32(&mut rest)?);
            (skip.checked_add(wanted)? <= plain && wanted > 0).then_some(())?;
            let id = ChunkId(take(&mut rest)?);
            let location = ChunkLocation { pack, offset, length, plain };
            group.slices.push(Slice { location, id, skip, take: wanted });
        }
        let bytes_of_members = group.members.iter().try_fold(0u64, |sum, m| sum.checked_add(m.length))?;
        let bytes_of_slices: u64 = group.slices.iter().map(|slice| u64::from(slice.take)).sum();
        (bytes_of_members == bytes_of_slices && rest.iter().all(|&byte| byte == 0)).then_some(group)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn groups_are_decoded_as_they_were_encoded() {
        let pack = PackName { hash: ObjectHash([1; 32]), size: 77 };
        let location = ChunkLocation { pack, offset: 1, length: 2, plain: 100 };
        let group = CachedGroup {
            members: vec![
                CachedMember { digest: [5; 16], length: 90 },
                CachedMember { digest: NO_DIGEST, length: 10 },
            ],
            slices: vec![Slice { location, id: ChunkId([2; 32]), skip: 0, take: 100 }],
        };
        let bytes = group.to_bytes();
        assert_eq!(CachedGroup::parse(&bytes), Some(group.clone()));
        let mut wrong = group;
        wrong.members[1].length = 11;
        assert_eq!(CachedGroup::parse(&wrong.to_bytes()), None, "slices must hold exactly the members");
    }
}
