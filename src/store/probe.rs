//! Tests the abilities of a store by using them.
//!
//! Correctness never depends on the result: a store may change, and some ignore `If-None-Match` or
//! checksums silently (engines.md 3.1). The result decides which findings people see and which
//! abilities a plan may require. Every object written here is a [`Sealed::probe`] under
//! `<writer>/probe/`, removed again if that is allowed.

use std::collections::{BTreeMap, HashSet};
use std::sync::Arc;

use async_trait::async_trait;
use futures::StreamExt as _;
use futures::future::join_all;
use serde::{Deserialize, Serialize};

use super::listing::list_all;
use super::operation::Operation;
use super::{Entry, Put, Store, StoreError, StoreErrorKind};
use crate::format::ids::{ObjectHash, WriterId};
use crate::format::layout::{ObjectKey, probes_prefix};
use crate::format::object::Sealed;
use crate::report::event::Reporter;
use crate::runtime::Runtime;

/// The number of concurrent puts to one key.
const RACERS: usize = 8;

/// The size of a probe, in bytes.
const PROBE: u64 = 32;

/// Queries beyond those of every store. Only stores with these features implement them.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Puts an object while claiming that its SHA-256 is `wrong`.
    async fn put_wrong_checksum(&self, object: &Sealed, wrong: ObjectHash) -> Result<Checked, StoreError>;

    /// Asks if the bucket keeps versions.
    async fn versions(&self) -> Result<Switch, StoreError>;

    /// Asks if the bucket can lock objects.
    async fn object_lock(&self) -> Result<Switch, StoreError>;
}

/// The handling of a put's checksum by a store.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checked {
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
pub enum Switch {
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
pub enum Conditional {
    /// One put creates the object, and all others are told that it exists.
    Honoured,
    /// A later put is told that it exists, but several at once may all be told that they created it.
    Racy,
    /// The put replaces the object silently.
    Ignored,
}

/// The abilities of a store, as a probe found them.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Abilities {
    /// The handling of create-only puts.
    pub conditional_put: Conditional,
    /// The handling of checksums.
    pub checksum: Checked,
    /// The setting of versions.
    pub versions: Switch,
    /// The setting of object lock.
    pub object_lock: Switch,
    /// `true` if two listings give an unchanged object the same ETag.
    pub stable_etags: bool,
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
pub enum Weight {
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
pub struct Finding {
    /// The severity of the finding.
    pub weight: Weight,
    /// The finding, in one line.
    pub what: String,
    /// The remedy, if there is one.
    pub remedy: Option<String>,
}

/// The result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// The abilities, for programs.
    pub abilities: Abilities,
    /// The findings, for people.
    pub findings: Vec<Finding>,
}

/// Tests `store` with the credentials that it has. Fails if the store cannot be used at all: no
/// right to put or to list, no bucket, bytes that come back changed.
pub async fn probe(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    writer: WriterId,
) -> Result<Probed, StoreError> {
    let mut trial = Trial { store, runtime, writer, sent: Vec::new(), stored: HashSet::new() };
    let tried = trial.run().await;
    // Probes are removed after a failure too.
    let may_delete = trial.clean_up().await;
    let mut abilities = tried?;
    abilities.may_delete = may_delete?;
    let findings = findings(&abilities);
    Ok(Probed { abilities, findings })
}

struct Trial<'a> {
    store: &'a Arc<dyn Store>,
    runtime: &'a Runtime,
    writer: WriterId,
    /// All probes that were sent, to be removed again.
    sent: Vec<Sealed>,
    /// The probes that the store acknowledged.
    stored: HashSet<ObjectKey>,
}

