//! Splits a stream of byte pieces into lines, and limits the memory for lines in progress.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use futures::stream::{BoxStream, Stream, StreamExt as _};
use memchr::memchr;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};

use super::{ResourceStreams, RestoreError, StreamError};
use crate::kubernetes::KindInfo;

/// The longest line in bytes. No API server takes an object of more than 3 MiB, and its JSON with all field
/// managers stays far below this.
const MAX_LINE: usize = 64 << 20;

/// The largest number of objects processed at once.
pub(crate) const PARALLEL: usize = 32;

/// Opens the stored stream of a kind at its start. Returns its lines without their LF, numbered from 1. A
/// last line without LF is an error: the stream was truncated.
pub(crate) async fn open_lines<'a>(
    streams: &'a dyn ResourceStreams,
    kind: &KindInfo,
) -> Result<BoxStream<'a, Result<(u64, Bytes), RestoreError>>, RestoreError> {
    let resource = kind.resource();
    match streams.open(kind).await {
        Ok(pieces) => Ok(split_lines(resource, pieces)),
        Err(error) => Err(RestoreError::Stream(resource, error)),
    }
}

fn split_lines<'a>(
    resource: String,
    pieces: BoxStream<'a, Result<Bytes, StreamError>>,
) -> BoxStream<'a, Result<(u64, Bytes), RestoreError>> {
    let splitter =
        LineSplitter { resource, pieces, rest: BytesMut::new(), searched: 0, line: 0, over: false };
    let lines = futures::stream::unfold(splitter, |mut splitter| async move {
        if splitter.over {
            return None;
        }
        let next = splitter.next().await?;
        splitter.over = next.is_err();
        Some((next, splitter))
    });
    lines.boxed()
}

/// Memory budget for objects in progress: a few large ones use as much as many small ones.
#[derive(Debug, Clone)]
pub(crate) struct MemoryBudget(Arc<Semaphore>);

/// Bytes per semaphore permit; a semaphore counts in 32 bits.
const BYTES_PER_PERMIT: usize = 1 << 10;
/// Bytes that may be in progress.
const BUDGET: usize = 16 << 20;
/// Memory per byte of a line: the line, its tree, the request, the answer.
const MEMORY_PER_BYTE: usize = 8;

impl Default for MemoryBudget {
    fn default() -> Self {
        Self(Arc::new(Semaphore::new(BUDGET / BYTES_PER_PERMIT)))
    }
}

/// A line number, its line, and the permit for its memory until this is dropped.
pub(crate) type BudgetedLine = (u64, Bytes, Option<OwnedSemaphorePermit>);

/// Returns each line when the budget has room for it.
pub(crate) fn with_budget<'a>(
    lines: impl Stream<Item = Result<(u64, Bytes), RestoreError>> + 'a,
    budget: &MemoryBudget,
) -> impl Stream<Item = Result<BudgetedLine, RestoreError>> + 'a {
    let budget = budget.clone();
    lines.then(move |line| {
        let budget = budget.0.clone();
        async move {
            let (number, line) = line?;
            // An object larger than the budget is processed alone.
            let permits =
                (line.len() * MEMORY_PER_BYTE).div_ceil(BYTES_PER_PERMIT).clamp(1, BUDGET / BYTES_PER_PERMIT);
            let permit = budget.acquire_many_owned(u32::try_from(permits).unwrap_or(u32::MAX)).await.ok();
            Ok((number, line, permit))
        }
    })
}

struct LineSplitter<'a> {
    resource: String,
    pieces: BoxStream<'a, Result<Bytes, StreamError>>,
    rest: BytesMut,
    searched: usize,
    line: u64,
    over: bool,
}

impl LineSplitter<'_> {
    async fn next(&mut self) -> Option<Result<(u64, Bytes), RestoreError>> {
        loop {
            if let Some(found) = memchr(b'\n', &self.rest[self.searched..]) {
                let mut line = self.rest.split_to(self.searched + found + 1);
                line.truncate(line.len() - 1);
                self.searched = 0;
                self.line += 1;
                return Some(Ok((self.line, line.freeze())));
            }
            self.searched = self.rest.len();
            if self.rest.len() > MAX_LINE {
                return Some(Err(self.damaged("it is too long")));
            }
            match self.pieces.next().await {
                Some(Ok(piece)) => self.rest.extend_from_slice(&piece),
                Some(Err(error)) => {
                    return Some(Err(RestoreError::Stream(self.resource.clone(), error)));
                }
                None if self.rest.is_empty() => return None,
                None => return Some(Err(self.damaged("its last line is truncated"))),
            }
        }
    }

    fn damaged(&self, problem: &'static str) -> RestoreError {
        RestoreError::Damaged { resource: self.resource.clone(), line: self.line + 1, problem }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use futures::{FutureExt as _, TryStreamExt as _};

    fn cut(pieces: &[&'static str]) -> Result<Vec<(u64, Bytes)>, RestoreError> {
        let pieces: Vec<Result<Bytes, StreamError>> =
            pieces.iter().map(|piece| Ok(Bytes::from_static(piece.as_bytes()))).collect();
        let stream = futures::stream::iter(pieces).boxed();
        split_lines("pods".to_owned(), stream).try_collect().now_or_never().expect("nothing to wait for")
    }

    #[test]
    fn lines_are_found_in_pieces_cut_anywhere() {
        let found = cut(&["a", "b\nc", "", "\n\nd\n"]).expect("lines");
        let texts: Vec<_> = found.iter().map(|(_, line)| std::str::from_utf8(line).expect("text")).collect();
        assert_eq!(texts, ["ab", "c", "", "d"]);
    }

    #[test]
    fn truncated_stream_is_rejected() {
        let error = cut(&["a\nb"]).expect_err("the last line is truncated");
        assert!(matches!(error, RestoreError::Damaged { line: 2, .. }), "{error}");
    }
}
