//! Reads the signed records of a repository, and answers queries about them.

use std::collections::BTreeSet;
use std::sync::Arc;

use futures::stream::{self, StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::ids::{EpochId, NameId, ObjectHash, RecipientId, RepositoryId, WriterId};
use crate::format::layout::{self, ObjectKey};
use crate::format::record::{ReceiptAction, Record, RecordError, Revocation, SignedRecord};
use crate::format::sign::{MAX_DOCUMENT, PublicKey};
use crate::format::signers::Signers;
use crate::report::event::Reporter;
use crate::store::{Store, StoreError, StoreErrorKind};
use crate::store::{listing::list_all, operation::Operation};

/// The most objects under `records/`: years of daily drills, prunes and receipts. With more, none
/// is read. Otherwise anyone who can write to the store could hide an owner's records among junk.
const MAX_RECORDS: usize = 50_000;

const PARALLEL: usize = 16;

/// The objects under a writer's `records/`.
#[derive(Debug, Default)]
pub struct Records {
    /// Records with a valid signature, by the store's time, oldest first.
    pub signed: Vec<StoredRecord>,
    /// Encrypted reports of failed runs.
    pub reports: Vec<ObjectKey>,
    /// Objects that are not valid records, and the reasons.
    pub rejected: Vec<(ObjectKey, RecordError)>,
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
/// be read, or has more than `MAX_RECORDS` objects there.
pub async fn list(
    store: &Arc<dyn Store>,
    writer: WriterId,
    repository: Option<RepositoryId>,
    signers: &Signers,
    reporter: &Reporter,
) -> Result<Records, StoreError> {
    let mut records = Records::default();
    let prefix = layout::records_prefix(writer);
    let entries: Vec<_> =
        list_all(store.clone(), prefix.clone(), reporter.clone()).take(MAX_RECORDS + 1).try_collect().await?;
    if entries.len() > MAX_RECORDS {
        let what = format!(
            "more than {MAX_RECORDS} objects lie there, so what owners signed among them cannot be told; \
             remove what no signature follows, and keep what says \"trust\""
        );
        let kind = StoreErrorKind::Protocol(what);
        return Err(StoreError::new(Operation::List, prefix, store.describe(), kind));
    }
    let mut read = stream::iter(entries)
        .map(|entry| async move {
            let bytes = store.get(&entry.key, MAX_DOCUMENT).await;
            (entry, bytes)
        })
        .buffered(PARALLEL);
    while let Some((entry, bytes)) = read.next().await {
        let bytes = match bytes {
            Ok(bytes) => bytes,
            // Pruned since the listing, too long for a record, or not a file.
            Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => continue,
            Err(StoreError { kind: StoreErrorKind::TooLarge { .. } | StoreErrorKind::NotAFile, .. }) => {
                records.rejected.push((entry.key, RecordError::Kind));
                continue;
            }
            Err(error) => return Err(error),
        };
        let named = entry.key.as_str()[prefix.len()..].parse::<ObjectHash>().map_err(|_| RecordError::Name);
        if bytes.starts_with(b"age-encryption.org/") {
            match named {
                Ok(hash) if ObjectHash::of(&bytes) == hash => records.reports.push(entry.key),
                _ => records.rejected.push((entry.key, RecordError::Name)),
            }
            continue;
        }
        let opened = named.and_then(|hash| SignedRecord::open(bytes, writer, hash, repository, signers));
        match opened {
            Ok(record) => records.signed.push(StoredRecord { record, stored: entry.modified }),
            Err(error) => records.rejected.push((entry.key, error)),
        }
    }
    records.signed.sort_by_key(|record| (record.stored, record.record.hash()));
    Ok(records)
}

impl Records {
    /// Returns the statements that cut off `key`. A manifest that it signed counts only if every
    /// statement names it, or a descendant of it, among its last good manifests.
    pub fn cut_offs(&self, key: PublicKey) -> impl Iterator<Item = &Revocation> {
        self.signed.iter().filter_map(move |stored| match stored.record.record() {
            Record::Revocation(revocation) if revocation.key == key => Some(revocation),
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
