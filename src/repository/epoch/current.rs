//! The epoch that a run writes into: found in the store, or created.

use crate::format::epoch::{EpochError, VerifiedEpoch};
use crate::format::ids::{EpochId, RecipientId};
use crate::format::{derive::EpochSecret, layout, sign::Namespace, signers::Signers};
use crate::keys::epoch_file::{EpochFileState, EpochSecretStore, StoredSecret};
use crate::keys::{Owner, writer_key::WriterFileError};
use crate::report::event::{Event, Reporter};
use crate::report::text::plural;
use crate::repository::epoch::counting;
use crate::repository::epoch::error::{CreateEpochError, Result};
use crate::repository::epoch::owner_change::OwnerChange;
use crate::repository::epoch::stored::{self, EpochReader, Epochs, StoredEpoch};
use crate::repository::records::Records;
use crate::runtime::kill_point;
use crate::store::StoreError;
use std::collections::HashSet;
use std::time::Duration;

use super::create::{EpochContext, EpochSettings, create_epoch, generate_keys, restore_missing_copies};

/// The number of times that a run looks again for an epoch whose secret is kept and that is not in the store.
const BIRTH_CHECKS: usize = 3;
const BIRTH_INTERVAL: Duration = Duration::from_secs(1);

/// The reason for which an epoch was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The plan had no epoch.
    First,
    /// The last epoch is past its age, or a successor closed it.
    Expired,
    /// A person who can open the last epoch is no longer an owner.
    OwnerRemoved,
    /// The user asked for it: `--new-epoch`, `epoch new`, `epoch close`.
    Requested,
}

/// The epoch that a run writes into.
#[derive(Debug, Clone)]
pub struct CurrentEpoch {
    /// The epoch, signed by this writer.
    pub epoch: VerifiedEpoch,
    /// Its secret.
    pub secret: EpochSecret,
    /// The reason, if the epoch was created just now; none if it existed.
    pub born: Option<Reason>,
    /// The epoch before, while its secret is still kept: its state must be carried over before
    /// [`delete_closed_secrets`] deletes the secret.
    pub previous: Option<(VerifiedEpoch, EpochSecret)>,
    /// Owners of the plan who cannot decrypt this epoch yet.
    pub waiting: Vec<Owner>,
    /// The difference between the owners of a new epoch and those of the last; empty for the first epoch, and
    /// for one that existed.
    pub change: OwnerChange,
}

/// Prepares a run: lists the plan's epochs, completes interrupted creations, and finds or creates
/// the epoch to write into. `signers` are the plan's pinned keys; the writer's own key is added.
pub async fn prepare_run(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    signers: &Signers,
    records: &Records,
    reporter: &Reporter,
) -> Result<(Epochs, CurrentEpoch)> {
    let EpochContext { store, key, plan, keeper, .. } = context;
    let mut pinned = signers.clone();
    pinned.extend(key.own_signers());
    let (writer, repository) = (key.writer, Some(key.repository));
    let reader = EpochReader { store, writer, plan, repository, signers: &pinned, reporter };
    let list = || counting::list(reader, records);
    // Before the listing: a secret that another run keeps meanwhile is not among these.
    let held = keeper.load().await?.unwrap_or_default().secrets;
    let mut epochs = list().await?;
    for _ in 0..BIRTH_CHECKS {
        if !keeper.is_shared() || held.iter().all(|held| epochs.get(held.epoch).is_some()) {
            break;
        }
        // Another run may be between keeping its secret and storing its epoch.
        tokio::time::sleep(BIRTH_INTERVAL).await;
        epochs = list().await?;
    }
    for epoch in restore_missing_copies(context, &epochs).await? {
        let what = "one of the two copies of its epoch.json was missing, and is put back: the run that created \
                    it ended between its two puts, or the copy was removed";
        reporter.warn(format!("epoch {epoch}"), what);
        epochs = list().await?;
    }
    report_rejected(&mut epochs, settings, &held, reporter)?;
    if let Some(last) = held.last().filter(|_| held.iter().all(|held| epochs.get(held.epoch).is_none())) {
        reporter.warn(
            format!("epoch {}", last.epoch),
            "its secret is here, and the store does not have it: is this the right repository, and is it whole?",
        );
    }
    let ready = choose(context, settings, &epochs, &held, records).await?;
    let unknown = ready.born.is_none() && has_unattested_wraps(context, &ready, signers).await?;
    if unknown {
        reporter.warn(
            format!("epoch {}", ready.epoch.epoch),
            "keys were added to it later, and no owner is pinned, so nobody here knows whose: taking \
             somebody out of the plan does not keep him out of this epoch. Pin the owners \
             (writer.signersFile in the plan), or open a new epoch (--new-epoch)",
        );
    }
    for owner in ready.waiting.iter().filter(|_| !unknown) {
        reporter.warn(
            format!("owner {}", owner.name()),
            format!("cannot open epoch {} yet: kbak keys add, or wait for the next epoch", ready.epoch.epoch),
        );
    }
    if ready.born.is_some() {
        warn_of_new_epoch(context, &ready, reporter).await?;
        epochs = list().await?;
    }
    Ok((epochs, ready))
}

