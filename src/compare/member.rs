//! Compares two members of folders, read side by side until they differ. A file's holes count as the zeros
//! that a program reads there.

use std::collections::BTreeSet;
use std::ops::Range;

use bytes::{Buf as _, Bytes};
use futures::StreamExt as _;
use futures::future::try_join;
use futures::stream::BoxStream;

use super::{CompareError, Result};
use crate::format::name::Name;
use crate::format::tar::parse::{ExpectedInput, TarEvent, TarParser};
use crate::format::tar::{EntryKind, Extent, TarEntry, Xattr};
use crate::pipeline::{ReadError, reader::StreamReader};

/// Holes are returned in pieces of at most this many bytes.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// Returns the differences of two members that their catalogs do not show. The content of files is compared
/// if nothing else differs.
pub(super) async fn differences(
    (old, before): (&mut Side, Range<u64>),
    (new, after): (&mut Side, Range<u64>),
) -> Result<Vec<String>> {
    let (mut old, mut new) = try_join(Member::open(old, before), Member::open(new, after)).await?;
    let what = attributes(&old.entry, &new.entry);
    if !what.is_empty() {
        return Ok(what);
    }
    if !same_content(&mut old, &mut new).await? {
        return Ok(vec!["content".into()]);
    }
    let moved = extents(&old.entry) != extents(&new.entry);
    Ok(moved.then(|| "holes".to_owned()).into_iter().collect())
}

/// Compares extended attributes and devices. Owners' names are ignored: a restore uses the numbers.
fn attributes(old: &TarEntry, new: &TarEntry) -> Vec<String> {
    let (before, after): (BTreeSet<&Xattr>, BTreeSet<&Xattr>) =
        (old.xattrs.iter().collect(), new.xattrs.iter().collect());
    let names: BTreeSet<&[u8]> =
        before.symmetric_difference(&after).map(|xattr| xattr.name.as_slice()).collect();
    let mut what: Vec<String> =
        names.into_iter().map(|name| format!("xattr {}", Name(name.to_vec()).display())).collect();
    let is_file = |entry: &TarEntry| matches!(entry.kind, EntryKind::File { .. } | EntryKind::Sparse { .. });
    if old.kind != new.kind && !(is_file(old) && is_file(new)) {
        what.push("device".into());
    }
    what
}

async fn same_content(old: &mut Member<'_>, new: &mut Member<'_>) -> Result<bool> {
    let (mut before, mut after) = (Bytes::new(), Bytes::new());
    loop {
        if before.is_empty() {
            before = old.next().await?;
        }
        if after.is_empty() {
            after = new.next().await?;
        }
        if before.is_empty() || after.is_empty() {
            return Ok(before.is_empty() && after.is_empty());
        }
        let both = before.len().min(after.len());
        if before.split_to(both) != after.split_to(both) {
            return Ok(false);
        }
    }
}

/// Returns the extents that are not holes; empty for files that are not sparse.
fn extents(entry: &TarEntry) -> &[Extent] {
    match &entry.kind {
        EntryKind::Sparse { extents, .. } => extents,
        _ => &[],
    }
}

/// A range of a stream that is read in order, once.
pub(super) struct Side {
    pieces: BoxStream<'static, Result<Bytes, ReadError>>,
    rest: Bytes,
    at: u64,
}

impl Side {
    pub(super) fn new(reader: &StreamReader, range: Range<u64>) -> Self {
        Self { at: range.start, pieces: reader.range(range), rest: Bytes::new() }
    }

    /// Returns the next bytes, none past `end`; empty when `end` is reached.
    async fn take(&mut self, end: u64) -> Result<Bytes, ReadError> {
        let left = usize::try_from(end.saturating_sub(self.at)).unwrap_or(usize::MAX);
        while left > 0 && self.rest.is_empty() {
            let short = || ReadError::Malformed { what: "stream ends within a member".into() };
            self.rest = self.pieces.next().await.ok_or_else(short)??;
        }
        let taken = self.rest.split_to(left.min(self.rest.len()));
        self.at += taken.len() as u64;
        Ok(taken)
    }
}

struct Member<'a> {
    source: Source<'a>,
    entry: TarEntry,
    /// Content bytes, and their offset in the file.
    held: Option<(u64, Bytes)>,
    /// The number of content bytes returned so far, holes included.
    given: u64,
}

impl<'a> Member<'a> {
    /// Skips to the member, and reads its header.
    async fn open(side: &'a mut Side, range: Range<u64>) -> Result<Self> {
        while !side.take(range.start).await?.is_empty() {}
        let parser = TarParser::new(ExpectedInput::Members);
        let mut source = Source { side, end: range.end, parser, input: Bytes::new() };
        let Some(Step::Header(entry)) = source.step().await? else {
            return Err(CompareError::Catalog("the catalog names a member where none begins"));
        };
        Ok(Self { source, entry: *entry, held: None, given: 0 })
    }

    /// Returns the next bytes of a file as a program reads them; empty at its end.
    async fn next(&mut self) -> Result<Bytes> {
        loop {
            match self.held.take() {
                Some((at, bytes)) if self.given < at => {
                    self.held = Some((at, bytes));
                    return Ok(self.hole(at));
                }
                Some((_, bytes)) => {
                    self.given += bytes.len() as u64;
                    return Ok(bytes);
                }
                None => {}
            }
            match self.source.step().await? {
                Some(Step::Content(at, bytes)) => self.held = Some((at, bytes)),
                _ => return Ok(self.hole(self.size())),
            }
        }
    }

    fn size(&self) -> u64 {
        match self.entry.kind {
            EntryKind::File { size } | EntryKind::Sparse { size, .. } => size,
            _ => 0,
        }
    }

    fn hole(&mut self, to: u64) -> Bytes {
        let left = usize::try_from(to.saturating_sub(self.given)).unwrap_or(usize::MAX);
        let zeros = &ZEROS[..left.min(ZEROS.len())];
        self.given += zeros.len() as u64;
        Bytes::from_static(zeros)
    }
}

enum Step {
    Header(Box<TarEntry>),
    Content(u64, Bytes),
    End,
}

/// The bytes of one member, and their parser.
struct Source<'a> {
    side: &'a mut Side,
    end: u64,
    parser: TarParser,
    input: Bytes,
}

impl Source<'_> {
    async fn step(&mut self) -> Result<Option<Step>> {
        loop {
            if self.input.is_empty() {
                self.input = self.side.take(self.end).await?;
            }
            let is_end = self.input.is_empty();
            let mut left: &[u8] = &self.input;
            let step = match self.parser.next(&mut left)? {
                Some(TarEvent::Member(entry)) => Some(Step::Header(entry)),
                Some(TarEvent::Data { at, bytes }) => Some(Step::Content(at, self.input.slice_ref(bytes))),
                Some(TarEvent::MemberEnd | TarEvent::End) => Some(Step::End),
                None => None,
            };
            let used = self.input.len() - left.len();
            self.input.advance(used);
            if step.is_some() {
                return Ok(step);
            }
            if is_end {
                self.parser.finish()?;
                return Ok(None);
            }
        }
    }
}
