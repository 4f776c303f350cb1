//! Lists a folder whose keys are signed, and discards what no pinned key has signed. Anyone who can put
//! may fill such a folder: that costs pages of a listing, but no request for an object and no memory.

use futures::TryStreamExt as _;
use std::collections::BTreeMap;
use std::sync::Arc;

use crate::format::ids::{ObjectHash, WriterId};
use crate::format::layout::ObjectKey;
use crate::format::sign::{Namespace, PublicKey};
use crate::format::signers::Signers;
use crate::report::event::Reporter;
use crate::report::text::plural;
use crate::store::listing::list_all;
use crate::store::operation::Operation;
use crate::store::{ListedObject, Store, StoreError, StoreErrorKind};

/// An object whose key a pinned key signed.
#[derive(Debug, Clone)]
pub struct SignedObject {
    /// The object's entry in the listing.
    pub entry: ListedObject,
    /// The hash in its key.
    pub hash: ObjectHash,
    /// The pinned key that signed its key.
    pub signer: PublicKey,
}

/// The objects in a folder of signed keys.
#[derive(Debug, Default)]
pub struct SignedListing {
    /// Those whose key is signed, at most as many of one signer as the limit.
    pub objects: Vec<SignedObject>,
    /// The others.
    pub unsigned: Unsigned,
    /// The number of objects beyond the limit, by signer and namespace.
    pub surplus: BTreeMap<(PublicKey, Namespace), u64>,
}

impl SignedListing {
    /// Returns the objects. Fails if there are any beyond the limit, which was `most`.
    pub fn within(
        self,
        folder: &SignedFolder<'_>,
        most: usize,
    ) -> Result<(Vec<SignedObject>, Unsigned), StoreError> {
        match self.surplus.first_key_value() {
            Some(((signer, _), _)) => Err(folder.too_many(most, *signer)),
            None => Ok((self.objects, self.unsigned)),
        }
    }
}

/// Objects in folders of signed keys whose own key nobody signed who is pinned.
#[derive(Debug, Clone, Default)]
pub struct Unsigned {
    /// Their number.
    pub count: u64,
    /// The first of them.
    pub first: Option<ObjectKey>,
    /// True if there are folders beside those that were looked into.
    pub more_folders: bool,
}

impl Unsigned {
    /// Counts one more object.
    pub fn add(&mut self, key: ObjectKey) {
        self.count += 1;
        self.first.get_or_insert(key);
    }

    /// Adds those of another folder.
    pub fn append(&mut self, other: Self) {
        self.count += other.count;
        self.first = self.first.take().or(other.first);
        self.more_folders |= other.more_folders;
    }

    /// Returns a sentence about them, if there are any.
    #[must_use]
    pub fn describe(&self) -> Option<String> {
        let objects = plural(self.count, "object", "objects");
        match (&self.first, self.more_folders) {
            (Some(first), false) => {
                Some(format!("{objects} that no pinned key signed: the first is {first}"))
            }
            (Some(first), true) => {
                Some(format!("{objects} and more folders that no pinned key signed: the first is {first}"))
            }
            (None, true) => {
                Some("more folders than are looked into, and no pinned key signed them".to_owned())
            }
            (None, false) => None,
        }
    }
}

/// The folder to list, and the keys that count in it.
#[derive(Debug, Clone, Copy)]
pub struct SignedFolder<'a> {
    /// The store.
    pub store: &'a Arc<dyn Store>,
    /// The prefix, with its closing slash.
    pub prefix: &'a str,
    /// The writer whose pinned keys count.
    pub writer: WriterId,
    /// The pinned keys.
    pub signers: &'a Signers,
    /// The reporter of keys that no repository has.
    pub reporter: &'a Reporter,
}

impl SignedFolder<'_> {
    /// Returns the objects whose keys are signed for the namespace that `namespace` gives to the rest of the
    /// key. Fails if the store cannot be read, or if one key signed more than `most` of them.
    pub async fn list(
        &self,
        namespace: impl Fn(&str) -> Option<Namespace>,
        most: usize,
    ) -> Result<(Vec<SignedObject>, Unsigned), StoreError> {
        self.list_up_to(namespace, |_| most).await?.within(self, most)
    }

    /// As [`Self::list`], but keeps as many objects of each signer and namespace as `most` says, and counts the
    /// others: whoever had a key once may have signed any number of names.
    pub async fn list_up_to(
        &self,
        namespace: impl Fn(&str) -> Option<Namespace>,
        most: impl Fn(Namespace) -> usize,
    ) -> Result<SignedListing, StoreError> {
        let principal = self.writer.to_string();
        let mut found = SignedListing::default();
        let mut kept: BTreeMap<(PublicKey, Namespace), usize> = BTreeMap::new();
        let mut listing = list_all(self.store.clone(), self.prefix, self.reporter.clone());
        while let Some(entry) = listing.try_next().await? {
            let rest = &entry.key.as_str()[self.prefix.len()..];
            let Some(namespace) = namespace(rest) else {
                found.unsigned.add(entry.key);
                continue;
            };
            let Some((hash, signer)) = self.signers.signed_hash(&principal, namespace, &entry.key) else {
                found.unsigned.add(entry.key);
                continue;
            };
            let count = kept.entry((signer, namespace)).or_default();
            if *count < most(namespace) {
                *count += 1;
                found.objects.push(SignedObject { entry, hash, signer });
            } else {
                *found.surplus.entry((signer, namespace)).or_default() += 1;
            }
        }
        Ok(found)
    }

    /// Returns the error for more than `most` names that one key signed.
    pub fn too_many(&self, most: usize, signer: PublicKey) -> StoreError {
        let kind = StoreErrorKind::Flooded { most, signer: signer.fingerprint() };
        StoreError::new(Operation::List, self.prefix, self.store.describe(), kind)
    }
}
