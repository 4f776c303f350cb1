//! Reads chunks from packs: a whole pack if much of it is needed, ranges otherwise.
//!
//! A whole pack's name is checked before it is decrypted; age authenticates a range block by
//! block. Both are verified by the chunk's id before a byte is returned: until then, all bytes
//! from the store count as hostile.

use std::collections::{HashMap, VecDeque};
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use tokio::sync::OnceCell;

use crate::format::container::{ContainerError, DataIdentity, Head, Key, MAX_HEADER, Window, open};
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::ids::{ChunkId, NameId, ObjectHash};
use crate::format::layout::{Class, EpochPath, ObjectKey};
use crate::format::list::Place;
use crate::format::pack::{MAX_PACK, TableEntry, read_table};
use crate::format::pack_refs::PackName;
use crate::runtime::Workers;
use crate::runtime::lock;
use crate::store::{MAX_OBJECT, Store, StoreError};

use super::codec::{Codec, CodecError};
use crate::pipeline::chunk_index::SpillError;
use crate::pipeline::fallback::CopyFinder;

/// The bytes of a pack that a ranged read requests first: enough for a header with an X25519
/// stanza and the random stanza that some writers add.
const FIRST_BYTES: u64 = 1024;

/// A pack is read whole if at least one n-th of it is needed, with this n; otherwise by ranges.
pub(super) const WHOLE_FROM: u64 = 4;

/// The number of other copies of a chunk that are tried.
const MAX_COPIES: usize = 4;

/// An error while reading a chunk.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored object is not the one that was written.
    #[error("{object} is damaged: {what}")]
    Damaged {
        /// The object's key.
        object: String,
        /// The symptom of the damage.
        what: String,
    },
    /// A list or catalog of the snapshot is not one that a writer makes.
    #[error("the snapshot's {what} is malformed")]
    Malformed {
        /// The part of the snapshot.
        what: String,
    },
    /// The temporary file of the index could not be read.
    #[error(transparent)]
    Spill(#[from] SpillError),
    /// The run was cancelled.
    #[error("the run is ending")]
    Ended,
}

impl ReadError {
    /// True if the data is damaged or missing, false if it cannot be reached.
    #[must_use]
    pub fn is_damage(&self) -> bool {
        match self {
            Self::Damaged { .. } | Self::Malformed { .. } => true,
            Self::Store(error) => error.kind.is_absence(),
            Self::Spill(_) | Self::Ended => false,
        }
    }
}

/// The way in which a pack is read for the next slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Manner {
    /// As one object, which stays cached.
    Whole,
    /// Frame by frame, as ranges.
    Ranged,
}

type Shared<T> = Arc<OnceCell<T>>;

/// Reads chunks of one domain of one epoch.
pub struct Fetcher {
    store: Arc<dyn Store>,
    path: EpochPath,
    domain: NameId,
    identity: DataIdentity,
    key: Arc<DomainKey>,
    codec: Codec,
    workers: Workers,
    healer: Option<CopyFinder>,
    packs: Mutex<Cache<ObjectHash, Arc<Vec<u8>>>>,
    chunks: Mutex<Cache<ChunkId, Bytes>>,
    heads: Mutex<Cache<ObjectHash, Head>>,
    /// Packs that were fetched whole, each with the bytes requested from it since its eviction. 40
    /// bytes a pack.
    fetched: Mutex<HashMap<ObjectHash, u64>>,
}

impl Fetcher {
    /// Creates a reader that caches at most `memory` bytes of packs and chunks.
    #[must_use]
    pub fn new(
        store: Arc<dyn Store>,
        path: EpochPath,
        domain: NameId,
        identity: DataIdentity,
        key: Arc<DomainKey>,
        workers: Workers,
        memory: u64,
    ) -> Self {
        Self {
            store,
            path,
            domain,
            identity,
            key,
            codec: Codec::new(0, false),
            workers,
            healer: None,
            packs: Mutex::new(Cache::new(memory / 2)),
            chunks: Mutex::new(Cache::new(memory / 8)),
            heads: Mutex::new(Cache::new(1 << 20)),
            fetched: Mutex::default(),
        }
    }

    /// Makes the fetcher look for copies of chunks whose pack is damaged.
    #[must_use]
    pub fn with_healer(self, healer: CopyFinder) -> Self {
        Self { healer: Some(healer), ..self }
    }

    /// Returns the object key of a pack of this domain.
    #[must_use]
    pub fn pack_key(&self, pack: &ObjectHash) -> ObjectKey {
        self.path.in_domain(self.domain, Class::Pack, *pack)
    }

    /// Returns the key of this domain.
    #[must_use]
    pub fn key(&self) -> &Arc<DomainKey> {
        &self.key
    }

    /// Returns a chunk's plaintext, verified by its id.
    pub async fn chunk(
        &self,
        kind: ChunkKind,
        place: Place,
        id: ChunkId,
        manner: Manner,
    ) -> Result<Bytes, ReadError> {
        let cell = lock(&self.chunks).entry(id);
        let chunk = cell.get_or_try_init(|| self.decode_or_heal(kind, place, id, manner)).await?.clone();
        lock(&self.chunks).settle(&id, chunk.len() as u64);
        Ok(chunk)
    }

