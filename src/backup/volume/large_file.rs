//! Stores large files, whose content is cut into chunks of its own.

use jiff::Timestamp;

use super::piece::{PlannedMember, catalog_member};
use super::piece_builder::{OpenPiece, PieceBuilder};
use crate::format::cache::NO_DIGEST;
use crate::format::tar::{BLOCK, padding};
use crate::pipeline::PipelineError;
use crate::pipeline::chunker::ChunkerParams;
use crate::pipeline::piece::Piece;
use crate::runtime::{Buffer, BufferPool, Workers};
use crate::source::volume::{ATTEMPTS, GapKind, MemberReader, ReadConsistency, VolumeMember};

impl PieceBuilder {
    /// Stores a large file: its header ends the piece before, its content is cut by content. A file
    /// that changes while it is read is taken back from the stream and read again.
    pub(super) async fn add_large_file(
        &mut self,
        mut member: VolumeMember,
        open: &mut OpenPiece,
    ) -> Result<(), PipelineError> {
        let path = member.entry.path.clone();
        for attempt in 1..=ATTEMPTS {
            let started = self.domain.context().runtime().clock.now();
            let Some(reader) = self.open_large_file(member).await else { break };
            let mut head = Vec::new();
            if let Err(gap) = reader.member().append_before_content(&mut head) {
                self.context.findings.record_unstored(&path, &gap, reader.member().stat.has_links());
                break;
            }
            let head_length = head.len() as u64;
            open.fresh += head_length;
            open.planned.push(PlannedMember::Bytes(head));
            self.stream.begin_tentative();
            self.push(open).await?;
            let Some((changed, content, last)) = self.push_content(reader, &path, started).await? else {
                break;
            };
            if attempt < ATTEMPTS && self.stream.roll_back(head_length).await? {
                // Progress counts the bytes that are read, so the total grows.
                self.context.meter.add_bytes_total(changed.encoded_len());
                let Some(next) = self.next_attempt(changed, content).await else { break };
                member = next;
                continue;
            }
            let gap = match content {
                ReadConsistency::EndsAt(_) => GapKind::WrongSize,
                _ => GapKind::Changed,
            };
            self.context.findings.gap(&path, &gap);
            self.push_last(&changed, ReadConsistency::Changed, last, started).await?;
            break;
        }
        self.stream.accept().await
    }

    /// Opens a large file; `None` if it cannot be opened, which is recorded.
    async fn open_large_file(&self, member: VolumeMember) -> Option<MemberReader> {
        let path = member.entry.path.clone();
        let has_links = member.stat.has_links();
        let volume = self.context.volume.clone();
        let gap = match self.workers().run(move || volume.read(member)).await {
            Ok(reader) => return Some(reader),
            Err(gap) => gap,
        };
        self.context.findings.record_unstored(&path, &gap, has_links);
        None
    }

    /// Returns the member to read after a read with this result; `None` if it cannot be made, which is recorded.
    async fn next_attempt(&self, member: VolumeMember, content: ReadConsistency) -> Option<VolumeMember> {
        let path = member.entry.path.clone();
        let has_links = member.stat.has_links();
        let volume = self.context.volume.clone();
        let next = self.workers().run(move || volume.for_next_attempt(member, content)).await;
        next.map_err(|gap| self.context.findings.record_unstored(&path, &gap, has_links)).ok()
    }

