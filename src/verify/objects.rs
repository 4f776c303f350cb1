//! Checks the objects in an epoch's folder against those that signed manifests name: presence and
//! size of all, and the hash of as many as requested. Needs no key.

use std::collections::{BTreeMap, BTreeSet};

use futures::TryStreamExt as _;

use crate::format::ids::{EpochId, NameId, ObjectHash};
use crate::format::layout::{Class, EpochPath, ObjectKey, Placed};
use crate::format::manifest::DomainObjects;
use crate::format::pack_refs::{MAX_NEEDS, PackName, PackRefs};
use crate::repository::chain::Snapshot;
use crate::repository::fetched;
use crate::repository::fetched::Named;
use crate::store::listing::list_all;
use crate::store::{Entry, MAX_OBJECT, StoreError, StoreErrorKind};

use super::finding::{Fault, MAX_FINDINGS, Role};
use super::{Check, Depth};

/// Most objects that are read at once.
const PARALLEL: usize = 4;

/// A snapshot, by its position in the chain that is checked.
pub(super) type User = usize;

/// The objects that the manifests of a plan name in one epoch.
#[derive(Debug, Default)]
pub(super) struct Wanted {
    /// All objects except packs and needs.
    objects: BTreeMap<ObjectKey, Object>,
    /// Domains, with their packs.
    pub(super) domains: BTreeMap<NameId, Domain>,
}

#[derive(Debug)]
struct Object {
    role: Role,
    size: Option<u64>,
    users: Vec<User>,
    seen: bool,
}

/// A domain of the epoch, with its packs.
#[derive(Debug, Default)]
pub(super) struct Domain {
    /// Its needs objects, and the snapshots that name them.
    needs: BTreeMap<ObjectHash, Vec<User>>,
    /// All packs that its needs objects list, sorted by hash. 40 bytes each.
    pub(super) packs: Vec<PackName>,
    /// Bad packs: missing, of another size, altered or unreadable.
    pub(super) bad: BTreeSet<ObjectHash>,
}

impl Domain {
    /// True if a snapshot needs `pack`.
    fn wants(&self, pack: &ObjectHash) -> bool {
        self.packs.binary_search_by_key(pack, |pack| pack.hash).is_ok()
    }

    /// True if a snapshot needs `pack`, and no fault was found in it.
    pub(super) fn has_good(&self, pack: &ObjectHash) -> bool {
        self.wants(pack) && !self.bad.contains(pack)
    }
}

/// Returns the objects that all manifests of a chain name, by epoch.
pub(super) fn wanted(chain: &[Snapshot]) -> BTreeMap<EpochId, Wanted> {
    let mut epochs: BTreeMap<EpochId, Wanted> = BTreeMap::new();
    for (user, snapshot) in chain.iter().enumerate() {
        let envelope = snapshot.envelope();
        let path = |epoch| EpochPath { epoch, ..envelope.path() };
        let own = epochs.entry(envelope.epoch).or_default();
        own.name(envelope.path().body(envelope.body), Role::Body, Some(envelope.body_size), user);
        let hints: [(&[DomainObjects], Class); 3] = [
            (&envelope.index, Class::Index),
            (&envelope.cache, Class::Cache),
            (&envelope.state, Class::State),
        ];
        for (named, class) in hints {
            for one in named {
                let wanted = epochs.entry(one.epoch).or_default();
                for hash in &one.objects {
                    wanted.name(path(one.epoch).in_domain(one.domain, class, *hash), Role::Hint, None, user);
                }
            }
        }
        for one in &envelope.needs {
            let domain = epochs.entry(one.epoch).or_default().domains.entry(one.domain).or_default();
            for hash in &one.objects {
                domain.needs.entry(*hash).or_default().push(user);
            }
        }
    }
    epochs
}

impl Wanted {
    /// Returns the objects that only speed up the next backup.
    pub(super) fn hints(&self) -> impl Iterator<Item = &ObjectKey> {
        self.objects.iter().filter(|(_, object)| object.role == Role::Hint).map(|(key, _)| key)
    }

    /// Returns the snapshots that name an object.
    pub(super) fn users(&self, key: &ObjectKey) -> &[User] {
        self.objects.get(key).map_or(&[], |object| &object.users)
    }

