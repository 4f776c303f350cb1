//! Creates epochs, and finds the epoch that a run starts in.
//!
//! The order of steps makes every crash harmless. The keys are made, tested and wrapped to the owners,
//! and the writer's secret is saved. Only then one put of epoch.json creates the epoch; its copy follows,
//! and both are read back. The private key exists only inside [`generate_keys`] and is wiped when it returns.

use std::fmt;
use std::sync::Arc;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use zeroize::{Zeroize, Zeroizing};

use crate::format::container::{self, ContainerKey, DataIdentity, DataRecipient, Sealer};
use crate::format::derive::{EpochSecret, SecretKey};
use crate::format::epoch::{Epoch, FORMAT, InlineWrap, Parameters, SecretOrigin, VerifiedEpoch};
use crate::format::ids::{Commitment, EpochId, NameId, RecipientId, from_hex, to_hex};
use crate::format::{json, object::SealedObject, sign::MAX_DOCUMENT, timestamp, wrap::EpochKeys};
use crate::keys::epoch_file::{EpochFileState, EpochSecretStore, MAX_SECRETS, StoredSecret};
use crate::keys::writer_key::WriterKey;
use crate::keys::{Owner, Prompt};
use crate::repository::epoch::error::{CreateEpochError, Result};
use crate::repository::epoch::stored::Epochs;
use crate::runtime::{Runtime, kill_point};
use crate::store::Store;

/// The durations of a plan's epochs, in seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct EpochDurations {
    /// The time after creation during which runs may start in an epoch.
    pub max_age: u64,
    /// The longest time that a run may take.
    pub max_run: u64,
    /// The time that objects stay locked after their last possible commit, if the store locks objects.
    pub keep: Option<u64>,
}

/// The settings from which a plan's epochs are created.
#[derive(Clone)]
pub struct EpochSettings {
    /// The owners who can decrypt.
    pub owners: Vec<Owner>,
    /// The durations of the epochs.
    pub life: EpochDurations,
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

impl fmt::Debug for EpochSettings {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("EpochSettings")
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
    pub keeper: &'a dyn EpochSecretStore,
}

/// The public key, secret and wraps of an epoch that is not yet created. None decrypts a backup.
pub struct NewEpoch {
    pub(crate) id: EpochId,
    pub(crate) recipient: DataRecipient,
    pub(crate) secret: EpochSecret,
    pub(crate) wraps: Vec<InlineWrap>,
    pub(crate) origin: SecretOrigin,
}

/// Makes an epoch's keys, tests them and wraps them to the owners. Wipes the private key on return.
pub async fn generate_keys(
    runtime: &Runtime,
    owners: &[Owner],
    prompt: &Arc<dyn Prompt>,
) -> Result<NewEpoch> {
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
                    .map_err(|source| CreateEpochError::Owner(owner.name(), source))
            };
            let wraps = owners.iter().map(wrap).collect::<Result<_, _>>()?;
            Ok(NewEpoch { id, recipient, secret: keys.secret.clone(), wraps, origin: SecretOrigin::Random })
        })
        .await
}

/// Checks that the keys decrypt what they encrypt.
fn self_test(recipient: &DataRecipient, identity: &DataIdentity, probe: &[u8]) -> Result<()> {
    let broken = |error| CreateEpochError::SelfTest(Some(error));
    let mut sealer = Sealer::to_recipient(recipient, 512).map_err(broken)?;
    sealer.write(probe).map_err(broken)?;
    let (sealed, _) = sealer.finish().map_err(broken)?;
    let opened =
        container::open(&sealed, &ContainerKey::Identity(identity), probe.len() as u64).map_err(broken)?;
    if opened == probe { Ok(()) } else { Err(CreateEpochError::SelfTest(None)) }
}

/// Signs and stores an epoch. Saves the writer's secret first, then stores epoch.json and its
/// copy and reads both back. `now` is the store's time, `seen` are the secrets that were kept before the decision to
/// create one: if a shared keeper holds others, another run creates an epoch too, and this one gives up.
pub async fn create_epoch(
    context: EpochContext<'_>,
    settings: &EpochSettings,
    previous_epochs: Vec<EpochId>,
    made: NewEpoch,
    (now, seen): (Timestamp, &[StoredSecret]),
) -> Result<(VerifiedEpoch, EpochSecret)> {
    let EpochContext { store, key, plan, keeper, .. } = context;
    if previous_epochs.contains(&made.id) {
        return Err(CreateEpochError::HandOver("its epoch is born already"));
    }
    let created = timestamp::to_seconds(now);
    let not_after = timestamp::add_seconds(created, settings.life.max_age);
    let last = timestamp::add_seconds(not_after, settings.life.max_run);
    let epoch = Epoch {
        format: FORMAT,
        repository: key.repository,
        writer: key.writer,
        plan,
        epoch: made.id,
        created,
        not_after,
        max_run_seconds: settings.life.max_run,
        retain_until: settings
            .life
            .keep
            .map(|keep| timestamp::round_up_to_day(timestamp::add_seconds(last, keep))),
        previous_epochs,
        recipient: made.recipient.to_string(),
        commitment: Commitment(made.secret.commitment()),
        secret: made.origin,
        parameters: settings.parameters.clone(),
        wraps: made.wraps,
    };
    let sealed = epoch.seal(&key.signing)?;
    let document = Some(sealed[1].hash());
    let new = StoredSecret { epoch: made.id, secret: made.secret.clone(), document };
    keep(keeper, new, seen).await?;
    kill_point("epoch.secret.kept");
    for object in &sealed {
        put(store, object).await?;
        kill_point("epoch.copy.stored");
    }
    let [_, first] = &sealed;
    let verified =
        Epoch::open(first.bytes().clone(), &epoch.path(), Some(key.repository), &key.own_signers())?;
    kill_point("epoch.born");
    Ok((verified, made.secret))
}

