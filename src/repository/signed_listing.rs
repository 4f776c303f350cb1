//! Lists a folder whose keys are signed, and discards what no pinned key has signed. Anyone who can put
//! may fill such a folder: that costs pages of a listing, but no request for an object and no memory.

use futures::TryStreamExt as _;
use std::sync::Arc;

use crate::format::ids::{ObjectHash, WriterId};
use crate::format::layout::ObjectKey;
use crate::format::sign::Namespace;
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
    /// key. Fails if the store cannot be read, or if there are more than `most` of them.
    pub async fn list(
        &self,
        namespace: impl Fn(&str) -> Option<Namespace>,
        most: usize,
    ) -> Result<(Vec<SignedObject>, Unsigned), StoreError> {
        let principal = self.writer.to_string();
        let mut signed = Vec::new();
        let mut unsigned = Unsigned::default();
        let mut listing = list_all(self.store.clone(), self.prefix, self.reporter.clone());
        while let Some(entry) = listing.try_next().await? {
            let rest = &entry.key.as_str()[self.prefix.len()..];
            let hash = namespace(rest)
                .and_then(|namespace| self.signers.signed_hash(&principal, namespace, &entry.key));
            match hash {
                Some(hash) if signed.len() < most => signed.push(SignedObject { entry, hash }),
                Some(_) => {
                    let kind = StoreErrorKind::Protocol(format!("more than {most} signed objects lie there"));
                    return Err(StoreError::new(Operation::List, self.prefix, self.store.describe(), kind));
                }
                None => unsigned.add(entry.key),
            }
        }
        Ok((signed, unsigned))
    }
}
