//! Checks the repository in the store: its marker, the epoch that the next run would write into, and the
//! owners who have proven that they can open it.

use std::sync::Arc;

use jiff::Timestamp;
use tokio::time::Instant;

use super::keys::Keys;
use super::{CheckJob, Finding};
use crate::format::{layout, marker};
use crate::keys::{Owner, writer_key::WriterKey};
use crate::report::{event::Reporter, text::utc};
use crate::repository::epoch::counting;
use crate::repository::epoch::owner_change::OwnerChange;
use crate::repository::epoch::stored::{EpochReader, Epochs, StoredEpoch};
use crate::repository::records::{self, Records};
use crate::store::{Store, StoreError, StoreErrorKind};

/// The maximum size of a marker, in bytes.
const MAX_MARKER: u64 = 64 << 10;

pub(super) async fn check(
    job: &CheckJob,
    keys: &Keys,
    key: &WriterKey,
    store: &Arc<dyn Store>,
    reporter: &Reporter,
) -> Vec<Finding> {
    let began = Instant::now();
    let marked = match marked(store).await {
        Ok(()) => Finding::good("repository", format!("{} is there", store.describe())).took(began),
        Err(finding) => return vec![finding],
    };
    let plan = key.plan(&job.plan);
    let silent = Reporter::silent();
    let read = async {
        let records = records::list(store, key.writer, Some(key.repository), &keys.signers, reporter).await?;
        let (writer, repository, signers) = (key.writer, Some(key.repository), &keys.signers);
        let reader = EpochReader { store, writer, plan, repository, signers, reporter: &silent };
        let epochs = counting::list(reader, &records).await?;
        Ok::<_, StoreError>((records, epochs, store.now().await?))
    };
    let (records, epochs, now) = match read.await {
        Ok(read) => read,
        Err(error) => return vec![marked, Finding::error("repository", error)],
    };
    let mut findings = vec![marked];
    if let Some(trust) = records.cut_offs(key.signing.public()).next() {
        let what = format!("an owner has cut off this writer's key: {}", trust.why);
        let remedy = "give the writer a new key (docs/keys.md), and find out who had this one";
        findings.push(Finding::problem("writer", what).remedy(remedy));
    }
    if let Some((object, error)) = epochs.newer().next() {
        let what = format!("{object} was written by a newer kbak: {error}");
        findings.push(Finding::problem("repository", what).remedy("use that version, or a later one"));
    }
    findings.extend(epoch(job, keys, key, &records, &epochs, now));
    findings
}

/// Reports the epoch that the next run would write into.
fn epoch(
    job: &CheckJob,
    keys: &Keys,
    key: &WriterKey,
    records: &Records,
    epochs: &Epochs,
    now: Timestamp,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    // If two epochs were created at once, the one whose secret is held is used, as in a run.
    let held = |stored: &&StoredEpoch| keys.held.iter().flatten().any(|held| held.matches(&stored.epoch));
    let own = key.signing.public();
    let open = epochs.open_own(now, own).find(held).or_else(|| epochs.open_own(now, own).next());
    match open {
        None if epochs.all.is_empty() => {
            findings.push(Finding::note("epoch", "the first run opens this plan's first epoch"));
        }
        None => findings.push(Finding::note(
            "epoch",
            "the last epoch is over: the next run opens a new one, and reads and stores everything anew",
        )),
        Some(stored) => {
            if !held(&stored) {
                let what =
                    format!("the secret of epoch {} is not in {}", stored.epoch.epoch, job.epoch_secret);
                let remedy = format!(
                    "bring the file back, or kbak backup --new-epoch (everything is read and stored anew); if nobody \
                     made this epoch, the key was stolen: an owner runs kbak keys cut-off --key {}",
                    stored.epoch.key().fingerprint()
                );
                findings.push(Finding::problem("epoch", what).remedy(remedy));
            }
            findings.extend(owners(job, keys, records, epochs, stored));
        }
    }
    findings
}

async fn marked(store: &Arc<dyn Store>) -> Result<(), Finding> {
    let place = store.describe();
    match store.get(&layout::marker(), MAX_MARKER).await {
        Ok(bytes) => marker::check(&bytes).map_err(|error| {
            Finding::problem(
                "repository",
                format!("what lies at {place} is no repository of this kbak: {error}"),
            )
        }),
        Err(StoreError { kind: StoreErrorKind::NotFound, .. }) => {
            let what = format!("no repository lies at {place}");
            let remedy = "make it with kbak init, or correct repository.url (prefix, bucket)";
            Err(Finding::problem("repository", what).remedy(remedy))
        }
        Err(error) => Err(Finding::error("repository", error)),
    }
}

/// Reports the owners who can open the open epoch, and those who have proven it.
fn owners(
    job: &CheckJob,
    keys: &Keys,
    records: &Records,
    epochs: &Epochs,
    stored: &StoredEpoch,
) -> Vec<Finding> {
    let mut findings = Vec::new();
    let id = stored.epoch.epoch;
    let plan = stored.epoch.path().plan;
    let later: Vec<_> = records.added(plan, id).into_iter().map(|(owner, _)| owner).collect();
    let change = OwnerChange::between(&stored.epoch, &later, &job.owners);
    if !change.removed.is_empty() {
        findings.push(Finding::note(
            "owners",
            "somebody who can open the current epoch is no recipient any more: the next run opens a new epoch",
        ));
    }
    for owner in &change.added {
        let what = format!("{} cannot open the current epoch yet", owner.name());
        let remedy = format!("an owner: kbak keys add --owner '{}' --identity OWNER-KEY", owner.recipient);
        findings.push(Finding::warning("owners", what).remedy(remedy));
    }
    let until = utc(epochs.starts_until(stored));
    findings.push(Finding::good("epoch", format!("runs start in epoch {id} until {until}")));
    if !keys.pinned {
        let what = "whether owners have opened the current epoch is not known: no signers are pinned";
        let remedy = "name kbak.pub as writer.signersFile";
        findings.push(Finding::note("owners", what).remedy(remedy));
        return findings;
    }
    let opened = records.opened(plan, id);
    let unproven = job
        .owners
        .iter()
        .filter(|owner| !change.added.contains(owner))
        .filter(|owner| !opened.iter().any(|(recipient, _)| *recipient == Some(owner.recipient.id())));
    let unproven: Vec<String> = unproven.map(Owner::name).collect();
    if unproven.is_empty() {
        findings.push(Finding::good("owners", "every owner has opened the current epoch"));
    } else {
        let what = format!("not proven that these can open the current epoch: {}", unproven.join(", "));
        let remedy = "each of them: kbak keys check --identity OWNER-KEY --signer kbak.pub --repo …";
        findings.push(Finding::warning("owners", what).remedy(remedy));
    }
    findings
}
