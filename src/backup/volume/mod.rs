//! Stores a folder as one stream: walks, groups, compares with the last run, reads what changed.

mod earlier;
mod findings;
mod job;

use std::collections::HashMap;
use std::sync::Arc;

use tokio::sync::mpsc;

use crate::format::body::Gap;
use crate::format::epoch::{Parameters, Sizes};
use crate::format::ids::ObjectHash;
use crate::format::list::Slice;
use crate::pipeline::PipelineError;
use crate::pipeline::chunker::Cuts;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::piece::{Output, Piece};
use crate::pipeline::stream::{PendingStream, StreamWriter};
use crate::report::event::Meter;
use crate::source::volume::{ATTEMPTS, Content, GapKind, Member, Reading, Volume, Walked};

use super::cutter::{Cut, Cutter};
pub use earlier::Earlier;
use findings::Findings;
pub use findings::Tally;
use job::{Context, Planned};

/// New bytes from which on a piece is sent at a segment's end.
const ENOUGH: u64 = 256 << 10;
/// Most members in a piece.
const MAX_MEMBERS: usize = 4096;

/// A volume's stream and its gaps and notes.
#[derive(Debug)]
pub struct WrittenVolume {
    /// The stream of tar members.
    pub stream: PendingStream,
    /// Entries that could not be stored.
    pub gaps: Vec<Gap>,
    /// Entries left out by rule.
    pub notes: Vec<Gap>,
    /// Number of entries left out, by code.
    pub left_out: Tally,
}

/// Neighbouring members; list, catalog and cache are cut at its ends.
struct Group {
    members: Vec<(Member, [u8; 16])>,
}

/// Stores a volume as one stream in `domain`.
pub async fn write(
    volume: Volume,
    domain: &Arc<DomainWriter>,
    parameters: &Parameters,
    earlier: Earlier,
    meter: Arc<Meter>,
) -> Result<WrittenVolume, PipelineError> {
    let findings = Findings::default();
    let context = Context {
        key: domain.key().clone(),
        parameters: Arc::new(volume.parameters()),
        volume,
        findings: findings.clone(),
        meter: meter.clone(),
    };
    let (sender, mut groups) = mpsc::channel(1);
    let walk = walk(context.clone(), parameters.segment, sender, meter.clone());
    let workers = domain.engine().runtime().workers;
    let walk = async {
        match workers {
            // One thread: the walk ends before its groups are taken. For small trees in tests.
            crate::runtime::Workers::Inline => walk_inline(walk).await,
            crate::runtime::Workers::Threads { .. } => workers.run(move || walk.run()).await,
        }
    };
    let stream = domain.stream().with_cache(HashMap::new()).with_meter(meter);
    let chunk = parameters.chunk;
    let cuts = Cuts::new(to_usize(chunk.min), to_usize(chunk.average), to_usize(chunk.max));
    let segment = parameters.segment;
    let mut driver = Driver { context, domain: domain.clone(), stream, cuts, segment, earlier };
    // This future owns the receiver. When it ends early, the walk finds the channel closed and ends too.
    let drive = async move {
        while let Some(group) = groups.recv().await {
            driver.group(group).await?;
        }
        driver.end().await
    };
    let ((), stream) = futures::join!(walk, drive);
    let (gaps, notes, left_out) = findings.finish();
    Ok(WrittenVolume { stream: stream?, gaps, notes, left_out })
}

fn to_usize(bytes: u64) -> usize {
    usize::try_from(bytes).unwrap_or(usize::MAX)
}

/// The walk, to be run on a thread of its own.
struct Walking {
    context: Context,
    segment: Sizes,
    groups: mpsc::Sender<Group>,
    meter: Arc<Meter>,
}

fn walk(context: Context, segment: Sizes, groups: mpsc::Sender<Group>, meter: Arc<Meter>) -> Walking {
    Walking { context, segment, groups, meter }
}

