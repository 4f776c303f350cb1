//! Checks with an owner's identity: every pack that snapshots need, chunk by chunk; every list,
//! catalog, index, scan cache and state, against those chunks.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use futures::stream::{self, StreamExt as _};

use super::finding::{Fault, ObjectKind};
use super::named_objects::{NamedObjects, SnapshotIndex};
use super::objects;
use super::proven::{Epochs, Opening, Proven};
use super::{Check, Result, hints};
use crate::format::ids::{ChunkId, EpochId, NameId, ObjectHash};
use crate::format::layout::{EpochPath, ObjectClass, ObjectKey};
use crate::format::list::{ChunkLocation, Slice, StreamHasher};
use crate::format::manifest::PublicItem;
use crate::format::{body::Stream, derive::ChunkKind, wrap::WrapError};
use crate::pipeline::{ReadError, fetch::Fetcher};
use crate::report::error::causes;
use crate::repository::epoch::wraps::{self, KeysError};
use crate::repository::read::snapshot::{OpenSnapshot, SnapshotError};
use crate::repository::read::{copies::EpochCopies, reader::StoredPlan};

/// Most packs that are open at once: each takes up to twice its size.
const PARALLEL: usize = 2;

/// Opens everything that the snapshots of `plan` need.
pub(super) async fn check(
    check: &mut Check<'_>,
    plan: &StoredPlan,
    wanted: &mut BTreeMap<EpochId, NamedObjects>,
) -> Result<()> {
    let epochs = open_epochs(check, plan).await?;
    let mut opening = Opening {
        epochs,
        names: BTreeMap::new(),
        proven: Proven::default(),
        copies: BTreeMap::new(),
        read: HashMap::new(),
        healed: BTreeSet::new(),
    };
    for user in 0..check.chain.len() {
        if let Some(open) = opening.snapshot(check, user).await? {
            opening.domains(check, &open, wanted).await?;
            opening.streams(check, &open, user, wanted).await?;
        }
    }
    for key in &opening.healed {
        check.findings.mark_restorable(key.as_str());
    }
    Ok(hints::check(check, &opening, wanted).await?)
}

/// Returns the keys of every epoch. One that no identity opens is reported; checks that need no key
/// still run.
async fn open_epochs(check: &mut Check<'_>, plan: &StoredPlan) -> Result<Epochs> {
    let (view, identities) = (check.view, &check.options.identities);
    let mut epochs = Epochs::new();
    for stored in &plan.epochs.all {
        let epoch = &stored.epoch;
        let attested = plan.attested_wraps(epoch.epoch);
        let opened = wraps::open(&view.store, &view.runtime, epoch, identities, attested, &view.reporter);
        let error = match opened.await {
            Ok((keys, _)) => {
                epochs.insert(epoch.epoch, (epoch.clone(), keys));
                continue;
            }
            Err(error) => error,
        };
        match &error {
            KeysError::Closed { source, .. } if is_damage(source) => {
                let key = epoch.path().epoch_json();
                check.findings.add(key.as_str(), ObjectKind::Epoch, Fault::Unreadable, causes(&error));
            }
            KeysError::Closed { .. } => {
                check.closed.push(epoch.epoch);
                check.not_checked(format!("what is in epoch {}: no identity opens it", epoch.epoch));
            }
            KeysError::Store(_) => return Err(error.into()),
        }
    }
    Ok(epochs)
}

fn is_damage(error: &WrapError) -> bool {
    matches!(
        error,
        WrapError::Damaged(_) | WrapError::Armor | WrapError::Content | WrapError::BelongsElsewhere(_)
    )
}

impl Opening {
    async fn snapshot(&mut self, check: &mut Check<'_>, user: SnapshotIndex) -> Result<Option<OpenSnapshot>> {
        let snapshot = check.chain[user].clone();
        let epoch = snapshot.envelope().epoch;
        let Some((_, keys)) = self.epochs.get(&epoch) else { return Ok(None) };
        let keys = keys.clone();
        let key = snapshot.envelope().path().body(snapshot.envelope().body);
        let copies = self.copies.entry(epoch).or_insert_with(|| EpochCopies::new(check.chain.iter(), epoch));
        let opened = OpenSnapshot::open(check.view, snapshot, keys, copies, check.options.memory);
        let error = match opened.await {
            Ok(open) => return Ok(Some(open)),
            Err(SnapshotError::Store(error)) if !error.kind.is_absence() => return Err(error.into()),
            Err(error) => error,
        };
        check.findings.add(key.as_str(), ObjectKind::Body, Fault::Unreadable, causes(&error));
        check.mark_affected_item(key.as_str(), user, None);
        Ok(None)
    }

