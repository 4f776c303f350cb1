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

/// The most signed records of a writer that are read: years of daily drills, prunes and receipts.
const MAX_RECORDS: usize = 50_000;

const PARALLEL: usize = 16;

/// The objects under a writer's `records/`.
#[derive(Debug, Default)]
pub struct Records {
    /// Records with a valid signature, by the store's time, oldest first.
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

/// Reads all records of a writer. Checks the `repository` of each if it is given. Fails if the store cannot
/// be read, or has more than `MAX_RECORDS` signed records.
pub async fn list(
    store: &Arc<dyn Store>,
    writer: WriterId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Records, StoreError> {
    let prefix = layout::records_prefix(writer);
    let folder = SignedFolder { store, prefix: &prefix, writer, signers, reporter };
    let (entries, unsigned) = folder.list(|rest| Some(kind(rest)?.namespace()), MAX_RECORDS).await?;
    let mut records = Records { unsigned, pinned: signers.revoked().to_vec(), ..Records::default() };
    let mut statements = Vec::new();
    for SignedObject { entry, hash } in entries {
        match kind(&entry.key.as_str()[prefix.len()..]) {
            Some(Kind::Statement(namespace)) => statements.push((entry, hash, namespace)),
            _ => records.reports.push(entry.key),
        }
    }
    let mut read = stream::iter(statements)
        .map(|(entry, hash, namespace)| async move {
            let bytes = match entry.size > MAX_RECORD {
                true => Ok(Fetched::Corrupt),
                false => fetched::get(store, &entry.key, hash, MAX_RECORD).await,
            };
            (entry, hash, namespace, bytes)
        })
        .buffered(PARALLEL);
    while let Some((entry, hash, namespace, bytes)) = read.next().await {
        let opened = match bytes? {
            // Pruned since the listing.
            Fetched::Missing => continue,
            Fetched::Corrupt => Err(RecordError::Name),
            Fetched::Valid(bytes) => SignedRecord::open(bytes, writer, hash, namespace, repository, signers),
        };
        match opened {
            Ok(record) => records.signed.push(StoredRecord { record, stored: entry.modified }),
            Err(error) => records.rejected.push((entry.key, error)),
        }
    }
    records.signed.sort_by_key(|record| (record.stored, record.record.hash()));
    records.drop_distrust_of_revoked();
    Ok(records)
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
    /// Drops what revoked keys say of bad packs and hints: it could make writers store everything anew.
    fn drop_distrust_of_revoked(&mut self) {
        let signed = std::mem::take(&mut self.signed);
        let revoked: BTreeSet<PublicKey> = signed
            .iter()
            .filter_map(|stored| match stored.record.record() {
                Record::Revocation(revocation) => Some(revocation.key),
                _ => None,
            })
            .chain(self.pinned.iter().map(|revocation| revocation.key))
            .collect();
        let counts = |stored: &StoredRecord| {
            !matches!(stored.record.record(), Record::Distrust(_)) || !revoked.contains(&stored.record.key())
        };
        self.signed = signed.into_iter().filter(counts).collect();
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
