//! Reads the epochs of a plan and determines the operations allowed in each at a given time
//! (docs/format.md, "Life"). All times are by the store's clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::epoch::{CLOSING_GRACE, Epoch, EpochError, VerifiedEpoch};
use crate::format::ids::{EpochId, NameId, RepositoryId, WriterId};
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::sign::{MAX_DOCUMENT, Namespace, PublicKey};
use crate::format::{signers::Signers, timestamp};
use crate::report::event::Reporter;
use crate::repository::first_stored::{MAX_FIRST_TIMES, first_stored};
use crate::repository::signed_listing::{SignedFolder, SignedObject, Unsigned};
use crate::repository::{chain::Chain, records::Records};
use crate::store::listing::{find, folders_beside, list_all};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The most signed copies of a writer's epochs: those of a hundred plans, monthly, for a century.
pub const MAX_COPIES: usize = 131_072;

/// The most folders of a writer, and of a plan, that are looked into though no signed key names their plan or
/// epoch: the copy of an epoch may be lost. Each costs a request for its epoch.json and two for listings, and anyone
/// can make them.
pub const MAX_UNSIGNED_FOLDERS: usize = 40;

const PARALLEL: usize = 8;

/// A verified epoch and the time of its creation.
#[derive(Debug, Clone)]
pub struct StoredEpoch {
    /// The verified epoch.
    pub epoch: VerifiedEpoch,
    /// The time at which the store received it.
    pub born: Timestamp,
}

/// The epochs of one plan.
#[derive(Debug, Default)]
pub struct Epochs {
    /// The valid epochs, oldest first by (created, id).
    pub all: Vec<StoredEpoch>,
    /// Objects that are not valid epochs though a pinned key signed their key or snapshots beneath, and the
    /// reasons. An epoch with one bad copy and one good copy is in both lists.
    pub rejected: Vec<(ObjectKey, EpochError)>,
    /// Copies that are missing while the other copy exists.
    pub missing: Vec<MissingCopy>,
    /// Epochs that have signed snapshots in the store, but neither copy of epoch.json.
    pub gone: Vec<EpochId>,
    /// Objects in the place of epochs that nobody signed.
    pub unsigned: Unsigned,
}

/// A copy of an epoch that is missing.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct MissingCopy {
    /// The epoch.
    pub epoch: EpochId,
    /// Its key, without the signature of the second copy.
    pub place: String,
}

/// The second copies of a writer's epochs, by plan: a listing of signed keys.
#[derive(Debug, Default)]
pub struct EpochNames {
    by_plan: BTreeMap<NameId, BTreeMap<EpochId, Vec<SignedObject>>>,
    /// The other objects in their folder.
    pub unsigned: Unsigned,
}

impl EpochNames {
    /// Returns the plans that have a copy of an epoch.
    pub fn plans(&self) -> impl Iterator<Item = NameId> + '_ {
        self.by_plan.keys().copied()
    }
}

/// Lists the second copies of a writer's epochs. Fails if the store cannot be read, or has too many of them.
pub async fn names(
    store: &Arc<dyn Store>,
    writer: WriterId,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<EpochNames, StoreError> {
    let prefix = layout::epochs_prefix(writer);
    let folder = SignedFolder { store, prefix: &prefix, writer, signers, reporter };
    let (signed, unsigned) = folder.list(|_| Some(Namespace::Epoch), MAX_COPIES).await?;
    let mut names = EpochNames { unsigned, ..EpochNames::default() };
    for object in signed {
        match layout::parse_epoch(&object.entry.key) {
            Some((plan, epoch)) => {
                names.by_plan.entry(plan).or_default().entry(epoch).or_default().push(object);
            }
            None => names.unsigned.add(object.entry.key),
        }
    }
    Ok(names)
}

/// Reads the epochs of a plan, found by the signed keys of their copies and by their folders. Reads both
/// copies of each, and takes the first valid one. So the loss of one copy loses nothing.
pub async fn list(
    store: &Arc<dyn Store>,
    writer: WriterId,
    plan: NameId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Epochs, StoreError> {
    let names = names(store, writer, signers, reporter).await?;
    EpochReader { store, writer, plan, repository, signers, reporter }.read(&names).await
}

/// The plan whose epochs are read, and the pinned keys.
#[derive(Debug, Clone, Copy)]
pub struct EpochReader<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The writer.
    pub writer: WriterId,
    /// The plan.
    pub plan: NameId,
    /// The repository, if it is known.
    pub repository: Option<RepositoryId>,
    /// The pinned keys.
    pub signers: &'a Signers,
    /// The reporter of keys that no repository has.
    pub reporter: &'a Reporter,
}

/// The bytes of one copy of an epoch, if it is there.
type Read = Option<Result<bytes::Bytes, EpochError>>;

/// One epoch of a plan, as it was found.
struct Found<'a> {
    path: EpochPath,
    /// The keys of its copies that are signed; none if only its folder was found.
    copies: &'a [SignedObject],
}

