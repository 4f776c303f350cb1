//! Creates epochs, and finds the epoch that a run starts in.
//!
//! The order of steps makes every crash harmless. The keys are made, tested and wrapped to the owners,
//! and the writer's secret is saved. Only then one put of epoch.json creates the epoch; its copy follows,
//! and both are read back. The private key exists only inside [`make`] and is wiped when it returns.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::repository::epoch::error::CreateEpochError;

use crate::format::container::{self, DataIdentity, DataRecipient, Key, Sealer};
use crate::format::derive::{EpochSecret, SecretKey};
use crate::format::epoch::{Epoch, EpochError, FORMAT, InlineWrap, Parameters, SecretOrigin, VerifiedEpoch};
use crate::format::ids::{Commitment, EpochId, NameId};
use crate::format::layout;
use crate::format::moment;
use crate::format::object::Sealed;
use crate::format::sign::{MAX_DOCUMENT, Namespace};
use crate::format::signers::Signers;
use crate::format::wrap::EpochKeys;
use crate::keys::writer_key::{EpochKeeper, HeldEpoch, MAX_HELD, WriterFileError, WriterKey};
use crate::keys::{Owner, Prompt};
use crate::report::event::Reporter;
use crate::repository::epoch::stored;
use crate::repository::epoch::stored::{Epochs, OwnerChange, StoredEpoch};
use crate::repository::records::Records;
use crate::runtime::{Runtime, kill_point};
use crate::store::{Store, StoreError};

/// The durations of a plan's epochs, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Life {
    /// The time after creation during which runs may start in an epoch.
    pub max_age: u64,
    /// The longest time that a run may take.
    pub max_run: u64,
    /// The time that objects stay locked after their last possible commit, if the store locks objects.
    pub keep: Option<u64>,
}

/// The settings from which a plan's epochs are created.
#[derive(Clone)]
pub struct Wanted {
    /// The owners who can decrypt.
    pub owners: Vec<Owner>,
    /// The durations of the epochs.
    pub life: Life,
    /// Sizes of packs, segments and chunks.
    pub parameters: Parameters,
    /// Create a new epoch in any case.
    pub new_epoch: bool,
    /// Allow a new epoch with a single owner where there were more, or with owners of whom none
    /// could decrypt the last one.
    pub change_owners: bool,
    /// Asks the user, if a plugin needs it.
    pub prompt: Arc<dyn Prompt>,
}

impl fmt::Debug for Wanted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Wanted")
            .field("owners", &self.owners)
            .field("life", &self.life)
            .finish_non_exhaustive()
    }
}

/// The context in which a plan's epochs are created: the same for all of them.
#[derive(Debug, Clone, Copy)]
pub struct EpochContext<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The randomness and workers.
    pub runtime: &'a Runtime,
    /// The key of the writer.
    pub key: &'a WriterKey,
    /// The plan to which the epochs belong.
    pub plan: NameId,
    /// The storage of the epoch secrets.
    pub keeper: &'a dyn EpochKeeper,
}

/// The reason for which an epoch was created.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Reason {
    /// The plan had no epoch.
    First,
    /// The last epoch is past its age, or a successor closed it.
    Over,
    /// A person who can open the last epoch is no longer an owner.
    OwnerRemoved,
    /// The user asked for it: `--new-epoch`, `epoch new`, `epoch close`.
    Asked,
}

/// The epoch that a run writes into.
#[derive(Debug, Clone)]
pub struct Ready {
    /// The epoch, signed by this writer.
    pub epoch: VerifiedEpoch,
    /// Its secret.
    pub secret: EpochSecret,
    /// The reason, if the epoch was created just now; none if it existed.
    pub born: Option<Reason>,
    /// The epoch before, while its secret is still kept: its state must be carried over before
    /// [`settle`] deletes the secret.
    pub previous: Option<(VerifiedEpoch, EpochSecret)>,
    /// Owners of the plan who cannot decrypt this epoch yet.
    pub waiting: Vec<Owner>,
}

