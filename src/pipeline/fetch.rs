//! Reads chunks from packs: a whole pack if much of it is needed, ranges otherwise.
//!
//! age authenticates a pack or a range of it block by block, and the chunk's id verifies what it decodes to before a
//! byte is returned: until then, all bytes from the store count as hostile. The name of a whole pack would add
//! nothing to that, and its hash takes as long as decryption: it is compared by [`Fetcher::verify_pack`], whose answer
//! is about the pack itself.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::stream::{self, StreamExt as _};

use super::chunk_index::copies::CopyIndex;
use super::chunk_verifier::{ChunkVerifier, container_text};
use super::codec::Codec;
use super::{ReadError, fallback::CopyFinder, shared_cache::SharedCache};
use crate::format::container::{
    ContainerHead, ContainerKey, DataIdentity, MAX_HEADER, ObjectRange, open_into,
};
use crate::format::derive::{ChunkKind, DomainKey};
use crate::format::ids::{ChunkId, NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass, ObjectKey};
use crate::format::pack::{MAX_PACK, TableEntry, TableError, read_entries, read_table, table_length};
use crate::format::{list::ChunkLocation, pack_refs::PackName};
use crate::runtime::{Buffer, BufferPool, Workers, lock};
use crate::store::{MAX_OBJECT, Store};

/// The bytes of a pack that a ranged read requests first: enough for a header with an X25519
/// stanza and the random stanza that some writers add.
const FIRST_BYTES: u64 = 1024;

/// A pack is read whole if at least one n-th of it is needed, with this n; otherwise by ranges.
pub(super) const WHOLE_PACK_DIVISOR: u64 = 4;

/// The packs whose tables are read at once.
const PARALLEL_TABLES: usize = 4;

/// The bytes at the end of a pack that are read first for its table: some 1,300 chunks.
const TABLE_BYTES: u64 = 64 << 10;

/// The way in which a pack is read for the next slices.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum ReadMode {
    /// As one object, which stays cached.
    Whole,
    /// Frame by frame, as ranges, unless it is cached.
    Ranged,
}

/// A chunk, and the place of one copy of it.
#[derive(Clone, Copy)]
struct StoredChunk {
    kind: ChunkKind,
    location: ChunkLocation,
    id: ChunkId,
}