async fn walk_inline(walking: Walking) {
    let Walking { context, segment, groups, meter } = walking;
    let (sender, mut receiver) = mpsc::unbounded_channel();
    collect(&context, segment, &meter, |group| sender.send(group).is_ok());
    drop(sender);
    while let Some(group) = receiver.recv().await {
        if groups.send(group).await.is_err() {
            return;
        }
    }
}

impl Walking {
    fn run(self) {
        let Self { context, segment, groups, meter } = self;
        collect(&context, segment, &meter, |group| groups.blocking_send(group).is_ok());
    }
}

/// Walks, and passes groups to `take` until it returns false.
fn collect(context: &Context, segment: Sizes, meter: &Meter, mut take: impl FnMut(Group) -> bool) {
    let mut cutter = Cutter::new(segment);
    let mut members: Vec<(Member, [u8; 16])> = Vec::new();
    let mut walk = context.volume.walk();
    for walked in walk.by_ref() {
        match walked {
            Walked::Skipped(skipped) => context.findings.skip(&skipped.path, skipped.why),
            Walked::Gap(gap) => context.findings.gap(&gap.path, &gap.kind),
            Walked::Member(member) => {
                let length = member.encoded_len();
                meter.add_total(1);
                meter.add_bytes_total(length);
                let cut = cutter.before(&context.key, &member.path, length, member.before_content());
                if cut == Cut::Group && !members.is_empty() {
                    let group = Group { members: std::mem::take(&mut members) };
                    if !take(group) {
                        return;
                    }
                }
                let digest = context.digest(&member);
                members.push((*member, digest));
            }
        }
    }
    for (kind, tallied) in walk.left_out().iter() {
        let example = tallied.examples.first().map_or(&b""[..], Vec::as_slice);
        context.findings.left_out(*kind, tallied.count, example);
    }
    if !members.is_empty() {
        take(Group { members });
    }
}

/// Turns groups into pieces.
struct Driver {
    context: Context,
    domain: Arc<DomainWriter>,
    stream: StreamWriter,
    cuts: Cuts,
    segment: Sizes,
    earlier: Earlier,
}

/// A piece that is being built.
#[derive(Default)]
struct Open {
    planned: Vec<Planned>,
    fresh: u64,
    starts_group: bool,
}

impl Driver {
    async fn group(&mut self, group: Group) -> Result<(), PipelineError> {
        let Some((first, _)) = group.members.first() else { return Ok(()) };
        let key = self.context.key.cut(&first.path);
        let known = self.known(&group, key).await?;
        let mut cutter = Cutter::new(self.segment);
        let mut open = Open { starts_group: true, ..Open::default() };
        for ((member, digest), slices) in group.members.into_iter().zip(known) {
            let (length, header) = (member.encoded_len(), member.before_content());
            let cut = cutter.before(&self.context.key, &member.path, length, header);
            let full = open.fresh + length > self.segment.max || open.planned.len() >= MAX_MEMBERS;
            if !open.planned.is_empty() && ((cut > Cut::None && open.fresh >= ENOUGH) || full) {
                self.push(&mut open).await?;
            }
            match slices {
                Some(slices) => {
                    open.planned.push(Planned::Known { member: Box::new(member), slices, digest })
                }
                None if cutter.is_large(length) => self.large(member, &mut open).await?,
                None => {
                    open.fresh += length;
                    open.planned.push(Planned::Read(Box::new(member)));
                }
            }
        }
        self.push(&mut open).await
    }

