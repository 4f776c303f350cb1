//! Writes a stream: pieces are prepared in parallel and their results are added in order.

use std::collections::VecDeque;
use std::sync::Arc;

use futures::StreamExt;
use futures::stream::FuturesOrdered;
use tokio_util::task::AbortOnDropHandle;

use crate::format::cache::{CachedMember, Group, GroupRef};
use crate::format::catalog;
use crate::format::derive::ChunkKind;
use crate::format::ids::ObjectHash;
use crate::format::list::{MAX_PART, MAX_SLICE_TEXT, Part, Slice, StreamHasher, write_part};
use crate::format::pack::PackClass;
use crate::report::event::Meter;
use crate::runtime::kill_point;

use super::PipelineError;
use super::domain::DomainWriter;
use super::packer::ChunkRef;
use super::piece::{Member, OpenSlice, Output, Piece, Prepared, Run, prepare};
use crate::pipeline::chunk_index::place;

/// The number of slices that may wait for their packs to be sealed. Beyond it, packs are closed early.
const MAX_WAITING: usize = 1 << 16;
/// The most slices of a group that has a scan cache: one file of some 200 GiB.
const MAX_GROUP_SLICES: usize = 1 << 17;
/// The most slices of one member that can still be taken back: a file of some 8 GiB.
const MAX_HELD: usize = 1 << 13;
/// The text length at which a part is closed: one more slice might exceed [`MAX_PART`].
const PART_TEXT: usize = MAX_PART - 4096;

/// Writes a stream piece by piece.
pub struct StreamWriter {
    domain: Arc<DomainWriter>,
    running: FuturesOrdered<AbortOnDropHandle<Result<Done, PipelineError>>>,
    pending: PendingStream,
    held: Option<Held>,
    meter: Option<Arc<Meter>>,
}

/// The pieces of a member whose file is still being read; they can be taken back.
#[derive(Default)]
struct Held {
    /// The number of earlier pieces that are still being prepared.
    before: usize,
    pieces: Vec<Done>,
    slices: usize,
}

/// A prepared piece, whose chunks are assigned to packs.
struct Done {
    starts_group: bool,
    slices: Vec<OpenSlice>,
    members: Vec<Member>,
    new_bytes: u64,
}

/// A stream that has ended, while some of its packs are still open.
pub struct PendingStream {
    length: u64,
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
    caching: bool,
    group: OpenGroup,
    groups: Vec<Option<GroupRef>>,
    earlier: std::collections::HashMap<ObjectHash, ObjectHash>,
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
}

impl StreamWriter {
    pub(super) fn new(domain: Arc<DomainWriter>) -> Self {
        Self {
            domain,
            running: FuturesOrdered::new(),
            pending: PendingStream::new(),
            held: None,
            meter: None,
        }
    }

    /// Counts the stream's bytes on `meter`.
    #[must_use]
    pub fn with_meter(mut self, meter: Arc<Meter>) -> Self {
        self.meter = Some(meter);
        self
    }

    /// Enables the scan cache. `earlier` maps the hash of a group's plaintext to its stored
    /// object, so that an unchanged group is not stored again.
    #[must_use]
    pub fn with_cache(mut self, earlier: std::collections::HashMap<ObjectHash, ObjectHash>) -> Self {
        self.pending.caching = true;
        self.pending.earlier = earlier;
        self
    }

    /// Adds a stored group of the last run to the scan cache.
    pub fn know_group(&mut self, plaintext: &[u8], object: ObjectHash) {
        self.pending.earlier.insert(ObjectHash(*blake3::hash(plaintext).as_bytes()), object);
    }

