//! Tests the features of a store by using them.
//!
//! Correctness never depends on the result: a store may change, and some ignore `If-None-Match` or
//! checksums silently (engines.md 3.1). The result decides which findings people see and which
//! features a plan may require. Every object written here is a [`SealedObject::probe`] under
//! `<writer>/probe/`, removed again if that is allowed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::{
    ListedObject, PutOutcome, Store, StoreError, StoreErrorKind, listing::list_all, operation::Operation,
};
use crate::format::ids::{ObjectHash, WriterId};
use crate::format::layout::{ObjectKey, probes_prefix};
use crate::format::object::SealedObject;
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// The number of concurrent puts to one key.
const RACERS: usize = 8;

/// The size of a probe, in bytes.
const PROBE: u64 = 32;

/// Queries beyond those of every store. Only stores with these features implement them.
#[async_trait]
pub trait StoreQueries: Send + Sync {
    /// Puts an object while claiming that its SHA-256 is `wrong`.
    async fn put_wrong_checksum(
        &self,
        object: &SealedObject,
        wrong: ObjectHash,
    ) -> Result<ChecksumSupport, StoreError>;

    /// Asks if the bucket keeps versions.
    async fn versions(&self) -> Result<FeatureState, StoreError>;

    /// Asks if the bucket can lock objects.
    async fn object_lock(&self) -> Result<FeatureState, StoreError>;
}

/// The handling of a put's checksum by a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ChecksumSupport {
    /// The store compares it and rejects a wrong one.
    Verified,
    /// The store accepts a wrong one.
    Ignored,
    /// The store rejects the header.
    Refused,
    /// The store has no checksums.
    None,
}

/// The setting of a bucket's feature.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FeatureState {
    /// The feature is on.
    On,
    /// The feature is off.
    Off,
    /// Unknown: no right to ask, or the store does not know the request.
    Unknown,
    /// The store does not have the feature.
    None,
}

/// The handling of a put to an existing key by a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ConditionalPut {
    /// One put creates the object, and all others report that it exists.
    Honoured,
    /// A later put reports that it exists, but several at once may all report that they created it.
    Racy,
    /// The put replaces the object silently.
    Ignored,
}

/// The features of a store, as a probe found them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct StoreFeatures {
    /// The handling of create-only puts.
    pub conditional_put: ConditionalPut,
    /// The handling of checksums.
    pub checksum: ChecksumSupport,
    /// The setting of versions.
    pub versions: FeatureState,
    /// The setting of object lock.
    pub object_lock: FeatureState,
    /// `true` if listings give the MD5 of an object as its ETag, so that an overwritten pack is noticed.
    pub content_etags: bool,
    /// `true` if listings are in ascending order, each key once.
    pub ordered_lists: bool,
    /// `true` if an object can be read as soon as it is acknowledged.
    pub read_after_write: bool,
    /// `true` if an object is listed as soon as it is acknowledged.
    pub list_after_write: bool,
    /// `true` if these credentials may remove objects.
    pub may_delete: bool,
    /// The store's clock minus this machine's, in seconds.
    pub clock_ahead_seconds: i64,
}

/// The severity of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// As desired.
    Good,
    /// Information.
    Note,
    /// Something an operator should change.
    Warning,
    /// kbak should not be used with this store as it is.
    Problem,
}

/// One finding, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct StoreFinding {
    /// The severity of the finding.
    #[serde(rename = "weight")]
    pub severity: Severity,
    /// The finding, in one line.
    pub what: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProbeReport {
    /// The features, for programs.
    #[serde(rename = "abilities")]
    pub features: StoreFeatures,
    /// The findings, for people.
    pub findings: Vec<StoreFinding>,
}

/// Tests `store` with the credentials that it has. Fails if the store cannot be used at all: no
/// right to put or to list, no bucket, bytes that come back changed.
pub async fn probe(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    writer: WriterId,
) -> Result<ProbeReport, StoreError> {
    let mut run = ProbeRun { store, runtime, writer, sent: Vec::new(), stored: HashSet::new() };
    let result = run.run().await;
    // Probes are removed after a failure too.
    let may_delete = run.clean_up().await;
    let mut features = result?;
    features.may_delete = may_delete?;
    let findings = findings(&features);
    Ok(ProbeReport { features, findings })
}

