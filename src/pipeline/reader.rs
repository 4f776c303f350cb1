//! Reads a stream: verified bytes in order, with several chunks fetched ahead in parallel.

use std::collections::{HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{self, BoxStream};
use futures::{Stream, StreamExt};
use tokio_util::task::AbortOnDropHandle;

use super::fetch::{Fetcher, ReadMode, WHOLE_PACK_DIVISOR};
use super::{ReadError, joined};
use crate::format::catalog::{CatalogLine, read_lines};
use crate::format::list::{Part, Slice, read_part};
use crate::format::{body::Stream as StreamBody, derive::ChunkKind, pack_refs::PackName};

/// Reads one stream of a snapshot. Cheap to clone.
#[derive(Debug, Clone)]
pub struct StreamReader {
    fetcher: Arc<Fetcher>,
    stream: Arc<StreamBody>,
    ahead: usize,
}

/// A slice, and how its pack is read.
struct PlannedSlice {
    slice: Slice,
    mode: ReadMode,
}

/// A part of a list: its slices within a range, and how many of each pack's bytes they need.
#[derive(Default)]
struct ListPart {
    slices: Vec<Slice>,
    wanted: HashMap<PackName, u64>,
}

/// The parts whose turn it is not yet. Packs do not end where parts do: how a pack is read depends on what the parts
/// before and after need of it.
#[derive(Default)]
struct PartWindow {
    ahead: VecDeque<ListPart>,
    /// The bytes of each pack that the parts in the window need, and the part before it.
    wanted: HashMap<PackName, u64>,
    before: HashMap<PackName, u64>,
}

/// The most parts of a list that are read at once.
const PARALLEL_PARTS: usize = 2;
/// The most parts in a window: small ones need less than a pack.
const WINDOW_PARTS: usize = 6;
/// The most slices in a window of several parts: a MiB of memory.
const WINDOW_SLICES: usize = 8192;
/// The most slices, beyond those that are being read, whose packs are opened before their turn.
const OPENED_AHEAD: usize = 8;

/// Runs a part of a read. It ends early if the reader is dropped.
fn spawn<T: Send + 'static>(
    job: impl Future<Output = Result<T, ReadError>> + Send + 'static,
) -> impl Future<Output = Result<T, ReadError>> + Send {
    let task = AbortOnDropHandle::new(tokio::spawn(job));
    async move { joined(task.await, ReadError::Ended) }
}

impl StreamReader {
    /// Creates a reader of `stream` that fetches up to `ahead` chunks in parallel.
    #[must_use]
    pub fn new(fetcher: Arc<Fetcher>, stream: StreamBody, ahead: usize) -> Self {
        Self { fetcher, stream: Arc::new(stream), ahead: ahead.max(1) }
    }

    /// Returns the stream's entry in the body.
    #[must_use]
    pub fn body(&self) -> &StreamBody {
        &self.stream
    }