impl EpochReader<'_> {
    /// Reads the epochs as [`list`] does.
    pub async fn read(&self, names: &EpochNames) -> Result<Epochs, StoreError> {
        let mut epochs = Epochs::default();
        let none = BTreeMap::new();
        let copied = names.by_plan.get(&self.plan).unwrap_or(&none);
        let path = |epoch| EpochPath { writer: self.writer, plan: self.plan, epoch };
        let mut found: Vec<Found<'_>> =
            copied.iter().map(|(epoch, copies)| Found { path: path(*epoch), copies }).collect();
        let prefix = layout::plan_prefix(self.writer, self.plan);
        let is_copied = |name: &str| name.parse().is_ok_and(|id: EpochId| copied.contains_key(&id));
        let folders = folders_beside(self.store, &prefix, MAX_UNSIGNED_FOLDERS, is_copied).await?;
        let ids = folders.names.iter().filter_map(|name| name.parse::<EpochId>().ok());
        let unknown = ids.filter(|id| !copied.contains_key(id));
        found.extend(unknown.map(|epoch| Found { path: path(epoch), copies: &[] }));
        if !folders.complete {
            epochs.unsigned.more_folders = true;
        }
        let mut read = stream::iter(found)
            .map(|found| async move {
                let (first, copy) = (found.path.epoch_json(), found.copies.first());
                let copy = async {
                    match copy {
                        Some(copy) => self.get(&copy.entry.key).await,
                        None => Ok(None),
                    }
                };
                let (first, copy) = futures::join!(self.get(&first), copy);
                (found, first, copy)
            })
            .buffered(PARALLEL);
        while let Some((found, first, copy)) = read.next().await {
            self.take(&mut epochs, found, first?, copy?).await?;
        }
        drop(read);
        epochs.all.sort_by_key(|stored| (stored.epoch.created, stored.epoch.epoch));
        self.correct_births(&mut epochs, copied).await?;
        Ok(epochs)
    }

    /// Replaces the times of epochs that the store received after their own deadline by those of their first
    /// versions: who stores such a document again must not make its store look like a copy of another one.
    async fn correct_births(
        &self,
        epochs: &mut Epochs,
        copied: &BTreeMap<EpochId, Vec<SignedObject>>,
    ) -> Result<(), StoreError> {
        let is_late = |stored: &&StoredEpoch| stored.born > epochs.commits_until(stored);
        let late: Vec<EpochId> = epochs
            .all
            .iter()
            .rev()
            .filter(is_late)
            .take(MAX_FIRST_TIMES)
            .map(|stored| stored.epoch.epoch)
            .collect();
        for stored in epochs.all.iter_mut().filter(|stored| late.contains(&stored.epoch.epoch)) {
            let copy = copied.get(&stored.epoch.epoch).and_then(|copies| copies.first());
            let key = copy.map_or_else(|| stored.epoch.path().epoch_json(), |copy| copy.entry.key.clone());
            stored.born = first_stored(self.store, &key, stored.born).await?;
        }
        Ok(())
    }

    /// Opens a copy of an epoch, whose content must be the one that its key names, if it names one.
    fn open(
        &self,
        bytes: bytes::Bytes,
        path: &EpochPath,
        key: &ObjectKey,
    ) -> Result<VerifiedEpoch, EpochError> {
        let epoch = Epoch::open(bytes, path, self.repository, self.signers)?;
        match layout::split_signature(key) {
            Some(parts) if parts.hash != epoch.hash() => {
                let what = "its content is not the one that its key names";
                Err(EpochError::Field { object: key.to_string(), what })
            }
            _ => Ok(epoch),
        }
    }

    /// Adds an epoch whose copies were read.
    async fn take(
        &self,
        epochs: &mut Epochs,
        found: Found<'_>,
        first: Read,
        copy: Read,
    ) -> Result<(), StoreError> {
        let Found { path, copies } = found;
        let first_key = path.epoch_json();
        let copy_place = copies.first().map(|copy| copy.entry.key.clone());
        let (mut valid, mut rejected, mut absent) = (None, Vec::new(), Vec::new());
        for (key, read) in [(Some(first_key.clone()), first), (copy_place.clone(), copy)] {
            match (key, read) {
                (Some(key), Some(read)) => match read.and_then(|bytes| self.open(bytes, &path, &key)) {
                    Ok(epoch)
                        if valid
                            .as_ref()
                            .is_some_and(|first: &VerifiedEpoch| first.hash() != epoch.hash()) =>
                    {
                        let what = "it is signed, and differs from epoch.json: one of them was replaced";
                        rejected.push((key.clone(), EpochError::Field { object: key.to_string(), what }));
                    }
                    Ok(epoch) => valid = valid.or(Some(epoch)),
                    Err(error) => rejected.push((key, error)),
                },
                (key, _) => absent.push(key),
            }
        }
        if let Some(epoch) = valid {
            let copy = || layout::epoch_copy(&path, epoch.hash()).as_str().to_owned();
            let place = |key: Option<ObjectKey>| key.map_or_else(copy, |key| key.to_string());
            let missing = |key| MissingCopy { epoch: path.epoch, place: place(key) };
            epochs.missing.extend(absent.into_iter().map(missing));
            let born = match copies.first() {
                Some(copy) => Some(copy.entry.modified),
                None => find(self.store, &first_key).await?.map(|entry| entry.modified),
            };
            epochs.rejected.append(&mut rejected);
            epochs.all.extend(born.map(|born| StoredEpoch { epoch, born }));
            return Ok(());
        }
        let newer = rejected.iter().any(|(_, error)| error.is_newer());
        // A folder that nothing signed belongs to is anybody's.
        if copies.is_empty() && !newer && !self.has_signed_snapshots(&path).await? {
            epochs.unsigned.add(first_key);
        } else if rejected.is_empty() {
            epochs.gone.push(path.epoch);
        } else {
            epochs.rejected.append(&mut rejected);
        }
        Ok(())
    }

    async fn has_signed_snapshots(&self, path: &EpochPath) -> Result<bool, StoreError> {
        let prefix = path.snapshots_prefix();
        let principal = self.writer.to_string();
        let signed =
            |key: &ObjectKey| self.signers.signed_hash(&principal, Namespace::Manifest, key).is_some();
        let mut listing = list_all(self.store.clone(), prefix, self.reporter.clone());
        while let Some(entry) = listing.try_next().await? {
            if signed(&entry.key) {
                return Ok(true);
            }
        }
        Ok(false)
    }

    /// Reads a document; none if it is missing. A document that is too long is replaced by one
    /// byte that does not parse, so that it is rejected.
    async fn get(&self, key: &ObjectKey) -> Result<Read, StoreError> {
        match self.store.get(key, MAX_DOCUMENT).await {
            Ok(bytes) => Ok(Some(Ok(bytes))),
            Err(error) => match error.kind {
                StoreErrorKind::NotFound => Ok(None),
                StoreErrorKind::TooLarge { .. } => Ok(Some(Ok(bytes::Bytes::from_static(b"?")))),
                StoreErrorKind::NotAFile => Ok(Some(Err(EpochError::NotAFile { object: key.to_string() }))),
                _ => Err(error),
            },
        }
    }
}

