//! A verified snapshot that an owner has opened, and the readers of its streams.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;

use crate::format::body::{Body, BodyError, MAX_BODY, Stream};
use crate::format::derive::ChunkKind;
use crate::format::ids::{ChunkId, NameId};
use crate::format::list::ChunkLocation;
use crate::format::wrap::EpochKeys;
use crate::pipeline::{ReadError, fetch::Fetcher, reader::StreamReader};
use crate::report::event::Reporter;
use crate::report::outcome::Outcome;
use crate::repository::chain::Snapshot;
use crate::repository::read::copies::{DomainPlace, EpochCopies};
use crate::repository::read::reader::RepositoryReader;
use crate::runtime::Runtime;
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
    /// Opens the body of `snapshot` with the keys of its epoch. Copies of damaged chunks are looked for in
    /// `copies`. `memory` is the readers' limit in bytes.
    pub async fn open(
        view: &RepositoryReader,
        snapshot: Snapshot,
        keys: EpochKeys,
        copies: &Arc<EpochCopies>,
        memory: u64,
    ) -> Result<Self, SnapshotError> {
        let (store, runtime, reporter) = (view.store.clone(), view.runtime.clone(), view.reporter.clone());
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
        this.prepare(&keys, copies)?;
        Ok(this)
    }

    /// Creates one reader per domain, so that its streams share a cache.
    fn prepare(&mut self, keys: &EpochKeys, copies: &Arc<EpochCopies>) -> Result<(), SnapshotError> {
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
            let place = DomainPlace {
                store: self.store.clone(),
                path,
                domain,
                key: fetcher.key().clone(),
                reporter: self.reporter.clone(),
                share: share / 8,
            };
            let fetcher = fetcher.with_copy_finder(copies.finder(place));
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

    /// True if a chunk of a domain whose place is damaged has a copy elsewhere, which is read and verified.
    pub async fn has_copy(
        &self,
        domain: NameId,
        kind: ChunkKind,
        location: ChunkLocation,
        id: ChunkId,
    ) -> Result<bool, ReadError> {
        match self.fetchers.get(&domain) {
            Some(fetcher) => fetcher.has_copy(kind, location, id).await,
            None => Ok(false),
        }
    }
}

impl std::fmt::Debug for OpenSnapshot {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "OpenSnapshot({:?})", self.snapshot.key)
    }
}