    /// Returns, for each member of a group, the slices that hold it if it is unchanged. A chunk of
    /// which less than half is still needed is not reused: its members are stored anew, so that packs
    /// do not fill with unused data.
    async fn known(&mut self, group: &Group, key: u64) -> Result<Vec<Option<Vec<Slice>>>, PipelineError> {
        if self.earlier.is_empty() {
            return Ok(vec![None; group.members.len()]);
        }
        self.earlier.enter(key).await?;
        let mut found = Vec::with_capacity(group.members.len());
        let mut live: HashMap<_, (u64, u32)> = HashMap::new();
        for (member, digest) in &group.members {
            let slices = self.earlier.find(digest, member.encoded_len()).await?;
            for slice in slices.iter().flatten() {
                live.entry(slice.id).or_insert((0, slice.place.plain)).0 += u64::from(slice.take);
            }
            found.push(slices);
        }
        for (plaintext, object) in self.earlier.take_fresh() {
            self.stream.know_group(&plaintext, object);
        }
        let worth =
            |slice: &Slice| live.get(&slice.id).is_none_or(|(live, plain)| live * 2 >= u64::from(*plain));
        Ok(found.into_iter().map(|slices| slices.filter(|slices| slices.iter().all(worth))).collect())
    }

    async fn push(&mut self, open: &mut Open) -> Result<(), PipelineError> {
        let Open { planned, fresh, starts_group } = std::mem::take(open);
        if planned.is_empty() {
            open.starts_group = starts_group;
            return Ok(());
        }
        let context = self.context.clone();
        let started = self.domain.engine().runtime().clock.now();
        let job = Box::new(move || context.run(planned, started));
        self.stream.push(Piece { starts_group, reserve: fresh.max(4096), job }).await
    }

    /// Stores a large file: its header ends the piece before, its content is cut by content. A file
    /// that changes while it is read is taken back from the stream and read again.
    async fn large(&mut self, mut member: Member, open: &mut Open) -> Result<(), PipelineError> {
        let path = member.path.clone();
        for attempt in 1..=ATTEMPTS {
            let started = self.domain.engine().runtime().clock.now();
            let Some(reading) = self.open_large(member).await else { break };
            let head = head_of(reading.member());
            let head_length = head.len() as u64;
            open.fresh += head_length;
            open.planned.push(Planned::Bytes(head));
            self.stream.hold();
            self.push(open).await?;
            let Some((changed, last)) = self.content(reading, &path, started).await? else { break };
            if attempt < ATTEMPTS && self.stream.take_back(head_length).await? {
                // Progress counts the bytes that are read, so the total grows.
                self.context.meter.add_bytes_total(changed.encoded_len());
                member = changed;
                continue;
            }
            self.context.findings.gap(&path, &GapKind::Changed);
            self.last(&changed, Content::Changed, last, started).await?;
            break;
        }
        self.stream.keep().await
    }

    /// Opens a large file; `None` if it cannot be opened, which is recorded.
    async fn open_large(&self, member: Member) -> Option<Reading> {
        let path = member.path.clone();
        let carries = member.stat.has_links();
        let volume = self.context.volume.clone();
        let gap = match self.workers().run(move || volume.read(member)).await {
            Ok(reading) => return Some(reading),
            Err(gap) => gap,
        };
        self.context.findings.lose(&path, &gap, carries);
        None
    }

    /// Pushes the content of a file. Returns the member and its last chunk if the file changed
    /// meanwhile: the caller decides whether to keep them.
    async fn content(
        &mut self,
        mut reading: Reading,
        path: &[u8],
        started: jiff::Timestamp,
    ) -> Result<Option<(Member, Vec<u8>)>, PipelineError> {
        let member = reading.member();
        let mut sent = to_i64(member.before_content());
        let padding = to_usize(member.encoded_len() - member.before_content() - member.content);
        let (key, cuts) = (self.context.key.clone(), self.cuts);
        let mut buffer: Vec<u8> = Vec::new();
        loop {
            let key = key.clone();
            let (back, read) = self
                .workers()
                .run(move || {
                    let result = next_chunk(&mut reading, &mut buffer, &cuts, key.gear());
                    ((reading, buffer), result)
                })
                .await;
            (reading, buffer) = back;
            // After a read error in the middle the member keeps its declared length, and is recorded
            // as a gap.
            let mut chunk = match read {
                Ok(chunk) => chunk,
                Err(gap) => {
                    let left = to_i64(reading.member().encoded_len()) - sent - padding as i64;
                    self.context.findings.gap(path, &gap);
                    self.fill(left, padding, reading.member().clone(), sent).await?;
                    return Ok(None);
                }
            };
            if !buffer.is_empty() {
                sent += to_i64(chunk.len() as u64);
                self.stream.push(Piece::of_bytes(chunk, Vec::new())).await?;
                continue;
            }
            chunk.resize(chunk.len() + padding, 0);
            let member = reading.member().clone();
            let content = match self.workers().run(move || reading.finish()).await {
                Ok((_, Content::Changed)) => return Ok(Some((member, chunk))),
                Ok((_, content)) => content,
                Err(gap) => {
                    self.context.findings.gap(path, &gap);
                    Content::Changed
                }
            };
            return self.last(&member, content, chunk, started).await.map(|()| None);
        }
    }

