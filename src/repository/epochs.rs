//! The epochs of a plan: read from the store, and what may be done in each at a moment
//! (docs/format.md, "Life"). All moments are the store's clock.

use std::collections::BTreeMap;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::epoch::{CLOSING_GRACE, Epoch, EpochError, VerifiedEpoch};
use crate::format::ids::{EpochId, NameId, RecipientId, RepositoryId, WriterId};
use crate::format::layout::{self, EpochPath, ObjectKey};
use crate::format::moment;
use crate::format::sign::{MAX_DOCUMENT, PublicKey};
use crate::format::signers::Signers;
use crate::pipeline::owner::Owner;
use crate::report::event::Reporter;
use crate::store::listing::{folders, list_all};
use crate::store::operation::Operation;
use crate::store::{Entry, Store, StoreError, StoreErrorKind};

use super::chain::Chain;
use super::records::Records;

/// The most epochs of one plan that are read: centuries of months.
pub const MAX_EPOCHS: usize = 4096;

/// How many are read at once.
const PARALLEL: usize = 8;

/// An epoch and its birth.
#[derive(Debug, Clone)]
pub struct StoredEpoch {
    /// What it says.
    pub epoch: VerifiedEpoch,
    /// When the store took it.
    pub born: Timestamp,
}

/// The epochs of one plan.
#[derive(Debug, Default)]
pub struct Epochs {
    /// Those that count, oldest first by (created, id).
    pub all: Vec<StoredEpoch>,
    /// Objects that are no epoch that counts, and why. An epoch of which one copy is bad and the
    /// other good stands in both lists.
    pub rejected: Vec<(ObjectKey, EpochError)>,
    /// Copies that are missing although their twin is there.
    pub missing: Vec<ObjectKey>,
    /// Epochs of which something lies in the store, and neither copy.
    pub gone: Vec<EpochId>,
}

/// Reads the epochs of a plan: finds them by their copies and by their folders, reads both copies
/// of each, takes the first that counts. So the loss of either copy loses nothing.
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
        // A folder without either copy is what an ended birth or a prune leaves.
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

/// The ids of all epochs, with the moment at which the copy was stored, where there is one.
async fn find(
    store: &Arc<dyn Store>,
    writer: WriterId,
    plan: NameId,
    reporter: &Reporter,
) -> Result<BTreeMap<EpochId, Option<Timestamp>>, StoreError> {
    let prefix = layout::epochs_prefix(writer, plan);
    let entries: Vec<Entry> =
        list_all(store.clone(), prefix.clone(), reporter.clone()).take(MAX_EPOCHS + 1).try_collect().await?;
    let folders = folders(store, &layout::plan_prefix(writer, plan), MAX_EPOCHS + 2).await?;
    let mut found: BTreeMap<EpochId, Option<Timestamp>> =
        folders.iter().filter_map(|id| Some((id.parse().ok()?, None))).collect();
    // A name that is no epoch's is somebody else's object.
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

/// When the store took epoch.json: the first key of a listing that begins just before it.
async fn modified(store: &Arc<dyn Store>, path: &EpochPath) -> Result<Option<Timestamp>, StoreError> {
    let prefix = path.prefix();
    let page = store.list(&prefix, Some(&store.after(&format!("{prefix}epoch.jsom~")))).await?;
    let entry = page.entries.iter().find(|entry| entry.key == path.epoch_json());
    Ok(entry.map(|entry| entry.modified))
}

/// A document, or nothing where there is none. One that is too long is no document of ours; it is
/// rejected as one byte that parses as nothing.
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
    /// Takes out epochs that a key signed which owners have cut off, unless a snapshot that still
    /// counts lies in them.
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
            let error = EpochError::CutOff { object: key.to_string() };
            (key, error)
        }));
    }

    /// One epoch.
    #[must_use]
    pub fn get(&self, epoch: EpochId) -> Option<&StoredEpoch> {
        self.all.iter().find(|stored| stored.epoch.epoch == epoch)
    }

    /// The epochs whose birth closes `epoch`.
    pub fn successors(&self, epoch: EpochId) -> impl Iterator<Item = &StoredEpoch> {
        self.all.iter().filter(move |stored| stored.epoch.previous_epochs.contains(&epoch))
    }

    /// The epochs that no other one names as its predecessor: what a new epoch closes.
    #[must_use]
    pub fn heads(&self) -> Vec<EpochId> {
        let named = |id| self.successors(id).next().is_some();
        self.all.iter().map(|stored| stored.epoch.epoch).filter(|id| !named(*id)).collect()
    }

    /// The moment from which no run may start in an epoch: `not_after` or a successor's birth.
    #[must_use]
    pub fn starts_until(&self, stored: &StoredEpoch) -> Timestamp {
        let births = self.successors(stored.epoch.epoch).map(|next| next.born);
        births.fold(stored.epoch.not_after, Timestamp::min)
    }

    /// The moment after which a manifest in an epoch counts for nothing.
    #[must_use]
    pub fn commits_until(&self, stored: &StoredEpoch) -> Timestamp {
        moment::after(self.starts_until(stored), stored.epoch.max_run_seconds)
    }

    /// The moment from which an epoch is closed, and prune may delete in it.
    #[must_use]
    pub fn closed_from(&self, stored: &StoredEpoch) -> Timestamp {
        moment::after(self.commits_until(stored), CLOSING_GRACE)
    }

    /// Whether a run may start in an epoch. A successor that is listed is born, whatever its time.
    #[must_use]
    pub fn may_start(&self, stored: &StoredEpoch, now: Timestamp) -> bool {
        now < stored.epoch.not_after && self.successors(stored.epoch.epoch).next().is_none()
    }

    /// The epochs that a writer with the key `own` may start runs in: open, and signed by itself,
    /// because a writer never encrypts to a recipient that it has not signed. The greatest by
    /// (created, id) comes first; it is the one to take. More than one is open only when two
    /// coordinators made one each at the same time.
    pub fn open_own(&self, now: Timestamp, own: PublicKey) -> impl Iterator<Item = &StoredEpoch> {
        self.all.iter().rev().filter(move |stored| stored.epoch.key() == own && self.may_start(stored, now))
    }

    /// Epochs that only a newer kbak can read.
    pub fn newer(&self) -> impl Iterator<Item = &(ObjectKey, EpochError)> {
        self.rejected.iter().filter(|(_, error)| error.is_newer())
    }
}

/// How the owners of a plan differ from those of an epoch.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerChange {
    /// Who can open the epoch and is no owner of the plan any more: a new epoch is forced.
    pub removed: Vec<RecipientId>,
    /// Who is an owner of the plan and cannot open the epoch yet: an owner runs `keys add`, or
    /// the next epoch includes him.
    pub added: Vec<Owner>,
}

impl OwnerChange {
    /// Compares. `later` are the owners that receipts say were added after the epoch's birth.
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