/// Reads chunks of one domain of one epoch.
pub struct Fetcher {
    store: Arc<dyn Store>,
    path: EpochPath,
    domain: NameId,
    identity: DataIdentity,
    key: Arc<DomainKey>,
    codec: Codec,
    workers: Workers,
    copy_finder: Option<Arc<CopyFinder>>,
    /// The buffers of decrypted packs.
    pack_buffers: BufferPool,
    packs: Mutex<SharedCache<ObjectHash, Arc<Buffer>>>,
    /// Held while a pack is opened before its turn: one at a time.
    ahead: tokio::sync::Mutex<()>,
    chunks: Mutex<SharedCache<ChunkId, Bytes>>,
    heads: Mutex<SharedCache<ObjectHash, ContainerHead>>,
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
            // Chunks in the cache, those being decoded, and those that wait to be written.
            codec: Codec::new(0, false, BufferPool::new(memory / 8 * 3)),
            workers,
            copy_finder: None,
            // Five packs of the default memory limit: those between which chunks alternate, and those that take their
            // place. The pool has room for one more, which takes the place of the first.
            pack_buffers: BufferPool::new(memory / 8 * 7),
            packs: Mutex::new(SharedCache::new(memory / 4 * 3)),
            ahead: tokio::sync::Mutex::new(()),
            chunks: Mutex::new(SharedCache::new(memory / 8)),
            heads: Mutex::new(SharedCache::new(1 << 20)),
            fetched: Mutex::default(),
        }
    }

    /// Makes the fetcher look for copies of chunks whose pack is damaged.
    #[must_use]
    pub fn with_copy_finder(self, copy_finder: Arc<CopyFinder>) -> Self {
        Self { copy_finder: Some(copy_finder), ..self }
    }

    fn pack_key(&self, pack: &ObjectHash) -> ObjectKey {
        self.path.in_domain(self.domain, ObjectClass::Pack, *pack)
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
        location: ChunkLocation,
        id: ChunkId,
        mode: ReadMode,
    ) -> Result<Bytes, ReadError> {
        let cell = lock(&self.chunks).cell(id);
        let stored = StoredChunk { kind, location, id };
        let chunk = cell.get_or_try_init(|| self.decode_or_find_copy(stored, mode)).await?.clone();
        lock(&self.chunks).set_size(&id, chunk.len() as u64);
        Ok(chunk)
    }

    /// Decodes a chunk from its listed place or, if that is damaged, from another copy. The chunk's id verifies a
    /// copy as well as the original.
    async fn decode_or_find_copy(&self, chunk: StoredChunk, mode: ReadMode) -> Result<Bytes, ReadError> {
        let first = match self.decode(chunk, mode).await {
            Err(error) if error.is_damage() => error,
            result => return result,
        };
        self.decode_copy(chunk).await?.ok_or(first)
    }

    /// True if a chunk whose place is damaged has a copy elsewhere, which is read and verified.
    pub async fn has_copy(
        &self,
        kind: ChunkKind,
        location: ChunkLocation,
        id: ChunkId,
    ) -> Result<bool, ReadError> {
        Ok(self.decode_copy(StoredChunk { kind, location, id }).await?.is_some())
    }

    /// Decodes another copy of a chunk: tries every place that an index object names, then every place that the
    /// packs' own tables name.
    async fn decode_copy(&self, chunk: StoredChunk) -> Result<Option<Bytes>, ReadError> {
        let Some(finder) = &self.copy_finder else { return Ok(None) };
        let StoredChunk { id, location, .. } = chunk;
        let mut found = self.decode_first(chunk, finder.indexed(&id, location.plain).await?).await?;
        if found.is_none() {
            let tables = finder.tables.get_or_try_init(|| self.read_tables(finder)).await?;
            found = self.decode_first(chunk, tables.places(&id, location.plain)?).await?;
        }
        if found.is_some() {
            finder.report_copy_used(&location.pack.hash);
        }
        Ok(found)
    }

    /// Decodes the first of `places` that holds the chunk.
    async fn decode_first(
        &self,
        chunk: StoredChunk,
        places: Vec<ChunkLocation>,
    ) -> Result<Option<Bytes>, ReadError> {
        for location in places.into_iter().filter(|place| *place != chunk.location) {
            match self.decode(StoredChunk { location, ..chunk }, ReadMode::Ranged).await {
                Err(error) if error.is_damage() => {}
                result => return result.map(Some),
            }
        }
        Ok(None)
    }

    /// Reads the tables of the packs that `finder` names. One that is damaged is skipped.
    async fn read_tables(&self, finder: &CopyFinder) -> Result<CopyIndex, ReadError> {
        let (packs, mut copies) = finder.packs().await?;
        let mut read = stream::iter(packs)
            .map(|pack| async move { (pack, self.table(pack).await) })
            .buffered(PARALLEL_TABLES);
        while let Some((pack, table)) = read.next().await {
            match table {
                Ok(table) => copies.add_table(pack, &table)?,
                Err(error) if error.is_damage() => {}
                Err(error) => return Err(error),
            }
        }
        Ok(copies)
    }

    /// Reads the table at the end of a pack.
    async fn table(&self, pack: PackName) -> Result<Vec<TableEntry>, ReadError> {
        let wrong = |error: TableError| ReadError::Damaged {
            object: self.pack_key(&pack.hash).to_string(),
            what: error.to_string(),
        };
        let length = self.head(pack).await?.plaintext_length(pack.size);
        let mut end = Vec::new();
        let mut wanted = TABLE_BYTES.min(length);
        while (end.len() as u64) < wanted {
            end = self.range(pack, length - wanted, usize::try_from(wanted).unwrap_or(usize::MAX)).await?;
            let table = table_length(&end).map_err(wrong)?;
            if table as u64 > length.min(MAX_PACK as u64) {
                return Err(wrong(TableError("count")));
            }
            wanted = table as u64;
        }
        let start = end.len() - usize::try_from(wanted).unwrap_or(0);
        read_entries(&end[start..]).map_err(wrong)
    }

    async fn decode(&self, chunk: StoredChunk, mode: ReadMode) -> Result<Bytes, ReadError> {
        let StoredChunk { kind, location, id } = chunk;
        let length = location.length as usize;
        let verifier = self.verifier(&location.pack.hash);
        let verify =
            move |frame: &[u8]| verifier.decode_verified(frame, location.plain, kind, id, "the snapshot");
        let whole = match mode {
            ReadMode::Whole => self.is_worth_whole(location.pack, u64::from(location.length)),
            ReadMode::Ranged => lock(&self.packs).is_filled(&location.pack.hash),
        };
        if whole {
            let pack = self.whole(location.pack).await?;
            let object = self.pack_key(&location.pack.hash);
            return self
                .workers
                .run(move || {
                    let start = location.offset as usize;
                    let frame = start.checked_add(length).and_then(|end| pack.get(start..end));
                    verify(frame.ok_or_else(|| ReadError::Damaged {
                        object: object.to_string(),
                        what: "the snapshot names bytes past its end".into(),
                    })?)
                })
                .await;
        }
        let frame = self.range(location.pack, u64::from(location.offset), length).await?;
        self.workers.run(move || verify(&frame)).await
    }

    /// True if a pack should be fetched whole for the next `length` bytes. A pack that was fetched and evicted is read
    /// by ranges until as many bytes as it has were requested again. Otherwise a stream that alternates between more
    /// packs than fit in memory would fetch one for every few chunks. So at most the size of each pack and twice the
    /// requested bytes are read.
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
        let enough = *wanted >= pack.size;
        if enough {
            *wanted = 0;
        }
        enough
    }

    /// Opens a pack that was never read, before its turn. An error is left to the read of its chunks.
    pub(super) async fn open_ahead(&self, pack: PackName) {
        let is_new = || !lock(&self.fetched).contains_key(&pack.hash);
        if !is_new() {
            return;
        }
        let _turn = self.ahead.lock().await;
        if is_new() && self.is_worth_whole(pack, 0) {
            let _ = self.whole(pack).await;
        }
    }

    fn verifier(&self, pack: &ObjectHash) -> ChunkVerifier {
        ChunkVerifier::new(self.codec.clone(), self.key.clone(), self.pack_key(pack))
    }

    /// Returns the plaintext of a whole pack from the cache, and fetches it if needed.
    async fn whole(&self, pack: PackName) -> Result<Arc<Buffer>, ReadError> {
        let cell = lock(&self.packs).cell(pack.hash);
        let plaintext =
            cell.get_or_try_init(|| async { self.open_pack(pack, false).await.map(Arc::new) }).await?.clone();
        lock(&self.packs).set_size(&pack.hash, plaintext.len() as u64);
        Ok(plaintext)
    }

    /// Reads a pack and decrypts it. Compares its name first if `named`, otherwise only to explain an error.
    async fn open_pack(&self, pack: PackName, named: bool) -> Result<Buffer, ReadError> {
        let object = self.pack_key(&pack.hash);
        // The pack's size is authenticated, so a longer object is damaged and need not be held in memory.
        let bytes = self.store.get(&object, pack.size.min(MAX_OBJECT)).await?;
        let (identity, buffers) = (self.identity.clone(), self.pack_buffers.clone());
        let job = move || {
            let has_name = || ObjectHash::of(&bytes) == pack.hash;
            let damaged = |what: String| ReadError::Damaged { object: object.to_string(), what };
            let other_name = || damaged("its SHA-256 differs from its name".into());
            if named && !has_name() {
                return Err(other_name());
            }
            let mut plaintext = buffers.take(bytes.len());
            open_into(
                &bytes,
                &ContainerKey::Identity(&identity),
                MAX_PACK as u64 + (8 << 20),
                &mut plaintext,
            )
            .map_err(|error| if has_name() { damaged(container_text(&error)) } else { other_name() })?;
            Ok(plaintext)
        };
        self.workers.run(job).await
    }

    /// Opens a whole pack, compares its name, verifies every chunk in it by its id, and returns its table. Fails
    /// with the first damage found.
    pub async fn verify_pack(&self, pack: PackName) -> Result<Vec<TableEntry>, ReadError> {
        let plaintext = self.open_pack(pack, true).await?;
        let verifier = self.verifier(&pack.hash);
        let job = move || {
            let table = read_table(&plaintext).map_err(|error| verifier.damaged(error.to_string()))?;
            for entry in &table {
                let start = entry.offset as usize;
                // `read_table` checked the table against the pack's length.
                let frame = plaintext.get(start..start + entry.length as usize).unwrap_or_default();
                verifier.decode_verified(frame, entry.plain, entry.kind, entry.id, "its table")?;
            }
            Ok(table)
        };
        self.workers.run(job).await
    }

    /// Reads the header of a pack's age file.
    async fn head(&self, pack: PackName) -> Result<ContainerHead, ReadError> {
        let object = self.pack_key(&pack.hash);
        let cell = lock(&self.heads).cell(pack.hash);
        let head = cell
            .get_or_try_init(|| async {
                for most in [FIRST_BYTES, MAX_HEADER] {
                    let first = self.store.get_range(&object, 0..most.min(pack.size)).await?;
                    if let Some(head) = ContainerHead::parse(&first) {
                        return Ok(head);
                    }
                }
                let what = "it has no age header".to_owned();
                Err(ReadError::Damaged { object: object.to_string(), what })
            })
            .await?
            .clone();
        lock(&self.heads).set_size(&pack.hash, 512);
        Ok(head)
    }

    async fn range(&self, pack: PackName, start: u64, length: usize) -> Result<Vec<u8>, ReadError> {
        let object = self.pack_key(&pack.hash);
        let damaged = |what: &str| ReadError::Damaged { object: object.to_string(), what: what.to_owned() };
        let head = self.head(pack).await?;
        let range = head.sealed_range(start, start + length as u64, pack.size);
        if range.is_empty() {
            return Err(damaged("the snapshot names bytes past its end"));
        }
        let bytes = self.store.get_range(&object, range.clone()).await?;
        let window = ObjectRange { offset: range.start, bytes, size: pack.size };
        let identity = self.identity.clone();
        let opened = self.workers.run(move || head.open_range(&identity, &window, start, length)).await;
        opened.map_err(|error| damaged(&container_text(&error)))
    }
}

impl std::fmt::Debug for Fetcher {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Fetcher({}d/{})", self.path.prefix(), self.domain)
    }
}