    /// Reads all bytes in order.
    #[must_use]
    pub fn bytes(&self) -> BoxStream<'static, Result<Bytes, ReadError>> {
        self.range(0..self.stream.length)
    }

    /// Reads the bytes of `range` in order, in pieces of at most one chunk.
    #[must_use]
    pub fn range(&self, range: Range<u64>) -> BoxStream<'static, Result<Bytes, ReadError>> {
        let parts = overlapping(&self.stream.parts, self.stream.length, &range);
        let expected = range.end.saturating_sub(range.start);
        let this = self.clone();
        // The next parts are read while the slices of this one are.
        let read = stream::iter(parts).map(move |(part, end)| {
            let (this, range) = (this.clone(), range.clone());
            spawn(async move { this.list_part(&part, end, &range).await })
        });
        let slices = plan(read.buffered(PARALLEL_PARTS)).flat_map(|part| match part {
            Ok(slices) => stream::iter(slices.into_iter().map(Ok)).left_stream(),
            Err(error) => stream::once(async { Err(error) }).right_stream(),
        });
        let pieces = self.read_slices(slices);
        // Received bytes are counted, so that a list that is too short is not taken for the end.
        let state = (pieces, expected, false);
        stream::unfold(state, |(mut pieces, left, ended)| async move {
            if ended {
                return None;
            }
            match pieces.next().await {
                Some(Ok(bytes)) => {
                    let left = left.checked_sub(bytes.len() as u64);
                    let Some(left) = left else { return Some((Err(short()), (pieces, 0, true))) };
                    Some((Ok(bytes), (pieces, left, false)))
                }
                Some(Err(error)) => Some((Err(error), (pieces, left, true))),
                None if left == 0 => None,
                None => Some((Err(short()), (pieces, 0, true))),
            }
        })
        .boxed()
    }

    /// Reads the slices of one part.
    pub async fn slices(&self, part: &Part) -> Result<Vec<Slice>, ReadError> {
        let text = self.fetcher.chunk(ChunkKind::List, part.location(), part.id, ReadMode::Whole).await?;
        read_part(&text).map_err(|error| ReadError::Malformed { what: error.to_string() })
    }

    /// Reads a part, and cuts its slices to `range`.
    async fn list_part(&self, part: &Part, end: u64, range: &Range<u64>) -> Result<ListPart, ReadError> {
        let slices = self.slices(part).await?;
        let total: u64 = slices.iter().map(|slice| u64::from(slice.take)).sum();
        if part.start + total != end {
            return Err(ReadError::Malformed {
                what: "list has a part of another length than its place".into(),
            });
        }
        let mut at = part.start;
        let mut read = ListPart { slices: Vec::with_capacity(slices.len()), ..ListPart::default() };
        for slice in slices {
            let (from, to) = (at, at + u64::from(slice.take));
            at = to;
            if to <= range.start || from >= range.end {
                continue;
            }
            let slice = cut_slice(slice, from, range);
            *read.wanted.entry(slice.location.pack).or_default() += u64::from(slice.location.length);
            read.slices.push(slice);
        }
        Ok(read)
    }

    /// Reads slices in order. Packs are opened before their turn, so that no processor waits for the next one.
    fn read_slices(
        &self,
        slices: impl Stream<Item = Result<PlannedSlice, ReadError>> + Send + 'static,
    ) -> BoxStream<'static, Result<Bytes, ReadError>> {
        let fetcher = self.fetcher.clone();
        let opened = slices.map(move |slice| {
            let fetcher = fetcher.clone();
            spawn(async move {
                let PlannedSlice { slice, mode } = slice?;
                if mode == ReadMode::Whole {
                    fetcher.open_ahead(slice.location.pack).await;
                }
                Ok(PlannedSlice { slice, mode })
            })
        });
        let fetcher = self.fetcher.clone();
        let pieces = opened.buffered(self.ahead + OPENED_AHEAD).map(move |slice| {
            let fetcher = fetcher.clone();
            spawn(async move {
                let PlannedSlice { slice, mode } = slice?;
                let chunk = fetcher.chunk(ChunkKind::Data, slice.location, slice.id, mode).await?;
                let (skip, take) = (slice.skip as usize, slice.take as usize);
                Ok(chunk.slice(skip..skip + take))
            })
        });
        pieces.buffered(self.ahead).boxed()
    }

    /// Reads the catalog's lines in order, each with its member's offset in the stream.
    #[must_use]
    pub fn catalog(&self) -> BoxStream<'static, Result<(u64, CatalogLine), ReadError>> {
        self.catalog_from(0)
    }

    /// Reads the lines of the catalog from chunk number `first` on.
    #[must_use]
    pub fn catalog_from(&self, first: usize) -> BoxStream<'static, Result<(u64, CatalogLine), ReadError>> {
        self.catalog_chunks(first..self.stream.catalog.len())
    }

    /// Reads the lines of some chunks of the catalog, by their numbers, in the order given.
    #[must_use]
    pub fn catalog_chunks(
        &self,
        numbers: impl IntoIterator<Item = usize>,
    ) -> BoxStream<'static, Result<(u64, CatalogLine), ReadError>> {
        let this = self.clone();
        let chunks = numbers.into_iter().filter_map(|number| self.stream.catalog.get(number));
        let parts: Vec<Part> = chunks.cloned().collect();
        stream::iter(parts)
            .map(move |part| {
                let this = this.clone();
                async move { this.catalog_chunk(&part).await }
            })
            .buffered(2)
            .flat_map(|lines| match lines {
                Ok(lines) => stream::iter(lines.into_iter().map(Ok)).boxed(),
                Err(error) => stream::once(async { Err(error) }).boxed(),
            })
            .boxed()
    }

    async fn catalog_chunk(&self, part: &Part) -> Result<Vec<(u64, CatalogLine)>, ReadError> {
        let mode = if self.stream.catalog.len() > 8 { ReadMode::Ranged } else { ReadMode::Whole };
        let text = self.fetcher.chunk(ChunkKind::Catalog, part.location(), part.id, mode).await?;
        let malformed = |what: &str| ReadError::Malformed { what: format!("catalog {what}") };
        let lines = read_lines(&text).ok_or_else(|| malformed("has a line that cannot be read"))?;
        let mut placed = Vec::with_capacity(lines.len());
        for line in lines {
            let at = part.start.checked_add(line.at).filter(|at| *at < self.stream.length);
            let at = at.ok_or_else(|| malformed("names a place outside of the stream"))?;
            placed.push((at, line));
        }
        Ok(placed)
    }
}

