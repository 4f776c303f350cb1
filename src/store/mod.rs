//! Stores: immutable objects under keys. One trait, one conformance suite for all.
//!
//! [`open::open`] makes a store from what a user said. Each wrapper ([`retry`], [`deadline`],
//! [`limit`], [`record`], [`fault`]) is a store around a store and does one thing;
//! [`listing::list_all`] reads a prefix to its end and trusts no page; [`probe::probe`] learns what
//! a store honours.

pub mod deadline;
pub mod fault;
pub mod file;
pub mod limit;
pub mod listing;
pub mod memory;
pub mod open;
pub mod operation;
pub mod probe;
pub mod record;
pub mod retry;
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::format::layout::ObjectKey;
use crate::format::object::Sealed;
use operation::Operation;

/// The largest object kbak reads or writes whole: a pack of 64 MiB with its overhead.
pub const MAX_OBJECT: u64 = 72 << 20;

/// How a put ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Put {
    /// The object is stored and acknowledged.
    Created,
    /// The key was taken. Names are content hashes, so for a content-named object this is
    /// success once the size agrees; the caller decides.
    Existed,
}

/// The most entries a page may have: what S3 allows, and what every store of ours gives.
pub const MAX_PAGE: usize = 1000;

/// What a store says of an object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Its key.
    pub key: ObjectKey,
    /// Its size in bytes.
    pub size: u64,
    /// Whether it is an object. In a folder something else can stand in the place of one: a link, a
    /// pipe, a folder. It is listed without a byte and never opened; reading it is
    /// [`StoreErrorKind::NotAFile`].
    pub plain: bool,
    /// When the store took it, by the store's clock.
    pub modified: Timestamp,
    /// The store's own tag: a hint, never a proof.
    pub etag: Option<String>,
}

/// One page of a listing, in ascending byte order of keys.
#[derive(Debug, Clone, Default)]
pub struct Page {
    /// The entries.
    pub entries: Vec<Entry>,
    /// Keys under the prefix that no repository of ours would hold; skipped, and said.
    pub foreign: Vec<String>,
    /// Where the next page starts, if there is one.
    pub next: Option<PageToken>,
}

/// Where a listing goes on. Opaque; belongs to one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

/// Why an operation of a store failed.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {kind}", self.place())]
pub struct StoreError {
    /// What was tried.
    pub operation: Operation,
    /// The key or prefix; empty where it is the store itself.
    pub object: String,
    /// The store, without credentials.
    pub store: String,
    /// What kind of failure it is, which decides about retries and exit codes.
    pub kind: StoreErrorKind,
    /// What lies beneath.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// An error without a cause beneath.
    #[must_use]
    pub fn new(
        operation: Operation,
        object: impl Into<String>,
        store: impl Into<String>,
        kind: StoreErrorKind,
    ) -> Self {
        Self { operation, object: object.into(), store: store.into(), kind, source: None }
    }

    fn place(&self) -> String {
        if self.object.is_empty() { self.store.clone() } else { format!("{} in {}", self.object, self.store) }
    }

    /// With its cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Kinds of failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// No such object.
    #[error("it is not there")]
    NotFound,
    /// The credentials may not do this.
    #[error("access denied ({0})")]
    Denied(String),
    /// No credentials, unknown ones, or a wrong signature.
    #[error("the credentials are missing or not accepted ({0})")]
    Credentials(String),
    /// The settings do not make a store: an address, a file, a value.
    #[error("{0}")]
    Settings(String),
    /// No such bucket or folder.
    #[error("the bucket or folder is not there")]
    NoBucket,
    /// The store's clock and this machine's differ too far for a signature.
    #[error("this machine's clock and the store's differ too far ({0})")]
    Clock(String),
    /// The object is larger than the caller takes.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The most the caller takes.
        limit: u64,
    },
    /// A link, a pipe, a folder or the like stands in the object's place.
    #[error("something that is no plain file stands in its place")]
    NotAFile,
    /// The bytes that arrived are not those that were sent (checksum, length).
    #[error("what arrived is not what was sent ({0})")]
    Corrupt(String),
    /// The store broke the rules of its protocol: order, repeated keys, impossible sizes.
    #[error("the store broke its protocol ({0})")]
    Protocol(String),
    /// No room.
    #[error("no room is left")]
    Full,
    /// Worth trying again: throttled, cut, timed out, 5xx.
    #[error("{0}")]
    Transient(String),
    /// The bounded tries are used up.
    #[error("gave up after {tries} tries in {after:?}: {last}")]
    GaveUp {
        /// How many.
        tries: u32,
        /// Over how long.
        after: Duration,
        /// What the last one said.
        last: String,
    },
    /// Anything else.
    #[error("{0}")]
    Other(String),
}

impl StoreErrorKind {
    /// Whether another try may help.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::Corrupt(_))
    }

    /// Whether the store answered, and what was to be there is not: nothing, or what no writer puts there.
    #[must_use]
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound | Self::TooLarge { .. } | Self::NotAFile)
    }
}

/// Immutable objects under keys.
///
/// Correctness never rests on conditional puts, ETags or list order being honoured: names are
/// content hashes, a commit lists what it needs, and readers check every hash.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// What a person would call it, without credentials: `s3://bucket/prefix at https://…`.
    fn describe(&self) -> String;

    /// Stores an object under its key, only if the key is free where the store can say so.
    async fn put(&self, object: &Sealed) -> Result<Put, StoreError>;

    /// Reads a whole object of at most `limit` bytes. A body shorter than the store announced is
    /// [`StoreErrorKind::Corrupt`], never a short success.
    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError>;

    /// Reads `range` of an object, exactly; a shorter answer is an error. For objects that end
    /// before `range.end` the answer ends with the object, so for a range that starts at or after
    /// the end, and for an empty one, it is empty.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// One page of what lies under `prefix` (which ends with a slash or is empty), at most
    /// [`MAX_PAGE`] keys. A page is what the store said: use [`listing::list_all`], which checks.
    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<Page, StoreError>;

    /// The token with which a listing goes on after `key`, whether that key is there or not.
    fn after(&self, key: &str) -> PageToken;

    /// Removes an object; to remove what is not there is no error. Only the probe and prune do.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// What the store can be asked besides, where it has more to say than an object store must.
    /// A wrapper passes the question on.
    fn ask(&self) -> Option<&dyn probe::Ask> {
        None
    }

    /// The store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