    /// Decodes a chunk from its listed place or, if that is damaged, from another copy in the
    /// index. The chunk's id verifies a copy as well as the original.
    async fn decode_or_heal(
        &self,
        kind: ChunkKind,
        place: Place,
        id: ChunkId,
        manner: Manner,
    ) -> Result<Bytes, ReadError> {
        let first = match self.decode(kind, place, id, manner).await {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        let Some(healer) = &self.healer else { return Err(first) };
        let mut bad = place.pack.hash;
        for _ in 0..MAX_COPIES {
            let Some(copy) = healer.elsewhere(&id, place.plain, bad).await? else { return Err(first) };
            match self.decode(kind, copy, id, Manner::Ranged).await {
                Err(error) if error.is_damage() => bad = copy.pack.hash,
                result => return result,
            }
        }
        Err(first)
    }

    async fn decode(
        &self,
        kind: ChunkKind,
        place: Place,
        id: ChunkId,
        manner: Manner,
    ) -> Result<Bytes, ReadError> {
        let length = place.length as usize;
        let prover = self.prover(&place.pack.hash);
        let prove = move |frame: &[u8]| prover.plain(frame, place.plain, kind, id, "the snapshot");
        if manner == Manner::Whole && self.is_worth_whole(place.pack, u64::from(place.length)) {
            let pack = self.whole(place.pack).await?;
            let object = self.pack_key(&place.pack.hash);
            return self
                .workers
                .run(move || {
                    let start = place.offset as usize;
                    let frame = start.checked_add(length).and_then(|end| pack.get(start..end));
                    prove(frame.ok_or_else(|| ReadError::Damaged {
                        object: object.to_string(),
                        what: "the snapshot names bytes past its end".into(),
                    })?)
                })
                .await;
        }
        let frame = self.range(place.pack, u64::from(place.offset), length).await?;
        self.workers.run(move || prove(&frame)).await
    }

    /// True if a pack should be fetched whole for the next `length` bytes. A pack that was fetched
    /// and evicted is read by ranges until enough of it was requested again. Otherwise a stream
    /// that alternates between more packs than fit in memory would fetch one for every chunk.
    fn is_worth_whole(&self, pack: PackName, length: u64) -> bool {
        if lock(&self.packs).has(&pack.hash) {
            return true;
        }
        let mut fetched = lock(&self.fetched);
        let Some(wanted) = fetched.get_mut(&pack.hash) else {
            fetched.insert(pack.hash, 0);
            return true;
        };
        *wanted += length;
        let enough = *wanted >= pack.size / WHOLE_FROM;
        if enough {
            *wanted = 0;
        }
        enough
    }

    fn prover(&self, pack: &ObjectHash) -> Prover {
        Prover { codec: self.codec.clone(), key: self.key.clone(), object: self.pack_key(pack) }
    }

    /// Returns the plaintext of a whole pack from the cache, and fetches it if needed.
    async fn whole(&self, pack: PackName) -> Result<Arc<Vec<u8>>, ReadError> {
        let cell = lock(&self.packs).entry(pack.hash);
        let plaintext =
            cell.get_or_try_init(|| async { self.open_pack(pack).await.map(Arc::new) }).await?.clone();
        lock(&self.packs).settle(&pack.hash, plaintext.len() as u64);
        Ok(plaintext)
    }

    async fn open_pack(&self, pack: PackName) -> Result<Vec<u8>, ReadError> {
        let object = self.pack_key(&pack.hash);
        // The pack's size is authenticated, so a longer object is damaged and need not be held in memory.
        let bytes = self.store.get(&object, pack.size.min(MAX_OBJECT)).await?;
        let identity = self.identity.clone();
        let job = move || {
            let damaged = |what: String| ReadError::Damaged { object: object.to_string(), what };
            if ObjectHash::of(&bytes) != pack.hash {
                return Err(damaged("its SHA-256 is not its name".into()));
            }
            open(&bytes, &Key::Identity(&identity), MAX_PACK as u64 + (8 << 20))
                .map_err(|error| damaged(container_text(&error)))
        };
        self.workers.run(job).await
    }

    /// Opens a whole pack, verifies every chunk in it by its id, and returns its table.
    ///
    /// # Errors
    /// The first damage found in it.
    pub async fn prove(&self, pack: PackName) -> Result<Vec<TableEntry>, ReadError> {
        let plaintext = self.open_pack(pack).await?;
        let prover = self.prover(&pack.hash);
        let job = move || {
            let table = read_table(&plaintext).map_err(|error| prover.damaged(error.to_string()))?;
            for entry in &table {
                let start = entry.offset as usize;
                // `read_table` checked the table against the pack's length.
                let frame = plaintext.get(start..start + entry.length as usize).unwrap_or_default();
                prover.plain(frame, entry.plain, entry.kind, entry.id, "its table")?;
            }
            Ok(table)
        };
        self.workers.run(job).await
    }

    /// Reads a range of a pack's plaintext.
    async fn range(&self, pack: PackName, start: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let object = self.pack_key(&pack.hash);
        let damaged = |what: &str| ReadError::Damaged { object: object.to_string(), what: what.to_owned() };
        let cell = lock(&self.heads).entry(pack.hash);
        let head = cell
            .get_or_try_init(|| async {
                for most in [FIRST_BYTES, MAX_HEADER] {
                    let first = self.store.get_range(&object, 0..most.min(pack.size)).await?;
                    if let Some(head) = Head::parse(&first) {
                        return Ok(head);
                    }
                }
                Err(damaged("it has no age header"))
            })
            .await?
            .clone();
        lock(&self.heads).settle(&pack.hash, 512);
        let range = head.sealed_range(start, start + length as u64, pack.size);
        if range.is_empty() {
            return Err(damaged("the snapshot names bytes past its end"));
        }
        let bytes = self.store.get_range(&object, range.clone()).await?;
        let window = Window { offset: range.start, bytes, size: pack.size };
        let identity = self.identity.clone();
        let opened = self.workers.run(move || head.open_range(&identity, &window, start, length)).await;
        opened.map_err(|error| damaged(&container_text(&error)))
    }
}

/// Verifies the chunks of one pack.
struct Prover {
    codec: Codec,
    key: Arc<DomainKey>,
    object: ObjectKey,
}

impl Prover {
    fn damaged(&self, what: String) -> ReadError {
        ReadError::Damaged { object: self.object.to_string(), what }
    }