impl Trial<'_> {
    fn object(&mut self) -> Sealed {
        let object = Sealed::probe(self.writer, self.runtime.random());
        self.sent.push(object.clone());
        object
    }

    async fn put(&mut self, object: &Sealed) -> Result<Put, StoreError> {
        let put = self.store.put(object).await?;
        self.stored.insert(object.key().clone());
        Ok(put)
    }

    async fn run(&mut self) -> Result<Abilities, StoreError> {
        let ahead = self.store.now().await?.duration_since(self.runtime.clock.now());
        let first = self.object();
        self.put(&first).await?;
        let read_after_write = self.reads_back(&first).await?;
        let conditional_put = match self.put(&first).await? {
            Put::Created => Conditional::Ignored,
            Put::Existed if self.race().await? <= 1 => Conditional::Honoured,
            Put::Existed => Conditional::Racy,
        };
        let (checksum, versions, object_lock) = self.ask().await?;
        let (once, ordered_lists) = self.listed().await?;
        let (again, _) = self.listed().await?;
        let tags = |list: &BTreeMap<ObjectKey, Entry>| -> Vec<_> {
            list.iter().map(|(key, entry)| (key.clone(), entry.etag.clone())).collect()
        };
        Ok(Abilities {
            conditional_put,
            checksum,
            versions,
            object_lock,
            stable_etags: tags(&once) == tags(&again) && once.values().all(|entry| entry.etag.is_some()),
            ordered_lists,
            read_after_write,
            list_after_write: self.stored.iter().all(|key| once.get(key).is_some_and(|e| e.size == PROBE)),
            may_delete: false,
            clock_ahead_seconds: ahead.as_secs(),
        })
    }

    /// Returns `true` if a just acknowledged object can be read. Other bytes are an error.
    async fn reads_back(&self, object: &Sealed) -> Result<bool, StoreError> {
        match self.store.get(object.key(), PROBE).await {
            Ok(bytes) if bytes == *object.bytes() => Ok(true),
            Ok(_) => {
                let kind = StoreErrorKind::Corrupt("a probe came back changed".into());
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
            created += usize::from(put? == Put::Created);
        }
        self.stored.insert(object.key().clone());
        Ok(created)
    }

    async fn ask(&mut self) -> Result<(Checked, Switch, Switch), StoreError> {
        let Some(ask) = self.store.ask() else { return Ok((Checked::None, Switch::None, Switch::None)) };
        let object = self.object();
        let checksum = ask.put_wrong_checksum(&object, ObjectHash::of(b"something else")).await?;
        if checksum == Checked::Ignored {
            self.stored.insert(object.key().clone());
        }
        Ok((checksum, ask.versions().await?, ask.object_lock().await?))
    }

    /// Returns the probes that are listed, and `true` if the listing kept its rules.
    async fn listed(&self) -> Result<(BTreeMap<ObjectKey, Entry>, bool), StoreError> {
        let ours = |entry: Entry| self.stored.contains(&entry.key).then(|| (entry.key.clone(), entry));
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

/// Explains the abilities to people. Pure, so that a stored probe reads the same later.
#[must_use]
pub fn findings(abilities: &Abilities) -> Vec<Finding> {
    let finding = |weight, what: &str, remedy: Option<&str>| Finding {
        weight,
        what: what.to_owned(),
        remedy: remedy.map(str::to_owned),
    };
    let mut all = vec![match abilities.conditional_put {
        Conditional::Honoured => finding(Weight::Good, "create-new puts are honoured", None),
        Conditional::Racy => finding(Weight::Note, "create-new puts can race each other", None),
        Conditional::Ignored => {
            finding(Weight::Note, "create-new puts are ignored: a put replaces what is there", None)
        }
    }];
    all.extend(match abilities.checksum {
        Checked::Verified => Some(finding(Weight::Good, "sha256 checksums are verified", None)),
        Checked::Ignored => Some(finding(
            Weight::Warning,
            "the store takes an object with a wrong checksum",
            Some("run kbak verify --read-all after a backup"),
        )),
        Checked::Refused => {
            Some(finding(Weight::Note, "no sha256 checksums: Content-MD5 is sent instead", None))
        }
        Checked::None => None,
    });
    all.extend(match abilities.versions {
        Switch::On => Some(finding(Weight::Good, "versions are on", None)),
        Switch::Off => {
            Some(finding(Weight::Note, "versions are off: what is overwritten or deleted is gone", None))
        }
        Switch::Unknown => {
            Some(finding(Weight::Note, "the store does not say whether it keeps versions", None))
        }
        Switch::None => None,
    });
    all.extend(match abilities.object_lock {
        Switch::On => Some(finding(Weight::Good, "object lock is on", None)),
        Switch::Off => Some(finding(
            Weight::Warning,
            "object lock is off: whoever holds the credentials can delete backups",
            None,
        )),
        Switch::Unknown => {
            Some(finding(Weight::Note, "the store does not say whether it locks objects", None))
        }
        Switch::None => None,
    });
    let mut unless = |good: bool, weight, what: &str, remedy: Option<&str>| {
        if !good {
            all.push(finding(weight, what, remedy));
        }
    };
    unless(
        abilities.read_after_write,
        Weight::Problem,
        "an acknowledged object could not be read at once",
        Some("use a consistent mode of this store"),
    );
    unless(
        abilities.list_after_write,
        Weight::Problem,
        "an acknowledged object was not listed at once",
        Some("use a consistent mode of this store"),
    );
    unless(
        abilities.ordered_lists,
        Weight::Problem,
        "listings are not in order, or repeat keys",
        Some("use another store: a commit cannot be checked against this one"),
    );
    // A folder has no ETags and no credentials: a person who may write in it may delete.
    let folder = abilities.versions == Switch::None;
    let deletes = match folder {
        true => "whoever may write in this folder can delete backups",
        false => "these credentials may delete objects",
    };
    unless(abilities.stable_etags || folder, Weight::Note, "tags of objects are missing or change", None);
    unless(!abilities.may_delete, Weight::Note, deletes, None);
    all
}