    fn name(&mut self, key: ObjectKey, role: Role, size: Option<u64>, user: User) {
        let object = self.objects.entry(key).or_insert(Object { role, size, users: Vec::new(), seen: false });
        object.users.push(user);
    }
}

/// Checks one epoch's folder.
pub(super) async fn check(
    check: &mut Check<'_>,
    path: EpochPath,
    wanted: &mut Wanted,
) -> Result<(), StoreError> {
    for (id, domain) in &mut wanted.domains {
        needs(check, path, *id, domain).await?;
    }
    let needed = wanted.domains.values().map(|domain| domain.packs.len() as u64).sum();
    check.totals.packs += needed;
    let mut book = Book::new(check, path, wanted, needed);
    let store = check.view.store.clone();
    let meter = check.meter.clone();
    let mut read = list_all(store.clone(), path.prefix(), check.view.reporter.clone())
        .try_filter_map(|entry| std::future::ready(Ok(book.entry(&entry))))
        .map_ok(|Read { entry, role, hash, named }| {
            let (store, meter) = (store.clone(), meter.clone());
            meter.add_bytes_total(entry.size);
            async move {
                let lies = fetched::check(&store, &entry.key, hash, entry.size).await?;
                meter.add_bytes(entry.size);
                Ok((Read { entry, role, hash, named }, lies))
            }
        })
        .try_buffer_unordered(PARALLEL);
    let mut wrong = Wrongs::default();
    let (mut objects, mut bytes, mut packs) = (0, 0, 0);
    while let Some((Read { entry, role, hash, named }, lies)) = read.try_next().await? {
        objects += 1;
        bytes += entry.size;
        packs += u64::from(role == Role::Pack);
        let (fault, detail) = match lies {
            Named::Is(()) => continue,
            Named::Missing => (Fault::Missing, "it was listed and is gone"),
            Named::Altered => (Fault::Altered, "its SHA-256 is not its name"),
        };
        wrong.add(named, || (entry.key, role, fault, detail.into(), hash));
    }
    drop(read);
    wrong.append(book.end());
    check.totals.hashed += objects;
    check.totals.bytes_read += bytes;
    check.totals.packs_read += packs;
    for (key, role, fault, detail, hash) in wrong.named {
        check.findings.add(key.as_str(), role, fault, detail);
        if let Some(object) = wanted.objects.get(&key) {
            check.touch(key.as_str(), &object.users);
        }
        if let Some(Placed::InDomain(domain, Class::Pack, _)) = path.placed(&key)
            && let Some(domain) = wanted.domains.get_mut(&domain)
            && domain.wants(&hash)
        {
            domain.bad.insert(hash);
        }
    }
    for (key, role, fault, detail, _) in wrong.unnamed {
        check.findings.add_unnamed(key.as_str(), role, fault, detail);
    }
    check.findings.leave_out(wrong.more);
    for (id, domain) in &wanted.domains {
        users_of_bad(check, path, *id, domain).await?;
    }
    Ok(())
}

/// Reads the needs objects of a domain, and collects the packs that they list.
async fn needs(
    check: &mut Check<'_>,
    path: EpochPath,
    id: NameId,
    domain: &mut Domain,
) -> Result<(), StoreError> {
    for (hash, users) in &domain.needs {
        let key = path.in_domain(id, Class::Needs, *hash);
        let (fault, detail) = match fetched::get(&check.view.store, &key, *hash, MAX_NEEDS).await? {
            Named::Is(bytes) => match PackRefs::parse(&bytes) {
                Some(needs) => {
                    // Kept sorted, so that a pack that several snapshots need is held once.
                    let unknown = |pack: &&PackName| domain.packs.binary_search(pack).is_err();
                    let new: Vec<PackName> = needs.packs().iter().filter(unknown).copied().collect();
                    if !new.is_empty() {
                        domain.packs.extend(new);
                        domain.packs.sort_unstable();
                    }
                    continue;
                }
                None => (Fault::Malformed, "it is no sorted list of packs"),
            },
            Named::Missing => (Fault::Missing, "signed snapshots name it"),
            Named::Altered => (Fault::Altered, "its SHA-256 is not its name"),
        };
        check.findings.add(key.as_str(), Role::Needs, fault, detail);
        check.touch(key.as_str(), users);
        check.not_checked(format!("the packs that {key} listed"));
    }
    Ok(())
}

