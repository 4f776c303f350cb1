//! The scan cache of the last run: unchanged members, and the places of their bytes.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use crate::format::cache::{CachedGroup, GroupRef, MAX_CACHE, NO_DIGEST, open_root};
use crate::format::derive::DomainKey;
use crate::format::ids::{NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::list::Slice;
use crate::pipeline::PipelineError;
use crate::pipeline::chunk_index::ChunkIndex;
use crate::pipeline::domain::DomainWriter;
use crate::report::event::Reporter;
use crate::repository::fetched::{self, Fetched};
use crate::runtime::lock;
use crate::store::{Store, StoreError};

/// Most groups beyond the current one that are loaded in search of a member: a boundary may have
/// moved.
const MAX_AHEAD: usize = 2;
/// Most groups in memory: the current one, and those loaded beyond it.
const WINDOW: usize = 1 + MAX_AHEAD;

/// Reads a scan cache in walk order.
pub struct ScanCacheReader {
    store: Arc<dyn Store>,
    path: EpochPath,
    domain: NameId,
    key: Arc<DomainKey>,
    known: Arc<Mutex<ChunkIndex>>,
    reporter: Reporter,
    groups: Vec<GroupRef>,
    by_key: HashMap<u64, usize>,
    loaded: VecDeque<LoadedGroup>,
    /// The next group to load.
    next: usize,
    /// The group that the walk is in, as its boundaries and its members show.
    current: usize,
    newly_loaded: Vec<(Vec<u8>, ObjectHash)>,
}

struct LoadedGroup {
    number: usize,
    members: HashMap<[u8; 16], (u64, u64)>,
    slices: Vec<Slice>,
    /// Offset of each slice in the group's bytes.
    starts: Vec<u64>,
}

impl ScanCacheReader {
    /// Opens the cache whose root is `root`. It is empty without a root, or if the root does not open.
    pub async fn open(domain: &DomainWriter, root: Option<ObjectHash>) -> Result<Self, PipelineError> {
        let mut scan_cache = Self {
            store: domain.context().store().clone(),
            path: domain.target().path,
            domain: domain.id(),
            key: domain.key().clone(),
            known: domain.chunk_index().clone(),
            reporter: domain.context().reporter().clone(),
            groups: Vec::new(),
            by_key: HashMap::new(),
            loaded: VecDeque::new(),
            next: 0,
            current: 0,
            newly_loaded: Vec::new(),
        };
        if let Some(root) = root {
            if let Some(sealed) = scan_cache.get(root).await? {
                match open_root(&sealed, &scan_cache.key) {
                    Ok(groups) => scan_cache.groups = groups,
                    Err(error) => scan_cache.warn(root, &error.to_string()),
                }
            }
            scan_cache.by_key =
                scan_cache.groups.iter().enumerate().map(|(at, group)| (group.key, at)).collect();
        }
        Ok(scan_cache)
    }

    /// True if the cache is empty, so that every file is read.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.groups.is_empty()
    }

    fn warn(&self, object: ObjectHash, why: &str) {
        let key = self.path.in_domain(self.domain, ObjectClass::Cache, object);
        self.reporter.warn(key.to_string(), format!("{why}; the files it covers are read again"));
    }

    async fn get(&self, object: ObjectHash) -> Result<Option<bytes::Bytes>, StoreError> {
        let key = self.path.in_domain(self.domain, ObjectClass::Cache, object);
        let why = match fetched::get(&self.store, &key, object, MAX_CACHE + (1 << 20)).await? {
            Fetched::Valid(sealed) => return Ok(Some(sealed)),
            Fetched::Corrupt => "the scan cache is damaged",
            Fetched::Missing => "a part of the scan cache is missing",
        };
        self.warn(object, why);
        Ok(None)
    }

    /// Enters the group that begins at a path with this boundary hash, and loads it.
    pub async fn enter(&mut self, key: u64) -> Result<(), StoreError> {
        if let Some(&number) = self.by_key.get(&key) {
            (self.next, self.current) = (number, number);
            self.load().await?;
        }
        Ok(())
    }

    /// Loads the next group, unless it is in memory. Returns false after the last one.
    async fn load(&mut self) -> Result<bool, StoreError> {
        let Some(group) = self.groups.get(self.next).copied() else { return Ok(false) };
        let number = self.next;
        self.next += 1;
        if self.loaded.iter().any(|loaded| loaded.number == number) {
            return Ok(true);
        }
        let Some(sealed) = self.get(group.object).await? else { return Ok(true) };
        match CachedGroup::open(&sealed, &self.key) {
            Ok((group_content, plaintext)) => {
                self.newly_loaded.push((plaintext, group.object));
                self.loaded.push_back(LoadedGroup::new(number, group_content));
                if self.loaded.len() > WINDOW {
                    self.loaded.pop_front();
                }
            }
            Err(error) => self.warn(group.object, &error.to_string()),
        }
        Ok(true)
    }

    /// Returns the groups loaded since the last call, as plaintext and object, so that a group that
    /// comes out the same is not stored again.
    pub fn take_loaded_groups(&mut self) -> Vec<(Vec<u8>, ObjectHash)> {
        std::mem::take(&mut self.newly_loaded)
    }

    /// Returns the slices that hold a member with this digest and length, if all of their packs are
    /// known.
    pub async fn find(&mut self, digest: &[u8; 16], length: u64) -> Result<Option<Vec<Slice>>, StoreError> {
        if *digest == NO_DIGEST || self.groups.is_empty() {
            return Ok(None);
        }
        loop {
            let found = self.loaded.iter().rev().find_map(|loaded| {
                let &(at, had) = loaded.members.get(digest)?;
                (had == length).then(|| (loaded.number, loaded.slices(at, length)))
            });
            if let Some((number, slices)) = found {
                self.current = self.current.max(number);
                let known = lock(&self.known);
                return Ok(slices.iter().all(|slice| known.has_pack(&slice.location.pack)).then_some(slices));
            }
            // A boundary may have moved, so that the member is in a later group. The search stops at
            // `MAX_AHEAD`, or the groups in use would leave the window.
            if self.next > self.current + MAX_AHEAD || !self.load().await? {
                return Ok(None);
            }
        }
    }
}