/// Warns of epochs that do not count. Fails if one of them is this writer's own, and no new one is asked for.
fn report_rejected(
    epochs: &mut Epochs,
    settings: &EpochSettings,
    held: &[StoredSecret],
    reporter: &Reporter,
) -> Result<()> {
    for (object, error) in std::mem::take(&mut epochs.rejected) {
        let lost = layout::parse_epoch(&object).map(|(_, epoch)| epoch);
        let lost = lost.filter(|epoch| epochs.get(*epoch).is_none());
        let ours =
            held.iter().any(|held| Some(held.epoch) == lost) && !matches!(error, EpochError::Revoked { .. });
        if ours && !settings.new_epoch && !error.is_newer() {
            return Err(CreateEpochError::Damaged(object.to_string(), Box::new(error)));
        }
        reporter.warn(object.to_string(), error.to_string());
        epochs.rejected.push((object, error));
    }
    Ok(())
}

/// True if keys were added to an epoch later and no pinned key can sign a receipt for them.
async fn has_unattested_wraps(
    context: EpochContext<'_>,
    ready: &CurrentEpoch,
    signers: &Signers,
) -> Result<bool, StoreError> {
    let knows = signers.lookup(&context.key.writer.to_string(), Namespace::Receipt).next().is_some();
    let prefix = ready.epoch.path().keys_prefix();
    Ok(!knows && !context.store.list(&prefix, None).await?.entries.is_empty())
}

/// Returns the epoch that a run starts in. Creates a new one if there is none, an owner was
/// removed, or the user asked for one.
pub async fn find_or_create(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    epochs: &Epochs,
    records: &Records,
) -> Result<CurrentEpoch> {
    let held = context.keeper.load().await?.unwrap_or_default().secrets;
    choose(context, settings, epochs, &held, records).await
}

/// As [`find_or_create`]. `held` are the secrets that were kept before `epochs` were listed.
async fn choose(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    epochs: &Epochs,
    held: &[StoredSecret],
    records: &Records,
) -> Result<CurrentEpoch> {
    if settings.owners.is_empty() {
        return Err(CreateEpochError::NoOwners);
    }
    if let Some((key, error)) = epochs.newer().next() {
        let format = match error {
            EpochError::Newer { object, format } => {
                EpochError::Newer { object: object.clone(), format: *format }
            }
            other => EpochError::Field { object: other.to_string(), what: "it needs newer features" },
        };
        return Err(CreateEpochError::Newer(key.to_string(), Box::new(format)));
    }
    let now = context.store.now().await?;
    let secret = |stored: &StoredEpoch| {
        held.iter().find(|held| held.matches(&stored.epoch)).map(|held| held.secret.clone())
    };
    let own = context.key.signing.public();
    // If two were created at once, the one whose secret is still stored is used.
    let kept = epochs.open_own(now, own).find(|stored| secret(stored).is_some());
    let reason = match kept.or_else(|| epochs.open_own(now, own).next()) {
        _ if settings.new_epoch => Reason::Requested,
        None if epochs.all.is_empty() => Reason::First,
        None => Reason::Expired,
        Some(stored) => {
            let later: Vec<_> =
                records.added(context.plan, stored.epoch.epoch).into_iter().map(|(owner, _)| owner).collect();
            let change = OwnerChange::between(&stored.epoch, &later, &settings.owners);
            if change.removed.is_empty() {
                let secret = secret(stored).ok_or_else(|| secret_lost(context, stored))?;
                let previous = before(epochs, stored.epoch.epoch, held);
                tracing::debug!(epoch = %stored.epoch.epoch, "epoch reused");
                return Ok(CurrentEpoch {
                    epoch: stored.epoch.clone(),
                    secret,
                    born: None,
                    previous,
                    waiting: change.added,
                    change: OwnerChange::default(),
                });
            }
            Reason::OwnerRemoved
        }
    };
    check_owners(context, settings, epochs, records)?;
    let made = generate_keys(context.runtime, &settings.owners, &settings.prompt).await?;
    let (epoch, secret) = create_epoch(context, settings, epochs.heads(), made, (now, held)).await?;
    let previous = before(epochs, epoch.epoch, held);
    tracing::debug!(epoch = %epoch.epoch, ?reason, "epoch created");
    let change = change_of_owners(context, settings, epochs, records);
    Ok(CurrentEpoch { epoch, secret, born: Some(reason), previous, waiting: Vec::new(), change })
}

/// Returns the error for an epoch that this writer's key signed and whose secret is not kept here.
fn secret_lost(context: EpochContext<'_>, stored: &StoredEpoch) -> CreateEpochError {
    CreateEpochError::SecretLost {
        epoch: stored.epoch.epoch,
        keeper: context.keeper.describe(),
        signer: stored.epoch.key().fingerprint(),
        stored: stored.born,
    }
}