    /// Adds the next piece. Waits while enough pieces are being prepared.
    pub async fn push(&mut self, piece: Piece) -> Result<(), PipelineError> {
        while self.running.len() >= self.domain.engine().runtime().workers.count() * 2 {
            self.absorb_next().await?;
        }
        // For the source bytes, their frames and the copies for verification.
        let permit = self.domain.engine().jobs().take(piece.reserve.saturating_mul(2)).await?;
        let domain = self.domain.clone();
        self.running.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            let done = run(&domain, piece).await;
            drop(permit);
            done
        })));
        Ok(())
    }

    async fn absorb_next(&mut self) -> Result<bool, PipelineError> {
        let Some(result) = self.running.next().await else { return Ok(false) };
        let done = match result {
            Ok(done) => done?,
            Err(join) if join.is_panic() => std::panic::resume_unwind(join.into_panic()),
            Err(_) => return Err(PipelineError::Ended),
        };
        if let Some(meter) = &self.meter {
            meter.add_bytes(done.slices.iter().map(|slice| u64::from(slice.take)).sum());
            meter.add_new_bytes(done.new_bytes);
        }
        match &mut self.held {
            Some(held) if held.before > 0 => held.before -= 1,
            Some(held) => {
                held.slices += done.slices.len();
                held.pieces.push(done);
                if held.slices > MAX_HELD {
                    self.keep().await?;
                }
                return Ok(true);
            }
            None => {}
        }
        self.pending.absorb(done, &self.domain).await?;
        Ok(true)
    }

    /// Begins a section whose pieces can be taken back until [`Self::keep`].
    pub fn hold(&mut self) {
        self.held = Some(Held { before: self.running.len(), ..Held::default() });
    }

    /// Adds the pieces since [`Self::hold`] to the stream.
    pub async fn keep(&mut self) -> Result<(), PipelineError> {
        for done in self.held.take().into_iter().flat_map(|held| held.pieces) {
            self.pending.absorb(done, &self.domain).await?;
        }
        Ok(())
    }

    /// Takes back the pieces since [`Self::hold`], but keeps the first one without its last
    /// `tail` bytes. The chunks stay in their packs, where the next attempt finds most of them.
    /// Returns false and takes nothing back if more was pushed than can be held.
    pub async fn take_back(&mut self, tail: u64) -> Result<bool, PipelineError> {
        while self.held.is_some() && self.absorb_next().await? {}
        let Some(held) = self.held.take() else { return Ok(false) };
        let Some(mut first) = held.pieces.into_iter().next() else { return Ok(true) };
        cut_tail(&mut first.slices, tail)?;
        self.pending.absorb(first, &self.domain).await?;
        Ok(true)
    }

    /// Ends the stream. Its packs may still be open; [`DomainWriter::finish`] closes them.
    pub async fn finish(mut self) -> Result<PendingStream, PipelineError> {
        while self.absorb_next().await? {}
        self.keep().await?;
        self.pending.close_group(&self.domain).await?;
        Ok(self.pending)
    }
}

fn cut_tail(slices: &mut Vec<OpenSlice>, mut tail: u64) -> Result<(), PipelineError> {
    while tail > 0 {
        let Some(last) = slices.last_mut() else {
            return Err(PipelineError::Bug("a piece is shorter than its tail"));
        };
        let cut = u64::from(last.take).min(tail);
        tail -= cut;
        // At most `take`, so it fits in 32 bits.
        last.take -= u32::try_from(cut).unwrap_or(last.take);
        if last.take == 0 {
            slices.pop();
        }
    }
    Ok(())
}

async fn run(domain: &Arc<DomainWriter>, piece: Piece) -> Result<Done, PipelineError> {
    let Piece { starts_group, job, .. } = piece;
    let (key, codec, known) = (domain.key().clone(), domain.engine().codec().clone(), domain.known().clone());
    let workers = domain.engine().runtime().workers;
    let prepared = workers.run(move || {
        let Output { fresh, runs, members } = job().map_err(PipelineError::Source)?;
        let prepare = || prepare(ChunkKind::Data, &fresh, &key, &codec, &known);
        let prepared = if fresh.is_empty() { None } else { Some(prepare()?) };
        Ok::<_, PipelineError>((prepared, runs, members))
    });
    let (prepared, runs, members) = prepared.await?;
    kill_point("backup.piece.prepared");
    let (chunk, new_bytes) = match prepared {
        None => (None, 0),
        Some(Prepared::Known(chunk)) => (Some(chunk), 0),
        Some(Prepared::Frame(frame)) => {
            let plain = frame.plain;
            (Some(domain.packer().append(frame).await?), u64::from(plain))
        }
    };
    let mut slices = Vec::with_capacity(runs.len());
    for run in runs {
        match run {
            Run::Known(known) => slices.extend(known.into_iter().map(OpenSlice::from)),
            Run::Fresh { skip, take } => {
                let chunk = chunk.clone().ok_or(PipelineError::Bug("a run of new bytes without any"))?;
                if skip.checked_add(take).is_none_or(|end| end > chunk.plain) || take == 0 {
                    return Err(PipelineError::Bug("a run outside of its chunk"));
                }
                slices.push(OpenSlice { chunk, skip, take });
            }
        }
    }
    Ok(Done { starts_group, slices, members, new_bytes })
}