impl LoadedGroup {
    fn new(number: usize, group: CachedGroup) -> Self {
        let mut at = 0;
        let mut members = HashMap::with_capacity(group.members.len());
        for member in &group.members {
            if member.digest != NO_DIGEST {
                members.insert(member.digest, (at, member.length));
            }
            at += member.length;
        }
        let mut start = 0;
        let starts = group.slices.iter().map(|slice| {
            let this = start;
            start += u64::from(slice.take);
            this
        });
        Self { number, members, starts: starts.collect(), slices: group.slices }
    }

    /// Returns the slices of `length` bytes at `at`.
    fn slices(&self, at: u64, length: u64) -> Vec<Slice> {
        let end = at + length;
        let first = self.starts.partition_point(|start| *start <= at).saturating_sub(1);
        let mut found = Vec::new();
        for (slice, &start) in self.slices.iter().zip(&self.starts).skip(first) {
            if start >= end {
                break;
            }
            let mut slice = *slice;
            let stop = start + u64::from(slice.take);
            // Within one slice, differences fit its 32 bits.
            let before = u32::try_from(at.saturating_sub(start)).unwrap_or(u32::MAX);
            let after = u32::try_from(stop.saturating_sub(end)).unwrap_or(u32::MAX);
            slice.skip += before;
            slice.take -= before + after;
            found.push(slice);
        }
        found
    }
}

impl std::fmt::Debug for ScanCacheReader {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "ScanCacheReader({} groups)", self.groups.len())
    }
}
