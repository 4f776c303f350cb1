//! The layout of a repository: every object key is built and parsed here.
//!
//! ```text
//! kbak.json
//! <writer>/epochs/<plan>-<epoch>-<sha256>-<signature>
//! <writer>/<plan>/<epoch>/epoch.json
//! <writer>/<plan>/<epoch>/keys/<sha256>.age
//! <writer>/<plan>/<epoch>/d/<domain>/packs/<xx>/<sha256>
//! <writer>/<plan>/<epoch>/d/<domain>/index/<sha256>-<tag>
//! <writer>/<plan>/<epoch>/d/<domain>/{needs,cache,record,state}/<sha256>
//! <writer>/<plan>/<epoch>/bodies/<sha256>
//! <writer>/<plan>/<epoch>/snapshots/<seq, 12 digits>-<sha256>-<signature>
//! <writer>/records/<type>/<sha256>-<signature>
//! <writer>/probe/<random>
//! ```
//!
//! The signature at the end of a key is over the key before it ([`super::signed_key`]), so that a listing
//! alone shows what a pinned key has signed.

use std::fmt;

use super::ids::{EpochId, NameId, ObjectHash, WriterId, from_hex, to_hex};

/// The longest key in a repository, in bytes. Stores allow 1024.
pub const MAX_KEY: usize = 512;

/// An object key: relative, ASCII, in one of the forms in this module's table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// Returns the key as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Parses a key from a store's listing. Returns `None` unless it is made of segments of
    /// `[0-9a-z._-]`, none of them empty or starting with a dot. So no listed name can leave
    /// a folder or send control characters to a terminal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let is_valid = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'_' | b'-'))
        };
        (text.len() <= MAX_KEY && text.split('/').all(is_valid)).then(|| Self(text.to_owned()))
    }

    /// Returns the last segment.
    pub fn name(&self) -> &str {
        self.0.rsplit('/').next().unwrap_or(&self.0)
    }
}

impl fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for ObjectKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ObjectKey({})", self.0)
    }
}

/// The class of an object in a domain. Such objects are named by their SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum ObjectClass {
    /// Chunks, encrypted to the epoch's recipient.
    Pack,
    /// The location of each chunk: a hint for deduplication.
    Index,
    /// The packs that a snapshot needs, unencrypted.
    PackRefs,
    /// The scan cache, so that unchanged files need not be read.
    Cache,
    /// A mover's result.
    Record,
    /// The writer's state.
    State,
}

impl ObjectClass {
    /// The classes whose objects are directly in their folder.
    const NAMED: [Self; 5] = [Self::Index, Self::PackRefs, Self::Cache, Self::Record, Self::State];

    /// Returns the name of the class's folder.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Pack => "packs",
            Self::Index => "index",
            Self::PackRefs => "needs",
            Self::Cache => "cache",
            Self::Record => "record",
            Self::State => "state",
        }
    }
}

/// The object that a key in an epoch's folder names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EpochObject {
    /// epoch.json itself.
    Epoch,
    /// A wrap that was added for an owner.
    Wrap(ObjectHash),
    /// The encrypted half of a manifest.
    Body(ObjectHash),
    /// A manifest.
    Snapshot(ObjectHash),
    /// An object of a domain.
    InDomain(NameId, ObjectClass, ObjectHash),
}

/// Returns the key of the constant object that marks a repository.
#[must_use]
pub fn marker() -> ObjectKey {
    ObjectKey("kbak.json".into())
}

/// Returns the folder of a plan, with its closing slash.
#[must_use]
pub fn plan_prefix(writer: WriterId, plan: NameId) -> String {
    format!("{writer}/{plan}/")
}

/// A key that ends in the hash of its object, before it is signed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UnsignedKey(String);

impl UnsignedKey {
    /// Returns the key as text: what its signature covers.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn with(self, signature: &[u8; 64]) -> ObjectKey {
        ObjectKey(format!("{}-{}", self.0, to_hex(signature)))
    }
}

/// The parts of a key that ends in a hash and a signature.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SignedParts {
    /// The key before its signature.
    pub unsigned: UnsignedKey,
    /// The hash of the object.
    pub hash: ObjectHash,
    /// The signature.
    pub signature: [u8; 64],
}

