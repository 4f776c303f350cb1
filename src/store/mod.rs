//! Stores of immutable objects under keys: one trait, with one conformance suite for all.
//!
//! [`open::open`] opens a store from a user's options. Each wrapper ([`retry`], [`deadline`], [`limit`]; for
//! tests `recording` and `fault`) is a store around another and has one task. [`listing::list_all`] reads a
//! whole prefix and checks every page. [`probe::probe`] tests the features of a store.

/// Implements the methods of [`Store`] that no wrapper changes with those of `self.inner`.
macro_rules! forward_to_inner {
    () => {
        fn describe(&self) -> String {
            self.inner.describe()
        }
        fn queries(&self) -> Option<&dyn super::probe::StoreQueries> {
            self.inner.queries()
        }
        fn versions(&self) -> Option<&dyn super::Versions> {
            self.inner.versions()
        }
        fn after(&self, key: &str) -> super::PageToken {
            self.inner.after(key)
        }
    };
}

pub mod deadline;
#[cfg(feature = "testing")]
pub mod fault;
pub mod file;
pub mod https;
pub mod limit;
pub mod listing;
#[cfg(feature = "testing")]
pub mod memory;
pub mod open;
pub mod operation;
pub mod options;
pub mod probe;
#[cfg(feature = "testing")]
pub mod recording;
pub mod retry;
pub mod s3;

use std::fmt;
use std::ops::Range;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use jiff::Timestamp;

use crate::format::{ids::to_hex, layout::ObjectKey, object::SealedObject};
use crate::report::outcome::Outcome;
use operation::Operation;

/// The largest object that kbak reads or writes whole, in bytes: a pack of 64 MiB with its overhead.
pub const MAX_OBJECT: u64 = 72 << 20;

/// The result of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PutOutcome {
    /// The object is stored and acknowledged.
    Created,
    /// The key already existed. Names are content hashes, so for a content-named object this is
    /// success if the size agrees; the caller decides.
    Existed,
}

/// The most bytes of buffers that a store lends and keeps for later reads and writes: one pack of the default memory
/// limit.
const KEPT_BUFFERS: u64 = 10 << 20;

/// The most entries that a page may have: the limit of S3, and of every store here.
pub const MAX_PAGE: usize = 1000;

/// The metadata of a listed object.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ListedObject {
    /// The object's key.
    pub key: ObjectKey,
    /// The object's size in bytes.
    pub size: u64,
    /// `true` if it is an object. In a folder, a link, a pipe or another folder can be in the place of
    /// one. It is listed with size 0 and never opened; reading it is [`StoreErrorKind::NotAFile`].
    pub is_file: bool,
    /// The time at which the object was stored, by the store's clock.
    pub modified: Timestamp,
    /// The store's ETag: a hint, never a proof.
    pub etag: Option<String>,
}

impl ListedObject {
    /// True if its ETag is the MD5 of `bytes`, as on stores where an ETag tells the content.
    #[must_use]
    pub fn has_md5_of(&self, bytes: &[u8]) -> bool {
        use md5::Digest as _;
        let md5 = to_hex(&md5::Md5::digest(bytes));
        self.etag.as_deref().is_some_and(|etag| etag.trim_matches('"').eq_ignore_ascii_case(&md5))
    }
}

/// One page of a listing, in ascending byte order of keys.
#[derive(Debug, Clone, Default)]
pub struct ObjectPage {
    /// The listed objects.
    pub entries: Vec<ListedObject>,
    /// Keys under the prefix that no repository has; skipped, and reported.
    pub unknown: Vec<String>,
    /// The token of the next page, if there is one.
    pub next: Option<PageToken>,
}

/// The position at which a listing continues. Opaque; valid for one store.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PageToken(pub String);

/// The error of a store operation.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} {}: {kind}", self.subject())]
pub struct StoreError {
    /// The operation that failed.
    pub operation: Operation,
    /// The key or prefix; empty if the store as a whole is affected.
    pub object: String,
    /// The store's name, without credentials.
    pub store: String,
    /// The kind of failure, which decides about retries and exit codes.
    pub kind: StoreErrorKind,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

impl StoreError {
    /// Creates an error without a cause.
    #[must_use]
    pub fn new(
        operation: Operation,
        object: impl Into<String>,
        store: impl Into<String>,
        kind: StoreErrorKind,
    ) -> Self {
        Self { operation, object: object.into(), store: store.into(), kind, source: None }
    }

    /// Returns the outcome of a run that ends with this error.
    #[must_use]
    pub fn outcome(&self) -> Outcome {
        use StoreErrorKind as Kind;
        match &self.kind {
            Kind::Denied(_)
            | Kind::Credentials(_)
            | Kind::CredentialsFile(_)
            | Kind::Settings(_)
            | Kind::NoBucket
            | Kind::Clock(_) => Outcome::Usage,
            Kind::Corrupt(_)
            | Kind::Protocol(_)
            | Kind::TooLarge { .. }
            | Kind::NotFound
            | Kind::NotAFile
            | Kind::Flooded { .. } => Outcome::Damaged,
            Kind::Full | Kind::Transient(_) | Kind::RetriesExhausted { .. } | Kind::Other(_) => {
                Outcome::Unreachable
            }
        }
    }

    /// Returns `true` if the store does not answer, or has no room.
    pub fn is_unreachable(&self) -> bool {
        self.outcome() == Outcome::Unreachable
    }

