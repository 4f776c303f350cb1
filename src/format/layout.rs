//! Where objects lie: every key of a repository is built and read here.
//!
//! ```text
//! kbak.json
//! <writer>/<plan>/epochs/<epoch>.json
//! <writer>/<plan>/<epoch>/epoch.json
//! <writer>/<plan>/<epoch>/keys/<sha256>.age
//! <writer>/<plan>/<epoch>/d/<domain>/packs/<xx>/<sha256>
//! <writer>/<plan>/<epoch>/d/<domain>/{index,needs,cache,record,state}/<sha256>
//! <writer>/<plan>/<epoch>/bodies/<sha256>
//! <writer>/<plan>/<epoch>/snapshots/<seq, 12 digits>-<sha256>
//! <writer>/records/<sha256>
//! <writer>/probe/<random>
//! ```

use std::fmt;

use super::ids::{EpochId, NameId, ObjectHash, WriterId, to_hex};

/// The longest key a repository uses, in bytes. Stores allow 1024.
pub const MAX_KEY: usize = 512;

/// A key in a store: relative, ASCII, of the shape in this module's table.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey(String);

impl ObjectKey {
    /// The text of the key.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Takes a key that a store listed. Refused unless it is made of segments of
    /// `[0-9a-z._-]`, none of them empty or starting with a dot, so that no listed name can leave
    /// a folder or carry control characters to a terminal.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        let sound = |segment: &str| {
            !segment.is_empty()
                && !segment.starts_with('.')
                && segment.bytes().all(|c| matches!(c, b'0'..=b'9' | b'a'..=b'z' | b'.' | b'_' | b'-'))
        };
        (text.len() <= MAX_KEY && text.split('/').all(sound)).then(|| Self(text.to_owned()))
    }

    /// The last segment.
    #[must_use]
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

/// The classes of objects that lie in a domain, named by their SHA-256.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Class {
    /// Chunks, encrypted to the epoch's recipient.
    Pack,
    /// Chunk id to place: a hint for deduplication.
    Index,
    /// The packs that a snapshot needs, in the clear.
    Needs,
    /// What a walk saw, so that unchanged files need not be read.
    Cache,
    /// A mover's result.
    Record,
    /// What the writer remembers.
    State,
}

impl Class {
    /// The classes whose objects lie directly in their folder.
    const NAMED: [Self; 5] = [Self::Index, Self::Needs, Self::Cache, Self::Record, Self::State];

    /// The folder of the class.
    #[must_use]
    pub fn folder(self) -> &'static str {
        match self {
            Self::Pack => "packs",
            Self::Index => "index",
            Self::Needs => "needs",
            Self::Cache => "cache",
            Self::Record => "record",
            Self::State => "state",
        }
    }
}

/// What a key in an epoch's folder names.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Placed {
    /// The epoch itself.
    Epoch,
    /// A key that was added for an owner.
    Wrap(ObjectHash),
    /// The encrypted half of a manifest.
    Body(ObjectHash),
    /// A manifest.
    Snapshot(ObjectHash),
    /// An object of a domain.
    InDomain(NameId, Class, ObjectHash),
}

/// The constant object that says what a bucket is.
#[must_use]
pub fn marker() -> ObjectKey {
    ObjectKey("kbak.json".into())
}

/// The folder of a plan, with its closing slash.
#[must_use]
pub fn plan_prefix(writer: WriterId, plan: NameId) -> String {
    format!("{writer}/{plan}/")
}

/// The list of a plan's epochs.
#[must_use]
pub fn epochs_prefix(writer: WriterId, plan: NameId) -> String {
    format!("{writer}/{plan}/epochs/")
}

/// The second copy of an epoch, in the folder that is cheap to list.
#[must_use]
pub fn epoch_copy(writer: WriterId, plan: NameId, epoch: EpochId) -> ObjectKey {
    ObjectKey(format!("{writer}/{plan}/epochs/{epoch}.json"))
}

/// One epoch of one plan: all of its keys.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct EpochPath {
    /// Who writes it.
    pub writer: WriterId,
    /// Whose chain it belongs to.
    pub plan: NameId,
    /// Which one.
    pub epoch: EpochId,
}

impl EpochPath {
    /// The folder of the epoch, with its closing slash.
    #[must_use]
    pub fn prefix(&self) -> String {
        format!("{}/{}/{}/", self.writer, self.plan, self.epoch)
    }

    /// The signed epoch itself.
    #[must_use]
    pub fn epoch_json(&self) -> ObjectKey {
        ObjectKey(format!("{}epoch.json", self.prefix()))
    }

    /// Wraps that owners added later.
    #[must_use]
    pub fn keys_prefix(&self) -> String {
        format!("{}keys/", self.prefix())
    }

    /// One such wrap.
    #[must_use]
    pub fn wrap(&self, hash: ObjectHash) -> ObjectKey {
        ObjectKey(format!("{}keys/{hash}.age", self.prefix()))
    }

    /// The folder of one class in one domain, with its closing slash.
    #[must_use]
    pub fn class_prefix(&self, domain: NameId, class: Class) -> String {
        format!("{}d/{domain}/{}/", self.prefix(), class.folder())
    }

    /// An object of a domain.
    #[must_use]
    pub fn in_domain(&self, domain: NameId, class: Class, hash: ObjectHash) -> ObjectKey {
        let folder = self.class_prefix(domain, class);
        ObjectKey(match class {
            Class::Pack => format!("{folder}{}/{hash}", to_hex(&hash.0[..1])),
            _ => format!("{folder}{hash}"),
        })
    }

    /// The encrypted half of a manifest.
    #[must_use]
    pub fn body(&self, hash: ObjectHash) -> ObjectKey {
        ObjectKey(format!("{}bodies/{hash}", self.prefix()))
    }