/// Splits a key that ends in a hash and a signature. Returns `None` for a key of another form.
#[must_use]
pub fn split_signature(key: &ObjectKey) -> Option<SignedParts> {
    let (unsigned, signature) = key.as_str().rsplit_once('-')?;
    let name = unsigned.rsplit('/').next().unwrap_or(unsigned);
    let hash = name.rsplit('-').next().unwrap_or(name).parse().ok()?;
    Some(SignedParts {
        unsigned: UnsignedKey(unsigned.to_owned()),
        hash,
        signature: from_hex(signature).ok()?,
    })
}

/// The folders of a writer that are no plan's.
pub const BESIDE_PLANS: [&str; 3] = ["epochs", "probe", "records"];

/// Returns the folder of the second copies of a writer's epochs, with its closing slash.
#[must_use]
pub fn epochs_prefix(writer: WriterId) -> String {
    format!("{writer}/epochs/")
}

/// Returns the key of an epoch's second copy.
#[must_use]
pub fn epoch_copy(path: &EpochPath, hash: ObjectHash) -> UnsignedKey {
    UnsignedKey(format!("{}{}-{}-{hash}", epochs_prefix(path.writer), path.plan, path.epoch))
}

/// The path of one epoch of one plan, from which all of its keys are built.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochPath {
    /// The writer of the epoch.
    pub writer: WriterId,
    /// The plan whose chain it belongs to.
    pub plan: NameId,
    /// The id of the epoch.
    pub epoch: EpochId,
}

impl EpochPath {
    /// Returns the folder of the epoch, with its closing slash.
    pub fn prefix(&self) -> String {
        format!("{}/{}/{}/", self.writer, self.plan, self.epoch)
    }

    /// Returns the key of the signed epoch.json.
    pub fn epoch_json(&self) -> ObjectKey {
        ObjectKey(format!("{}epoch.json", self.prefix()))
    }

    /// Returns the folder of the wraps that owners added later, with its closing slash.
    pub fn keys_prefix(&self) -> String {
        format!("{}keys/", self.prefix())
    }

    /// Returns the key of one such wrap.
    pub fn wrap(&self, hash: ObjectHash) -> ObjectKey {
        ObjectKey(format!("{}keys/{hash}.age", self.prefix()))
    }

    /// Returns the folder of one class in one domain, with its closing slash.
    pub fn class_prefix(&self, domain: NameId, class: ObjectClass) -> String {
        format!("{}d/{domain}/{}/", self.prefix(), class.folder())
    }

    /// Returns the key of an index object, with the tag that the domain's key gives to its hash.
    pub fn index(&self, domain: NameId, hash: ObjectHash, tag: [u8; 16]) -> ObjectKey {
        ObjectKey(format!("{}-{}", self.in_domain(domain, ObjectClass::Index, hash), to_hex(&tag)))
    }

    /// Returns the key of an object in a domain; of an index object without its tag.
    pub fn in_domain(&self, domain: NameId, class: ObjectClass, hash: ObjectHash) -> ObjectKey {
        let folder = self.class_prefix(domain, class);
        ObjectKey(match class {
            ObjectClass::Pack => format!("{folder}{}/{hash}", to_hex(&hash.0[..1])),
            _ => format!("{folder}{hash}"),
        })
    }

    /// Returns the key of a manifest's encrypted body.
    pub fn body(&self, hash: ObjectHash) -> ObjectKey {
        ObjectKey(format!("{}bodies/{hash}", self.prefix()))
    }

    /// Returns the folder of this epoch's manifests, with its closing slash.
    pub fn snapshots_prefix(&self) -> String {
        format!("{}snapshots/", self.prefix())
    }