    /// Pushes the content of a file. Returns the member, the result of the read and the last chunk if the
    /// file changed meanwhile or has another length: the caller decides whether to keep them.
    async fn push_content(
        &mut self,
        mut reader: MemberReader,
        path: &[u8],
        started: Timestamp,
    ) -> Result<Option<(VolumeMember, ReadConsistency, Buffer)>, PipelineError> {
        let member = reader.member();
        let mut sent = to_i64(member.before_content());
        let padding = padding(member.content);
        let (key, cuts) = (self.context.key.clone(), self.cuts);
        let buffers = self.domain.context().buffers().clone();
        let mut buffer = Buffer::default();
        loop {
            let (key, buffers) = (key.clone(), buffers.clone());
            let (back, read) = self
                .workers()
                .run(move || {
                    let result = next_chunk(&mut reader, &mut buffer, &buffers, &cuts, key.gear());
                    ((reader, buffer), result)
                })
                .await;
            (reader, buffer) = back;
            // After a read error in the middle the member keeps its declared length, and is recorded
            // as a gap.
            let mut chunk = match read {
                Ok(chunk) => chunk,
                Err(gap) => {
                    let left = to_i64(reader.member().encoded_len()) - sent - padding as i64;
                    self.context.findings.gap(path, &gap);
                    self.push_zeros(left, padding, reader.member().clone(), sent).await?;
                    return Ok(None);
                }
            };
            if !buffer.is_empty() {
                sent += to_i64(chunk.len() as u64);
                self.stream.push(Piece::of_bytes(chunk, Vec::new())).await?;
                continue;
            }
            let whole = chunk.len() + padding;
            chunk.resize(whole, 0);
            let member = reader.member().clone();
            let content = match self.workers().run(move || reader.finish()).await {
                Ok((_, ReadConsistency::Stable)) => ReadConsistency::Stable,
                Ok((_, content)) => return Ok(Some((member, content, chunk))),
                Err(gap) => {
                    self.context.findings.gap(path, &gap);
                    ReadConsistency::Changed
                }
            };
            return self.push_last(&member, content, chunk, started).await.map(|()| None);
        }
    }

    /// Pushes the end of a large file together with its line in the catalog.
    async fn push_last(
        &mut self,
        member: &VolumeMember,
        content: ReadConsistency,
        chunk: Buffer,
        started: Timestamp,
    ) -> Result<(), PipelineError> {
        let sent = to_i64(member.encoded_len()) - to_i64(chunk.len() as u64);
        let digest = self.context.settled_digest(member, content, started);
        let record = catalog_member(member, -sent, digest);
        self.context.meter.add_done(1);
        self.stream.push(Piece::of_bytes(chunk, vec![record])).await
    }

    /// Pushes zeros in place of bytes that could not be read, so that the stream stays well-formed.
    async fn push_zeros(
        &mut self,
        mut left: i64,
        padding: usize,
        member: VolumeMember,
        mut sent: i64,
    ) -> Result<(), PipelineError> {
        let block = to_i64(1 << 20);
        while left > block {
            self.stream.push(Piece::of_bytes(vec![0; 1 << 20], Vec::new())).await?;
            left -= block;
            sent += block;
        }
        let last = vec![0; usize::try_from(left).unwrap_or(0) + padding];
        let record = catalog_member(&member, -sent, NO_DIGEST);
        self.stream.push(Piece::of_bytes(last, vec![record])).await
    }

    fn workers(&self) -> Workers {
        self.domain.context().runtime().workers
    }
}

fn to_i64(bytes: u64) -> i64 {
    i64::try_from(bytes).unwrap_or(i64::MAX)
}

/// Fills `buffer` and removes the next chunk from it; the buffer is empty after the last.
///
/// Most chunks fit into a buffer that is a little longer than the average. The others are copied once into one for the
/// longest chunk. What follows the cut is copied into the next buffer.
fn next_chunk(
    reader: &mut MemberReader,
    buffer: &mut Buffer,
    buffers: &BufferPool,
    cuts: &ChunkerParams,
    gear: &[u64; 256],
) -> Result<Buffer, GapKind> {
    let mut known = 0;
    loop {
        let length = cuts.chunk_length_after(gear, buffer, known);
        if length < buffer.len() {
            let rest = &buffer[length..];
            let mut after = buffers.take(capacity(cuts, rest.len()));
            after.extend_from_slice(rest);
            buffer.truncate(length);
            return Ok(std::mem::replace(buffer, after));
        }
        known = length;
        let room = |buffer: &Buffer| buffer.capacity().saturating_sub(BLOCK + buffer.len());
        if room(buffer) == 0 {
            let mut longer = buffers.take(capacity(cuts, known));
            longer.extend_from_slice(buffer);
            *buffer = longer;
        }
        let missing = room(buffer);
        if reader.fill(buffer, missing)? == 0 {
            return Ok(std::mem::take(buffer));
        }
    }
}

/// The bytes of a buffer that holds `held` bytes and more of a chunk, and the padding of a member: enough for most
/// chunks, or for the longest and one byte of the next.
fn capacity(cuts: &ChunkerParams, held: usize) -> usize {
    let usual = cuts.usual();
    BLOCK + if held < usual { usual } else { cuts.max() + 1 }
}
