//! Owners and the keys of epochs: opening wraps, proving them, adding owners, listing who can.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use super::birth::{BirthError, put};
use super::epochs::{Epochs, StoredEpoch};
use super::named::{self, Named};
use super::records::Records;
use crate::format::epoch::VerifiedEpoch;
use crate::format::ids::{EpochId, ObjectHash, RecipientId, WriterId};
use crate::format::layout::EpochPath;
use crate::format::record::{Act, Receipt, Record};
use crate::format::sign::{Namespace, SigningKey};
use crate::format::signers::Signers;
use crate::format::wrap::{EpochKeys, MAX_WRAP, WrapError};
use crate::pipeline::owner::{Identity, Owner, Prompt, Via, open_wrap};
use crate::report::event::Reporter;
use crate::report::failure::{Exit, Failure};
use crate::report::text::plural;
use crate::store::listing::list_all;
use crate::store::{Store, StoreError};
use crate::world::World;

/// The most later wraps of one epoch that are tried. Anyone who can write to the bucket can add
/// some; more than these are said and skipped.
pub const MAX_LATER: usize = 256;

/// Why an epoch's keys were not opened.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The store.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No identity fits, or a wrap is bad.
    #[error("cannot open epoch {epoch}")]
    Closed {
        /// The epoch.
        epoch: EpochId,
        /// Whom it is encrypted to.
        owners: Vec<RecipientId>,
        /// What was tried: the identities' names and recipients.
        tried: Vec<String>,
        /// Why.
        source: WrapError,
    },
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        let (epoch, owners, tried, source) = match error {
            KeysError::Store(error) => return error.into(),
            KeysError::Closed { epoch, owners, tried, source } => (epoch, owners, tried, source),
        };
        let exit = match source {
            WrapError::Damaged(_) | WrapError::Armor | WrapError::Content | WrapError::Foreign(_) => {
                Exit::Damaged
            }
            WrapError::WrongIdentity | WrapError::Identity(_) | WrapError::Seal(_) => Exit::Usage,
        };
        let names: Vec<String> = owners.iter().map(RecipientId::short).collect();
        let mut failure = Self::new(exit, format!("cannot open epoch {epoch}")).fact(
            "it is encrypted to",
            format!("{}: {}", plural(owners.len() as u64, "owner", "owners"), names.join(", ")),
        );
        for identity in tried {
            failure = failure.fact("tried", identity);
        }
        if exit == Exit::Usage {
            failure =
                failure.remedy("an owner can add a key: kbak keys add --owner RECIPIENT --identity HIS-KEY");
        }
        failure.because(source)
    }
}

/// The wraps that were added to an epoch later, with their names. What has a wrong name or size is
/// skipped; a wrap proves itself when it is opened.
pub async fn later_wraps(
    store: &Arc<dyn Store>,
    path: &EpochPath,
    reporter: &Reporter,
) -> Result<Vec<(ObjectHash, Bytes)>, StoreError> {
    let prefix = path.keys_prefix();
    let mut entries: Vec<_> =
        list_all(store.clone(), prefix.clone(), reporter.clone()).take(MAX_LATER + 1).try_collect().await?;
    if entries.len() > MAX_LATER {
        reporter.warn(prefix.clone(), format!("more than {MAX_LATER} keys: the rest is not tried"));
        entries.truncate(MAX_LATER);
    }
    let mut wraps = Vec::new();
    for entry in entries {
        let name = entry.key.as_str()[prefix.len()..].strip_suffix(".age");
        let Some(hash) = name.and_then(|name| name.parse::<ObjectHash>().ok()) else { continue };
        match named::get(store, &entry.key, hash, MAX_WRAP).await? {
            Named::Is(bytes) => wraps.push((hash, bytes)),
            Named::Altered => {
                reporter.warn(entry.key.to_string(), "its content is not what its name says: skipped");
            }
            Named::Missing => {}
        }
    }
    Ok(wraps)
}