    /// Returns the object that a key under this epoch's folder names; `None` for a key of another form.
    pub fn object_at(&self, key: &ObjectKey) -> Option<EpochObject> {
        let segments: Vec<&str> = key.as_str().strip_prefix(&self.prefix())?.split('/').collect();
        let object = match segments.as_slice() {
            ["epoch.json"] => EpochObject::Epoch,
            ["keys", name] => EpochObject::Wrap(name.strip_suffix(".age")?.parse().ok()?),
            ["bodies", name] => EpochObject::Body(name.parse().ok()?),
            ["snapshots", name] => EpochObject::Snapshot(parse_snapshot_name(name)?.1),
            ["d", domain, "packs", _, name] => {
                EpochObject::InDomain(domain.parse().ok()?, ObjectClass::Pack, name.parse().ok()?)
            }
            ["d", domain, folder, name] => {
                let class = ObjectClass::NAMED.into_iter().find(|class| class.folder() == *folder)?;
                let hash = match class {
                    ObjectClass::Index => parse_index_name(name)?.0,
                    _ => name.parse().ok()?,
                };
                EpochObject::InDomain(domain.parse().ok()?, class, hash)
            }
            _ => return None,
        };
        // Each object has one key: a pack in the folder of another prefix is not accepted.
        let fits = match object {
            EpochObject::InDomain(domain, ObjectClass::Pack, hash) => {
                self.in_domain(domain, ObjectClass::Pack, hash) == *key
            }
            _ => true,
        };
        fits.then_some(object)
    }

    /// Returns the key of a manifest.
    pub fn snapshot(&self, seq: u64, hash: ObjectHash) -> UnsignedKey {
        UnsignedKey(format!("{}snapshots/{seq:012}-{hash}", self.prefix()))
    }
}

/// Returns the plan and epoch of an epoch.json or of its copy, from the key.
#[must_use]
pub fn parse_epoch(key: &ObjectKey) -> Option<(NameId, EpochId)> {
    let segments: Vec<&str> = key.as_str().split('/').collect();
    match segments.as_slice() {
        [_, "epochs", name] => {
            let mut parts = name.split('-');
            let ids = (parts.next()?.parse().ok()?, parts.next()?.parse().ok()?);
            (parts.count() == 2).then_some(ids)
        }
        [_, plan, epoch, "epoch.json"] => Some((plan.parse().ok()?, epoch.parse().ok()?)),
        _ => None,
    }
}

/// Parses the sequence number and hash from a manifest's name.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<(u64, ObjectHash)> {
    let mut parts = name.split('-');
    let (seq, hash, signature) = (parts.next()?, parts.next()?, parts.next()?);
    let digits = seq.len() == 12 && seq.bytes().all(|c| c.is_ascii_digit());
    let whole = digits && from_hex::<64>(signature).is_ok() && parts.next().is_none();
    Some((whole.then(|| seq.parse().ok())??, hash.parse().ok()?))
}

/// Parses the hash and tag from the name of an index object.
#[must_use]
pub fn parse_index_name(name: &str) -> Option<(ObjectHash, [u8; 16])> {
    let (hash, tag) = name.split_once('-')?;
    Some((hash.parse().ok()?, from_hex(tag).ok()?))
}

/// Returns `true` if a last segment has the form of an object's name, which no folder of a key has.
#[must_use]
pub fn is_object_name(name: &str) -> bool {
    let hash = |name: &str| name.parse::<ObjectHash>().is_ok();
    name == marker().name()
        || name == "epoch.json"
        || hash(name.strip_suffix(".age").unwrap_or(name))
        || name.rsplit('-').nth(1).is_some_and(hash)
}

/// Returns the folder of a writer's records, with its closing slash.
#[must_use]
pub fn records_prefix(writer: WriterId) -> String {
    format!("{writer}/records/")
}

/// The folder of the encrypted reports of failed runs among a writer's records.
pub const REPORTS: &str = "report";

/// Returns the key of a record in the folder of its type, or of an encrypted report in [`REPORTS`].
#[must_use]
pub fn record(writer: WriterId, folder: &str, hash: ObjectHash) -> UnsignedKey {
    UnsignedKey(format!("{}{folder}/{hash}", records_prefix(writer)))
}

/// Returns the folder of a writer's probes, with its closing slash; readers ignore it.
#[must_use]
pub fn probes_prefix(writer: WriterId) -> String {
    format!("{writer}/probe/")
}

pub(super) fn probe(writer: WriterId, random: &[u8]) -> ObjectKey {
    ObjectKey(format!("{writer}/probe/{}", to_hex(random)))
}
