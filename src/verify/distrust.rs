//! Writes a signed record of the packs that verify found bad.

use std::collections::BTreeMap;

use super::{ObjectKind, VerifyReport};
use crate::format::ids::{EpochId, NameId, ObjectHash, WriterId};
use crate::format::layout::{EpochObject, EpochPath, ObjectClass, ObjectKey};
use crate::format::manifest::MAX_PREVIOUS;
use crate::format::record::{Distrust, MAX_DISTRUSTED, Record};
use crate::format::sign::SignError;
use crate::keys::writer_key::WriterKey;
use crate::repository::read::reader::RepositoryReader;
use crate::repository::records::Records;
use crate::repository::{epoch::create, epoch::error::CreateEpochError, error::RepositoryError};
use crate::store::StoreError;

/// An error while recording bad packs.
#[derive(Debug, thiserror::Error)]
pub enum DistrustError {
    /// The key is of a writer that is not pinned.
    #[error("the key to sign distrust with is of writer {0}, which is not pinned")]
    NotPinned(WriterId),
    /// The record cannot be signed.
    #[error("the record of bad packs cannot be signed")]
    Sign(#[source] SignError),
    /// The repository cannot be read.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// The record was not stored.
    #[error(transparent)]
    Put(#[from] CreateEpochError),
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Signs and stores records of the bad packs of each domain of the key's writer. Packs that a record
/// names already are left out. Returns the number of records. Fails with [`DistrustError`] if the key's
/// writer is not pinned, or the store fails.
pub async fn distrust(
    view: &RepositoryReader,
    key: &WriterKey,
    report: &VerifyReport,
) -> Result<u64, DistrustError> {
    if !view.writers().contains(&key.writer) {
        return Err(DistrustError::NotPinned(key.writer));
    }
    let records = view.records(key.writer).await?;
    let mut bad: BTreeMap<(NameId, EpochId, NameId), Vec<ObjectHash>> = BTreeMap::new();
    for finding in report.findings.iter().filter(|finding| finding.role == ObjectKind::Pack) {
        let Some((path, domain, pack)) = parse_pack_key(&finding.object) else { continue };
        let known = records.distrusted(path.plan, path.epoch, domain).0.contains(&pack);
        if path.writer == key.writer && !known {
            bad.entry((path.plan, path.epoch, domain)).or_default().push(pack);
        }
    }
    let mut statements = Vec::new();
    for ((plan, epoch, domain), packs) in bad {
        for packs in packs.chunks(MAX_DISTRUSTED) {
            let (packs, hints_before) = (packs.to_vec(), Vec::new());
            let why = "kbak verify found them missing or damaged".to_owned();
            statements.push(Distrust { plan, epoch, domain, packs, hints_before, why });
        }
    }
    statements.extend(resets(&records, key, report));
    let at = view.store.now().await?;
    for statement in &statements {
        let record = Record::Distrust(statement.clone());
        let sealed =
            record.seal(key.repository, key.writer, at, &key.signing).map_err(DistrustError::Sign)?;
        create::put(&view.store, &sealed).await?;
    }
    Ok(statements.len() as u64)
}

/// Returns the statements by which the hints of wrong domains do not count any more, except those that a record
/// makes already.
fn resets(records: &Records, key: &WriterKey, report: &VerifyReport) -> Vec<Distrust> {
    let mut statements = Vec::new();
    for reset in report.resets.iter().filter(|reset| reset.plan.writer == key.writer) {
        let (plan, epoch, domain) = (reset.plan.plan, reset.epoch, reset.domain);
        let heads = report.heads.iter().filter(|head| head.plan == reset.plan).map(|head| head.hash);
        let hints_before: Vec<ObjectHash> = heads.take(MAX_PREVIOUS).collect();
        let known = records
            .resets(plan, epoch, domain)
            .any(|(before, _)| hints_before.iter().all(|head| before.contains(head)));
        if !known && !hints_before.is_empty() {
            let why = "kbak verify found wrong indexes, scan caches, lists or catalogs".to_owned();
            statements.push(Distrust { plan, epoch, domain, packs: Vec::new(), hints_before, why });
        }
    }
    statements
}

/// Returns the epoch, domain and hash of a pack from its key.
fn parse_pack_key(key: &str) -> Option<(EpochPath, NameId, ObjectHash)> {
    let key = ObjectKey::parse(key)?;
    let mut segments = key.as_str().split('/');
    let mut next = || segments.next();
    let (writer, plan, epoch) = (next()?.parse().ok()?, next()?.parse().ok()?, next()?.parse().ok()?);
    let path = EpochPath { writer, plan, epoch };
    match path.object_at(&key)? {
        EpochObject::InDomain(domain, ObjectClass::Pack, pack) => Some((path, domain, pack)),
        _ => None,
    }
}