    fn subject(&self) -> String {
        if self.object.is_empty() { self.store.clone() } else { format!("{} in {}", self.object, self.store) }
    }

    /// Adds the cause.
    #[must_use]
    pub fn because(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// The kind of a store's failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum StoreErrorKind {
    /// No such object.
    #[error("not found")]
    NotFound,
    /// The credentials may not do this.
    #[error("access denied ({0})")]
    Denied(String),
    /// No credentials, unknown ones, or a wrong signature.
    #[error("the credentials are missing or not accepted ({0})")]
    Credentials(String),
    /// The file with the credentials is missing, or this user may not read it.
    #[error("{0}")]
    CredentialsFile(String),
    /// The settings are invalid: an address, a file, a value.
    #[error("{0}")]
    Settings(String),
    /// No such bucket or folder.
    #[error("the bucket or folder does not exist")]
    NoBucket,
    /// The store's clock and this machine's differ too far for a signature.
    #[error("this machine's clock and the store's differ too far ({0})")]
    Clock(String),
    /// The object is larger than the caller's limit.
    #[error("it is larger than {limit} bytes")]
    TooLarge {
        /// The limit in bytes.
        limit: u64,
    },
    /// The object's path is not a plain file but a link, a pipe, a folder or the like.
    #[error("not a regular file")]
    NotAFile,
    /// The bytes received are not those that were sent (checksum, length).
    #[error("the bytes received differ from those sent ({0})")]
    Corrupt(String),
    /// The store broke the rules of its protocol: order, repeated keys, impossible sizes.
    #[error("the store broke its protocol ({0})")]
    Protocol(String),
    /// One key signed the names of more objects than a reader lists.
    #[error("more than {most} objects are there whose names the key {signer} signed")]
    Flooded {
        /// The limit.
        most: usize,
        /// The fingerprint of the key.
        signer: String,
    },
    /// The store is full.
    #[error("the store is full")]
    Full,
    /// A retry may succeed: throttled, disconnected, timed out, 5xx.
    #[error("{0}")]
    Transient(String),
    /// All retries failed.
    #[error("gave up after {tries} tries in {after:?}: {last}")]
    RetriesExhausted {
        /// The number of tries.
        tries: u32,
        /// The time from the first try to the last failure.
        after: Duration,
        /// The kind of the last failure.
        last: String,
    },
    /// Any other failure.
    #[error("{0}")]
    Other(String),
}

impl StoreErrorKind {
    /// Returns `true` if another try may succeed.
    pub fn is_transient(&self) -> bool {
        matches!(self, Self::Transient(_) | Self::Corrupt(_))
    }

    /// Returns `true` if the store answered and the object is missing, too large or not a file.
    pub fn is_absence(&self) -> bool {
        matches!(self, Self::NotFound | Self::TooLarge { .. } | Self::NotAFile)
    }
}

/// The versions that a store keeps of an object that is stored again at its key.
#[async_trait]
pub trait Versions: Send + Sync {
    /// Returns the time at which the store received the first version that it has of an object. None if there is no
    /// such object, or the store does not say.
    async fn first_stored(&self, key: &ObjectKey) -> Result<Option<Timestamp>, StoreError>;
}

/// A store of immutable objects under keys.
///
/// Correctness never depends on conditional puts, ETags or list order: names are content hashes, a
/// commit lists the objects that it needs, and readers check every hash.
#[async_trait]
pub trait Store: Send + Sync + fmt::Debug {
    /// Returns the store's name for people, without credentials: `s3://bucket/prefix at https://…`.
    fn describe(&self) -> String;

    /// Stores an object under its key, only if the key is free and the store can check that.
    async fn put(&self, object: &SealedObject) -> Result<PutOutcome, StoreError>;

    /// Reads a whole object of at most `limit` bytes. A body shorter than the store announced is
    /// [`StoreErrorKind::Corrupt`], never a short success.
    async fn get(&self, key: &ObjectKey, limit: u64) -> Result<Bytes, StoreError>;

    /// Reads exactly `range` of an object; a shorter answer is an error. If the object ends before
    /// `range.end`, the answer ends with it: it is empty for a range beyond the end.
    async fn get_range(&self, key: &ObjectKey, range: Range<u64>) -> Result<Bytes, StoreError>;

    /// Reads one page of the keys under `prefix` (which ends with a slash or is empty), at most
    /// [`MAX_PAGE`] keys. The page is unchecked: use [`listing::list_all`], which checks.
    async fn list(&self, prefix: &str, from: Option<&PageToken>) -> Result<ObjectPage, StoreError>;

    /// Returns the token to continue a listing after `key`, which need not exist.
    fn after(&self, key: &str) -> PageToken;

    /// Removes an object; a missing one is no error. Only the probe and prune use it.
    async fn delete(&self, key: &ObjectKey) -> Result<(), StoreError>;

    /// Returns the queries that the store, or the one it wraps, supports beyond this trait.
    fn queries(&self) -> Option<&dyn probe::StoreQueries> {
        None
    }

    /// Returns the versions of objects, if the store, or the one it wraps, can have several of one key.
    fn versions(&self) -> Option<&dyn Versions> {
        None
    }

    /// Returns the time of the store's clock.
    async fn now(&self) -> Result<Timestamp, StoreError>;
}
