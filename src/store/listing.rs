//! Reads whole prefixes and checks every page.
//!
//! Commits and prunes depend on listings, and a store that omits or repeats keys has cost others
//! their data (a failed LIST taken for "no files": restic issue 4612). So every rule of listings
//! in S3 (ListObjectsV2: ascending in byte order, each key once, pages of at most 1000 keys)
//! is checked, and any violation ends the listing with [`StoreErrorKind::Protocol`].

use std::collections::VecDeque;
use std::iter::Peekable;
use std::sync::Arc;

use futures::stream::{self, BoxStream, StreamExt};

use super::{
    ListedObject, MAX_PAGE, ObjectPage, PageToken, Store, StoreError, StoreErrorKind, operation::Operation,
};
use crate::format::layout::ObjectKey;
use crate::report::event::Reporter;

/// The most pages of one listing: a hundred million keys, thirty times the need of 100 TB.
pub const MAX_PAGES: u64 = 100_000;

/// The most empty pages in a row that still name a next page.
const MAX_EMPTY_PAGES: u32 = 100;

/// The number of unknown keys that are reported by name; the others are counted.
const MAX_UNKNOWN_NAMED: u64 = 5;

/// Returns all entries under `prefix` (which ends with a slash or is empty), in ascending byte order
/// of keys. One page is in memory. The stream ends after its first error.
///
/// Keys that no repository has are left out; the first few, and their number, are reported to `reporter`.
#[must_use]
pub fn list_all(
    store: Arc<dyn Store>,
    prefix: impl Into<String>,
    reporter: Reporter,
) -> BoxStream<'static, Result<ListedObject, StoreError>> {
    list(store, prefix.into(), None, None, reporter)
}

/// As [`list_all`], of the keys that come after the text `after`.
#[must_use]
pub fn list_all_after(
    store: Arc<dyn Store>,
    prefix: impl Into<String>,
    after: &str,
    reporter: Reporter,
) -> BoxStream<'static, Result<ListedObject, StoreError>> {
    let from = store.after(after);
    list(store, prefix.into(), Some(from), None, reporter)
}

/// As [`list_all`], without the entries in the folder `skipped`, which ends with a slash: one request, however
/// many objects it holds.
#[must_use]
pub fn list_all_beside(
    store: Arc<dyn Store>,
    prefix: impl Into<String>,
    skipped: String,
    reporter: Reporter,
) -> BoxStream<'static, Result<ListedObject, StoreError>> {
    list(store, prefix.into(), None, Some(skipped), reporter)
}

fn list(
    store: Arc<dyn Store>,
    prefix: String,
    from: Option<PageToken>,
    skipped: Option<String>,
    reporter: Reporter,
) -> BoxStream<'static, Result<ListedObject, StoreError>> {
    let listing = Listing {
        checks: PageChecks::new(prefix),
        store,
        reporter,
        skipped,
        page: VecDeque::new(),
        state: from.map_or(Position::Start, Position::More),
    };
    stream::unfold(listing, |mut listing| async move {
        match listing.next().await {
            Ok(Some(entry)) => Some((Ok(entry), listing)),
            Ok(None) => None,
            Err(error) => {
                listing.state = Position::End;
                listing.page.clear();
                Some((Err(error), listing))
            }
        }
    })
    .boxed()
}

/// Returns the entries under `prefix` whose keys are in `wanted`, which ascends as the keys do.
///
/// Each page begins at the next key that is wanted, so that other objects in the folder cost at most as many requests
/// as there are wanted ones.
pub fn list_named<'a>(
    store: &'a Arc<dyn Store>,
    prefix: String,
    wanted: impl Iterator<Item = ObjectKey> + Send + 'a,
) -> BoxStream<'a, Result<ListedObject, StoreError>> {
    let (wanted, checks) = (wanted.peekable(), PageChecks::new(prefix));
    let search = NamedListing { store, wanted, checks, page: VecDeque::new(), next: None, is_over: false };
    stream::try_unfold(
        search,
        |mut search| async move { Ok(search.next().await?.map(|entry| (entry, search))) },
    )
    .boxed()
}

/// Returns the entry of one object, if the store lists it.
pub async fn find(store: &Arc<dyn Store>, key: &ObjectKey) -> Result<Option<ListedObject>, StoreError> {
    let folder = key.as_str().rsplit_once('/').map_or(String::new(), |(folder, _)| format!("{folder}/"));
    list_named(store, folder, std::iter::once(key.clone())).next().await.transpose()
}

