//! What a store honours, found by trying it.
//!
//! Correctness never rests on an answer: a store may change its mind, and some ignore
//! `If-None-Match` or checksums without a word (engines.md 3.1). What is learned decides what
//! people are told, and what a plan may ask for. Everything written here is a [`Sealed::probe`]
//! under `<writer>/probe/`, removed again where that is allowed.

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
use crate::world::World;

/// How many puts race for one key.
const RACERS: usize = 8;

/// The size of a probe.
const PROBE: u64 = 32;

/// What a store can be asked beyond storing. Stores that have no such thing answer nothing.
#[async_trait]
pub trait Ask: Send + Sync {
    /// Puts an object while claiming that its SHA-256 is `wrong`.
    async fn put_wrong_checksum(&self, object: &Sealed, wrong: ObjectHash) -> Result<Checked, StoreError>;

    /// Whether the bucket keeps versions.
    async fn versions(&self) -> Result<Switch, StoreError>;

    /// Whether the bucket can lock objects.
    async fn object_lock(&self) -> Result<Switch, StoreError>;
}

/// What a store does with the checksum of a put.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Checked {
    /// It compares it and refuses a wrong one.
    Verified,
    /// It takes a wrong one.
    Ignored,
    /// It takes no such header.
    Refused,
    /// It has no such thing.
    None,
}

/// Whether something is switched on in a bucket.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Switch {
    /// It is.
    On,
    /// It is not.
    Off,
    /// It will not say: no right to ask, or it does not know the question.
    Unknown,
    /// It has no such thing.
    None,
}

/// How a store treats a put to a key that is taken.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Conditional {
    /// One put creates, all others are told.
    Honoured,
    /// It tells a later put, but several at once are all told that they created.
    Racy,
    /// It replaces the object and says nothing.
    Ignored,
}

/// What a store honours.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub struct Abilities {
    /// Of puts that want to create.
    pub conditional_put: Conditional,
    /// Of checksums.
    pub checksum: Checked,
    /// Of versions.
    pub versions: Switch,
    /// Of locks.
    pub object_lock: Switch,
    /// Whether two listings give an untouched object the same tag.
    pub stable_etags: bool,
    /// Whether listings come in ascending order, each key once.
    pub ordered_lists: bool,
    /// Whether an object can be read as soon as it is acknowledged.
    pub read_after_write: bool,
    /// Whether it is listed as soon as it is acknowledged.
    pub list_after_write: bool,
    /// Whether these credentials may remove objects.
    pub may_delete: bool,
    /// The store's clock minus this machine's, in seconds.
    pub clock_ahead_seconds: i64,
}

/// How much a finding matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Weight {
    /// As it should be.
    Good,
    /// Worth knowing.
    Note,
    /// Something an operator should change.
    Warning,
    /// kbak should not be used with this store as it is.
    Problem,
}

/// One finding, for people.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Finding {
    /// How much it matters.
    pub weight: Weight,
    /// What was found: one line.
    pub what: String,
    /// What to do, if there is anything.
    pub remedy: Option<String>,
}

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Probed {
    /// For machines.
    pub abilities: Abilities,
    /// For people.
    pub findings: Vec<Finding>,
}

/// Tries out `store` with the credentials it has. Fails where the store cannot be used at all: no
/// right to put or to list, no bucket, bytes that come back changed.
pub async fn probe(store: &Arc<dyn Store>, world: &World, writer: WriterId) -> Result<Probed, StoreError> {
    let mut trial = Trial { store, world, writer, sent: Vec::new(), stored: HashSet::new() };
    let tried = trial.run().await;
    // Also after a failure: what was written goes.
    let may_delete = trial.clean_up().await;
    let mut abilities = tried?;
    abilities.may_delete = may_delete?;
    let findings = findings(&abilities);
    Ok(Probed { abilities, findings })
}

struct Trial<'a> {
    store: &'a Arc<dyn Store>,
    world: &'a World,
    writer: WriterId,
    /// All that was sent, to be removed again.
    sent: Vec<Sealed>,
    /// Of these, what the store acknowledged.
    stored: HashSet<ObjectKey>,
}

impl Trial<'_> {
    fn object(&mut self) -> Sealed {
        let object = Sealed::probe(self.writer, self.world.random());
        self.sent.push(object.clone());
        object
    }

    async fn put(&mut self, object: &Sealed) -> Result<Put, StoreError> {
        let put = self.store.put(object).await?;
        self.stored.insert(object.key().clone());
        Ok(put)
    }

    async fn run(&mut self) -> Result<Abilities, StoreError> {
        let ahead = self.store.now().await?.duration_since(self.world.clock.now());
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

    /// Whether an object that was acknowledged a moment ago is there. Other bytes are an error.
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

    /// How many of several puts at once to one free key say that they created it.
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

    /// Those of our objects that are listed, and whether the listing kept its rules.
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

    /// Removes what was written; says whether that is allowed.
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

/// What the abilities mean for people. Pure, so that a stored probe reads the same later.
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
    // A folder has no tags, and nobody's credentials: who may write in it may delete.
    let folder = abilities.versions == Switch::None;
    let deletes = match folder {
        true => "whoever may write in this folder can delete backups",
        false => "these credentials may delete objects",
    };
    unless(abilities.stable_etags || folder, Weight::Note, "tags of objects are missing or change", None);
    unless(!abilities.may_delete, Weight::Note, deletes, None);
    all
}