struct ProbeRun<'a> {
    store: &'a Arc<dyn Store>,
    runtime: &'a Runtime,
    writer: WriterId,
    /// All probes that were sent, to be removed again.
    sent: Vec<SealedObject>,
    /// The probes that the store acknowledged.
    stored: HashSet<ObjectKey>,
}

impl ProbeRun<'_> {
    fn object(&mut self) -> SealedObject {
        let object = SealedObject::probe(self.writer, self.runtime.random());
        self.sent.push(object.clone());
        object
    }

    async fn put(&mut self, object: &SealedObject) -> Result<PutOutcome, StoreError> {
        let put = self.store.put(object).await?;
        self.stored.insert(object.key().clone());
        Ok(put)
    }

    async fn run(&mut self) -> Result<StoreFeatures, StoreError> {
        let ahead = self.store.now().await?.duration_since(self.runtime.clock.now());
        let first = self.object();
        self.put(&first).await?;
        let read_after_write = self.reads_back(&first).await?;
        let conditional_put = match self.put(&first).await? {
            PutOutcome::Created => ConditionalPut::Ignored,
            PutOutcome::Existed if self.race().await? <= 1 => ConditionalPut::Honoured,
            PutOutcome::Existed => ConditionalPut::Racy,
        };
        let (checksum, versions, object_lock) = self.query().await?;
        let (once, ordered_lists) = self.listed().await?;
        Ok(StoreFeatures {
            conditional_put,
            checksum,
            versions,
            object_lock,
            content_etags: once.get(first.key()).is_some_and(|entry| entry.has_md5_of(first.bytes())),
            ordered_lists,
            read_after_write,
            list_after_write: self.stored.iter().all(|key| once.get(key).is_some_and(|e| e.size == PROBE)),
            may_delete: false,
            clock_ahead_seconds: ahead.as_secs(),
        })
    }

    /// Returns `true` if a just acknowledged object can be read. Other bytes are an error.
    async fn reads_back(&self, object: &SealedObject) -> Result<bool, StoreError> {
        match self.store.get(object.key(), PROBE).await {
            Ok(bytes) if bytes == *object.bytes() => Ok(true),
            Ok(_) => {
                let kind = StoreErrorKind::Corrupt("a probe was read back with other bytes".into());
                let key = object.key().as_str();
                Err(StoreError::new(Operation::Probe, key, self.store.describe(), kind))
            }
            Err(error) if error.kind == StoreErrorKind::NotFound => Ok(false),
            Err(error) => Err(error),
        }
    }

    /// Returns how many of several concurrent puts to one free key report that they created it.
    async fn race(&mut self) -> Result<usize, StoreError> {
        let object = self.object();
        let mut created = 0;
        for put in join_all((0..RACERS).map(|_| self.store.put(&object))).await {
            created += usize::from(put? == PutOutcome::Created);
        }
        self.stored.insert(object.key().clone());
        Ok(created)
    }

    async fn query(&mut self) -> Result<(ChecksumSupport, FeatureState, FeatureState), StoreError> {
        let Some(queries) = self.store.queries() else {
            return Ok((ChecksumSupport::None, FeatureState::None, FeatureState::None));
        };
        let object = self.object();
        let checksum = queries.put_wrong_checksum(&object, ObjectHash::of(b"something else")).await?;
        if checksum == ChecksumSupport::Ignored {
            self.stored.insert(object.key().clone());
        }
        Ok((checksum, queries.versions().await?, queries.object_lock().await?))
    }

    /// Returns the probes that are listed, and `true` if the listing kept its rules.
    async fn listed(&self) -> Result<(BTreeMap<ObjectKey, ListedObject>, bool), StoreError> {
        let ours = |entry: ListedObject| self.stored.contains(&entry.key).then(|| (entry.key.clone(), entry));
        let mut found = BTreeMap::new();
        let mut list = list_all(Arc::clone(self.store), probes_prefix(self.writer), Reporter::silent());
        while let Some(entry) = list.next().await {
            match entry {
                Ok(entry) => found.extend(ours(entry)),
                Err(StoreError { kind: StoreErrorKind::Protocol(_), .. }) => return Ok((found, false)),
                Err(error) => return Err(error),
            }
        }
        Ok((found, true))
    }

    /// Removes the probes. Returns `false` if that is not allowed.
    async fn clean_up(&self) -> Result<bool, StoreError> {
        for object in &self.sent {
            match self.store.delete(object.key()).await {
                Ok(()) => {}
                Err(StoreError { kind: StoreErrorKind::Denied(_), .. }) => return Ok(false),
                Err(error) => return Err(error),
            }
        }
        Ok(true)
    }
}