    /// Opens every pack of the domains that this snapshot is the first to name.
    async fn domains(
        &mut self,
        check: &mut Check<'_>,
        open: &OpenSnapshot,
        wanted: &mut BTreeMap<EpochId, NamedObjects>,
    ) -> Result<()> {
        let path = open.snapshot().envelope().path();
        let named = open.snapshot().envelope().items.iter().filter_map(PublicItem::needs);
        let domains: BTreeSet<NameId> = named.map(|needs| needs.domain).collect();
        let Some((_, keys)) = self.epochs.get(&path.epoch) else { return Ok(()) };
        for id in domains {
            let Some(name) = open.body().domains.get(&id) else { continue };
            if self.names.insert((path.epoch, id), name.clone()).is_some() {
                continue;
            }
            let Some(domain) = wanted.get_mut(&path.epoch).and_then(|w| w.domains.get_mut(&id)) else {
                continue;
            };
            let fetcher = Fetcher::new(
                check.view.store.clone(),
                path,
                id,
                keys.identity.clone(),
                Arc::new(keys.secret.domain(name)),
                check.view.runtime.workers,
                check.options.memory,
            );
            let good = domain.good_packs();
            check.meter.add_bytes_total(good.iter().map(|pack| pack.size).sum());
            let mut read = stream::iter(good)
                .map(|pack| {
                    let fetcher = &fetcher;
                    async move { (pack, fetcher.verify_pack(pack).await) }
                })
                .buffer_unordered(PARALLEL);
            while let Some((pack, result)) = read.next().await {
                check.meter.add_bytes(pack.size);
                check.totals.packs_read += 1;
                check.totals.hashed += 1;
                check.totals.bytes_read += pack.size;
                match result {
                    Ok(table) => {
                        check.totals.chunks += table.len() as u64;
                        table.iter().for_each(|entry| self.proven.add(&pack.hash, entry));
                    }
                    Err(error) => {
                        let detail = damage(error)?;
                        let key = path.in_domain(id, ObjectClass::Pack, pack.hash);
                        check.findings.add(key.as_str(), ObjectKind::Pack, Fault::Unreadable, detail);
                        domain.bad.insert(pack.hash);
                    }
                }
            }
            // A pack is removed when a stream misses one of its chunks.
            let bad = domain.bad.iter().filter(|_| !domain.is_incomplete);
            self.healed.extend(bad.map(|pack| path.in_domain(id, ObjectClass::Pack, *pack)));
            objects::users_of_bad(check, path, id, domain).await?;
        }
        Ok(())
    }

    /// Reads the lists and catalogs of a snapshot and compares them with the chunks.
    async fn streams(
        &mut self,
        check: &mut Check<'_>,
        open: &OpenSnapshot,
        user: SnapshotIndex,
        wanted: &BTreeMap<EpochId, NamedObjects>,
    ) -> Result<()> {
        let path = open.snapshot().envelope().path();
        let body = path.body(open.snapshot().envelope().body);
        let domains = wanted.get(&path.epoch).map(|wanted| &wanted.domains);
        let is_incomplete = |one: &Stream| {
            domains.and_then(|domains| domains.get(&one.domain)).is_some_and(|domain| domain.is_incomplete)
        };
        for (item, one) in open.streams() {
            let memo = memo(&path, one);
            let packs = match self.read.get(&memo) {
                Some(packs) => packs.clone(),
                // Nothing is known about its packs without their list, which has a finding of its own.
                None if is_incomplete(one) => continue,
                None => match self.stream(open, one, path, wanted).await? {
                    Ok(packs) => {
                        self.read.insert(memo, packs.clone());
                        packs
                    }
                    Err(what) => {
                        let detail = format!("stream {} of {item}: {what}", one.name);
                        check.findings.add(body.as_str(), ObjectKind::Body, Fault::Malformed, detail);
                        check.reset(&path, one.domain);
                        check.mark_affected_item(body.as_str(), user, Some(item));
                        continue;
                    }
                },
            };
            for key in packs {
                self.healed.remove(&key);
                check.mark_affected_item(key.as_str(), user, Some(item));
            }
        }
        Ok(())
    }

