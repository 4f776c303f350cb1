//! Compares the listing of an epoch's folder with the objects that its snapshots name.

use super::finding::{Fault, ObjectKind};
use super::findings::MAX_FINDINGS;
use super::named_objects::{Domain, NamedObjects, Object, named_as};
use super::{Check, Depth};
use crate::format::ids::{NameId, ObjectHash};
use crate::format::layout::{EpochObject, EpochPath, ObjectClass, ObjectKey};
use crate::format::pack_refs::EtagPrint;
use crate::store::{ListedObject, MAX_OBJECT, StoreErrorKind};
use std::collections::BTreeMap;

type ObjectFault = (ObjectKey, ObjectKind, Fault, String, ObjectHash);

/// The need for an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Claim {
    /// A signed object names it.
    Named,
    /// No signed object names it, and yet somebody may need it: a pack whose list cannot be read, a wrap without a
    /// receipt. Or it is no file.
    Unnamed,
    /// No signed object names it: nothing needs it.
    Orphan,
}

/// All faults in objects that a signed object names; of the others, which anyone may store, at most
/// [`MAX_FINDINGS`] of each kind.
#[derive(Default)]
pub(super) struct ObjectFaults {
    pub(super) named: Vec<ObjectFault>,
    pub(super) unnamed: Vec<ObjectFault>,
    pub(super) orphans: Vec<ObjectFault>,
    pub(super) more: u64,
    pub(super) more_orphans: u64,
}

impl ObjectFaults {
    pub(super) fn add(&mut self, claim: Claim, wrong: impl FnOnce() -> ObjectFault) {
        let (faults, more) = match claim {
            Claim::Named => return self.named.push(wrong()),
            Claim::Unnamed => (&mut self.unnamed, &mut self.more),
            Claim::Orphan => (&mut self.orphans, &mut self.more_orphans),
        };
        if faults.len() < MAX_FINDINGS {
            faults.push(wrong());
        } else {
            *more += 1;
        }
    }

    pub(super) fn append(&mut self, others: Self) {
        self.named.extend(others.named);
        self.unnamed.extend(others.unnamed);
        self.orphans.extend(others.orphans);
        self.more += others.more;
        self.more_orphans += others.more_orphans;
    }
}

pub(super) struct Read {
    pub(super) entry: ListedObject,
    pub(super) role: ObjectKind,
    pub(super) hash: ObjectHash,
    pub(super) claim: Claim,
}

pub(super) struct ListingComparison<'a> {
    path: EpochPath,
    depth: Depth,
    opens_packs: bool,
    objects: &'a mut BTreeMap<ObjectKey, Object>,
    domains: &'a BTreeMap<NameId, Domain>,
    /// Number of packs of each domain that the listing has passed.
    met: BTreeMap<NameId, usize>,
    /// The share of packs that is read, and its running sum: a pack is read when it reaches 1.
    share: f64,
    due: f64,
    wrong: ObjectFaults,
}

impl<'a> ListingComparison<'a> {
    pub(super) fn new(check: &Check<'_>, path: EpochPath, wanted: &'a mut NamedObjects, needed: u64) -> Self {
        // At least one pack, wherever there is one.
        let share = match check.options.depth {
            Depth::Sample(share) => share.max(1.0 / needed.max(1) as f64),
            Depth::Presence | Depth::All => 0.0,
        };
        // Every n-th pack from a random one on: the requested share, and not predictable.
        let due = f64::from(u32::from_le_bytes(check.view.runtime.random::<4>())) / f64::from(u32::MAX);
        Self {
            path,
            depth: check.options.depth,
            opens_packs: !check.options.identities.is_empty(),
            objects: &mut wanted.objects,
            domains: &wanted.domains,
            met: BTreeMap::new(),
            share,
            due,
            wrong: ObjectFaults::default(),
        }
    }

    /// Takes one entry of the listing. Returns it if it is to be read and hashed.
    pub(super) fn entry(&mut self, entry: &ListedObject) -> Option<Read> {
        // The listing has reported objects outside the layout already.
        let placed = self.path.object_at(&entry.key)?;
        let claim = self.claim(entry, placed);
        self.no_file(entry, placed, claim);
        let (role, hash) = self.enter(entry, placed).filter(|_| !is_foreign(entry))?;
        Some(Read { entry: entry.clone(), role, hash, claim })
    }

    fn claim(&self, entry: &ListedObject, placed: EpochObject) -> Claim {
        if self.names(&entry.key, placed) {
            return Claim::Named;
        }
        let is_orphan = match placed {
            EpochObject::Epoch | EpochObject::Snapshot(_) | EpochObject::Wrap(_) => false,
            EpochObject::Body(_) | EpochObject::InDomain(_, ObjectClass::PackRefs, _) => entry.is_file,
            EpochObject::InDomain(id, ObjectClass::Pack, _) => {
                entry.is_file && self.domains.get(&id).is_none_or(|domain| !domain.is_incomplete)
            }
            EpochObject::InDomain(..) => true,
        };
        if is_orphan { Claim::Orphan } else { Claim::Unnamed }
    }

    /// True if a signed object names `key`.
    pub(super) fn names(&self, key: &ObjectKey, placed: EpochObject) -> bool {
        let domain = |id| self.domains.get(&id);
        match placed {
            EpochObject::InDomain(id, ObjectClass::Pack, hash) => {
                domain(id).is_some_and(|domain| domain.wants(&hash))
            }
            EpochObject::InDomain(id, ObjectClass::PackRefs, hash) => {
                domain(id).is_some_and(|domain| domain.needs.contains_key(&hash))
            }
            _ => self.objects.contains_key(&named_as(&self.path, key, placed)),
        }
    }

