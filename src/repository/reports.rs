//! Encrypted reports of failed runs, stored in the repository.

use std::sync::Arc;
use std::time::Duration;

use crate::format::container::DataIdentity;
use crate::format::report::{self, MAX_REPORT};
use crate::format::{layout::ObjectKey, sign::MAX_DOCUMENT};
use crate::keys::epoch_file::EpochSecretStore;
use crate::keys::writer_key::{WriterFileError, WriterKey};
use crate::report::{event::Reporter, run::RunReport};
use crate::repository::epoch::error::CreateEpochError;
use crate::repository::epoch::stored::{self, StoredEpoch};
use crate::store::{Store, StoreError};

/// The time limit for storing a report: Kubernetes kills a pod 30 s after asking it to end (default).
const DEADLINE: Duration = Duration::from_secs(20);

/// An error while storing a report.
#[derive(Debug, thiserror::Error)]
pub enum ReportError {
    /// The writer holds the secret of no epoch in the store.
    #[error("{0} has the secret of no epoch in the store that it could be encrypted to")]
    NoEpoch(String),
    /// The writer's secrets cannot be read.
    #[error("it is encrypted only to an epoch whose secret is here, and that cannot be read")]
    Secrets(#[from] WriterFileError),
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// The stored report differs when read back.
    #[error(transparent)]
    Birth(#[from] CreateEpochError),
    /// It cannot be encrypted or signed.
    #[error("it cannot be encrypted")]
    Seal(#[from] report::ReportError),
    /// The store did not answer within the time limit.
    #[error("the store did not take it within {} s", DEADLINE.as_secs())]
    Late,
}

/// Encrypts `report` to the newest epoch of `plan` whose secret `keeper` has, and stores it: whoever had the writer's
/// key could have signed another epoch, to a recipient of their own. Fails if it was not stored. The run has already
/// failed, so the caller only reports the error.
pub async fn store(
    store: &Arc<dyn Store>,
    key: &WriterKey,
    keeper: &dyn EpochSecretStore,
    plan: &str,
    report: &RunReport,
) -> Result<ObjectKey, ReportError> {
    let work = async {
        let held = keeper.load().await?.unwrap_or_default().secrets;
        let own = key.own_signers();
        let silent = Reporter::silent();
        let plan = key.plan(plan);
        let epochs = stored::list(store, key.writer, plan, Some(key.repository), &own, &silent).await?;
        let is_own = |stored: &&StoredEpoch| held.iter().any(|held| held.matches(&stored.epoch));
        let newest = epochs.all.iter().rev().find(is_own);
        let newest = newest.ok_or_else(|| ReportError::NoEpoch(keeper.describe()))?;
        let sealed = report::seal(&text(report), key.writer, newest.epoch.recipient(), &key.signing)?;
        crate::repository::epoch::create::put(store, &sealed).await?;
        Ok(sealed.key().clone())
    };
    tokio::time::timeout(DEADLINE, work).await.unwrap_or(Err(ReportError::Late))
}

/// Returns the report as JSON. If it is too long, details are left out and counted.
fn text(report: &RunReport) -> String {
    let json = |report: &RunReport| serde_json::to_string(report).unwrap_or_default();
    let whole = json(report);
    if whole.len() <= MAX_REPORT {
        return whole;
    }
    let mut short = report.clone();
    short.warnings_left_out += short.warnings.len() as u64;
    short.warnings.clear();
    for item in &mut short.items {
        item.summary = format!("{} ({} gaps, not listed here)", item.summary, item.gaps.len());
        item.gaps.clear();
    }
    let short_text = json(&short);
    if short_text.len() <= MAX_REPORT {
        return short_text;
    }
    short.items.clear();
    json(&short)
}

/// Opens the reports under `keys` with `identities`. Returns none for a report that no identity opens: it
/// belongs to an epoch whose keys are not available. Fails if the store cannot be read.
pub async fn read(
    store: &Arc<dyn Store>,
    keys: &[ObjectKey],
    identities: &[DataIdentity],
) -> Result<Vec<(ObjectKey, Option<RunReport>)>, StoreError> {
    let mut reports = Vec::with_capacity(keys.len());
    for key in keys {
        let sealed = store.get(key, MAX_DOCUMENT).await?;
        let opened = identities.iter().find_map(|identity| report::open(&sealed, identity).ok());
        reports.push((key.clone(), opened.and_then(|text| serde_json::from_slice(&text).ok())));
    }
    Ok(reports)
}
