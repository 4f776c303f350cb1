//! Turns groups of members into pieces of the stream, and reuses the chunks of unchanged members.

use std::collections::HashMap;
use std::sync::Arc;

use super::super::boundary::{Boundary, BoundaryChooser};
use super::groups::MemberGroup;
use super::piece::{PlannedMember, VolumeContext};
use super::scan_cache::ScanCacheReader;
use crate::format::epoch::{Parameters, Sizes};
use crate::format::list::Slice;
use crate::format::pack::MAX_CHUNK;
use crate::format::tar::END;
use crate::pipeline::PipelineError;
use crate::pipeline::chunker::ChunkerParams;
use crate::pipeline::domain::DomainWriter;
use crate::pipeline::piece::{Piece, PieceOutput};
use crate::pipeline::stream::{PendingStream, StreamWriter};
use crate::runtime::Buffer;

/// New bytes from which on a piece is sent at a segment's end.
const ENOUGH: u64 = 256 << 10;
/// Most members in a piece.
const MAX_MEMBERS: usize = 4096;

/// Turns groups into pieces.
pub(super) struct PieceBuilder {
    pub(super) context: VolumeContext,
    pub(super) domain: Arc<DomainWriter>,
    pub(super) stream: StreamWriter,
    pub(super) cuts: ChunkerParams,
    segment: Sizes,
    scan_cache: ScanCacheReader,
}

/// A piece that is being built.
#[derive(Default)]
pub(super) struct OpenPiece {
    pub(super) planned: Vec<PlannedMember>,
    /// Number of bytes that are read anew.
    pub(super) fresh: u64,
    starts_group: bool,
}

impl PieceBuilder {
    pub(super) fn new(
        context: VolumeContext,
        domain: Arc<DomainWriter>,
        parameters: &Parameters,
        scan_cache: ScanCacheReader,
    ) -> Self {
        let stream = domain.stream().with_cache(HashMap::new()).with_meter(context.meter.clone());
        let (chunk, size) = (parameters.chunk, |bytes| usize::try_from(bytes).unwrap_or(usize::MAX));
        let cuts = ChunkerParams::new(size(chunk.min), size(chunk.average), size(chunk.max));
        Self { context, domain, stream, cuts, segment: parameters.segment, scan_cache }
    }

    pub(super) async fn add_group(&mut self, group: MemberGroup) -> Result<(), PipelineError> {
        let Some(first) = group.first() else { return Ok(()) };
        let key = self.context.key.cut(&first.entry.path);
        let unchanged = self.find_unchanged(&group, key).await?;
        let mut boundaries = BoundaryChooser::new(self.segment);
        let mut open = OpenPiece { starts_group: true, ..OpenPiece::default() };
        for (member, slices) in group.into_iter().zip(unchanged) {
            let (length, header) = (member.encoded_len(), member.before_content());
            let boundary = boundaries.boundary_before(&self.context.key, &member.entry.path, length, header);
            let full = open.fresh + length > self.segment.max || open.planned.len() >= MAX_MEMBERS;
            if !open.planned.is_empty() && ((boundary > Boundary::None && open.fresh >= ENOUGH) || full) {
                self.push(&mut open).await?;
            }
            match slices {
                Some(slices) => open.planned.push(PlannedMember::Unchanged { member, slices }),
                None if boundaries.is_large(length) => self.add_large_file(*member, &mut open).await?,
                None => {
                    open.fresh += length;
                    open.planned.push(PlannedMember::Read(member));
                }
            }
        }
        self.push(&mut open).await
    }

    /// Returns, for each member of a group, the slices that hold it if it is unchanged. A chunk of
    /// which less than half is still needed is not reused: its members are stored anew, so that packs
    /// do not fill with unused data.
    async fn find_unchanged(
        &mut self,
        group: &MemberGroup,
        key: u64,
    ) -> Result<Vec<Option<Vec<Slice>>>, PipelineError> {
        if self.scan_cache.is_empty() {
            return Ok(vec![None; group.len()]);
        }
        self.scan_cache.enter(key).await?;
        let mut found = Vec::with_capacity(group.len());
        let mut live: HashMap<_, (u64, u32)> = HashMap::new();
        for member in group {
            let slices = self.scan_cache.find(&member.digest, member.encoded_len()).await?;
            for slice in slices.iter().flatten() {
                live.entry(slice.id).or_insert((0, slice.location.plain)).0 += u64::from(slice.take);
            }
            found.push(slices);
        }
        for (plaintext, object) in self.scan_cache.take_loaded_groups() {
            self.stream.add_cached_group(&plaintext, object);
        }
        let worth =
            |slice: &Slice| live.get(&slice.id).is_none_or(|(live, plain)| live * 2 >= u64::from(*plain));
        Ok(found.into_iter().map(|slices| slices.filter(|slices| slices.iter().all(worth))).collect())
    }

    /// Sends the piece, unless it is empty.
    pub(super) async fn push(&mut self, open: &mut OpenPiece) -> Result<(), PipelineError> {
        let OpenPiece { planned, fresh, starts_group } = std::mem::take(open);
        if planned.is_empty() {
            open.starts_group = starts_group;
            return Ok(());
        }
        let context = self.context.clone();
        let started = self.domain.context().runtime().clock.now();
        let buffers = self.domain.context().buffers().clone();
        let capacity = usize::try_from(fresh).unwrap_or(usize::MAX).min(MAX_CHUNK);
        let job = Box::new(move || {
            let buffer = if capacity > 0 { buffers.take(capacity) } else { Buffer::default() };
            context.run(planned, started, buffer)
        });
        self.stream.push(Piece { starts_group, reserve: fresh.max(4096), job }).await
    }

    /// Ends the stream with two blocks of zeros, in a group of their own: the groups of the scan
    /// cache hold exactly their members' bytes.
    pub(super) async fn end(mut self) -> Result<PendingStream, PipelineError> {
        let job = Box::new(|| Ok(PieceOutput::of_bytes(END.to_vec(), Vec::new())));
        self.stream.push(Piece { starts_group: true, reserve: 4096, job }).await?;
        self.stream.finish().await
    }
}