impl Epochs {
    /// Rejects epochs by signing keys that owners have cut off, unless a valid snapshot refers to them.
    pub fn cut_off(&mut self, records: &Records, chain: &Chain) {
        let lost = |stored: &StoredEpoch| {
            let id = stored.epoch.epoch;
            records.cut_offs(stored.epoch.key()).next().is_some()
                && !chain.iter().any(|snapshot| snapshot.envelope().epoch == id)
        };
        let (stolen, kept) = std::mem::take(&mut self.all).into_iter().partition(lost);
        self.all = kept;
        self.rejected.extend(stolen.into_iter().map(|stored: StoredEpoch| {
            let key = stored.epoch.path().epoch_json();
            let error = EpochError::Revoked { object: key.to_string() };
            (key, error)
        }));
    }

    /// Returns the epoch with this id.
    #[must_use]
    pub fn get(&self, epoch: EpochId) -> Option<&StoredEpoch> {
        self.all.iter().find(|stored| stored.epoch.epoch == epoch)
    }

    /// Returns the epochs whose creation closes `epoch`.
    pub fn successors(&self, epoch: EpochId) -> impl Iterator<Item = &StoredEpoch> {
        self.all.iter().filter(move |stored| stored.epoch.previous_epochs.contains(&epoch))
    }