/// Opens the keys of an epoch with the owners' identities: first the wraps of epoch.json, and only
/// if none fits, those that were added later.
pub async fn open(
    store: &Arc<dyn Store>,
    world: &World,
    epoch: &VerifiedEpoch,
    identities: &[Arc<Identity>],
    reporter: &Reporter,
) -> Result<(EpochKeys, Via), KeysError> {
    let try_with = |later: Vec<(ObjectHash, Bytes)>| {
        let (epoch, identities) = (epoch.clone(), identities.to_vec());
        world.workers.run(move || open_wrap(&epoch, &later, &identities))
    };
    let error = match try_with(Vec::new()).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    let later = later_wraps(store, &epoch.path(), reporter).await?;
    let source = match later.is_empty() {
        true => error,
        false => match try_with(later).await {
            Ok(opened) => return Ok(opened),
            // A damaged inline wrap is worth more than "none of the later ones fits".
            Err(WrapError::WrongIdentity) => error,
            Err(later) => later,
        },
    };
    let tried = identities.iter().map(|identity| describe(identity)).collect();
    let owners = epoch.wraps.iter().map(|wrap| wrap.recipient).collect();
    Err(KeysError::Closed { epoch: epoch.epoch, owners, tried, source })
}

fn describe(identity: &Identity) -> String {
    let mut keys: Vec<String> =
        identity.recipients().iter().map(|recipient| recipient.id().short()).collect();
    keys.extend(identity.plugins().iter().map(|plugin| format!("plugin {plugin}")));
    format!("{} ({})", identity.label(), keys.join(", "))
}

/// One identity and one epoch.
#[derive(Debug)]
pub struct Checked {
    /// The epoch.
    pub epoch: EpochId,
    /// The identity's name.
    pub identity: String,
    /// Which wrap it opened, or why none.
    pub opened: Result<Via, KeysError>,
    /// The signed receipt in the store, if the identity signs and its key is pinned; or why it is not
    /// there.
    pub receipt: Result<Option<ObjectHash>, BirthError>,
}

/// Where owners work: what stays the same over all epochs.
#[derive(Debug, Clone, Copy)]
pub struct Desk<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// Workers.
    pub world: &'a World,
    /// The pin: receipts by keys outside it are not written.
    pub signers: &'a Signers,
    /// Is told of keys that are not pinned.
    pub reporter: &'a Reporter,
}

/// `keys check`: every identity opens the wraps of every epoch, and signs a receipt for each.
pub async fn check(
    desk: Desk<'_>,
    epochs: &Epochs,
    identities: &[Arc<Identity>],
) -> Result<Vec<Checked>, BirthError> {
    let mut rows = Vec::new();
    for stored in &epochs.all {
        for identity in identities {
            let one = std::slice::from_ref(identity);
            let opened = open(desk.store, desk.world, &stored.epoch, one, desk.reporter).await;
            let opened = match opened {
                Err(KeysError::Store(error)) => return Err(error.into()),
                other => other.map(|(_, via)| via),
            };
            let receipt = match (&opened, identity.signing()) {
                // That the key opens the epoch is worth saying also where nothing can be stored.
                (Ok(via), Some(key)) => receipt(desk, &stored.epoch, Act::Opened, *via, key).await,
                _ => Ok(None),
            };
            rows.push(Checked {
                epoch: stored.epoch.epoch,
                identity: identity.label().to_owned(),
                opened,
                receipt,
            });
        }
    }
    Ok(rows)
}

/// One epoch that an owner was added to.
#[derive(Debug)]
pub struct Added {
    /// The epoch.
    pub epoch: EpochId,
    /// The wrap's name, or why there is none.
    pub wrap: Result<ObjectHash, KeysError>,
    /// The signed receipt, if the opening identity signs and its key is pinned.
    pub receipt: Option<ObjectHash>,
}

