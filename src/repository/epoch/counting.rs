//! The epochs that count for a writer: not those of keys that owners cut off, unless a snapshot that counts is in
//! them. A thief's epoch would else close the writer's own.

use crate::report::event::Reporter;
use crate::repository::chain;
use crate::repository::epoch::stored::{self, EpochReader, Epochs};
use crate::repository::records::Records;
use crate::store::StoreError;

/// Reads the epochs of a plan as [`stored::list`] does, and rejects those that do not count. The snapshots are read
/// only if an epoch's key was cut off.
pub async fn list(reader: EpochReader<'_>, records: &Records) -> Result<Epochs, StoreError> {
    let EpochReader { store, writer, plan, signers, reporter, .. } = reader;
    let names = stored::names(store, writer, signers, reporter).await?;
    let mut epochs = reader.read(&names).await?;
    if epochs.all.iter().all(|stored| records.cut_offs(stored.epoch.key()).next().is_none()) {
        return Ok(epochs);
    }
    let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
    let mut chain = chain::read(store, writer, plan, ids, signers, &Reporter::silent()).await?;
    chain.cut_off(records);
    epochs.cut_off(records, &chain);
    Ok(epochs)
}
