//! A verified snapshot that an owner has opened, and the readers of its streams.

use std::collections::{BTreeSet, HashMap, HashSet};
use std::sync::{Arc, Mutex};

use async_trait::async_trait;

use crate::format::body::{Body, BodyError, MAX_BODY, Stream};
use crate::format::ids::{NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass};
use crate::format::{derive::DomainKey, wrap::EpochKeys};
use crate::pipeline::fallback::{CopyFinder, IndexSource};
use crate::pipeline::{chunk_index::ChunkIndex, fetch::Fetcher, reader::StreamReader};
use crate::report::event::Reporter;
use crate::report::outcome::Outcome;
use crate::repository::{
    chain::Snapshot,
    index_loader::{DomainIndexLoader, TrustedIndexes},
};
use crate::runtime::{Runtime, lock};
use crate::store::{Store, StoreError};

/// An error while opening or reading a snapshot.
#[derive(Debug, thiserror::Error)]
pub enum SnapshotError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The body is not the one that the envelope names.
    #[error("the body of snapshot {seq} ({object}) cannot be used")]
    Body {
        /// The snapshot's sequence.
        seq: u64,
        /// The body's key.
        object: String,
        /// The cause.
        #[source]
        source: BodyError,
    },
    /// A stream is in a domain that the body does not name.
    #[error("a stream lies in domain {0}, which the snapshot does not name")]
    Domain(NameId),
}

impl SnapshotError {
    /// Returns the outcome of a run that ends with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        if let Self::Store(error) = self { error.outcome() } else { Outcome::Damaged }
    }
}

/// A snapshot that an owner has opened.
pub struct OpenSnapshot {
    snapshot: Snapshot,
    body: Body,
    store: Arc<dyn Store>,
    runtime: Runtime,
    reporter: Reporter,
    fetchers: HashMap<NameId, Arc<Fetcher>>,
    memory: u64,
}

impl OpenSnapshot {
    /// Opens the body of `snapshot` with the keys of its epoch. `memory` is the readers' limit in bytes.
    pub async fn open(
        store: Arc<dyn Store>,
        runtime: Runtime,
        reporter: Reporter,
        snapshot: Snapshot,
        keys: EpochKeys,
        memory: u64,
    ) -> Result<Self, SnapshotError> {
        let envelope = snapshot.envelope();
        let key = envelope.path().body(envelope.body);
        // The size is signed, so a longer object need not be read.
        let sealed = store.get(&key, envelope.body_size.min(MAX_BODY + (1 << 20))).await?;
        let body = Body::open(&sealed, envelope, &keys.identity).map_err(|source| SnapshotError::Body {
            seq: envelope.seq,
            object: key.to_string(),
            source,
        })?;
        let fetchers = HashMap::new();
        let mut this = Self { snapshot, body, store, runtime, reporter, fetchers, memory };
        this.prepare(&keys)?;
        Ok(this)
    }

    /// Creates one reader per domain, so that its streams share a cache.
    fn prepare(&mut self, keys: &EpochKeys) -> Result<(), SnapshotError> {
        let path = self.snapshot.envelope().path();
        let domains: HashSet<NameId> = self.streams().map(|(_, stream)| stream.domain).collect();
        let share = self.memory / domains.len().max(1) as u64;
        for domain in domains {
            let name = self.body.domains.get(&domain).ok_or(SnapshotError::Domain(domain))?;
            let fetcher = Fetcher::new(
                self.store.clone(),
                path,
                domain,
                keys.identity.clone(),
                Arc::new(keys.secret.domain(name)),
                self.runtime.workers,
                share.max(4 << 20),
            );
            let indexes = DomainIndexes {
                store: self.store.clone(),
                path,
                domain,
                key: fetcher.key().clone(),
                reporter: self.reporter.clone(),
                share: share / 8,
                reported: Mutex::default(),
            };
            let fetcher = fetcher.with_copy_finder(CopyFinder::new(Arc::new(indexes)));
            self.fetchers.insert(domain, Arc::new(fetcher));
        }
        Ok(())
    }

    /// Returns the manifest and its place.
    #[must_use]
    pub fn snapshot(&self) -> &Snapshot {
        &self.snapshot
    }

    /// Returns the decrypted body.
    #[must_use]
    pub fn body(&self) -> &Body {
        &self.body
    }

    /// Returns all streams with the names of their items.
    pub fn streams(&self) -> impl Iterator<Item = (&str, &Stream)> {
        self.body.items.iter().flat_map(|item| item.streams.iter().map(|stream| (item.name.as_str(), stream)))
    }

    /// Returns a reader of one stream of this snapshot.
    pub fn read(&self, stream: &Stream) -> Result<StreamReader, SnapshotError> {
        let fetcher = self.fetchers.get(&stream.domain);
        let fetcher = fetcher.ok_or(SnapshotError::Domain(stream.domain))?.clone();
        Ok(StreamReader::new(fetcher, stream.clone(), self.runtime.workers.count() * 2))
    }
}

/// Loads the index of a domain, to find copies of chunks in damaged packs.
struct DomainIndexes {
    store: Arc<dyn Store>,
    path: EpochPath,
    domain: NameId,
    key: Arc<DomainKey>,
    reporter: Reporter,
    /// The memory that the index may take, in bytes.
    share: u64,
    reported: Mutex<HashSet<ObjectHash>>,
}

#[async_trait]
impl IndexSource for DomainIndexes {
    async fn load(&self, bad: &BTreeSet<ObjectHash>) -> Result<ChunkIndex, StoreError> {
        let loader = DomainIndexLoader {
            store: &self.store,
            path: self.path,
            domain: self.domain,
            reporter: &self.reporter,
        };
        Ok(loader.load(&self.key, bad, TrustedIndexes::All, &[], self.share).await?.known)
    }

    fn report_copy_used(&self, bad: &ObjectHash) {
        if lock(&self.reported).insert(*bad) {
            let object = self.path.in_domain(self.domain, ObjectClass::Pack, *bad);
            self.reporter
                .warn(object.to_string(), "it is missing or damaged: copies that lie elsewhere are used");
        }
    }
}

impl std::fmt::Debug for OpenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenSnapshot({:?})", self.snapshot.key)
    }
}