/// Prepares a run: lists the plan's epochs, completes interrupted creations, and finds or creates
/// the epoch to write into. `signers` are the plan's pinned keys; the writer's own key is added.
pub async fn begin(
    context: EpochContext<'_>,
    wanted: &Wanted,
    signers: &Signers,
    records: &Records,
    reporter: &Reporter,
) -> Result<(Epochs, Ready), CreateEpochError> {
    let EpochContext { store, key, plan, .. } = context;
    let mut pinned = signers.clone();
    pinned.extend(key.own_signers());
    let list = || stored::list(store, key.writer, plan, Some(key.repository), &pinned, reporter);
    let mut epochs = list().await?;
    for epoch in mend(context, &epochs).await? {
        reporter.warn(format!("epoch {epoch}"), "its birth was cut short; it is finished now");
        epochs = list().await?;
    }
    let held = context.keeper.load().await?.unwrap_or_default();
    for (object, error) in std::mem::take(&mut epochs.rejected) {
        let lost = layout::parse_epoch(&object).filter(|epoch| epochs.get(*epoch).is_none());
        let ours = held.iter().any(|held| Some(held.epoch) == lost);
        if ours && !wanted.new_epoch && !error.is_newer() {
            return Err(CreateEpochError::Damaged { object: object.to_string(), source: Box::new(error) });
        }
        reporter.warn(object.to_string(), error.to_string());
        epochs.rejected.push((object, error));
    }
    if let Some(last) = held.last().filter(|_| held.iter().all(|held| epochs.get(held.epoch).is_none())) {
        reporter.warn(
            format!("epoch {}", last.epoch),
            "its secret is here, and the store does not have it: is this the right repository, and is it whole?",
        );
    }
    let ready = ready(context, wanted, &epochs, records).await?;
    let unknown = ready.born.is_none() && added_by_nobody_known(context, &ready, signers).await?;
    if unknown {
        reporter.warn(
            format!("epoch {}", ready.epoch.epoch),
            "keys were added to it later, and no owner is pinned, so nobody here knows whose: taking \
             somebody out of the plan does not keep him out of this epoch. Pin the owners \
             (writer.signersFile, --signers-file), or open a new epoch (--new-epoch)",
        );
    }
    for owner in ready.waiting.iter().filter(|_| !unknown) {
        reporter.warn(
            format!("owner {}", owner.name()),
            format!("cannot open epoch {} yet: kbak keys add, or wait for the next epoch", ready.epoch.epoch),
        );
    }
    if ready.born.is_some() {
        epochs = list().await?;
    }
    Ok((epochs, ready))
}

/// True if keys were added to an epoch later and no pinned key can sign a receipt for them.
async fn added_by_nobody_known(
    context: EpochContext<'_>,
    ready: &Ready,
    signers: &Signers,
) -> Result<bool, StoreError> {
    let knows = signers.lookup(&context.key.writer.to_string(), Namespace::Receipt).next().is_some();
    let prefix = ready.epoch.path().keys_prefix();
    Ok(!knows && !context.store.list(&prefix, None).await?.entries.is_empty())
}