    /// Pushes the end of a large file together with its line in the catalog.
    async fn last(
        &mut self,
        member: &Member,
        content: Content,
        chunk: Vec<u8>,
        started: jiff::Timestamp,
    ) -> Result<(), PipelineError> {
        let sent = to_i64(member.encoded_len()) - to_i64(chunk.len() as u64);
        let digest = self.context.settled_digest(member, content, started);
        let record = job::record(member, -sent, digest);
        self.context.meter.add_done(1);
        self.stream.push(Piece::of_bytes(chunk, vec![record])).await
    }

    fn workers(&self) -> crate::runtime::Workers {
        self.domain.engine().runtime().workers
    }

    /// Pushes zeros in place of bytes that could not be read, so that the stream stays well-formed.
    async fn fill(
        &mut self,
        mut left: i64,
        padding: usize,
        member: Member,
        mut sent: i64,
    ) -> Result<(), PipelineError> {
        let block = to_i64(1 << 20);
        while left > block {
            self.stream.push(Piece::of_bytes(vec![0; 1 << 20], Vec::new())).await?;
            left -= block;
            sent += block;
        }
        let last = vec![0; usize::try_from(left).unwrap_or(0) + padding];
        let record = job::record(&member, -sent, crate::format::cache::NO_DIGEST);
        self.stream.push(Piece::of_bytes(last, vec![record])).await
    }

    /// Ends the stream with two blocks of zeros, in a group of their own: the groups of the scan
    /// cache hold exactly their members' bytes.
    async fn end(mut self) -> Result<PendingStream, PipelineError> {
        let job = Box::new(|| Ok(Output::of_bytes(vec![0; 1024], Vec::new())));
        self.stream.push(Piece { starts_group: true, reserve: 4096, job }).await?;
        self.stream.finish().await
    }
}

/// Returns the bytes before a member's content in the stream.
fn head_of(member: &Member) -> Vec<u8> {
    [member.header.as_slice(), &member.map].concat()
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Fills `buffer` and removes the next chunk from it; the buffer is empty after the last.
fn next_chunk(
    reading: &mut Reading,
    buffer: &mut Vec<u8>,
    cuts: &Cuts,
    gear: &[u64; 256],
) -> Result<Vec<u8>, GapKind> {
    let have = buffer.len();
    // One byte more than a chunk can have, so that an empty rest means the end.
    buffer.resize(cuts.max() + 1, 0);
    let got = reading.next_block(&mut buffer[have..])?;
    buffer.truncate(have + got);
    let length = cuts.find(gear, buffer);
    // A copy of its own length: the buffer is as long as the longest chunk, and is reused.
    let chunk = buffer[..length].to_vec();
    buffer.drain(..length);
    Ok(chunk)
}

/// Opens the scan cache under `root`.
pub async fn open_earlier(
    domain: &Arc<DomainWriter>,
    root: Option<ObjectHash>,
) -> Result<Earlier, PipelineError> {
    let engine = domain.engine();
    let earlier = Earlier::open(
        engine.store().clone(),
        domain.target().path,
        domain.id(),
        domain.key().clone(),
        domain.known().clone(),
        engine.reporter().clone(),
        root,
    );
    Ok(earlier.await?)
}
