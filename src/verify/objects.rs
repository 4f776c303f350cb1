//! Checks the objects in an epoch's folder against those that signed manifests name: presence and
//! size of all, and the hash of as many as requested. Needs no key.

use futures::TryStreamExt as _;

use super::Check;
use super::finding::{Fault, ObjectKind};
use super::listing::{ListingComparison, ObjectFaults, Read};
use super::named_objects::{Domain, NamedObjects, named_as};
use crate::format::ids::NameId;
use crate::format::layout::{EpochObject, EpochPath, ObjectClass};
use crate::format::pack_refs::{EtagPrint, MAX_PACK_REFS, PackName, PackRefs, StoreTag};
use crate::repository::fetched::{self, Fetched};
use crate::store::{StoreError, listing::list_all_beside};

/// Fails if the store cannot be read.
type Result<T> = std::result::Result<T, StoreError>;

const PARALLEL: usize = 4;

pub(super) async fn check(check: &mut Check<'_>, path: EpochPath, wanted: &mut NamedObjects) -> Result<()> {
    for (id, domain) in &mut wanted.domains {
        needs(check, path, *id, domain).await?;
    }
    let distinct = |domain: &Domain| domain.packs.chunk_by(|(one, _), (next, _)| one == next).count() as u64;
    let needed = wanted.domains.values().map(distinct).sum();
    check.totals.packs += needed;
    let mut listing = ListingComparison::new(check, path, wanted, needed);
    let store = check.view.store.clone();
    let meter = check.meter.clone();
    // Snapshots were listed and checked with the chain.
    let (prefix, snapshots) = (path.prefix(), path.snapshots_prefix());
    let mut read = list_all_beside(store.clone(), prefix, snapshots, check.view.reporter.clone())
        .try_filter_map(|entry| std::future::ready(Ok(listing.entry(&entry))))
        .map_ok(|Read { entry, role, hash, claim }| {
            let (store, meter) = (store.clone(), meter.clone());
            meter.add_bytes_total(entry.size);
            async move {
                let content = fetched::check(&store, &entry.key, hash, entry.size).await?;
                meter.add_bytes(entry.size);
                Ok((Read { entry, role, hash, claim }, content))
            }
        })
        .try_buffer_unordered(PARALLEL);
    let mut faults = ObjectFaults::default();
    let (mut objects, mut bytes, mut packs) = (0, 0, 0);
    while let Some((Read { entry, role, hash, claim }, content)) = read.try_next().await? {
        objects += 1;
        bytes += entry.size;
        packs += u64::from(role == ObjectKind::Pack);
        let (fault, detail) = match content {
            Fetched::Valid(()) => continue,
            Fetched::Missing => (Fault::Missing, "it was listed and is gone"),
            Fetched::Corrupt => (Fault::Altered, "its SHA-256 is not its name"),
        };
        faults.add(claim, || (entry.key, role, fault, detail.into(), hash));
    }
    drop(read);
    faults.append(listing.end());
    check.totals.hashed += objects;
    check.totals.bytes_read += bytes;
    check.totals.packs_read += packs;
    report(check, path, wanted, faults);
    for (id, domain) in &wanted.domains {
        users_of_bad(check, path, *id, domain).await?;
    }
    Ok(())
}

/// Reports the faults of objects, and marks the snapshots that need them as affected.
fn report(check: &mut Check<'_>, path: EpochPath, wanted: &mut NamedObjects, faults: ObjectFaults) {
    for (key, role, fault, detail, hash) in faults.named {
        check.findings.add(key.as_str(), role, fault, detail);
        let name = path.object_at(&key).map_or_else(|| key.clone(), |placed| named_as(&path, &key, placed));
        if let Some(object) = wanted.objects.get(&name) {
            check.mark_affected(key.as_str(), &object.users);
        }
        if let Some(EpochObject::InDomain(domain, ObjectClass::Pack, _)) = path.object_at(&key)
            && let Some(domain) = wanted.domains.get_mut(&domain)
            && domain.wants(&hash)
        {
            domain.bad.insert(hash);
        }
    }
    for (key, role, fault, detail, _) in faults.unnamed {
        check.findings.add_unnamed(key.as_str(), role, fault, detail);
    }
    for (key, role, fault, detail, _) in faults.orphans {
        check.findings.add_orphan(key.as_str(), role, fault, detail);
    }
    check.findings.leave_out(faults.more, faults.more_orphans);
}

/// Reads the needs objects of a domain, and collects the packs that they list.
async fn needs(check: &mut Check<'_>, path: EpochPath, id: NameId, domain: &mut Domain) -> Result<()> {
    let store = StoreTag::of(&check.view.store.describe());
    for (hash, users) in domain.needs.clone() {
        let key = path.in_domain(id, ObjectClass::PackRefs, hash);
        let (fault, detail) = match fetched::get(&check.view.store, &key, hash, MAX_PACK_REFS).await? {
            Fetched::Valid(bytes) => match PackRefs::parse(&bytes) {
                Some(needs) => {
                    // Kept sorted, so that a pack that several snapshots need is held once.
                    let unknown = |pack: &(PackName, EtagPrint)| domain.packs.binary_search(pack).is_err();
                    let new: Vec<_> = needs.with_prints(store).filter(unknown).collect();
                    if !new.is_empty() {
                        domain.packs.extend(new);
                        domain.packs.sort_unstable();
                    }
                    continue;
                }
                None => (Fault::Malformed, "it is no sorted list of packs"),
            },
            Fetched::Missing => (Fault::Missing, "signed snapshots name it"),
            Fetched::Corrupt => (Fault::Altered, "its SHA-256 is not its name"),
        };
        check.findings.add(key.as_str(), ObjectKind::PackRefs, fault, detail);
        domain.is_incomplete = true;
        check.mark_affected(key.as_str(), &users);
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
) -> Result<()> {
    if domain.bad.is_empty() {
        return Ok(());
    }
    for (hash, users) in &domain.needs {
        let key = path.in_domain(id, ObjectClass::PackRefs, *hash);
        let Fetched::Valid(bytes) = fetched::get(&check.view.store, &key, *hash, MAX_PACK_REFS).await? else {
            continue;
        };
        let Some(needs) = PackRefs::parse(&bytes) else { continue };
        for pack in needs.packs().iter().filter(|pack| domain.bad.contains(&pack.hash)) {
            check.mark_affected(path.in_domain(id, ObjectClass::Pack, pack.hash).as_str(), users);
        }
    }
    Ok(())
}