/// Records the snapshots that need the bad packs.
pub(super) async fn users_of_bad(
    check: &mut Check<'_>,
    path: EpochPath,
    id: NameId,
    domain: &Domain,
) -> Result<(), StoreError> {
    if domain.bad.is_empty() {
        return Ok(());
    }
    for (hash, users) in &domain.needs {
        let key = path.in_domain(id, Class::Needs, *hash);
        let Named::Is(bytes) = fetched::get(&check.view.store, &key, *hash, MAX_NEEDS).await? else {
            continue;
        };
        let Some(needs) = PackRefs::parse(&bytes) else { continue };
        for pack in needs.packs().iter().filter(|pack| domain.bad.contains(&pack.hash)) {
            check.touch(path.in_domain(id, Class::Pack, pack.hash).as_str(), users);
        }
    }
    Ok(())
}

type Wrong = (ObjectKey, Role, Fault, String, ObjectHash);

/// All faults in objects that a signed object names; of the others, which anyone may store, at most
/// [`MAX_FINDINGS`].
#[derive(Default)]
struct Wrongs {
    named: Vec<Wrong>,
    unnamed: Vec<Wrong>,
    more: u64,
}

impl Wrongs {
    fn add(&mut self, named: bool, wrong: impl FnOnce() -> Wrong) {
        if named {
            self.named.push(wrong());
        } else if self.unnamed.len() < MAX_FINDINGS {
            self.unnamed.push(wrong());
        } else {
            self.more += 1;
        }
    }

    fn append(&mut self, others: Self) {
        self.named.extend(others.named);
        self.unnamed.extend(others.unnamed);
        self.more += others.more;
    }
}

/// An object to be read and hashed.
struct Read {
    entry: Entry,
    role: Role,
    hash: ObjectHash,
    /// True if a signed object names it.
    named: bool,
}

/// Compares one listing with the wanted objects.
struct Book<'a> {
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
    wrong: Wrongs,
}

