//! The owners' keys of epochs: opens wraps, checks them, adds owners, and lists who can decrypt.

use std::sync::Arc;

use bytes::Bytes;
use futures::stream::{StreamExt, TryStreamExt};
use jiff::Timestamp;

use crate::format::ids::{EpochId, ObjectHash, RecipientId, WriterId};
use crate::format::record::{Receipt, ReceiptAction, Record};
use crate::format::sign::{Namespace, SigningKey};
use crate::format::wrap::{EpochKeys, MAX_WRAP, WrapError};
use crate::format::{epoch::VerifiedEpoch, layout::EpochPath, signers::Signers};
use crate::keys::{Identity, OpenedWrap, Owner, Prompt, open_wrap};
use crate::report::event::Reporter;
use crate::repository::epoch::error::{CreateEpochError, Result};
use crate::repository::epoch::stored::{Epochs, StoredEpoch};
use crate::repository::fetched::{self, Fetched};
use crate::repository::{epoch::create::put, records::Records};
use crate::runtime::Runtime;
use crate::store::listing::list_all;
use crate::store::{Store, StoreError};

/// The most later wraps of one epoch that are tried. Anyone who can write to the bucket can
/// add some; a warning reports that the rest is skipped.
pub const MAX_LATER: usize = 256;

/// An error while opening an epoch's keys.
#[derive(Debug, thiserror::Error)]
pub enum KeysError {
    /// The store returned an error.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// No identity fits, or a wrap is damaged.
    #[error("cannot open epoch {epoch}")]
    Closed {
        /// The epoch.
        epoch: EpochId,
        /// The owners that the epoch is encrypted to.
        owners: Vec<RecipientId>,
        /// The names and recipients of the identities that were tried.
        tried: Vec<String>,
        /// The cause.
        source: WrapError,
    },
}

/// Reads the wraps that were added to an epoch later, with their names: first those that signed receipts name,
/// so that rubbish cannot lock an owner out. Skips those with a wrong name or size; a wrap is verified when it
/// is opened.
pub async fn later_wraps(
    store: &Arc<dyn Store>,
    path: &EpochPath,
    attested: &[ObjectHash],
    reporter: &Reporter,
) -> Result<Vec<(ObjectHash, Bytes)>, StoreError> {
    let prefix = path.keys_prefix();
    let mut wraps = Vec::new();
    for hash in attested.iter().take(MAX_LATER) {
        if let Fetched::Valid(bytes) = fetched::get(store, &path.wrap(*hash), *hash, MAX_WRAP).await? {
            wraps.push((*hash, bytes));
        }
    }
    let mut entries: Vec<_> =
        list_all(store.clone(), prefix.clone(), reporter.clone()).take(MAX_LATER + 1).try_collect().await?;
    if entries.len() > MAX_LATER {
        reporter.warn(prefix.clone(), format!("more than {MAX_LATER} keys: the rest is not tried"));
        entries.truncate(MAX_LATER);
    }
    for entry in entries {
        let name = entry.key.as_str()[prefix.len()..].strip_suffix(".age");
        let hash = name.and_then(|name| name.parse::<ObjectHash>().ok());
        let Some(hash) = hash.filter(|hash| !attested.contains(hash)) else { continue };
        match fetched::get(store, &entry.key, hash, MAX_WRAP).await? {
            Fetched::Valid(bytes) => wraps.push((hash, bytes)),
            Fetched::Corrupt => {
                reporter.warn(entry.key.to_string(), "its content is not what its name says: skipped");
            }
            Fetched::Missing => {}
        }
    }
    Ok(wraps)
}