/// The folders directly under a prefix.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folders {
    /// Their names without slashes, in the order of their keys.
    pub names: Vec<String>,
    /// False if there are more than were asked for.
    pub complete: bool,
}

/// Returns the first `most` folders directly under `prefix`, as [`folders_beside`] does.
pub async fn folders(store: &Arc<dyn Store>, prefix: &str, most: usize) -> Result<Folders, StoreError> {
    folders_beside(store, prefix, most, |_| false).await
}

/// Returns the folders directly under `prefix`: those that `is_known`, and the first `most` of the others.
///
/// The listing jumps over the rest of a folder that ends a page: at most one request for each folder, however
/// many objects they hold.
pub async fn folders_beside(
    store: &Arc<dyn Store>,
    prefix: &str,
    most: usize,
    is_known: impl Fn(&str) -> bool,
) -> Result<Folders, StoreError> {
    let broken = |what: String| {
        StoreError::new(Operation::List, prefix, store.describe(), StoreErrorKind::Protocol(what))
    };
    let mut folders: Vec<String> = Vec::new();
    let mut others = 0;
    let mut from: Option<PageToken> = None;
    let mut checks = PageChecks::new(prefix.to_owned());
    loop {
        let page = store.list(prefix, from.as_ref()).await?;
        // The page after a jump begins after the folder, and not after the last entry before it.
        checks.last = None;
        checks.page(&page, from.as_ref()).map_err(broken)?;
        let mut last = None;
        for entry in &page.entries {
            let rest = entry.key.as_str().strip_prefix(prefix);
            let Some((folder, _)) = rest.and_then(|rest| rest.split_once('/')) else {
                last = None;
                continue;
            };
            if last == Some(folder) {
                continue;
            }
            // In the order of their keys: `a-` comes before `a`, because the slash comes after the hyphen.
            if folders.last().is_some_and(|last| format!("{last}/") >= format!("{folder}/")) {
                return Err(broken(format!("{} is listed after {prefix}{folder}", entry.key)));
            }
            if !is_known(folder) {
                others += 1;
                if others > most {
                    return Ok(Folders { names: folders, complete: false });
                }
            }
            folders.push(folder.to_owned());
            last = Some(folder);
        }
        let Some(next) = page.next else { return Ok(Folders { names: folders, complete: true }) };
        // Keys hold no byte above `z`, so no key of the folder comes after this.
        from = Some(last.map_or(next, |folder| store.after(&format!("{prefix}{folder}/~"))));
    }
}

enum Position {
    Start,
    More(PageToken),
    End,
}

struct Listing {
    checks: PageChecks,
    store: Arc<dyn Store>,
    reporter: Reporter,
    skipped: Option<String>,
    page: VecDeque<ListedObject>,
    state: Position,
}

impl Listing {
    async fn next(&mut self) -> Result<Option<ListedObject>, StoreError> {
        loop {
            if let Some(entry) = self.page.pop_front() {
                return Ok(Some(entry));
            }
            let from = match &self.state {
                Position::End => return Ok(None),
                Position::Start => None,
                Position::More(token) => Some(token),
            };
            let page = self.store.list(&self.checks.prefix, from).await?;
            self.checks.page(&page, from).map_err(|what| self.broken(what))?;
            self.warn_unknown(&page);
            self.state = match page.next {
                Some(token) => Position::More(token),
                None => Position::End,
            };
            self.page = page.entries.into();
            self.skip();
        }
    }

    /// Drops the entries in the folder to skip. If it ends the page, the next one begins after the folder.
    fn skip(&mut self) {
        let Some(skipped) = &self.skipped else { return };
        let is_last = self.page.back().is_some_and(|entry| entry.key.as_str().starts_with(skipped));
        self.page.retain(|entry| !entry.key.as_str().starts_with(skipped));
        if let (true, Position::More(_)) = (is_last, &self.state) {
            self.state = Position::More(self.store.after(&format!("{skipped}~")));
        }
    }

    fn broken(&self, what: String) -> StoreError {
        let kind = StoreErrorKind::Protocol(what);
        StoreError::new(Operation::List, &*self.checks.prefix, self.store.describe(), kind)
    }