/// `keys add`: an owner opens every epoch and wraps its keys for `new`. Epochs that name `new`
/// already are left out. `new` comes from the user's own input, never from a bucket.
pub async fn add(
    desk: Desk<'_>,
    epochs: &Epochs,
    records: &Records,
    identities: &[Arc<Identity>],
    new: &Owner,
    prompt: &Arc<dyn Prompt>,
) -> Result<Vec<Added>, BirthError> {
    let mut rows = Vec::new();
    let id = new.recipient.id();
    for StoredEpoch { epoch, .. } in &epochs.all {
        let later = records.added(epoch.plan, epoch.epoch);
        if epoch.wrap(id).is_some() || later.iter().any(|(owner, _)| *owner == id) {
            continue;
        }
        let keys = match open(desk.store, desk.world, epoch, identities, desk.reporter).await {
            Ok((keys, _)) => keys,
            Err(KeysError::Store(error)) => return Err(error.into()),
            Err(error) => {
                rows.push(Added { epoch: epoch.epoch, wrap: Err(error), receipt: None });
                continue;
            }
        };
        let (recipient, path, prompt) = (new.recipient.clone(), epoch.path(), prompt.clone());
        let sealed = desk
            .world
            .workers
            .run(move || recipient.wrap_object(&keys, &path, &prompt))
            .await
            .map_err(|source| BirthError::Owner { owner: new.name(), source })?;
        put(desk.store, &sealed).await?;
        let signing = identities.iter().find_map(|identity| identity.signing());
        let receipt = match signing {
            Some(key) => {
                let added = Receipt {
                    plan: epoch.plan,
                    epoch: epoch.epoch,
                    act: Act::Added,
                    recipient: Some(id),
                    wrap: Some(sealed.hash()),
                };
                sign(desk, epoch, added, key).await?
            }
            None => None,
        };
        rows.push(Added { epoch: epoch.epoch, wrap: Ok(sealed.hash()), receipt });
    }
    Ok(rows)
}

async fn receipt(
    desk: Desk<'_>,
    epoch: &VerifiedEpoch,
    act: Act,
    via: Via,
    key: &SigningKey,
) -> Result<Option<ObjectHash>, BirthError> {
    let (recipient, wrap) = match via {
        Via::Inline(recipient) => (Some(recipient), None),
        Via::Later(wrap) => (None, Some(wrap)),
    };
    sign(desk, epoch, Receipt { plan: epoch.plan, epoch: epoch.epoch, act, recipient, wrap }, key).await
}

/// Signs and stores a receipt, unless the pin does not name its key: then it would count for
/// nothing, and that is said.
async fn sign(
    desk: Desk<'_>,
    epoch: &VerifiedEpoch,
    receipt: Receipt,
    key: &SigningKey,
) -> Result<Option<ObjectHash>, BirthError> {
    let writer: WriterId = epoch.writer;
    if !desk.signers.lookup(&writer.to_string(), Namespace::Receipt).any(|pinned| pinned == key.public()) {
        let key = key.public().fingerprint();
        desk.reporter.warn(
            format!("signing key {key}"),
            "it is not pinned for receipts, so none was written: add its line to kbak.pub",
        );
        return Ok(None);
    }
    let now = desk.store.now().await?;
    let sealed = Record::Receipt(receipt).seal(epoch.repository, writer, now, key).map_err(|source| {
        crate::format::epoch::EpochError::Document { object: "a receipt".to_owned(), source }
    })?;
    put(desk.store, &sealed).await?;
    Ok(Some(sealed.hash()))
}

/// Who can open an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The owner.
    pub recipient: RecipientId,
    /// Whether he was added after the epoch's birth.
    pub later: bool,
    /// When he opened it last, by the store's clock.
    pub opened: Option<Timestamp>,
}

/// One epoch in `keys list`.
#[derive(Debug, Clone)]
pub struct Row {
    /// The epoch.
    pub epoch: EpochId,
    /// When it was born, by its own word.
    pub created: Timestamp,
    /// Who can open it.
    pub holders: Vec<Holder>,
    /// Whether any owner has opened it since: until then nothing would notice a recipient that
    /// was mistyped or swapped.
    pub proven: bool,
}

/// `keys list`: epochs, who can open each, and who has.
#[must_use]
pub fn list(epochs: &Epochs, records: &Records) -> Vec<Row> {
    let row = |stored: &StoredEpoch| {
        let epoch = &stored.epoch;
        let opened = records.opened(epoch.plan, epoch.epoch);
        let later = records.added(epoch.plan, epoch.epoch);
        let when = |id| opened.iter().find(|(owner, _)| *owner == Some(id)).map(|(_, at)| *at);
        let inline = epoch.wraps.iter().map(|wrap| (wrap.recipient, false));
        let holders = inline
            .chain(later.iter().map(|(owner, _)| (*owner, true)))
            .map(|(recipient, later)| Holder { recipient, later, opened: when(recipient) })
            .collect();
        Row { epoch: epoch.epoch, created: epoch.created, holders, proven: !opened.is_empty() }
    };
    epochs.all.iter().map(row).collect()
}