    /// Decodes a chunk's frame to `length` bytes and verifies them against `id`; `namer` is the
    /// source of the id in messages.
    fn plain(
        &self,
        frame: &[u8],
        length: u32,
        kind: ChunkKind,
        id: ChunkId,
        namer: &str,
    ) -> Result<Bytes, ReadError> {
        let plain = self.codec.decode(frame, length as usize).map_err(|error| match error {
            CodecError::Zstd(_) => self.damaged("a chunk in it does not decompress".into()),
            other => self.damaged(other.to_string()),
        })?;
        if self.key.chunk_id(kind, &plain) != id {
            return Err(self.damaged(format!("a chunk in it is not the one that {namer} names")));
        }
        Ok(plain.into())
    }
}

fn container_text(error: &ContainerError) -> String {
    match error {
        ContainerError::WrongKey => "it is not encrypted to its epoch".into(),
        ContainerError::Damaged(_) => "it does not decrypt".into(),
        other => other.to_string(),
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({}d/{})", self.path.prefix(), self.domain)
    }
}

/// A cache whose values several readers can await together. The least recently used values are evicted first.
struct Cache<K, V> {
    most: u64,
    held: u64,
    cells: HashMap<K, (Shared<V>, u64)>,
    order: VecDeque<K>,
}

impl<K: Copy + Eq + std::hash::Hash, V> Cache<K, V> {
    fn new(most: u64) -> Self {
        Self { most, held: 0, cells: HashMap::new(), order: VecDeque::new() }
    }

    fn has(&self, key: &K) -> bool {
        self.cells.contains_key(key)
    }

    /// Returns the cell of a key; the first reader fills it.
    fn entry(&mut self, key: K) -> Shared<V> {
        if let Some((cell, _)) = self.cells.get(&key) {
            let cell = cell.clone();
            if let Some(at) = self.order.iter().rposition(|other| *other == key) {
                self.order.remove(at);
            }
            self.order.push_back(key);
            return cell;
        }
        let cell: Shared<V> = Arc::default();
        self.cells.insert(key, (cell.clone(), 0));
        self.order.push_back(key);
        cell
    }

    /// Records that the value of `key` takes `bytes`, and evicts other values until all fit.
    fn settle(&mut self, key: &K, bytes: u64) {
        if let Some((_, held)) = self.cells.get_mut(key) {
            self.held = self.held - *held + bytes;
            *held = bytes;
        }
        let mut looked_at = 0;
        while self.held > self.most && looked_at < self.order.len() {
            let Some(oldest) = self.order.pop_front() else { return };
            // A cell that is being filled, and the one just filled, are kept.
            let filled = self.cells.get(&oldest).is_some_and(|(cell, _)| cell.initialized());
            if oldest == *key || !filled {
                self.order.push_back(oldest);
                looked_at += 1;
            } else if let Some((_, bytes)) = self.cells.remove(&oldest) {
                self.held -= bytes;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn least_recently_used_value_is_evicted_first() {
        let mut cache: Cache<u8, u8> = Cache::new(100);
        for key in 0..3 {
            cache.entry(key).set(key).unwrap();
            cache.settle(&key, 40);
        }
        assert!(!cache.cells.contains_key(&0) && cache.held == 80);
        cache.entry(1);
        cache.entry(3).set(3).unwrap();
        cache.settle(&3, 40);
        assert!(cache.cells.contains_key(&1) && !cache.cells.contains_key(&2));
        cache.entry(4).set(4).unwrap();
        cache.settle(&4, 1000);
        assert!(cache.cells.contains_key(&4), "one that is larger than the cache can still be used");
    }
}