/// Explains the features to people. Pure, so that a stored probe reads the same later.
#[must_use]
pub fn findings(features: &StoreFeatures) -> Vec<StoreFinding> {
    let mut all = vec![conditional_put_finding(features.conditional_put)];
    all.extend(checksum_finding(features.checksum));
    all.extend(versions_finding(features.versions));
    all.extend(object_lock_finding(features.object_lock));
    if !features.read_after_write {
        let what = "an acknowledged object could not be read at once";
        all.push(problem(what, "use a consistent mode of this store"));
    }
    if !features.list_after_write {
        let what = "an acknowledged object was not listed at once";
        all.push(problem(what, "use a consistent mode of this store"));
    }
    if !features.ordered_lists {
        let remedy = "use another store: a commit cannot be checked against this one";
        all.push(problem("listings are not in order, or repeat keys", remedy));
    }
    // A folder has no credentials: a person who may write in it may delete.
    let folder = features.versions == FeatureState::None;
    if !features.content_etags {
        all.push(note(
            "a pack that is overwritten with as many bytes is noticed by kbak verify --read-all only: listings \
             do not tell the content",
        ));
    }
    if features.may_delete {
        all.push(note(match folder {
            true => "anyone who may write in this folder can delete backups",
            false => "these credentials may delete objects",
        }));
    }
    all
}

fn finding(severity: Severity, what: &str, remedy: Option<&str>) -> StoreFinding {
    StoreFinding { severity, what: what.to_owned(), remedy: remedy.map(str::to_owned) }
}

fn good(what: &str) -> StoreFinding {
    finding(Severity::Good, what, None)
}

fn note(what: &str) -> StoreFinding {
    finding(Severity::Note, what, None)
}

fn problem(what: &str, remedy: &str) -> StoreFinding {
    finding(Severity::Problem, what, Some(remedy))
}

fn conditional_put_finding(support: ConditionalPut) -> StoreFinding {
    match support {
        ConditionalPut::Honoured => good("create-new puts are honoured"),
        ConditionalPut::Racy => note("create-new puts can race each other"),
        ConditionalPut::Ignored => note("create-new puts are ignored: a put replaces an existing object"),
    }
}

fn checksum_finding(support: ChecksumSupport) -> Option<StoreFinding> {
    Some(match support {
        ChecksumSupport::Verified => good("sha256 checksums are verified"),
        ChecksumSupport::Ignored => {
            let what = "the store accepts an object with a wrong checksum";
            finding(Severity::Warning, what, Some("run kbak verify --read-all after a backup"))
        }
        ChecksumSupport::Refused => note("no sha256 checksums: Content-MD5 is sent instead"),
        ChecksumSupport::None => return None,
    })
}

fn versions_finding(state: FeatureState) -> Option<StoreFinding> {
    Some(match state {
        FeatureState::On => good("versions are on"),
        FeatureState::Off => note("versions are off: overwritten and deleted objects cannot be recovered"),
        FeatureState::Unknown => note("the store does not report whether versions are on"),
        FeatureState::None => return None,
    })
}

fn object_lock_finding(state: FeatureState) -> Option<StoreFinding> {
    Some(match state {
        FeatureState::On => good("object lock is on"),
        FeatureState::Off => {
            let what = "object lock is off: anyone with the credentials can delete backups";
            finding(Severity::Warning, what, None)
        }
        FeatureState::Unknown => note("the store does not report whether object lock is on"),
        FeatureState::None => return None,
    })
}