    /// Returns the epochs that no other names as its predecessor: a new epoch closes them.
    #[must_use]
    pub fn heads(&self) -> Vec<EpochId> {
        let named = |id| self.successors(id).next().is_some();
        self.all.iter().map(|stored| stored.epoch.epoch).filter(|id| !named(*id)).collect()
    }

    /// Returns the time from which no run may start in an epoch: `not_after` or the creation of a successor.
    #[must_use]
    pub fn starts_until(&self, stored: &StoredEpoch) -> Timestamp {
        let births = self.successors(stored.epoch.epoch).map(|next| next.born);
        births.fold(stored.epoch.not_after, Timestamp::min)
    }

    /// Returns the time after which a manifest in an epoch is not valid.
    #[must_use]
    pub fn commits_until(&self, stored: &StoredEpoch) -> Timestamp {
        timestamp::add_seconds(self.starts_until(stored), stored.epoch.max_run_seconds)
    }

    /// Returns the time after which no manifest in an epoch should have been stored. None if the epoch is unknown, or
    /// its own documents were stored later: then the store was copied since, and its times say nothing.
    #[must_use]
    pub fn deadline(&self, epoch: EpochId) -> Option<Timestamp> {
        let stored = self.get(epoch)?;
        let until = self.commits_until(stored);
        (stored.born <= until).then_some(until)
    }

    /// Returns the time from which an epoch is closed and prune may delete in it.
    #[must_use]
    pub fn closed_from(&self, stored: &StoredEpoch) -> Timestamp {
        timestamp::add_seconds(self.commits_until(stored), CLOSING_GRACE)
    }

    /// True if a run may start in an epoch. A listed successor prevents it, whatever its time.
    #[must_use]
    pub fn may_start(&self, stored: &StoredEpoch, now: Timestamp) -> bool {
        now < stored.epoch.not_after && self.successors(stored.epoch.epoch).next().is_none()
    }

    /// Returns the epochs that a writer with the key `own` may start runs in, the preferred one
    /// first: the greatest by (created, id). They are open and signed by that key, because a
    /// writer never encrypts to a recipient that it has not signed. There is more than one only if
    /// two coordinators created them at the same time.
    pub fn open_own(&self, now: Timestamp, own: PublicKey) -> impl Iterator<Item = &StoredEpoch> {
        self.all.iter().rev().filter(move |stored| stored.epoch.key() == own && self.may_start(stored, now))
    }

    /// Returns the epochs that only a newer kbak can read.
    pub fn newer(&self) -> impl Iterator<Item = &(ObjectKey, EpochError)> {
        self.rejected.iter().filter(|(_, error)| error.is_newer())
    }
}