/// Adds the secret of a new epoch. Gives up if a shared keeper holds others than those that were `seen`.
async fn keep(keeper: &dyn EpochSecretStore, new: StoredSecret, seen: &[StoredSecret]) -> Result<()> {
    let add = |mut state: EpochFileState| {
        let held = &mut state.secrets;
        let known =
            |one: &StoredSecret| one.epoch == new.epoch || seen.iter().any(|seen| seen.epoch == one.epoch);
        if keeper.is_shared() && !held.iter().all(known) {
            return None;
        }
        held.retain(|held| held.epoch != new.epoch);
        held.push(new.clone());
        // Interrupted creations leave secrets of epochs that never existed; only the newest few are kept.
        let surplus = held.len().saturating_sub(MAX_SECRETS);
        held.drain(..surplus);
        Some(state)
    };
    Ok(keeper.update(&add).await?)
}

/// Stores an object and reads it back.
pub async fn put(store: &Arc<dyn Store>, object: &SealedObject) -> Result<()> {
    // If the key was already taken, the stored object must still equal this one.
    store.put(object).await?;
    let back = store.get(object.key(), MAX_DOCUMENT).await?;
    if back == *object.bytes() { Ok(()) } else { Err(CreateEpochError::ReadBack(object.key().to_string())) }
}

/// Stores missing copies of epochs whose secret this writer holds: a creation was interrupted
/// between its two puts, or a copy was lost since. Returns the repaired epochs.
pub async fn restore_missing_copies(context: EpochContext<'_>, epochs: &Epochs) -> Result<Vec<EpochId>> {
    let mut mended = Vec::new();
    for held in context.keeper.load().await?.unwrap_or_default().secrets {
        let stored = epochs.get(held.epoch).filter(|stored| held.matches(&stored.epoch));
        let Some(stored) = stored else { continue };
        if !epochs.missing.iter().any(|missing| missing.epoch == held.epoch) {
            continue;
        }
        for copy in stored.epoch.copies(&context.key.signing)? {
            put(context.store, &copy).await?;
        }
        mended.push(held.epoch);
    }
    Ok(mended)
}

/// The file of an epoch whose keys are made outside the writer (`kbak epoch new --outside`). An owner makes the
/// keys on their own machine and gives the writer the public key, K_epoch and the wraps. The writer signs and
/// stores epoch.json and never holds the private key.
#[derive(Serialize, Deserialize)]
struct HandOver {
    kbak: String,
    version: u64,
    epoch: EpochId,
    secret: String,
    recipient: String,
    wraps: Vec<InlineWrap>,
}

impl Drop for HandOver {
    fn drop(&mut self) {
        self.secret.zeroize();
    }
}

const HAND_OVER: &str = "epoch hand-over";

impl NewEpoch {
    /// Returns the hand-over file, to be stored on the writer's machine with mode 0600.
    #[must_use]
    #[expect(clippy::expect_used, reason = "strings and numbers always serialise")]
    pub fn to_hand_over(&self) -> Zeroizing<String> {
        let file = HandOver {
            kbak: HAND_OVER.to_owned(),
            version: 1,
            epoch: self.id,
            secret: to_hex(self.secret.0.expose()),
            recipient: self.recipient.to_string(),
            wraps: self.wraps.clone(),
        };
        Zeroizing::new(serde_json::to_string_pretty(&file).expect("a serialisable file") + "\n")
    }

    /// Reads a hand-over file.
    pub fn from_hand_over(content: &[u8]) -> Result<Self> {
        let file: HandOver =
            json::parse_secret(content).map_err(|_| CreateEpochError::HandOver("it is malformed"))?;
        if file.kbak != HAND_OVER || file.version != 1 {
            return Err(CreateEpochError::HandOver("it is another kind of file, or newer"));
        }
        let secret = from_hex::<32>(&file.secret).map_err(|_| CreateEpochError::HandOver("its secret"))?;
        let recipient = file.recipient.parse().map_err(|_| CreateEpochError::HandOver("its recipient"))?;
        if file.wraps.is_empty() {
            return Err(CreateEpochError::HandOver("it has no wraps: nobody could read the backup"));
        }
        Ok(Self {
            id: file.epoch,
            recipient,
            secret: EpochSecret(SecretKey::new(secret)),
            wraps: file.wraps.clone(),
            origin: SecretOrigin::Outside,
        })
    }

    /// Returns the epoch's id.
    #[must_use]
    pub fn id(&self) -> EpochId {
        self.id
    }

    /// Returns the recipients that it was wrapped to.
    pub fn recipients(&self) -> impl Iterator<Item = RecipientId> + '_ {
        self.wraps.iter().map(|wrap| wrap.recipient)
    }
}
