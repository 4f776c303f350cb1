//! Compares two states of a folder: by their catalogs and, for files that look alike, by their bytes.
//!
//! Both catalogs have the same order, so this is a merge join. Members made of the same stored slices are
//! equal. All others are read, neighbouring ones together.

use std::cmp::Ordering;
use std::ops::Range;

use futures::StreamExt as _;

use super::member::{self, Side};
use super::pieces::SliceWalker;
use super::{Change, CompareError, Difference, OnDifference, Result};
use crate::format::{catalog::CatalogLine, tar::order};
use crate::pipeline::{ReadError, reader::StreamReader};
use crate::report::text::size;

/// The maximum number of members that wait to be read or reported.
const MOST: usize = 1024;
/// The maximum number of bytes read in one go, unless one member alone has more.
const SPAN: u64 = 64 << 20;
/// The longest gap between two members, in bytes, that is read over.
const GAP: u64 = 1 << 20;

/// Compares two streams of a folder, in the order of their paths. Fails if one of them cannot be read or
/// contradicts itself, or if `take` fails.
pub async fn folder(from: &StreamReader, to: &StreamReader, take: &mut OnDifference<'_>) -> Result<()> {
    let mut join = Join {
        from,
        to,
        pieces: (SliceWalker::new(from), SliceWalker::new(to)),
        waiting: Vec::new(),
        open: None,
        take,
    };
    let (mut olds, mut news) = (from.catalog(), to.catalog());
    let (mut old, mut new) = (olds.next().await.transpose()?, news.next().await.transpose()?);
    loop {
        let order = match (&old, &new) {
            (None, None) => return join.flush().await,
            (Some(_), None) => Ordering::Less,
            (None, Some(_)) => Ordering::Greater,
            (Some((_, a)), Some((_, b))) => order::compare(a.path.bytes(), b.path.bytes()),
        };
        match (order, &old, &new) {
            (Ordering::Less, Some((_, line)), _) => join.report(Change::Removed, line, Vec::new()).await?,
            (Ordering::Greater, _, Some((_, line))) => join.report(Change::Added, line, Vec::new()).await?,
            (_, Some(a), Some(b)) => join.both(a, b).await?,
            _ => {}
        }
        if order != Ordering::Greater {
            old = olds.next().await.transpose()?;
        }
        if order != Ordering::Less {
            new = news.next().await.transpose()?;
        }
    }
}

/// The difference reported if nothing else differs.
const MTIME_DIFFERS: &str = "time of change";

/// A member that waits to be read or reported, in the order of paths.
enum PendingMember {
    /// Known to differ.
    Different(Difference),
    /// Must be read on both sides.
    Unread { path: String, old: Range<u64>, new: Range<u64>, touched: bool },
}

struct Join<'a, 'b> {
    from: &'a StreamReader,
    to: &'a StreamReader,
    pieces: (SliceWalker, SliceWalker),
    waiting: Vec<PendingMember>,
    /// The range that the members waiting to be read span on each side.
    open: Option<(Range<u64>, Range<u64>)>,
    take: &'a mut OnDifference<'b>,
}

impl Join<'_, '_> {
    async fn report(&mut self, change: Change, line: &CatalogLine, fields: Vec<String>) -> Result<()> {
        let one = self.difference(change, line.path.display(), fields);
        self.push(PendingMember::Different(one)).await
    }

    fn difference(&self, change: Change, object: String, fields: Vec<String>) -> Difference {
        Difference { change, kind: self.from.body().name.clone(), object, fields }
    }

    async fn push(&mut self, one: PendingMember) -> Result<()> {
        self.waiting.push(one);
        if self.waiting.len() < MOST { Ok(()) } else { self.flush().await }
    }

    async fn both(&mut self, (at, a): &(u64, CatalogLine), (to, b): &(u64, CatalogLine)) -> Result<()> {
        let what = differences(a, b);
        if !what.is_empty() {
            return self.report(Change::Changed, b, what).await;
        }
        let touched = a.mtime != b.mtime;
        if touched && b.size.is_none() {
            return self.report(Change::Changed, b, vec![MTIME_DIFFERS.into()]).await;
        }
        let (old, new) = (place(self.from, *at, a)?, place(self.to, *to, b)?);
        if self.pieces.0.of(&old).await? == self.pieces.1.of(&new).await? && !touched {
            return Ok(());
        }
        if self.open.as_ref().is_some_and(|(before, after)| !joins(before, &old) || !joins(after, &new)) {
            self.flush().await?;
        }
        let (before, after) = self.open.take().unwrap_or_else(|| (old.clone(), new.clone()));
        self.open = Some((before.start..old.end, after.start..new.end));
        self.push(PendingMember::Unread { path: b.path.display(), old, new, touched }).await
    }

    /// Reads the waiting members and reports the differences.
    async fn flush(&mut self) -> Result<()> {
        let (old, new) = self.open.take().unwrap_or_default();
        let mut sides = (Side::new(self.from, old), Side::new(self.to, new));
        for one in std::mem::take(&mut self.waiting) {
            let (path, old, new, touched) = match one {
                PendingMember::Different(one) => {
                    (self.take)(one).map_err(CompareError::Output)?;
                    continue;
                }
                PendingMember::Unread { path, old, new, touched } => (path, old, new, touched),
            };
            let what = member::differences((&mut sides.0, old), (&mut sides.1, new)).await;
            let mut what = what.map_err(|error| error.at("path", &path))?;
            if what.is_empty() && touched {
                what.push(MTIME_DIFFERS.into());
            }
            if !what.is_empty() {
                let one = self.difference(Change::Changed, path, what);
                (self.take)(one).map_err(CompareError::Output)?;
            }
        }
        Ok(())
    }
}

/// True if a member is read together with those before it.
fn joins(open: &Range<u64>, next: &Range<u64>) -> bool {
    next.start.checked_sub(open.end).is_some_and(|gap| gap <= GAP) && next.end - open.start <= SPAN
}

fn place(reader: &StreamReader, at: u64, line: &CatalogLine) -> Result<Range<u64>, ReadError> {
    let end = at.checked_add(line.len).filter(|end| *end > at && *end <= reader.body().length);
    let end =
        end.ok_or_else(|| ReadError::Malformed { what: "catalog names no bytes of the stream".into() })?;
    Ok(at..end)
}

fn differences(a: &CatalogLine, b: &CatalogLine) -> Vec<String> {
    let mut what = Vec::new();
    if a.kind != b.kind {
        what.push(format!("{:?} → {:?}", a.kind, b.kind).to_lowercase());
    }
    if a.size != b.size {
        what.push(format!("{} → {}", size(a.size.unwrap_or(0)), size(b.size.unwrap_or(0))));
    }
    if a.mode != b.mode {
        let mode = |line: &CatalogLine| line.mode.clone().unwrap_or_default();
        what.push(format!("mode {} → {}", mode(a), mode(b)));
    }
    if (a.uid, a.gid) != (b.uid, b.gid) {
        let owner = |line: &CatalogLine| format!("{}:{}", line.uid.unwrap_or(0), line.gid.unwrap_or(0));
        what.push(format!("owner {} → {}", owner(a), owner(b)));
    }
    if a.link != b.link {
        what.push("link".into());
    }
    what
}