impl<'a> Book<'a> {
    fn new(check: &Check<'_>, path: EpochPath, wanted: &'a mut Wanted, needed: u64) -> Self {
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
            wrong: Wrongs::default(),
        }
    }

    /// Takes one entry of the listing. Returns it if it is to be read and hashed.
    fn entry(&mut self, entry: &Entry) -> Option<Read> {
        // The listing has reported objects outside the layout already.
        let placed = self.path.placed(&entry.key)?;
        let named = self.names(&entry.key, placed);
        self.no_file(entry, placed, named);
        let (role, hash) = self.enter(entry, placed).filter(|_| !is_foreign(entry))?;
        Some(Read { entry: entry.clone(), role, hash, named })
    }

    /// True if a signed object names `key`.
    fn names(&self, key: &ObjectKey, placed: Placed) -> bool {
        let domain = |id| self.domains.get(&id);
        match placed {
            Placed::InDomain(id, Class::Pack, hash) => domain(id).is_some_and(|domain| domain.wants(&hash)),
            Placed::InDomain(id, Class::Needs, hash) => {
                domain(id).is_some_and(|domain| domain.needs.contains_key(&hash))
            }
            _ => self.objects.contains_key(key),
        }
    }

    /// Records entries that are no file, or larger than any object: no writer makes them. They are
    /// faults wherever an object would be, named or not, and are not read.
    fn no_file(&mut self, entry: &Entry, placed: Placed, named: bool) {
        let (role, hash) = match placed {
            _ if !is_foreign(entry) => return,
            Placed::Epoch | Placed::Snapshot(_) => return,
            Placed::Wrap(hash) => (Role::Wrap, hash),
            Placed::Body(hash) => (Role::Body, hash),
            Placed::InDomain(_, Class::Pack, hash) => (Role::Pack, hash),
            Placed::InDomain(_, Class::Needs, hash) => (Role::Needs, hash),
            Placed::InDomain(_, _, hash) => (Role::Hint, hash),
        };
        let detail = match entry.plain {
            true => format!("it has {} bytes, and no object has more than {MAX_OBJECT}", entry.size),
            false => StoreErrorKind::NotAFile.to_string(),
        };
        self.wrong.add(named, || (entry.key.clone(), role, Fault::Altered, detail, hash));
    }

    /// Returns the role and hash of an object that must be read.
    fn enter(&mut self, entry: &Entry, placed: Placed) -> Option<(Role, ObjectHash)> {
        let (role, hash) = match placed {
            // Read whole and checked together with the chain.
            Placed::Epoch | Placed::Snapshot(_) => return None,
            Placed::Wrap(hash) => (Role::Wrap, hash),
            Placed::Body(hash) => (Role::Body, hash),
            Placed::InDomain(domain, Class::Pack, hash) => return self.pack(entry, domain, hash),
            Placed::InDomain(domain, Class::Needs, hash) => {
                let read = self.domains.get(&domain).is_some_and(|domain| domain.needs.contains_key(&hash));
                if read {
                    return None;
                }
                (Role::Needs, hash)
            }
            Placed::InDomain(_, _, hash) => (Role::Hint, hash),
        };
        if let Some(object) = self.objects.get_mut(&entry.key) {
            object.seen = true;
            if let Some(size) = object.size.filter(|size| *size != entry.size) {
                let detail = format!("it has {} bytes, and its snapshot says {size}", entry.size);
                self.wrong.named.push((entry.key.clone(), role, Fault::Size, detail, hash));
                return None;
            }
        }
        (self.depth == Depth::All).then_some((role, hash))
    }

    fn pack(&mut self, entry: &Entry, domain: NameId, hash: ObjectHash) -> Option<(Role, ObjectHash)> {
        let all = self.depth == Depth::All;
        let Some(wanted) = self.domains.get(&domain) else {
            return all.then_some((Role::Pack, hash));
        };
        let met = self.met.entry(domain).or_default();
        while let Some(pack) = wanted.packs.get(*met).filter(|pack| pack.hash < hash) {
            self.wrong.named.push(missing(self.path, domain, pack.hash));
            *met += 1;
        }
        let Some(pack) = wanted.packs.get(*met).filter(|pack| pack.hash == hash) else {
            // An orphan of an ended run, which the next one may use.
            return all.then_some((Role::Pack, hash));
        };
        let size = pack.size;
        // Two sizes for one name cannot both be right.
        while wanted.packs.get(*met).is_some_and(|pack| pack.hash == hash) {
            *met += 1;
        }
        if size != entry.size {
            let detail = format!("it has {} bytes, and its snapshots say {size}", entry.size);
            self.wrong.named.push((entry.key.clone(), Role::Pack, Fault::Size, detail, hash));
            return None;
        }
        self.due += self.share;
        let sampled = self.due >= 1.0;
        self.due -= f64::from(u8::from(sampled));
        // With an identity, the pack is read once, when it is opened.
        let read = sampled || (all && !self.opens_packs);
        read.then_some((Role::Pack, hash))
    }

    /// Returns all faults, including wanted objects that are missing from the listing.
    fn end(mut self) -> Wrongs {
        for (id, domain) in self.domains {
            let met = self.met.get(id).copied().unwrap_or(0);
            let path = self.path;
            self.wrong.named.extend(domain.packs[met..].iter().map(|pack| missing(path, *id, pack.hash)));
        }
        for (key, object) in self.objects.iter().filter(|(_, object)| !object.seen) {
            let hash = key.name().parse().unwrap_or(ObjectHash([0; 32]));
            let detail = "signed snapshots name it".into();
            self.wrong.named.push((key.clone(), object.role, Fault::Missing, detail, hash));
        }
        self.wrong
    }
}

/// True if no writer can have made the entry.
fn is_foreign(entry: &Entry) -> bool {
    !entry.plain || entry.size > MAX_OBJECT
}

fn missing(path: EpochPath, domain: NameId, pack: ObjectHash) -> Wrong {
    let key = path.in_domain(domain, Class::Pack, pack);
    (key, Role::Pack, Fault::Missing, "signed snapshots need it".into(), pack)
}