/// Decides how the packs of each part are read.
fn plan(
    parts: impl Stream<Item = Result<ListPart, ReadError>> + Send,
) -> impl Stream<Item = Result<Vec<PlannedSlice>, ReadError>> + Send {
    let parts = parts.map(Some).chain(stream::once(async { None }));
    let planned = parts.scan(PartWindow::default(), |window, next| {
        let (is_over, error) = match next {
            Some(Ok(part)) => {
                window.push(part);
                (false, None)
            }
            Some(Err(error)) => (true, Some(error)),
            None => (true, None),
        };
        let mut planned = Vec::new();
        while is_over && !window.ahead.is_empty() || window.is_full() {
            planned.extend(window.pop().map(Ok));
        }
        planned.extend(error.map(Err));
        std::future::ready(Some(stream::iter(planned)))
    });
    planned.flatten()
}

impl PartWindow {
    fn is_full(&self) -> bool {
        let slices: usize = self.ahead.iter().map(|part| part.slices.len()).sum();
        self.ahead.len() > WINDOW_PARTS || slices > WINDOW_SLICES
    }

    fn push(&mut self, part: ListPart) {
        for (pack, bytes) in &part.wanted {
            *self.wanted.entry(*pack).or_default() += bytes;
        }
        self.ahead.push_back(part);
    }

    /// Returns the slices of the next part. A pack of which enough is needed is read whole.
    fn pop(&mut self) -> Option<Vec<PlannedSlice>> {
        let part = self.ahead.pop_front()?;
        let mode = |pack: &PackName| {
            let wanted = self.wanted.get(pack).copied().unwrap_or(0);
            if wanted * WHOLE_PACK_DIVISOR >= pack.size { ReadMode::Whole } else { ReadMode::Ranged }
        };
        let planned = part.slices.into_iter();
        let planned = planned.map(|slice| PlannedSlice { mode: mode(&slice.location.pack), slice }).collect();
        for (pack, bytes) in std::mem::replace(&mut self.before, part.wanted) {
            if let Some(wanted) = self.wanted.get_mut(&pack) {
                *wanted -= bytes;
            }
        }
        self.wanted.retain(|_, wanted| *wanted > 0);
        Some(planned)
    }
}

fn short() -> ReadError {
    ReadError::Malformed { what: "list does not hold as many bytes as the stream has".into() }
}

/// Cuts a slice that begins at `at` to the bytes in `range`; they overlap.
pub(crate) fn cut_slice(slice: Slice, at: u64, range: &Range<u64>) -> Slice {
    // Offsets within one slice fit into its 32 bits.
    let inside = |bytes: u64| u32::try_from(bytes).unwrap_or(0);
    let before = inside(range.start.saturating_sub(at));
    let after = inside((at + u64::from(slice.take)).saturating_sub(range.end));
    Slice { skip: slice.skip + before, take: slice.take - before - after, ..slice }
}

/// Returns the parts that overlap `range`, each with the offset at which it ends.
fn overlapping(parts: &[Part], length: u64, range: &Range<u64>) -> Vec<(Part, u64)> {
    let ends = parts.iter().skip(1).map(|part| part.start).chain([length]);
    let inside = |start: u64, end: u64| start < range.end && end > range.start;
    parts
        .iter()
        .zip(ends)
        .filter(|(part, end)| inside(part.start, *end))
        .map(|(part, end)| (part.clone(), end))
        .collect()
}