    /// Records entries that are no file, or larger than any object: no writer makes them. They are
    /// faults wherever an object would be, named or not, and are not read.
    pub(super) fn no_file(&mut self, entry: &ListedObject, placed: EpochObject, claim: Claim) {
        let Some((role, hash)) = role_of(placed).filter(|_| is_foreign(entry)) else { return };
        let detail = match entry.is_file {
            true => format!("it has {} bytes, and no object has more than {MAX_OBJECT}", entry.size),
            false => StoreErrorKind::NotAFile.to_string(),
        };
        self.wrong.add(claim, || (entry.key.clone(), role, Fault::Altered, detail, hash));
    }

    /// Returns the role and hash of an object that must be read.
    pub(super) fn enter(
        &mut self,
        entry: &ListedObject,
        placed: EpochObject,
    ) -> Option<(ObjectKind, ObjectHash)> {
        if let EpochObject::InDomain(domain, ObjectClass::Pack, hash) = placed {
            return self.pack(entry, domain, hash);
        }
        let (role, hash) = role_of(placed)?;
        // Lists of packs that a snapshot names were read before.
        if role == ObjectKind::PackRefs && self.names(&entry.key, placed) {
            return None;
        }
        if let Some(object) = self.objects.get_mut(&named_as(&self.path, &entry.key, placed)) {
            object.seen = true;
            if let Some(size) = object.size.filter(|size| *size != entry.size) {
                let detail = format!("it has {} bytes, and its snapshot says {size}", entry.size);
                self.wrong.named.push((entry.key.clone(), role, Fault::Size, detail, hash));
                return None;
            }
        }
        (self.depth == Depth::All).then_some((role, hash))
    }

    pub(super) fn pack(
        &mut self,
        entry: &ListedObject,
        domain: NameId,
        hash: ObjectHash,
    ) -> Option<(ObjectKind, ObjectHash)> {
        let all = self.depth == Depth::All;
        let Some(wanted) = self.domains.get(&domain) else {
            return all.then_some((ObjectKind::Pack, hash));
        };
        let met = self.met.entry(domain).or_default();
        while let Some(pack) = wanted.packs.get(*met).map(|(pack, _)| pack).filter(|pack| pack.hash < hash) {
            self.wrong.named.push(missing(self.path, domain, pack.hash));
            *met += 1;
        }
        let Some((pack, _)) = wanted.packs.get(*met).filter(|(pack, _)| pack.hash == hash) else {
            // An orphan of an ended run, which the next one may use.
            return all.then_some((ObjectKind::Pack, hash));
        };
        let size = pack.size;
        let etag = entry.etag.as_deref().map(EtagPrint::of).unwrap_or_default();
        let mut overwritten = false;
        // Two sizes for one name cannot both be right.
        while let Some((_, known)) = wanted.packs.get(*met).filter(|(pack, _)| pack.hash == hash) {
            overwritten |= known.contradicts(etag);
            *met += 1;
        }
        if size != entry.size {
            let detail = format!("it has {} bytes, and its snapshots say {size}", entry.size);
            self.wrong.named.push((entry.key.clone(), ObjectKind::Pack, Fault::Size, detail, hash));
            return None;
        }
        self.due += self.share;
        let sampled = self.due >= 1.0;
        self.due -= f64::from(u8::from(sampled));
        // With an identity, the pack is read once, when it is opened.
        let read = sampled || ((all || overwritten) && !self.opens_packs);
        read.then_some((ObjectKind::Pack, hash))
    }

    /// Returns all faults, including wanted objects that are missing from the listing.
    pub(super) fn end(mut self) -> ObjectFaults {
        for (id, domain) in self.domains {
            let met = self.met.get(id).copied().unwrap_or(0);
            let path = self.path;
            self.wrong
                .named
                .extend(domain.packs[met..].iter().map(|(pack, _)| missing(path, *id, pack.hash)));
        }
        for (key, object) in self.objects.iter().filter(|(_, object)| !object.seen) {
            let hash = key.name().parse().unwrap_or(ObjectHash([0; 32]));
            let detail = "signed snapshots name it".into();
            self.wrong.named.push((key.clone(), object.role, Fault::Missing, detail, hash));
        }
        self.wrong
    }
}

/// Returns the role and hash of an object; none for those that are read whole and checked with the chain.
fn role_of(placed: EpochObject) -> Option<(ObjectKind, ObjectHash)> {
    match placed {
        EpochObject::Epoch | EpochObject::Snapshot(_) => None,
        EpochObject::Wrap(hash) => Some((ObjectKind::Wrap, hash)),
        EpochObject::Body(hash) => Some((ObjectKind::Body, hash)),
        EpochObject::InDomain(_, ObjectClass::Pack, hash) => Some((ObjectKind::Pack, hash)),
        EpochObject::InDomain(_, ObjectClass::PackRefs, hash) => Some((ObjectKind::PackRefs, hash)),
        EpochObject::InDomain(_, _, hash) => Some((ObjectKind::Hint, hash)),
    }
}

/// True if no writer can have made the entry.
fn is_foreign(entry: &ListedObject) -> bool {
    !entry.is_file || entry.size > MAX_OBJECT
}

fn missing(path: EpochPath, domain: NameId, pack: ObjectHash) -> ObjectFault {
    let key = path.in_domain(domain, ObjectClass::Pack, pack);
    (key, ObjectKind::Pack, Fault::Missing, "signed snapshots need it".into(), pack)
}