impl PendingStream {
    fn new() -> Self {
        Self {
            length: 0,
            members: 0,
            hash: StreamHasher::default(),
            part: OpenPart::default(),
            waiting: VecDeque::new(),
            waiting_slices: 0,
            parts: Vec::new(),
            text: Vec::new(),
            text_start: 0,
            text_first: None,
            catalog: Vec::new(),
            caching: false,
            group: OpenGroup::default(),
            groups: Vec::new(),
            earlier: std::collections::HashMap::new(),
        }
    }

    async fn absorb(&mut self, done: Done, domain: &DomainWriter) -> Result<(), PipelineError> {
        if done.starts_group {
            self.close_group(domain).await?;
        }
        for member in done.members {
            self.take_member(member, domain).await?;
        }
        for slice in done.slices {
            self.length += u64::from(slice.take);
            self.take_slice(slice);
            if self.part.text > PART_TEXT {
                self.close_part(None);
                self.write_parts(domain).await?;
            }
        }
        if self.waiting_slices > MAX_WAITING {
            domain.packer().flush(PackClass::Data).await?;
            domain.packer().settle().await?;
            self.write_parts(domain).await?;
        }
        Ok(())
    }

    async fn take_member(&mut self, member: Member, domain: &DomainWriter) -> Result<(), PipelineError> {
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

    async fn close_group(&mut self, domain: &DomainWriter) -> Result<(), PipelineError> {
        self.close_catalog(domain).await?;
        let group = ClosedGroup { key: self.group.key, members: std::mem::take(&mut self.group.members) };
        let closes = (self.caching && !group.members.is_empty()).then_some(group);
        self.close_part(closes);
        self.write_parts(domain).await
    }

    async fn close_catalog(&mut self, domain: &DomainWriter) -> Result<(), PipelineError> {
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
    async fn write_parts(&mut self, domain: &DomainWriter) -> Result<(), PipelineError> {
        while let Some(part) = self.waiting.front() {
            let resolve = |slice: &OpenSlice| {
                let place = place(&slice.chunk)?;
                Some(Slice { place, id: slice.chunk.id, skip: slice.skip, take: slice.take })
            };
            let Some(slices) = part.slices.iter().map(resolve).collect::<Option<Vec<Slice>>>() else {
                return Ok(());
            };
            let Some(part) = self.waiting.pop_front() else { return Ok(()) };
            self.waiting_slices -= slices.len();
            for slice in &slices {
                self.hash.update(slice);
                domain.need(slice.place.pack);
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
    ) -> Result<(), PipelineError> {
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
        let object = self.store_group(Group { members, slices }, domain).await?;
        self.groups.push(Some(GroupRef { key, object }));
        Ok(())
    }

    async fn store_group(&self, group: Group, domain: &DomainWriter) -> Result<ObjectHash, PipelineError> {
        let bytes = group.to_bytes();
        let plain = ObjectHash(*blake3::hash(&bytes).as_bytes());
        if let Some(object) = self.earlier.get(&plain) {
            return Ok(*object);
        }
        let sealed = Group::seal(&bytes, &domain.target().path, domain.id(), domain.key())?;
        domain.engine().put(&sealed).await?;
        domain.engine().reporter().stored(sealed.bytes().len() as u64, false);
        kill_point("backup.cache.group.stored");
        Ok(sealed.hash())
    }

    /// Writes the parts that waited for data packs to be sealed.
    pub(super) async fn settle(mut self, domain: &DomainWriter) -> Result<Self, PipelineError> {
        self.write_parts(domain).await?;
        if self.waiting.is_empty() {
            Ok(self)
        } else {
            Err(PipelineError::Bug("a part whose packs are open"))
        }
    }

    /// Converts chunk references to places. All metadata packs must be sealed.
    pub(super) fn finish(self, domain: &DomainWriter) -> Result<WrittenStream, PipelineError> {
        let parts = self.parts.iter().map(|(chunk, start)| domain.part(chunk, *start, None));
        let catalog = self.catalog.into_iter().map(|(chunk, start, first)| domain.part(&chunk, start, first));
        Ok(WrittenStream {
            length: self.length,
            members: self.members,
            hash: self.hash.finish(),
            parts: parts.collect::<Result<_, _>>()?,
            catalog: catalog.collect::<Result<_, _>>()?,
            cache: self.caching.then(|| self.groups.into_iter().flatten().collect()),
        })
    }
}

impl std::fmt::Debug for StreamWriter {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "StreamWriter({} B so far)", self.pending.length)
    }
}

impl std::fmt::Debug for PendingStream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "PendingStream({} B)", self.length)
    }
}