/// Returns the epoch that a run starts in. Creates a new one if there is none, an owner was
/// removed, or the user asked for one.
pub async fn ready(
    context: EpochContext<'_>,
    wanted: &Wanted,
    epochs: &Epochs,
    records: &Records,
) -> Result<Ready, CreateEpochError> {
    if wanted.owners.is_empty() {
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
    let held = context.keeper.load().await?;
    let held = held.unwrap_or_default();
    let secret = |stored: &StoredEpoch| {
        held.iter().find(|held| held.fits(&stored.epoch)).map(|held| held.secret.clone())
    };
    let own = context.key.signing.public();
    // If two were created at once, the one whose secret is still stored is used.
    let kept = epochs.open_own(now, own).find(|stored| secret(stored).is_some());
    let reason = match kept.or_else(|| epochs.open_own(now, own).next()) {
        _ if wanted.new_epoch => Reason::Asked,
        None if epochs.all.is_empty() => Reason::First,
        None => Reason::Over,
        Some(stored) => {
            let later: Vec<_> =
                records.added(context.plan, stored.epoch.epoch).into_iter().map(|(owner, _)| owner).collect();
            let change = OwnerChange::between(&stored.epoch, &later, &wanted.owners);
            if change.removed.is_empty() {
                let keeper = context.keeper.describe();
                let secret = secret(stored)
                    .ok_or(CreateEpochError::SecretLost { epoch: stored.epoch.epoch, keeper })?;
                let previous = before(epochs, stored.epoch.epoch, &held);
                return Ok(Ready {
                    epoch: stored.epoch.clone(),
                    secret,
                    born: None,
                    previous,
                    waiting: change.added,
                });
            }
            Reason::OwnerRemoved
        }
    };
    check_owners(context, wanted, epochs, records)?;
    let made = make(context.runtime, &wanted.owners, &wanted.prompt).await?;
    let (epoch, secret) = create_epoch(context, wanted, epochs.heads(), made, now).await?;
    let previous = before(epochs, epoch.epoch, &held);
    Ok(Ready { epoch, secret, born: Some(reason), previous, waiting: Vec::new() })
}

/// Checks that a new epoch does not drop from several owners to one, and keeps at least one owner of
/// the last. A mistake in one argument must not leave backups that only one person can read, or nobody.
fn check_owners(
    context: EpochContext<'_>,
    wanted: &Wanted,
    epochs: &Epochs,
    records: &Records,
) -> Result<(), CreateEpochError> {
    if wanted.change_owners || epochs.all.is_empty() {
        return Ok(());
    }
    let heads = epochs.heads();
    let mut before = HashSet::new();
    for head in heads.iter().filter_map(|head| epochs.get(*head)) {
        before.extend(head.epoch.wraps.iter().map(|wrap| wrap.recipient));
        before.extend(records.added(context.plan, head.epoch.epoch).into_iter().map(|(owner, _)| owner));
    }
    let now: HashSet<_> = wanted.owners.iter().map(|owner| owner.recipient.id()).collect();
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

/// Returns the newest other epoch whose secret is kept.
fn before(epochs: &Epochs, but: EpochId, held: &[HeldEpoch]) -> Option<(VerifiedEpoch, EpochSecret)> {
    epochs.all.iter().rev().filter(|stored| stored.epoch.epoch != but).find_map(|stored| {
        let held = held.iter().find(|held| held.fits(&stored.epoch))?;
        Some((stored.epoch.clone(), held.secret.clone()))
    })
}

/// Deletes the secrets of epochs that a successor closed. Called after the first commit into
/// `epoch`, when the writer's state has been carried over. The secret of an epoch that is not
/// in the store is kept: it may be the wrong store, or a damaged one. So is that of an epoch
/// created concurrently: another run may write into it.
pub async fn settle(
    keeper: &dyn EpochKeeper,
    epoch: EpochId,
    epochs: &Epochs,
) -> Result<(), WriterFileError> {
    let held = keeper.load().await?.unwrap_or_default();
    let over = |held: &HeldEpoch| {
        let stored = epochs.get(held.epoch).is_some();
        held.epoch != epoch && stored && epochs.successors(held.epoch).next().is_some()
    };
    let over: Vec<EpochId> = held.iter().filter(|held| over(held)).map(|held| held.epoch).collect();
    if over.is_empty() {
        return Ok(());
    }
    kill_point("epoch.secret.settling");
    let forget = |mut held: Vec<HeldEpoch>| {
        held.retain(|held| !over.contains(&held.epoch));
        held
    };
    keeper.update(Box::new(forget)).await?;
    kill_point("epoch.secret.settled");
    Ok(())
}

/// The public key, secret and wraps of an epoch that is not yet created. None decrypts a backup.
pub struct Made {
    pub(crate) id: EpochId,
    pub(crate) recipient: DataRecipient,
    pub(crate) secret: EpochSecret,
    pub(crate) wraps: Vec<InlineWrap>,
    pub(crate) origin: SecretOrigin,
}

impl fmt::Debug for Made {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Made({})", self.id)
    }
}

/// Makes an epoch's keys, tests them and wraps them to the owners. Wipes the private key on return.
pub async fn make(
    runtime: &Runtime,
    owners: &[Owner],
    prompt: &Arc<dyn Prompt>,
) -> Result<Made, CreateEpochError> {
    if owners.is_empty() {
        return Err(CreateEpochError::NoOwners);
    }
    let id = EpochId(runtime.random());
    let secret = EpochSecret(SecretKey::new(runtime.random()));
    let probe = Zeroizing::new(runtime.random::<32>());
    let (owners, prompt) = (owners.to_vec(), prompt.clone());
    runtime
        .workers
        .run(move || {
            let keys = EpochKeys { identity: DataIdentity::generate(), secret };
            let recipient = keys.identity.recipient();
            self_test(&recipient, &keys.identity, &*probe)?;
            let wrap = |owner: &Owner| {
                owner
                    .recipient
                    .wrap(&keys, id, &prompt)
                    .map_err(|source| CreateEpochError::Owner { owner: owner.name(), source })
            };
            let wraps = owners.iter().map(wrap).collect::<Result<_, _>>()?;
            Ok(Made { id, recipient, secret: keys.secret.clone(), wraps, origin: SecretOrigin::Random })
        })
        .await
}

/// Checks that the keys decrypt what they encrypt.
fn self_test(
    recipient: &DataRecipient,
    identity: &DataIdentity,
    probe: &[u8],
) -> Result<(), CreateEpochError> {
    let broken = |error| CreateEpochError::SelfTest(Some(error));
    let mut sealer = Sealer::to_recipient(recipient, 512).map_err(broken)?;
    sealer.write(probe).map_err(broken)?;
    let (sealed, _) = sealer.finish().map_err(broken)?;
    let opened = container::open(&sealed, &Key::Identity(identity), probe.len() as u64).map_err(broken)?;
    if opened == probe { Ok(()) } else { Err(CreateEpochError::SelfTest(None)) }
}

/// Signs and stores an epoch. Saves the writer's secret first, then stores epoch.json and its
/// copy and reads both back.
pub async fn create_epoch(
    context: EpochContext<'_>,
    wanted: &Wanted,
    previous_epochs: Vec<EpochId>,
    made: Made,
    now: Timestamp,
) -> Result<(VerifiedEpoch, EpochSecret), CreateEpochError> {
    let EpochContext { store, key, plan, keeper, .. } = context;
    if previous_epochs.contains(&made.id) {
        return Err(CreateEpochError::HandOver("its epoch is born already"));
    }
    let created = moment::whole(now);
    let not_after = moment::after(created, wanted.life.max_age);
    let last = moment::after(not_after, wanted.life.max_run);
    let epoch = Epoch {
        format: FORMAT,
        repository: key.repository,
        writer: key.writer,
        plan,
        epoch: made.id,
        created,
        not_after,
        max_run_seconds: wanted.life.max_run,
        retain_until: wanted.life.keep.map(|keep| moment::next_day(moment::after(last, keep))),
        previous_epochs,
        recipient: made.recipient.to_string(),
        commitment: Commitment(made.secret.commitment()),
        secret: made.origin,
        parameters: wanted.parameters.clone(),
        wraps: made.wraps,
    };
    let sealed = epoch.seal(&key.signing)?;
    let new = HeldEpoch { epoch: made.id, secret: made.secret.clone() };
    let add = |mut held: Vec<HeldEpoch>| {
        held.push(new);
        // Interrupted creations leave secrets of epochs that never existed; only the newest few are kept.
        let surplus = held.len().saturating_sub(MAX_HELD);
        held.split_off(surplus)
    };
    keeper.update(Box::new(add)).await?;
    kill_point("epoch.secret.kept");
    for object in &sealed {
        put(store, object).await?;
        kill_point("epoch.copy.stored");
    }
    let [first, _] = &sealed;
    let verified =
        Epoch::open(first.bytes().clone(), &epoch.path(), Some(key.repository), &key.own_signers())?;
    kill_point("epoch.born");
    Ok((verified, made.secret))
}

/// Stores an object and reads it back.
pub async fn put(store: &Arc<dyn Store>, object: &Sealed) -> Result<(), CreateEpochError> {
    // If the key was already taken, the stored object must still equal this one.
    store.put(object).await?;
    let back = store.get(object.key(), MAX_DOCUMENT).await?;
    if back == *object.bytes() { Ok(()) } else { Err(CreateEpochError::ReadBack(object.key().to_string())) }
}

/// Stores missing copies of epochs whose secret this writer holds: a creation was interrupted
/// between its two puts, or a copy was lost since. Returns the repaired epochs.
pub async fn mend(context: EpochContext<'_>, epochs: &Epochs) -> Result<Vec<EpochId>, CreateEpochError> {
    let mut mended = Vec::new();
    for held in context.keeper.load().await?.unwrap_or_default() {
        let Some(stored) = epochs.get(held.epoch) else { continue };
        for copy in stored.epoch.copies() {
            if epochs.missing.contains(copy.key()) {
                put(context.store, &copy).await?;
                mended.push(held.epoch);
            }
        }
    }
    Ok(mended)
}