/// Checks that a new epoch does not drop from several owners to one, and keeps at least one owner of
/// the last. A mistake in one argument must not leave backups that only one person can read, or nobody.
fn check_owners(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    epochs: &Epochs,
    records: &Records,
) -> Result<()> {
    if settings.change_owners || epochs.all.is_empty() {
        return Ok(());
    }
    let before = owners_before(context, epochs, records);
    let now: HashSet<_> = settings.owners.iter().map(|owner| owner.recipient.id()).collect();
    if before.len() > 1 && now.len() < 2 {
        let what = format!("{} owners can open the last epoch, and the new one would have one", before.len());
        return Err(CreateEpochError::Owners(what));
    }
    if now.is_disjoint(&before) {
        let what = "nobody who can open the last epoch is an owner of the new one, and nobody has proved \
                    that he holds the new keys";
        return Err(CreateEpochError::Owners(what.into()));
    }
    Ok(())
}

/// Returns the owners who can open the last epoch.
fn owners_before(context: EpochContext<'_>, epochs: &Epochs, records: &Records) -> HashSet<RecipientId> {
    let mut before = HashSet::new();
    for head in epochs.heads().into_iter().filter_map(|head| epochs.get(head)) {
        before.extend(head.epoch.wraps.iter().map(|wrap| wrap.recipient));
        before.extend(records.added(context.plan, head.epoch.epoch).into_iter().map(|(owner, _)| owner));
    }
    before
}

/// Compares the owners of a new epoch with those of the last.
fn change_of_owners(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    epochs: &Epochs,
    records: &Records,
) -> OwnerChange {
    if epochs.all.is_empty() {
        return OwnerChange::default();
    }
    let mut before = owners_before(context, epochs, records);
    let added =
        settings.owners.iter().filter(|owner| !before.remove(&owner.recipient.id())).cloned().collect();
    let mut removed: Vec<RecipientId> = before.into_iter().collect();
    removed.sort_unstable();
    OwnerChange { removed, added }
}

/// Warns of a first epoch that a backup opened, and of owners who are not those of the last epoch: a mistake in
/// a name or a key must not go unnoticed until a restore.
async fn warn_of_new_epoch(
    context: EpochContext<'_>,
    ready: &CurrentEpoch,
    reporter: &Reporter,
) -> Result<(), StoreError> {
    let epoch = ready.epoch.epoch;
    let warn = |message: String, remedy: &str| {
        let (object, remedy) = (format!("epoch {epoch}"), Some(remedy.to_owned()));
        reporter.event(Event::Warning { object, message, remedy });
    };
    if ready.born == Some(Reason::First) {
        let signers = context.key.own_signers();
        let names = stored::names(context.store, context.key.writer, &signers, reporter).await?;
        let others = names.plans().filter(|plan| *plan != context.plan).count() as u64;
        let mut message =
            "it is the first of this plan, and no owner has proved that they can open it".to_owned();
        if others > 0 {
            let others = plural(others, "plan", "plans");
            message.push_str(&format!(
                "; this writer has {others} with another name here, and the recovery sheet names the one of kbak \
                 init: is the name of this plan right?"
            ));
        }
        warn(message, "each owner: kbak keys check --identity OWNER-KEY");
    }
    if !ready.change.is_empty() {
        let message = format!("its owners are not those of the last epoch: {}", ready.change);
        warn(message, "if this is intended, each new owner: kbak keys check --identity OWNER-KEY");
    }
    Ok(())
}

/// Returns the newest other epoch whose secret is kept.
fn before(epochs: &Epochs, but: EpochId, held: &[StoredSecret]) -> Option<(VerifiedEpoch, EpochSecret)> {
    epochs.all.iter().rev().filter(|stored| stored.epoch.epoch != but).find_map(|stored| {
        let held = held.iter().find(|held| held.matches(&stored.epoch))?;
        Some((stored.epoch.clone(), held.secret.clone()))
    })
}

/// Deletes the secrets of epochs that a successor closed. Called after the first commit into
/// `epoch`, when the writer's state has been carried over. The secret of an epoch that is not
/// in the store is kept: it may be the wrong store, or a damaged one. So is that of an epoch
/// created concurrently: another run may write into it.
pub async fn delete_closed_secrets(
    keeper: &dyn EpochSecretStore,
    epoch: EpochId,
    epochs: &Epochs,
) -> Result<(), WriterFileError> {
    let held = keeper.load().await?.unwrap_or_default().secrets;
    let over = |held: &StoredSecret| {
        let stored = epochs.get(held.epoch).is_some();
        held.epoch != epoch && stored && epochs.successors(held.epoch).next().is_some()
    };
    let over: Vec<EpochId> = held.iter().filter(|held| over(held)).map(|held| held.epoch).collect();
    if over.is_empty() {
        return Ok(());
    }
    kill_point("epoch.secret.settling");
    let forget = |mut state: EpochFileState| {
        state.secrets.retain(|held| !over.contains(&held.epoch));
        Some(state)
    };
    keeper.update(&forget).await?;
    kill_point("epoch.secret.settled");
    Ok(())
}