/// Opens the keys of an epoch with the owners' identities. Tries the wraps of epoch.json
/// first, and those added later only if none fits: first the `attested` ones, which signed receipts name.
pub async fn open(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    epoch: &VerifiedEpoch,
    identities: &[Arc<Identity>],
    attested: &[ObjectHash],
    reporter: &Reporter,
) -> Result<(EpochKeys, OpenedWrap), KeysError> {
    let try_with = |later: Vec<(ObjectHash, Bytes)>| {
        let (epoch, identities) = (epoch.clone(), identities.to_vec());
        runtime.workers.run(move || open_wrap(&epoch, &later, &identities))
    };
    let error = match try_with(Vec::new()).await {
        Ok(opened) => return Ok(opened),
        Err(error) => error,
    };
    let later = later_wraps(store, &epoch.path(), attested, reporter).await?;
    let source = match later.is_empty() {
        true => error,
        false => match try_with(later).await {
            Ok(opened) => return Ok(opened),
            // A damaged wrap in epoch.json is the more useful error than "none of the later ones fits".
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

/// The result of checking one identity against one epoch.
#[derive(Debug)]
pub struct Checked {
    /// The epoch.
    pub epoch: EpochId,
    /// The identity's name.
    pub identity: String,
    /// The wrap that it opened, or the error.
    pub opened: Result<OpenedWrap, KeysError>,
    /// The stored receipt, if the identity can sign and its key is pinned, or the error in storing it.
    pub receipt: Result<Option<ObjectHash>>,
}

/// The context of key operations: the same for all epochs.
#[derive(Debug, Clone, Copy)]
pub struct KeyContext<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The workers.
    pub runtime: &'a Runtime,
    /// The pin: no receipts are written by keys outside it.
    pub signers: &'a Signers,
    /// The reporter of keys that are not pinned.
    pub reporter: &'a Reporter,
}

/// `keys check`: opens every epoch with every identity, and stores a signed receipt for each.
pub async fn check(
    context: KeyContext<'_>,
    epochs: &Epochs,
    records: &Records,
    identities: &[Arc<Identity>],
) -> Result<Vec<Checked>> {
    let mut rows = Vec::new();
    for stored in &epochs.all {
        let attested = records.attested_wraps(stored.epoch.plan, stored.epoch.epoch);
        for identity in identities {
            let one = std::slice::from_ref(identity);
            let (store, runtime, reporter) = (context.store, context.runtime, context.reporter);
            let opened = open(store, runtime, &stored.epoch, one, &attested, reporter).await;
            let opened = match opened {
                Err(KeysError::Store(error)) => return Err(error.into()),
                other => other.map(|(_, via)| via),
            };
            let receipt = match (&opened, identity.signing()) {
                // A failure to store the receipt must not hide that the key opens the epoch.
                (Ok(via), Some(key)) => {
                    let named = match *via {
                        OpenedWrap::EpochJson(recipient) => (Some(recipient), None),
                        OpenedWrap::KeyObject(wrap) => (None, Some(wrap)),
                    };
                    store_receipt(context, &stored.epoch, ReceiptAction::Opened, named, key).await
                }
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

/// The result of adding an owner to one epoch.
#[derive(Debug)]
pub struct Added {
    /// The epoch.
    pub epoch: EpochId,
    /// The name of the new wrap, or the error.
    pub wrap: Result<ObjectHash, KeysError>,
    /// The stored receipt, if the opening identity can sign and its key is pinned.
    pub receipt: Option<ObjectHash>,
}

/// `keys add`: opens every epoch with an owner's identity and wraps its keys to `new`. Skips epochs
/// that `new` can already decrypt. `new` must come from the user's input, never from a bucket.
pub async fn add(
    context: KeyContext<'_>,
    epochs: &Epochs,
    records: &Records,
    identities: &[Arc<Identity>],
    new: &Owner,
    prompt: &Arc<dyn Prompt>,
) -> Result<Vec<Added>> {
    let mut rows = Vec::new();
    let id = new.recipient.id();
    for StoredEpoch { epoch, .. } in &epochs.all {
        if epoch.wrap(id).is_some() || has_wrap(context.store, epoch, records, id).await? {
            continue;
        }
        let attested = records.attested_wraps(epoch.plan, epoch.epoch);
        let (store, runtime, reporter) = (context.store, context.runtime, context.reporter);
        let keys = match open(store, runtime, epoch, identities, &attested, reporter).await {
            Ok((keys, _)) => keys,
            Err(KeysError::Store(error)) => return Err(error.into()),
            Err(error) => {
                rows.push(Added { epoch: epoch.epoch, wrap: Err(error), receipt: None });
                continue;
            }
        };
        let (recipient, path, prompt) = (new.recipient.clone(), epoch.path(), prompt.clone());
        let sealed = context
            .runtime
            .workers
            .run(move || recipient.wrap_object(&keys, &path, &prompt))
            .await
            .map_err(|source| CreateEpochError::Owner(new.name(), source))?;
        put(context.store, &sealed).await?;
        let signing = identities.iter().find_map(|identity| identity.signing());
        let receipt = match signing {
            Some(key) => {
                let named = (Some(id), Some(sealed.hash()));
                store_receipt(context, epoch, ReceiptAction::Added, named, key).await?
            }
            None => None,
        };
        rows.push(Added { epoch: epoch.epoch, wrap: Ok(sealed.hash()), receipt });
    }
    Ok(rows)
}

/// True if a wrap that a receipt names for this owner is in the store as it was put.
async fn has_wrap(
    store: &Arc<dyn Store>,
    epoch: &VerifiedEpoch,
    records: &Records,
    owner: RecipientId,
) -> Result<bool> {
    for (added, wrap) in records.added(epoch.plan, epoch.epoch) {
        let key = epoch.path().wrap(wrap);
        if added == owner && matches!(fetched::get(store, &key, wrap, MAX_WRAP).await?, Fetched::Valid(_)) {
            return Ok(true);
        }
    }
    Ok(false)
}

/// Signs and stores a receipt for a recipient or a wrap. If the key is not pinned for receipts it only warns,
/// because the receipt would not count.
async fn store_receipt(
    context: KeyContext<'_>,
    epoch: &VerifiedEpoch,
    act: ReceiptAction,
    (recipient, wrap): (Option<RecipientId>, Option<ObjectHash>),
    key: &SigningKey,
) -> Result<Option<ObjectHash>> {
    let writer: WriterId = epoch.writer;
    if !context.signers.lookup(&writer.to_string(), Namespace::Receipt).any(|pinned| pinned == key.public()) {
        let key = key.public().fingerprint();
        context.reporter.warn(
            format!("signing key {key}"),
            "it is not pinned for receipts, so none was written: add its line to kbak.pub",
        );
        return Ok(None);
    }
    let now = context.store.now().await?;
    let receipt = Receipt { plan: epoch.plan, epoch: epoch.epoch, act, recipient, wrap };
    let sealed = Record::Receipt(receipt).seal(epoch.repository, writer, now, key).map_err(|source| {
        crate::format::epoch::EpochError::Document { object: "a receipt".to_owned(), source }
    })?;
    put(context.store, &sealed).await?;
    Ok(Some(sealed.hash()))
}

/// An owner who can decrypt an epoch.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Holder {
    /// The owner.
    pub recipient: RecipientId,
    /// True if the owner was added after the epoch was created.
    pub later: bool,
    /// The last time the owner opened it, by the store's clock.
    pub opened: Option<Timestamp>,
}

/// One epoch in `keys list`.
#[derive(Debug, Clone)]
pub struct Row {
    /// The epoch.
    pub epoch: EpochId,
    /// The time at which it was created, as stated in epoch.json.
    pub created: Timestamp,
    /// The owners who can decrypt it.
    pub holders: Vec<Holder>,
    /// True if an owner has opened it. Until then a mistyped or swapped recipient would stay unnoticed.
    pub proven: bool,
}

/// `keys list`: the epochs, the owners who can decrypt each, and the times they last opened it.
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
