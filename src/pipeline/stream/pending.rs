//! A stream that has ended, while some of its packs are still open.

use std::collections::{HashMap, HashSet, VecDeque};

use futures::stream::FuturesUnordered;
use futures::{FutureExt, StreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::PreparedPiece;
use crate::format::cache::{CachedGroup, CachedMember, GroupRef};
use crate::format::list::{MAX_PART, MAX_SLICE_TEXT, Part, Slice, StreamHasher, write_part};
use crate::format::{catalog, derive::ChunkKind, ids::ObjectHash, pack::PackClass, pack_refs::PackName};
use crate::pipeline::piece::{OpenSlice, StreamMember};
use crate::pipeline::{PipelineError, Result, chunk_ref::ChunkRef, domain::DomainWriter, joined};
use crate::runtime::kill_point;

/// The number of slices that may wait for their packs to be sealed. Beyond it, packs are closed early.
const MAX_WAITING: usize = 1 << 16;
/// The most slices of a group that has a scan cache: one file of some 200 GiB.
const MAX_GROUP_SLICES: usize = 1 << 17;
/// The most groups of the scan cache that are being stored at once. No data waits for them.
const MAX_UPLOADS: usize = 4;
/// The text length at which a part is closed: one more slice might exceed [`MAX_PART`].
const PART_TEXT: usize = MAX_PART - 4096;

/// A stream that has ended, while some of its packs are still open.
#[derive(Default)]
pub struct PendingStream {
    pub(super) length: u64,
    members: u64,
    hash: StreamHasher,
    part: OpenPart,
    waiting: VecDeque<OpenPart>,
    waiting_slices: usize,
    parts: Vec<(ChunkRef, u64)>,
    text: Vec<u8>,
    text_start: u64,
    text_first: Option<Vec<u8>>,
    catalog: Vec<(ChunkRef, u64, Option<Vec<u8>>)>,
    pub(super) caching: bool,
    group: OpenGroup,
    groups: Vec<Option<GroupRef>>,
    /// The groups that are being stored.
    uploads: FuturesUnordered<AbortOnDropHandle<Result<()>>>,
    pub(super) earlier: HashMap<ObjectHash, ObjectHash>,
    /// The packs of its chunks.
    packs: HashSet<PackName>,
}

#[derive(Default)]
struct OpenPart {
    start: u64,
    slices: Vec<OpenSlice>,
    text: usize,
    /// The group that ends with this part, if any.
    closes: Option<ClosedGroup>,
}

#[derive(Default)]
struct OpenGroup {
    key: u64,
    members: Vec<CachedMember>,
    slices: Vec<Slice>,
    too_large: bool,
}

struct ClosedGroup {
    key: u64,
    members: Vec<CachedMember>,
}

/// A stream whose chunks are all stored.
#[derive(Debug)]
pub struct WrittenStream {
    /// Its length in bytes.
    pub length: u64,
    /// The number of its members.
    pub members: u64,
    /// BLAKE3 over its slices.
    pub hash: ObjectHash,
    /// The parts of its list.
    pub parts: Vec<Part>,
    /// The parts of its catalog.
    pub catalog: Vec<Part>,
    /// The groups of its scan cache, if it has one.
    pub cache: Option<Vec<GroupRef>>,
    /// The packs of its chunks, lists and catalogs.
    pub packs: HashSet<PackName>,
}

impl PendingStream {
    pub(super) async fn absorb(&mut self, piece: PreparedPiece, domain: &DomainWriter) -> Result<()> {
        if piece.starts_group {
            self.close_group(domain).await?;
        }
        for member in piece.members {
            self.take_member(member, domain).await?;
        }
        for slice in piece.slices {
            self.length += u64::from(slice.take);
            self.take_slice(slice);
            if self.part.text > PART_TEXT {
                self.close_part(None);
                self.write_parts(domain).await?;
            }
        }
        if self.waiting_slices > MAX_WAITING {
            domain.packer().flush(PackClass::Data).await?;
            domain.packer().wait_for_uploads().await?;
            self.write_parts(domain).await?;
        }
        Ok(())
    }

    async fn take_member(&mut self, member: StreamMember, domain: &DomainWriter) -> Result<()> {
        self.members += 1;
        if self.caching {
            self.group.members.push(CachedMember { digest: member.digest, length: member.length });
        }
        let Some(mut line) = member.line else { return Ok(()) };
        let start = self.length.checked_add_signed(member.at);
        let start = start.ok_or(PipelineError::Bug("a member that starts before its stream"))?;
        if self.text.len() > catalog::MAX_CHUNK - (64 << 10) {
            self.close_catalog(domain).await?;
        }
        if self.text.is_empty() {
            self.text_start = start;
            self.text_first = Some(line.path.0.clone());
        }
        if self.group.members.len() == 1 {
            self.group.key = domain.key().cut(line.path.bytes());
        }
        line.at = start - self.text_start;
        line.len = member.length;
        self.text.extend_from_slice(&line.to_text());
        Ok(())
    }

    fn take_slice(&mut self, slice: OpenSlice) {
        if let Some(last) = self.part.slices.last_mut() {
            let same = last.chunk.id == slice.chunk.id && last.chunk.offset == slice.chunk.offset;
            if same && last.skip + last.take == slice.skip {
                last.take += slice.take;
                return;
            }
        }
        self.part.text += MAX_SLICE_TEXT;
        self.part.slices.push(slice);
    }

    fn close_part(&mut self, closes: Option<ClosedGroup>) {
        let next = OpenPart { start: self.length, ..OpenPart::default() };
        let mut part = std::mem::replace(&mut self.part, next);
        part.closes = closes;
        self.waiting_slices += part.slices.len();
        if !part.slices.is_empty() || part.closes.is_some() {
            self.waiting.push_back(part);
        }
    }

    pub(super) async fn close_group(&mut self, domain: &DomainWriter) -> Result<()> {
        self.close_catalog(domain).await?;
        let group = ClosedGroup { key: self.group.key, members: std::mem::take(&mut self.group.members) };
        let closes = (self.caching && !group.members.is_empty()).then_some(group);
        self.close_part(closes);
        self.write_parts(domain).await
    }

    async fn close_catalog(&mut self, domain: &DomainWriter) -> Result<()> {
        if self.text.is_empty() {
            return Ok(());
        }
        let text = std::mem::take(&mut self.text);
        let chunk = domain.put_chunk(ChunkKind::Catalog, text).await?;
        self.catalog.push((chunk, self.text_start, self.text_first.take()));
        kill_point("backup.catalog.written");
        Ok(())
    }

    /// Writes, in order, the parts whose packs are all sealed.
    async fn write_parts(&mut self, domain: &DomainWriter) -> Result<()> {
        while let Some(part) = self.waiting.front() {
            let resolve = |slice: &OpenSlice| {
                let location = slice.chunk.location()?;
                Some(Slice { location, id: slice.chunk.id, skip: slice.skip, take: slice.take })
            };
            let Some(slices) = part.slices.iter().map(resolve).collect::<Option<Vec<Slice>>>() else {
                return Ok(());
            };
            let Some(part) = self.waiting.pop_front() else { return Ok(()) };
            self.waiting_slices -= slices.len();
            for slice in &slices {
                self.hash.update(slice);
                self.packs.insert(slice.location.pack);
            }
            if !slices.is_empty() {
                let chunk = domain.put_chunk(ChunkKind::List, write_part(&slices).into_bytes()).await?;
                self.parts.push((chunk, part.start));
                kill_point("backup.list.written");
            }
            if self.caching {
                self.cache(slices, part.closes, domain).await?;
            }
        }
        Ok(())
    }

    async fn cache(
        &mut self,
        slices: Vec<Slice>,
        closes: Option<ClosedGroup>,
        domain: &DomainWriter,
    ) -> Result<()> {
        let group = &mut self.group;
        group.too_large |= group.slices.len() + slices.len() > MAX_GROUP_SLICES;
        if group.too_large {
            group.slices = Vec::new();
        } else {
            group.slices.extend(slices);
        }
        let Some(ClosedGroup { key, members }) = closes else { return Ok(()) };
        let slices = std::mem::take(&mut group.slices);
        if std::mem::take(&mut group.too_large) {
            self.groups.push(None);
            return Ok(());
        }
        let object = self.store_group(CachedGroup { members, slices }, domain).await?;
        self.groups.push(Some(GroupRef { key, object }));
        Ok(())
    }

    /// Returns the object of a group. A new one is stored in the background.
    async fn store_group(&mut self, group: CachedGroup, domain: &DomainWriter) -> Result<ObjectHash> {
        let bytes = group.to_bytes();
        let plain = ObjectHash(*blake3::hash(&bytes).as_bytes());
        if let Some(object) = self.earlier.get(&plain) {
            return Ok(*object);
        }
        let sealed = CachedGroup::seal(&bytes, &domain.target().path, domain.id(), domain.key())?;
        let hash = sealed.hash();
        // A failure ends the run soon.
        while let Some(Some(stored)) = self.uploads.next().now_or_never() {
            joined(stored, PipelineError::Ended)?;
        }
        while self.uploads.len() >= MAX_UPLOADS {
            self.wait_for_upload().await?;
        }
        let context = domain.context().clone();
        let upload = async move {
            context.put(&sealed).await?;
            context.reporter().stored(sealed.bytes().len() as u64, false);
            kill_point("backup.cache.group.stored");
            Ok(())
        };
        self.uploads.push(AbortOnDropHandle::new(tokio::spawn(upload)));
        Ok(hash)
    }

    /// Waits until one more group is stored. Returns false if all are.
    async fn wait_for_upload(&mut self) -> Result<bool> {
        let Some(stored) = self.uploads.next().await else { return Ok(false) };
        joined(stored, PipelineError::Ended)?;
        Ok(true)
    }

    /// Writes the parts that waited for data packs to be sealed, and waits until the scan cache is stored.
    pub(super) async fn write_last_parts(mut self, domain: &DomainWriter) -> Result<Self> {
        self.write_parts(domain).await?;
        while self.wait_for_upload().await? {}
        if self.waiting.is_empty() {
            Ok(self)
        } else {
            Err(PipelineError::Bug("a part whose packs are open"))
        }
    }

    /// Converts chunk references to places. All metadata packs must be sealed.
    pub(super) fn finish(self) -> Result<WrittenStream> {
        let parts = self.parts.into_iter().map(|(chunk, start)| part(&chunk, start, None));
        let catalog = self.catalog.into_iter().map(|(chunk, start, first)| part(&chunk, start, first));
        let (parts, catalog) = (parts.collect::<Result<Vec<_>>>()?, catalog.collect::<Result<Vec<_>>>()?);
        let mut packs = self.packs;
        let named = parts.iter().chain(&catalog);
        packs.extend(named.map(|part| PackName { hash: part.pack, size: part.pack_size }));
        Ok(WrittenStream {
            length: self.length,
            members: self.members,
            hash: self.hash.finish(),
            parts,
            catalog,
            cache: self.caching.then(|| self.groups.into_iter().flatten().collect()),
            packs,
        })
    }
}

/// Returns the entry that the body has for a part of a list or catalog. The part's pack must be sealed.
fn part(chunk: &ChunkRef, start: u64, first: Option<Vec<u8>>) -> Result<Part> {
    let location = chunk.location().ok_or(PipelineError::Bug("a part whose pack is open"))?;
    Ok(Part {
        pack: location.pack.hash,
        pack_size: location.pack.size,
        offset: location.offset,
        length: location.length,
        plain_length: location.plain,
        id: chunk.id,
        start,
        first: first.map(crate::format::name::Name),
    })
}

impl std::fmt::Debug for PendingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingStream({} B)", self.length)
    }
}