    /// Returns the bad packs whose chunks a stream misses, or the fault in its list.
    async fn stream(
        &mut self,
        open: &OpenSnapshot,
        one: &Stream,
        path: EpochPath,
        wanted: &BTreeMap<EpochId, NamedObjects>,
    ) -> Result<Result<Vec<ObjectKey>, String>> {
        let none = BTreeSet::new();
        let domain = wanted.get(&path.epoch).and_then(|wanted| wanted.domains.get(&one.domain));
        let bad = domain.map_or(&none, |domain| &domain.bad);
        let mut missed = Missed { open, domain: one.domain, bad, packs: BTreeSet::new() };
        for part in &one.catalog {
            missed.look(&mut self.proven, ChunkKind::Catalog, part.location(), part.id).await?;
        }
        let reader = match open.read(one) {
            Ok(reader) => reader,
            Err(error) => return Ok(Err(causes(&error))),
        };
        let (mut hasher, mut length) = (StreamHasher::default(), 0u64);
        for part in &one.parts {
            if missed.look(&mut self.proven, ChunkKind::List, part.location(), part.id).await? {
                continue;
            }
            let slices = match reader.slices(part).await {
                Ok(slices) => slices,
                Err(error) => return Ok(Err(damage(error)?)),
            };
            for slice in &slices {
                hasher.update(slice);
                length += u64::from(slice.take);
                if bad.contains(&slice.location.pack.hash) {
                    missed.look(&mut self.proven, ChunkKind::Data, slice.location, slice.id).await?;
                } else if !self.holds(slice) {
                    return Ok(Err(format!(
                        "pack {} does not hold a chunk that it lists",
                        slice.location.pack.hash
                    )));
                }
            }
        }
        if !missed.packs.is_empty() {
            let key = |pack: ObjectHash| path.in_domain(one.domain, ObjectClass::Pack, pack);
            return Ok(Ok(missed.packs.into_iter().map(key).collect()));
        }
        if hasher.finish() != one.hash || length != one.length {
            return Ok(Err("its list is not the one that the snapshot names".into()));
        }
        let mut lines = reader.catalog();
        while let Some(line) = lines.next().await {
            if let Err(error) = line {
                return Ok(Err(damage(error)?));
            }
        }
        Ok(Ok(Vec::new()))
    }

    fn holds(&self, slice: &Slice) -> bool {
        self.proven.has(&slice.location, &slice.id, ChunkKind::Data)
    }
}

/// The bad packs whose chunks a stream misses.
struct Missed<'a> {
    open: &'a OpenSnapshot,
    domain: NameId,
    bad: &'a BTreeSet<ObjectHash>,
    packs: BTreeSet<ObjectHash>,
}

impl Missed<'_> {
    /// Returns true and notes the pack if a chunk is in a bad one and has no copy elsewhere, where a restore finds
    /// it.
    async fn look(
        &mut self,
        proven: &mut Proven,
        kind: ChunkKind,
        location: ChunkLocation,
        id: ChunkId,
    ) -> Result<bool> {
        let pack = location.pack.hash;
        if !self.bad.contains(&pack) || proven.has_id(&id) {
            return Ok(false);
        }
        // One chunk that is lost makes the pack one that the stream misses.
        if kind == ChunkKind::Data && self.packs.contains(&pack) {
            return Ok(true);
        }
        if self.open.has_copy(self.domain, kind, location, id).await? {
            proven.add_copy(&id);
            return Ok(false);
        }
        self.packs.insert(pack);
        Ok(true)
    }
}

/// Returns a hash that identifies a stream: its list by ids, and its catalog.
fn memo(path: &EpochPath, stream: &Stream) -> [u8; 32] {
    let mut hasher = blake3::Hasher::new();
    hasher.update(&path.epoch.0).update(&stream.domain.0).update(&stream.hash.0);
    for part in stream.parts.iter().chain(&stream.catalog) {
        hasher.update(&part.pack.0).update(&part.id.0).update(&part.offset.to_le_bytes());
        hasher.update(&part.length.to_le_bytes()).update(&part.plain_length.to_le_bytes());
    }
    hasher.update(&stream.length.to_le_bytes());
    *hasher.finalize().as_bytes()
}

/// Returns the description of damage; any other error ends the verification.
fn damage(error: ReadError) -> Result<String> {
    match error {
        // The finding names the object already.
        ReadError::Damaged { what, .. } => Ok(what),
        error if error.is_damage() => Ok(causes(&error)),
        error => Err(error.into()),
    }
}
