//! The members of a folder's stream that a restore of some paths reads.

use std::collections::{BTreeSet, HashMap};
use std::ops::Range;

use futures::StreamExt;
use futures::stream::BoxStream;

use super::error::RestoreStreamError;
use super::streams::{catalog_start, is_ordered, member};
use crate::format::body::Stream;
use crate::format::catalog::{CatalogLine, MemberType};
use crate::format::list::Part;
use crate::format::name::Name;
use crate::format::tar::{ROOT, order};
use crate::pipeline::ReadError;
use crate::pipeline::reader::StreamReader;

/// The selected paths of a folder.
#[derive(Debug, Clone, Default)]
pub struct Paths(pub Vec<Name>);

impl Paths {
    /// True if an event at `object` of the backup concerns a selected path: it is one, is below one
    /// or leads to one. An event without an object may concern any.
    #[must_use]
    pub fn concern(&self, object: &Name) -> bool {
        let path = object.bytes();
        path.is_empty() || self.takes(path) || self.leads(path)
    }

    pub(super) fn takes(&self, path: &[u8]) -> bool {
        self.0.iter().any(|wanted| wanted.bytes() == path || order::is_below(path, wanted.bytes()))
    }

    /// True if `path` leads to a selected one: its parent folders are restored too.
    pub(super) fn leads(&self, path: &[u8]) -> bool {
        self.0.iter().any(|wanted| order::is_below(wanted.bytes(), path))
    }
}

/// The parts of a stream to read, in the order of reading.
#[derive(Debug, Default)]
pub(super) struct Selection {
    pub members: u64,
    pub runs: Vec<Run>,
    /// Files restored under the name of a link to them, because their own name is not selected: old
    /// name to new. Further links to such a file point to the new name.
    pub moved: HashMap<Vec<u8>, Vec<u8>>,
    /// Selected paths that the snapshot does not hold.
    pub absent: Vec<Name>,
}

impl Selection {
    pub fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.range.end - run.range.start).sum()
    }
}

/// Neighbouring members, or one file that gets another name.
#[derive(Debug, Clone)]
pub(super) struct Run {
    pub range: Range<u64>,
    pub name: Option<Vec<u8>>,
}

/// Returns the members that `paths` select, neighbours joined. A link to a file that is not selected
/// brings the file under the link's name.
pub(super) async fn select(reader: &StreamReader, paths: &Paths) -> Result<Selection, RestoreStreamError> {
    let mut selection = Selection::default();
    let mut lines = catalog_lines(reader, Some(paths));
    let mut absent = paths.0.clone();
    while let Some(line) = lines.next().await {
        let (at, line) = line?;
        let wanted = paths.takes(line.path.bytes());
        if wanted {
            let found = line.path.bytes();
            absent.retain(|path| path.bytes() != found && !order::is_below(found, path.bytes()));
        }
        if !wanted && !paths.leads(line.path.bytes()) {
            continue;
        }
        selection.members += 1;
        let link_target = line.link.as_ref().filter(|link_target| {
            let there = paths.takes(link_target.bytes()) || selection.moved.contains_key(link_target.bytes());
            line.kind == MemberType::Hardlink && !there
        });
        if let Some(link_target) = link_target {
            let (at, first) = member(reader, link_target).await?.ok_or_else(|| ReadError::Malformed {
                what: "catalog has a link to something that it does not name".into(),
            })?;
            let name = Some(line.path.bytes().to_vec());
            selection.runs.push(Run { range: place(reader, at, &first)?, name });
            selection.moved.insert(link_target.bytes().to_vec(), line.path.bytes().to_vec());
            continue;
        }
        let range = place(reader, at, &line)?;
        match selection.runs.last_mut() {
            Some(last) if last.name.is_none() && last.range.end == range.start => last.range.end = range.end,
            _ => selection.runs.push(Run { range, name: None }),
        }
    }
    if absent.len() < paths.0.len() {
        selection.absent = absent;
        return Ok(selection);
    }
    Err(RestoreStreamError::NothingAt(paths.0.iter().map(Name::display).collect()))
}

/// Returns the byte range of a member.
fn place(reader: &StreamReader, at: u64, line: &CatalogLine) -> Result<Range<u64>, ReadError> {
    let end = at.checked_add(line.len).filter(|end| *end <= reader.body().length);
    let end =
        end.ok_or_else(|| ReadError::Malformed { what: "catalog names bytes past the stream".into() })?;
    Ok(at..end)
}

/// Reads the lines of a catalog: all of them, or the chunks that may hold a selected path or a folder that leads
/// to one.
pub(super) fn catalog_lines(
    reader: &StreamReader,
    paths: Option<&Paths>,
) -> BoxStream<'static, Result<(u64, CatalogLine), ReadError>> {
    match paths {
        Some(paths) => reader.catalog_chunks(chunks_of(reader.body(), paths)),
        None => reader.catalog(),
    }
}

/// Returns the numbers of those chunks. A folder and its files can be far apart: its whole content lies between.
fn chunks_of(stream: &Stream, paths: &Paths) -> BTreeSet<usize> {
    let mut chunks = BTreeSet::new();
    for path in paths.0.iter().map(Name::bytes) {
        let ends = path.iter().enumerate().filter(|(_, byte)| **byte == b'/').map(|(at, _)| &path[..at]);
        chunks.extend([ROOT].into_iter().chain(ends).map(|above| catalog_start(stream, above)));
        let first = catalog_start(stream, path);
        let later = stream.catalog.iter().enumerate().skip(first + 1);
        let below =
            |part: &Part| part.first.as_ref().is_none_or(|first| order::is_below(first.bytes(), path));
        chunks.insert(first);
        chunks.extend(later.take_while(|(_, part)| !is_ordered(stream) || below(part)).map(|(at, _)| at));
    }
    chunks
}
