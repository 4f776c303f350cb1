//! Writes a stream: pieces are prepared in parallel and their results are added in order.

mod pending;

use std::collections::HashMap;
use std::sync::Arc;

use futures::stream::FuturesOrdered;
use futures::{FutureExt, StreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::piece::{OpenSlice, Piece, PieceOutput, PieceRun, PreparedChunk, StreamMember, hash_and_compress};
use super::{PipelineError, domain::DomainWriter, joined};
use crate::format::{derive::ChunkKind, ids::ObjectHash, pack::PackClass};
use crate::report::event::Meter;
use crate::runtime::kill_point;
pub use pending::{PendingStream, WrittenStream};

/// The most slices of one member that can still be rolled back: a file of some 8 GiB.
const MAX_TENTATIVE: usize = 1 << 13;

/// The most pieces of a stream, for each worker, that are being prepared or wait for an earlier one.
const MAX_PIECES: usize = 4;

/// The result of the task that prepares a piece.
type PieceResult = Result<Result<PreparedPiece, PipelineError>, tokio::task::JoinError>;

/// Writes a stream piece by piece.
pub struct StreamWriter {
    domain: Arc<DomainWriter>,
    running: FuturesOrdered<AbortOnDropHandle<Result<PreparedPiece, PipelineError>>>,
    pending: PendingStream,
    tentative: Option<TentativePieces>,
    meter: Option<Arc<Meter>>,
}

/// The pieces of a member whose file is still being read; they can be rolled back.
#[derive(Default)]
struct TentativePieces {
    /// The number of earlier pieces that are still being prepared.
    before: usize,
    pieces: Vec<PreparedPiece>,
    slices: usize,
}

/// A prepared piece, whose chunks are assigned to packs.
struct PreparedPiece {
    starts_group: bool,
    slices: Vec<OpenSlice>,
    members: Vec<StreamMember>,
    new_bytes: u64,
}

/// The result of writing a domain in a run.
#[derive(Debug)]
pub struct WrittenDomain {
    /// The streams, in the order in which they were passed in.
    pub streams: Vec<WrittenStream>,
    /// The index objects of this run.
    pub index: Vec<ObjectHash>,
    /// The number of packs that this run stored.
    pub packs: u64,
}

impl DomainWriter {
    /// Starts a new stream.
    #[must_use]
    pub fn stream(self: &Arc<Self>) -> StreamWriter {
        StreamWriter::new(self.clone())
    }

    /// Finishes the domain. When this returns, everything is stored and acknowledged.
    pub async fn finish(&self, streams: Vec<PendingStream>) -> Result<WrittenDomain, PipelineError> {
        self.packer().flush(PackClass::Data).await?;
        self.packer().wait_for_uploads().await?;
        let mut listed = Vec::with_capacity(streams.len());
        for stream in streams {
            listed.push(stream.write_last_parts(self).await?);
        }
        kill_point("backup.lists.settled");
        let (index, packs) = self.packer().finish().await?;
        let streams = listed.into_iter().map(PendingStream::finish).collect::<Result<_, _>>()?;
        Ok(WrittenDomain { streams, index, packs })
    }
}

impl StreamWriter {
    fn new(domain: Arc<DomainWriter>) -> Self {
        Self {
            domain,
            running: FuturesOrdered::new(),
            pending: PendingStream::default(),
            tentative: None,
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
    pub fn with_cache(mut self, earlier: HashMap<ObjectHash, ObjectHash>) -> Self {
        self.pending.caching = true;
        self.pending.earlier = earlier;
        self
    }

    /// Adds a stored group of the last run to the scan cache.
    pub fn add_cached_group(&mut self, plaintext: &[u8], object: ObjectHash) {
        self.pending.earlier.insert(ObjectHash(*blake3::hash(plaintext).as_bytes()), object);
    }

    /// Adds the next piece. Waits while enough pieces are being prepared.
    pub async fn push(&mut self, piece: Piece) -> Result<(), PipelineError> {
        while let Some(Some(result)) = self.running.next().now_or_never() {
            self.absorb(result).await?;
        }
        // A short piece that follows a long one waits for its turn. Others are prepared meanwhile, so that
        // no processor waits for the long one.
        while self.running.len() >= self.domain.context().runtime().workers.count() * MAX_PIECES {
            self.absorb_next().await?;
        }
        let slot = self.domain.context().piece_slot().await?;
        // For the source bytes, their frames and the copies for verification.
        let permit = self.domain.context().jobs.take(piece.reserve.saturating_mul(2)).await?;
        let domain = self.domain.clone();
        self.running.push_back(AbortOnDropHandle::new(tokio::spawn(async move {
            let piece = run(&domain, piece).await;
            drop((permit, slot));
            piece
        })));
        Ok(())
    }

    async fn absorb_next(&mut self) -> Result<bool, PipelineError> {
        let Some(result) = self.running.next().await else { return Ok(false) };
        self.absorb(result).await?;
        Ok(true)
    }

    async fn absorb(&mut self, result: PieceResult) -> Result<(), PipelineError> {
        let piece = joined(result, PipelineError::Ended)?;
        if let Some(meter) = &self.meter {
            meter.add_bytes(piece.slices.iter().map(|slice| u64::from(slice.take)).sum());
            meter.add_new_bytes(piece.new_bytes);
        }
        match &mut self.tentative {
            Some(tentative) if tentative.before > 0 => tentative.before -= 1,
            Some(tentative) => {
                tentative.slices += piece.slices.len();
                tentative.pieces.push(piece);
                if tentative.slices > MAX_TENTATIVE {
                    self.accept().await?;
                }
                return Ok(());
            }
            None => {}
        }
        self.pending.absorb(piece, &self.domain).await
    }

    /// Begins a section whose pieces can be rolled back until [`Self::accept`].
    pub fn begin_tentative(&mut self) {
        self.tentative = Some(TentativePieces { before: self.running.len(), ..TentativePieces::default() });
    }

    /// Adds the pieces since [`Self::begin_tentative`] to the stream.
    pub async fn accept(&mut self) -> Result<(), PipelineError> {
        for piece in self.tentative.take().into_iter().flat_map(|tentative| tentative.pieces) {
            self.pending.absorb(piece, &self.domain).await?;
        }
        Ok(())
    }

    /// Rolls back the pieces since [`Self::begin_tentative`], but keeps the first one without its last
    /// `tail` bytes. The chunks stay in their packs, where the next attempt finds most of them.
    /// Returns false and rolls nothing back if more was pushed than the limit.
    pub async fn roll_back(&mut self, tail: u64) -> Result<bool, PipelineError> {
        while self.tentative.is_some() && self.absorb_next().await? {}
        let Some(tentative) = self.tentative.take() else { return Ok(false) };
        let Some(mut first) = tentative.pieces.into_iter().next() else { return Ok(true) };
        cut_tail(&mut first.slices, tail)?;
        self.pending.absorb(first, &self.domain).await?;
        Ok(true)
    }

    /// Ends the stream. Its packs may still be open; [`DomainWriter::finish`] closes them.
    pub async fn finish(mut self) -> Result<PendingStream, PipelineError> {
        while self.absorb_next().await? {}
        self.accept().await?;
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

async fn run(domain: &Arc<DomainWriter>, piece: Piece) -> Result<PreparedPiece, PipelineError> {
    let Piece { starts_group, job, .. } = piece;
    let (key, codec, index) =
        (domain.key().clone(), domain.context().codec.clone(), domain.chunk_index().clone());
    let workers = domain.context().runtime().workers;
    let prepared = workers.run(move || {
        let PieceOutput { data, runs, members } = job().map_err(PipelineError::Source)?;
        let prepare = || hash_and_compress(ChunkKind::Data, &data, &key, &codec, &index);
        let prepared = if data.is_empty() { None } else { Some(prepare()?) };
        Ok::<_, PipelineError>((prepared, runs, members))
    });
    let (prepared, runs, members) = prepared.await?;
    kill_point("backup.piece.prepared");
    let (chunk, new_bytes) = match prepared {
        None => (None, 0),
        Some(PreparedChunk::Stored(chunk)) => (Some(chunk), 0),
        Some(PreparedChunk::New(frame)) => {
            let plain = frame.plain;
            (Some(domain.packer().append(frame).await?), u64::from(plain))
        }
    };
    let mut slices = Vec::with_capacity(runs.len());
    for run in runs {
        match run {
            PieceRun::Known(known) => slices.extend(known.into_iter().map(OpenSlice::from)),
            PieceRun::New { skip, take } => {
                let chunk = chunk.clone().ok_or(PipelineError::Bug("a run of new bytes without any"))?;
                if skip.checked_add(take).is_none_or(|end| end > chunk.plain) || take == 0 {
                    return Err(PipelineError::Bug("a run outside of its chunk"));
                }
                slices.push(OpenSlice { chunk, skip, take });
            }
        }
    }
    Ok(PreparedPiece { starts_group, slices, members, new_bytes })
}