    /// The manifests of this epoch.
    #[must_use]
    pub fn snapshots_prefix(&self) -> String {
        format!("{}snapshots/", self.prefix())
    }

    /// What a key under this epoch's folder names; nothing for a key of another shape.
    #[must_use]
    pub fn placed(&self, key: &ObjectKey) -> Option<Placed> {
        let segments: Vec<&str> = key.as_str().strip_prefix(&self.prefix())?.split('/').collect();
        let placed = match segments.as_slice() {
            ["epoch.json"] => Placed::Epoch,
            ["keys", name] => Placed::Wrap(name.strip_suffix(".age")?.parse().ok()?),
            ["bodies", name] => Placed::Body(name.parse().ok()?),
            ["snapshots", name] => Placed::Snapshot(parse_snapshot_name(name)?.1),
            ["d", domain, "packs", _, name] => {
                Placed::InDomain(domain.parse().ok()?, Class::Pack, name.parse().ok()?)
            }
            ["d", domain, folder, name] => {
                let class = Class::NAMED.into_iter().find(|class| class.folder() == *folder)?;
                Placed::InDomain(domain.parse().ok()?, class, name.parse().ok()?)
            }
            _ => return None,
        };
        // One key for one object: a pack in the folder of another prefix is in no place at all.
        let fits = match placed {
            Placed::InDomain(domain, class, hash) => self.in_domain(domain, class, hash) == *key,
            _ => true,
        };
        fits.then_some(placed)
    }

    /// A manifest.
    #[must_use]
    pub fn snapshot(&self, seq: u64, hash: ObjectHash) -> ObjectKey {
        ObjectKey(format!("{}snapshots/{seq:012}-{hash}", self.prefix()))
    }
}

/// Which epoch a copy of epoch.json is of, by its key.
#[must_use]
pub fn parse_epoch(key: &ObjectKey) -> Option<EpochId> {
    let segments: Vec<&str> = key.as_str().split('/').collect();
    match segments.as_slice() {
        [_, _, "epochs", name] => name.strip_suffix(".json")?.parse().ok(),
        [_, _, epoch, "epoch.json"] => epoch.parse().ok(),
        _ => None,
    }
}

/// Reads the sequence and hash out of a manifest's name.
#[must_use]
pub fn parse_snapshot_name(name: &str) -> Option<(u64, ObjectHash)> {
    let (seq, hash) = name.split_once('-')?;
    let digits = seq.len() == 12 && seq.bytes().all(|c| c.is_ascii_digit());
    Some((digits.then(|| seq.parse().ok())??, hash.parse().ok()?))
}

/// Whether a last segment is one that only objects have, and never a folder on the way to them.
#[must_use]
pub fn names_object(name: &str) -> bool {
    let hash = |name: &str| name.parse::<ObjectHash>().is_ok();
    name == marker().name()
        || name == "epoch.json"
        || name.strip_suffix(".json").is_some_and(|epoch| epoch.parse::<EpochId>().is_ok())
        || hash(name.strip_suffix(".age").unwrap_or(name))
        || parse_snapshot_name(name).is_some()
}

/// The signed statements of a writer and its owners.
#[must_use]
pub fn records_prefix(writer: WriterId) -> String {
    format!("{writer}/records/")
}

/// One signed statement, or one sealed report.
#[must_use]
pub fn record(writer: WriterId, hash: ObjectHash) -> ObjectKey {
    ObjectKey(format!("{writer}/records/{hash}"))
}

/// The probes of a writer; readers ignore them.
#[must_use]
pub fn probes_prefix(writer: WriterId) -> String {
    format!("{writer}/probe/")
}

pub(super) fn probe(writer: WriterId, random: &[u8]) -> ObjectKey {
    ObjectKey(format!("{writer}/probe/{}", to_hex(random)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn listed_keys_cannot_leave_their_folder() {
        for bad in ["", "/a", "a/", "a//b", "../a", "a/../b", "a/.b", "A", "a b", "a\u{1b}[2J", "ä"] {
            assert!(ObjectKey::parse(bad).is_none(), "{bad:?} must be refused");
        }
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        let key = path.in_domain(NameId([4; 8]), Class::Pack, ObjectHash([0xab; 32]));
        assert!(key.as_str().contains("/packs/ab/abab"));
        assert_eq!(ObjectKey::parse(key.as_str()), Some(key.clone()));
        assert!(key.as_str().len() < MAX_KEY);
    }

    #[test]
    fn no_folder_has_the_name_of_an_object() {
        let path = EpochPath { writer: WriterId([1; 16]), plan: NameId([2; 8]), epoch: EpochId([3; 16]) };
        let hash = ObjectHash([0xab; 32]);
        for key in [
            marker(),
            epoch_copy(path.writer, path.plan, path.epoch),
            path.epoch_json(),
            path.wrap(hash),
            path.in_domain(NameId([4; 8]), Class::Pack, hash),
            path.in_domain(NameId([4; 8]), Class::State, hash),
            path.body(hash),
            path.snapshot(42, hash),
            record(path.writer, hash),
        ] {
            assert!(names_object(key.name()), "{key}");
            let (folders, _) = key.as_str().rsplit_once('/').unwrap_or_default();
            assert!(!folders.split('/').any(names_object), "{key}");
        }
    }

    #[test]
    fn snapshot_names_are_read_strictly() {
        let hash = ObjectHash([7; 32]);
        assert_eq!(parse_snapshot_name(&format!("000000000042-{hash}")), Some((42, hash)));
        assert_eq!(parse_snapshot_name(&format!("42-{hash}")), None);
        assert_eq!(parse_snapshot_name(&format!("+00000000042-{hash}")), None);
    }
}
