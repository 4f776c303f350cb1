//! Reads the epochs of a plan and determines the operations allowed in each at a given time
//! (docs/format.md, "Life"). All times are by the store's clock.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::epoch::{CLOSING_GRACE, Epoch, EpochError, VerifiedEpoch};
use crate::format::ids::{EpochId, NameId, RecipientId, RepositoryId, WriterId};
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::sign::{MAX_DOCUMENT, PublicKey};
use crate::format::{signers::Signers, timestamp};
use crate::keys::Owner;
use crate::report::event::Reporter;
use crate::repository::{chain::Chain, records::Records};
use crate::store::listing::{folders, list_all};
use crate::store::operation::Operation;
use crate::store::{ListedObject, Store, StoreError, StoreErrorKind};

/// The most epochs of one plan that are read: monthly ones for centuries.
pub const MAX_EPOCHS: usize = 4096;

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
    /// Objects that are not valid epochs, and the reasons. An epoch with one bad copy and one good
    /// copy is in both lists.
    pub rejected: Vec<(ObjectKey, EpochError)>,
    /// Copies that are missing while the other copy exists.
    pub missing: Vec<ObjectKey>,
    /// Epochs that have objects in the store, but neither copy of epoch.json.
    pub gone: Vec<EpochId>,
}

/// Reads the epochs of a plan. Finds them by their copies and by their folders, reads both
/// copies of each, and takes the first valid one. So the loss of one copy loses nothing.
pub async fn list(
    store: &Arc<dyn Store>,
    writer: WriterId,
    plan: NameId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Epochs, StoreError> {
    let found = find(store, writer, plan, reporter).await?;
    let mut epochs = Epochs::default();
    let mut read = stream::iter(found)
        .map(|(epoch, copied)| async move {
            let path = EpochPath { writer, plan, epoch };
            let copy = layout::epoch_copy(writer, plan, epoch);
            let (first, second) = futures::join!(get(store, path.epoch_json()), get(store, copy.clone()));
            let born = match copied {
                Some(at) => Ok(Some(at)),
                None => modified(store, &path).await,
            };
            (path, born, [(path.epoch_json(), first), (copy, second)])
        })
        .buffered(PARALLEL);
    while let Some((path, born, copies)) = read.next().await {
        let mut found = None;
        let mut missing = Vec::new();
        for (key, bytes) in copies {
            let Some(bytes) = bytes? else {
                missing.push(key);
                continue;
            };
            match bytes.and_then(|bytes| Epoch::open(bytes, &path, repository, signers)) {
                Ok(epoch) => found = found.or(Some(epoch)),
                Err(error) => epochs.rejected.push((key, error)),
            }
        }
        // An interrupted creation or a prune can leave a folder without either copy.
        if missing.len() < 2 {
            epochs.missing.append(&mut missing);
        } else {
            epochs.gone.push(path.epoch);
        }
        if let (Some(epoch), Some(born)) = (found, born?) {
            epochs.all.push(StoredEpoch { epoch, born });
        }
    }
    epochs.all.sort_by_key(|stored| (stored.epoch.created, stored.epoch.epoch));
    Ok(epochs)
}

/// Returns the ids of all epochs, each with the time at which its copy was stored, if there is one.
async fn find(
    store: &Arc<dyn Store>,
    writer: WriterId,
    plan: NameId,
    reporter: &Reporter,
) -> Result<BTreeMap<EpochId, Option<Timestamp>>, StoreError> {
    let prefix = layout::epochs_prefix(writer, plan);
    let entries: Vec<ListedObject> =
        list_all(store.clone(), prefix.clone(), reporter.clone()).take(MAX_EPOCHS + 1).try_collect().await?;
    let folders = folders(store, &layout::plan_prefix(writer, plan), MAX_EPOCHS + 2).await?;
    let mut found: BTreeMap<EpochId, Option<Timestamp>> =
        folders.iter().filter_map(|id| Some((id.parse().ok()?, None))).collect();
    // A name that is not an epoch's belongs to a foreign object.
    found.extend(entries.iter().filter_map(|entry| {
        let id = entry.key.as_str()[prefix.len()..].strip_suffix(".json")?.parse().ok()?;
        Some((id, Some(entry.modified)))
    }));
    if found.len() > MAX_EPOCHS {
        let kind = StoreErrorKind::Protocol(format!("more than {MAX_EPOCHS} epochs of one plan"));
        return Err(StoreError::new(Operation::List, prefix, store.describe(), kind));
    }
    Ok(found)
}

/// Returns the time at which the store received epoch.json: the first key of a listing that
/// begins just before it.
async fn modified(store: &Arc<dyn Store>, path: &EpochPath) -> Result<Option<Timestamp>, StoreError> {
    let prefix = path.prefix();
    let page = store.list(&prefix, Some(&store.after(&format!("{prefix}epoch.jsom~")))).await?;
    let entry = page.entries.iter().find(|entry| entry.key == path.epoch_json());
    Ok(entry.map(|entry| entry.modified))
}

/// Reads a document; none if it is missing. A document that is too long is replaced by one
/// byte that does not parse, so that it is rejected.
async fn get(
    store: &Arc<dyn Store>,
    key: ObjectKey,
) -> Result<Option<Result<bytes::Bytes, EpochError>>, StoreError> {
    match store.get(&key, MAX_DOCUMENT).await {
        Ok(bytes) => Ok(Some(Ok(bytes))),
        Err(error) => match error.kind {
            StoreErrorKind::NotFound => Ok(None),
            StoreErrorKind::TooLarge { .. } => Ok(Some(Ok(bytes::Bytes::from_static(b"?")))),
            StoreErrorKind::NotAFile => Ok(Some(Err(EpochError::NotAFile { object: key.to_string() }))),
            _ => Err(error),
        },
    }
}

impl Epochs {
    /// Rejects epochs by signing keys that owners have cut off, unless a valid snapshot refers to them.
    pub fn cut_off(&mut self, records: &Records, chain: &Chain) {
        let lost = |stored: &StoredEpoch| {
            let id = stored.epoch.epoch;
            records.cut_offs(stored.epoch.key()).next().is_some()
                && !chain.iter().any(|snapshot| snapshot.envelope().epochs.contains(&id))
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

/// The difference between the owners of a plan and those of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// People who can decrypt the epoch but are no longer owners of the plan: they force a new epoch.
    pub removed: Vec<RecipientId>,
    /// Owners of the plan who cannot decrypt the epoch yet. An owner runs `keys add`, or the next
    /// epoch includes them.
    pub added: Vec<Owner>,
}

impl fmt::Display for OwnerChange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let added: Vec<String> = self.added.iter().map(Owner::name).collect();
        // An epoch holds the hash of a recipient, never its text.
        let removed: Vec<String> = self.removed.iter().map(RecipientId::short).collect();
        let removed = format!("the recipient whose hash is {} removed", removed.join(", "));
        match (added.is_empty(), self.removed.is_empty()) {
            (_, true) => write!(f, "{} added", added.join(", ")),
            (true, false) => f.write_str(&removed),
            (false, false) => write!(f, "{} added, {removed}", added.join(", ")),
        }
    }
}

impl OwnerChange {
    /// True if the owners are the same.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.removed.is_empty() && self.added.is_empty()
    }

    /// Compares the owners. `later` are those who were added after the epoch's creation, according
    /// to receipts.
    #[must_use]
    pub fn between(epoch: &Epoch, later: &[RecipientId], owners: &[Owner]) -> Self {
        let has = |id: RecipientId| owners.iter().any(|owner| owner.recipient.id() == id);
        let inline = epoch.wraps.iter().map(|wrap| wrap.recipient);
        let mut can: Vec<_> = inline.chain(later.iter().copied()).collect();
        can.sort_unstable();
        can.dedup();
        let added = owners.iter().filter(|owner| !can.contains(&owner.recipient.id())).cloned().collect();
        Self { removed: can.into_iter().filter(|id| !has(*id)).collect(), added }
    }
}