    fn warn_unknown(&mut self, page: &ObjectPage) {
        for key in &page.unknown {
            self.checks.unknown += 1;
            if self.checks.unknown <= MAX_UNKNOWN_NAMED {
                // Debug form: an unknown key may hold control characters.
                self.reporter.warn(self.store.describe(), format!("unknown object {key:?}: skipped"));
            }
        }
        if page.next.is_none() && self.checks.unknown > MAX_UNKNOWN_NAMED {
            let count = self.checks.unknown;
            let under = &self.checks.prefix;
            self.reporter.warn(self.store.describe(), format!("{count} unknown objects under {under:?}"));
        }
    }
}

struct NamedListing<'a, I: Iterator<Item = ObjectKey>> {
    store: &'a Arc<dyn Store>,
    wanted: Peekable<I>,
    checks: PageChecks,
    page: VecDeque<ListedObject>,
    /// The next page, if the last had no entry.
    next: Option<PageToken>,
    is_over: bool,
}

impl<I: Iterator<Item = ObjectKey>> NamedListing<'_, I> {
    async fn next(&mut self) -> Result<Option<ListedObject>, StoreError> {
        loop {
            while let Some(entry) = self.page.pop_front() {
                while self.wanted.next_if(|key| *key < entry.key).is_some() {}
                if self.wanted.next_if(|key| *key == entry.key).is_some() {
                    return Ok(Some(entry));
                }
            }
            let Some(key) = self.wanted.peek().filter(|_| !self.is_over) else { return Ok(None) };
            let from = self.next.take().unwrap_or_else(|| self.store.after(&just_before(key)));
            let page = self.store.list(&self.checks.prefix, Some(&from)).await?;
            self.checks.page(&page, Some(&from)).map_err(|what| {
                let kind = StoreErrorKind::Protocol(what);
                StoreError::new(Operation::List, &*self.checks.prefix, self.store.describe(), kind)
            })?;
            self.is_over = page.next.is_none();
            self.next = page.next.filter(|_| page.entries.is_empty());
            self.page = page.entries.into();
        }
    }
}

/// Returns a text that sorts before `key` and after every other key before it: keys hold no byte above `z`.
fn just_before(key: &ObjectKey) -> String {
    let mut text = key.as_str().to_owned();
    // Keys are ASCII and hold no byte below `-`.
    if let Some(before) = text.pop().and_then(|last| char::from_u32(u32::from(last) - 1)) {
        text.push(before);
        text.push('~');
    }
    text
}

/// The checks of a listing, across its pages.
struct PageChecks {
    prefix: String,
    /// The previous key; `None` at the start of a page that may repeat keys.
    last: Option<String>,
    pages: u64,
    empty: u32,
    unknown: u64,
}

impl PageChecks {
    fn new(prefix: String) -> Self {
        Self { prefix, last: None, pages: 0, empty: 0, unknown: 0 }
    }

    fn page(&mut self, page: &ObjectPage, from: Option<&PageToken>) -> Result<(), String> {
        self.pages += 1;
        if self.pages > MAX_PAGES {
            return Err(format!("a listing of more than {MAX_PAGES} pages"));
        }
        let count = page.entries.len() + page.unknown.len();
        if count > MAX_PAGE {
            return Err(format!("a page of {count} keys, at most {MAX_PAGE} are allowed"));
        }
        if page.next.is_some() && page.next.as_ref() == from {
            return Err("the next page is the same page again".into());
        }
        self.empty = if count == 0 { self.empty + 1 } else { 0 };
        if self.empty > MAX_EMPTY_PAGES && page.next.is_some() {
            return Err(format!("more than {MAX_EMPTY_PAGES} empty pages in a row"));
        }
        for key in &page.unknown {
            if !key.starts_with(&self.prefix) {
                return Err(format!("unexpected key {key:?}"));
            }
        }
        for entry in &page.entries {
            self.entry(entry)?;
        }
        Ok(())
    }

    fn entry(&mut self, entry: &ListedObject) -> Result<(), String> {
        let key = entry.key.as_str();
        if !key.starts_with(&self.prefix) {
            return Err(format!("unexpected key {key}"));
        }
        match &self.last {
            Some(last) if last == key => return Err(format!("{key} is listed twice")),
            Some(last) if last.as_str() > key => return Err(format!("{key} is listed after {last}")),
            _ => {}
        }
        self.last = Some(key.to_owned());
        Ok(())
    }
}
