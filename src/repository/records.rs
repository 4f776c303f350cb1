//! Reads the signed records of a repository, and answers queries about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt};
use jiff::Timestamp;

use crate::format::ids::{EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use crate::format::layout::{self, ObjectKey};
use crate::format::record::{MAX_RECORD, ReceiptAction, Record, RecordError, SignedRecord};
use crate::format::revocation::Revocation;
use crate::format::sign::{Namespace, PublicKey};
use crate::format::signers::Signers;
use crate::report::event::Reporter;
use crate::repository::fetched::{self, Fetched};
use crate::repository::signed_listing::{SignedFolder, SignedObject, Unsigned};
use crate::store::{Store, StoreError};

/// The most records of one type by one key that are read: years of daily drills, prunes and receipts.
pub const MAX_RECORDS: usize = 50_000;
/// The most reports of failed runs that are listed: hourly ones of a year. No reader decides anything from one.
pub const MAX_REPORTS: usize = 10_000;

const PARALLEL: usize = 16;

/// The objects under a writer's `records/`.
#[derive(Debug, Default)]
pub struct Records {
    /// Records with a valid signature, by the store's time, oldest first. Of revoked keys only revocations and
    /// receipts.
    pub signed: Vec<StoredRecord>,
    /// Encrypted reports of failed runs.
    pub reports: Vec<ObjectKey>,
    /// Objects with a signed key that are not valid records, and the reasons.
    pub rejected: Vec<(ObjectKey, RecordError)>,
    /// The other objects there.
    pub unsigned: Unsigned,
    /// The revocations in the pin.
    pinned: Vec<Revocation>,
}

/// A record and the time at which the store received it.
#[derive(Debug, Clone)]
pub struct StoredRecord {
    /// The verified record.
    pub record: SignedRecord,
    /// The time at which the store received it.
    pub stored: Timestamp,
}

/// The most names by one key that are read.
#[derive(Debug, Clone, Copy)]
pub struct RecordLimits {
    /// Records of one type.
    pub records: usize,
    /// Reports of failed runs.
    pub reports: usize,
}

/// Reads all records of a writer. Checks the `repository` of each if it is given. Fails if the store cannot
/// be read, or has more than [`MAX_RECORDS`] records of one type by one key that no owner has revoked.
pub async fn list(
    store: &Arc<dyn Store>,
    writer: WriterId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Records, StoreError> {
    let limits = RecordLimits { records: MAX_RECORDS, reports: MAX_REPORTS };
    list_within(limits, store, writer, repository, signers, reporter).await
}

/// As [`list`], with other limits.
pub async fn list_within(
    limits: RecordLimits,
    store: &Arc<dyn Store>,
    writer: WriterId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Records, StoreError> {
    let RecordLimits { records: most_records, reports: most_reports } = limits;
    let prefix = layout::records_prefix(writer);
    let folder = SignedFolder { store, prefix: &prefix, writer, signers, reporter };
    let most = |namespace| if namespace == Namespace::Manifest { most_reports } else { most_records };
    let listing = folder.list_up_to(|rest| Some(kind(rest)?.namespace()), most).await?;
    let mut records = Records { unsigned: listing.unsigned, ..Records::of_pin(signers) };
    let (mut revocations, mut others) = (Vec::new(), Vec::new());
    for object in listing.objects {
        match kind(&object.entry.key.as_str()[prefix.len()..]) {
            Some(Kind::Statement(Namespace::Trust)) => revocations.push((object, Namespace::Trust)),
            Some(Kind::Statement(namespace)) => others.push((object, namespace)),
            Some(Kind::Report) => others.push((object, Namespace::Manifest)),
            None => {}
        }
    }
    let reader = RecordReader { store, writer, repository, signers };
    reader.read(revocations, &mut records).await?;
    // Whoever stole a key may have signed any number of names with it.
    let revoked = records.revoked();
    let counts = |signer: &PublicKey, namespace: Namespace| {
        matches!(namespace, Namespace::Trust | Namespace::Receipt) || !revoked.contains(signer)
    };
    for ((signer, namespace), left) in listing.surplus {
        if namespace != Namespace::Manifest && counts(&signer, namespace) {
            return Err(folder.too_many(most_records, signer));
        }
        if counts(&signer, namespace) {
            let what = format!("{left} reports beyond the first {most_reports} are not listed");
            reporter.warn(format!("{prefix}{}/", layout::REPORTS), what);
        }
    }
    others.retain(|(object, namespace)| counts(&object.signer, *namespace));
    let (reports, others) = others.into_iter().partition(|(_, namespace)| *namespace == Namespace::Manifest);
    let reports: Vec<(SignedObject, Namespace)> = reports;
    records.reports = reports.into_iter().map(|(object, _)| object.entry.key).collect();
    reader.read(others, &mut records).await?;
    records.signed.sort_by_key(|record| (record.stored, record.record.hash()));
    Ok(records)
}

/// Reads records whose keys are signed.
struct RecordReader<'a> {
    store: &'a Arc<dyn Store>,
    writer: WriterId,
    repository: Option<RepositoryId>,
    signers: &'a Signers,
}

impl RecordReader<'_> {
    async fn read(
        &self,
        objects: Vec<(SignedObject, Namespace)>,
        records: &mut Records,
    ) -> Result<(), StoreError> {
        let mut read = stream::iter(objects)
            .map(|(SignedObject { entry, hash, .. }, namespace)| async move {
                let bytes = match entry.size > MAX_RECORD {
                    true => Ok(Fetched::Corrupt),
                    false => fetched::get(self.store, &entry.key, hash, MAX_RECORD).await,
                };
                (entry, hash, namespace, bytes)
            })
            .buffered(PARALLEL);
        while let Some((entry, hash, namespace, bytes)) = read.next().await {
            let opened = match bytes? {
                // Pruned since the listing.
                Fetched::Missing => continue,
                Fetched::Corrupt => Err(RecordError::Name),
                Fetched::Valid(bytes) => {
                    SignedRecord::open(bytes, self.writer, hash, namespace, self.repository, self.signers)
                }
            };
            match opened {
                Ok(record) => records.signed.push(StoredRecord { record, stored: entry.modified }),
                Err(error) => records.rejected.push((entry.key, error)),
            }
        }
        Ok(())
    }
}

/// An object among the records, by its folder.
#[derive(Debug, Clone, Copy)]
enum Kind {
    Statement(Namespace),
    Report,
}

impl Kind {
    /// Returns the namespace of the keys that may sign such an object's key: the writer's, for its reports.
    fn namespace(self) -> Namespace {
        match self {
            Self::Statement(namespace) => namespace,
            Self::Report => Namespace::Manifest,
        }
    }
}

/// Returns the kind of the object whose key goes on with `rest` after the folder of records.
fn kind(rest: &str) -> Option<Kind> {
    let (folder, name) = rest.split_once('/')?;
    if name.contains('/') {
        return None;
    }
    match folder {
        layout::REPORTS => Some(Kind::Report),
        other => Namespace::of_record(other).map(Kind::Statement),
    }
}

impl Records {
    /// Returns the records of a store that has none: only the pin revokes keys.
    #[must_use]
    pub fn of_pin(signers: &Signers) -> Self {
        Self { pinned: signers.revoked().to_vec(), ..Self::default() }
    }

    /// Returns the keys that owners have revoked, in the store or in the pin.
    fn revoked(&self) -> BTreeSet<PublicKey> {
        let stored = self.signed.iter().filter_map(|stored| match stored.record.record() {
            Record::Revocation(revocation) => Some(revocation.key),
            _ => None,
        });
        stored.chain(self.pinned.iter().map(|revocation| revocation.key)).collect()
    }

    /// Returns the statements that cut off `key`, in the store and in the pin. A manifest that it signed counts only if every
    /// statement names it, or a descendant of it, among its last good manifests.
    pub fn cut_offs(&self, key: PublicKey) -> impl Iterator<Item = &Revocation> {
        let stored = self.signed.iter().filter_map(|stored| match stored.record.record() {
            Record::Revocation(revocation) => Some(revocation),
            _ => None,
        });
        stored.chain(&self.pinned).filter(move |revocation| revocation.key == key)
    }

    /// Returns the names of all revocations, sorted.
    #[must_use]
    pub fn revocations(&self) -> Vec<ObjectHash> {
        let is_revocation = |stored: &&StoredRecord| matches!(stored.record.record(), Record::Revocation(_));
        let mut names: Vec<_> =
            self.signed.iter().filter(is_revocation).map(|stored| stored.record.hash()).collect();
        names.sort_unstable();
        names
    }

    /// Returns the records by which a domain's earlier hints do not count: the heads that each names, and the
    /// time at which the store received it.
    pub fn resets(
        &self,
        plan: NameId,
        epoch: EpochId,
        domain: NameId,
    ) -> impl Iterator<Item = (&[ObjectHash], Timestamp)> {
        self.signed.iter().filter_map(move |stored| match stored.record.record() {
            Record::Distrust(bad)
                if (bad.plan, bad.epoch, bad.domain) == (plan, epoch, domain)
                    && !bad.hints_before.is_empty() =>
            {
                Some((bad.hints_before.as_slice(), stored.stored))
            }
            _ => None,
        })
    }

    /// Returns the packs of a domain that are recorded as bad, and the time of the oldest such
    /// record by the store's clock.
    #[must_use]
    pub fn distrusted(
        &self,
        plan: NameId,
        epoch: EpochId,
        domain: NameId,
    ) -> (BTreeSet<ObjectHash>, Option<Timestamp>) {
        let mut packs = BTreeSet::new();
        let mut oldest = None;
        for stored in &self.signed {
            if let Record::Distrust(bad) = stored.record.record()
                && (bad.plan, bad.epoch, bad.domain) == (plan, epoch, domain)
            {
                packs.extend(bad.packs.iter().copied());
                oldest = Some(oldest.map_or(stored.stored, |at: Timestamp| at.min(stored.stored)));
            }
        }
        (packs, oldest)
    }

    /// Returns the owners who have opened an epoch's keys, each with the last time. `None` is for owners
    /// of later wraps that no receipt names.
    #[must_use]
    pub fn opened(&self, plan: NameId, epoch: EpochId) -> Vec<(Option<RecipientId>, Timestamp)> {
        let mut seen: Vec<(Option<RecipientId>, Timestamp)> = Vec::new();
        let added = self.added(plan, epoch);
        for (recipient, wrap, stored) in self.receipts(plan, epoch, ReceiptAction::Opened) {
            let by_wrap = || added.iter().find(|(_, name)| Some(*name) == wrap).map(|(owner, _)| *owner);
            let recipient = recipient.or_else(by_wrap);
            match seen.iter_mut().find(|(known, _)| *known == recipient) {
                Some(entry) => entry.1 = stored,
                None => seen.push((recipient, stored)),
            }
        }
        seen
    }

    /// Returns the owners who were added to an epoch after its creation, with their wraps.
    #[must_use]
    pub fn added(&self, plan: NameId, epoch: EpochId) -> Vec<(RecipientId, ObjectHash)> {
        self.receipts(plan, epoch, ReceiptAction::Added)
            .filter_map(|(recipient, wrap, _)| Some((recipient?, wrap?)))
            .collect()
    }

    /// Returns the wraps of an epoch that receipts name, newest first.
    #[must_use]
    pub fn attested_wraps(&self, plan: NameId, epoch: EpochId) -> Vec<ObjectHash> {
        let mut wraps = Vec::new();
        for stored in self.signed.iter().rev() {
            if let Record::Receipt(receipt) = stored.record.record()
                && (receipt.plan, receipt.epoch) == (plan, epoch)
                && let Some(wrap) = receipt.wrap
                && !wraps.contains(&wrap)
            {
                wraps.push(wrap);
            }
        }
        wraps
    }

    fn receipts(
        &self,
        plan: NameId,
        epoch: EpochId,
        act: ReceiptAction,
    ) -> impl Iterator<Item = (Option<RecipientId>, Option<ObjectHash>, Timestamp)> {
        self.signed.iter().filter_map(move |stored| match stored.record.record() {
            Record::Receipt(receipt) if (receipt.plan, receipt.epoch, receipt.act) == (plan, epoch, act) => {
                Some((receipt.recipient, receipt.wrap, stored.stored))
            }
            _ => None,
        })
    }
}
