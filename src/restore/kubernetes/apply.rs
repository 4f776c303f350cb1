//! Rounds of creates, until everything is there or nothing more goes.

use std::collections::HashMap;
use std::time::Duration;

use futures::StreamExt as _;
use tokio::sync::Mutex;

use super::create::{Attempt, Creator};
use super::lines::lines;
use super::relink::{Uids, relink};
use super::target::{Target, segment};
use super::{
    ObjectRef, Outcome, OutcomeSink, ResourceStreams, RestoreConfig, RestoreError, RestoreReport, order,
};
use crate::report::event::Meter;
use crate::source::kubernetes::{Cluster, KindInfo};

/// Failures that are kept with their names.
const FAILURES: usize = 1000;
/// Warnings that are kept.
const WARNINGS: usize = 100;
/// How long new definitions may take until their kinds are served.
const DEFINITIONS: Duration = Duration::from_secs(60);
/// How often that is asked.
const ASK: Duration = Duration::from_millis(250);

/// Creates the stored resources in the cluster, then relinks owners. `told` hears of each object
/// once; the meter counts objects that are settled.
///
/// # Errors
/// [`RestoreError`] when the cluster or the backup cannot be read any more. That an object cannot
/// be created is no error but in the report.
pub async fn restore_resources(
    cluster: &Cluster,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    told: OutcomeSink<'_>,
    meter: &Meter,
) -> Result<RestoreReport, RestoreError> {
    let mut kinds = streams.kinds();
    kinds.retain(|kind| config.kinds.is_empty() || config.kinds.iter().any(|g| g.matches(&kind.resource())));
    kinds.sort_by_key(|kind| (order::step(kind), kind.clone()));
    let mut restore = Restore {
        cluster,
        streams,
        config,
        target: Target::read(cluster).await?,
        volumes: Mutex::new(HashMap::new()),
        ledger: Ledger {
            told,
            meter,
            report: RestoreReport::default(),
            uids: Uids::default(),
            missing: HashMap::new(),
            owned: vec![false; kinds.len()],
        },
        kinds,
    };
    restore.rounds().await?;
    restore.relink().await?;
    Ok(restore.ledger.report)
}

struct Restore<'a> {
    cluster: &'a Cluster,
    streams: &'a dyn ResourceStreams,
    config: &'a RestoreConfig,
    target: Target,
    /// Which PersistentVolumes are there.
    volumes: Mutex<HashMap<String, bool>>,
    ledger: Ledger<'a>,
    kinds: Vec<KindInfo>,
}

impl Restore<'_> {
    async fn rounds(&mut self) -> Result<(), RestoreError> {
        let mut patience = 0;
        loop {
            let first = self.ledger.report.rounds == 0;
            let before = self.ledger.left();
            self.ledger.report.rounds += 1;
            for place in 0..self.kinds.len() {
                if first || self.ledger.missing.contains_key(&place) {
                    self.kind(place, first).await?;
                }
            }
            let left = self.ledger.left();
            if left == 0 {
                return Ok(());
            }
            if first || left < before {
                patience = 0;
            } else if patience == self.config.patience {
                self.ledger.give_up();
                return Ok(());
            } else {
                patience += 1;
                tokio::time::sleep(Duration::from_secs(1 << (patience - 1).min(5))).await;
            }
            self.target = Target::read(self.cluster).await?;
        }
    }

    /// One round over one kind; after definitions, what they define is waited for.
    async fn kind(&mut self, place: usize, first: bool) -> Result<(), RestoreError> {
        let kind = self.kinds[place].clone();
        let before = self.ledger.report.created;
        self.create(place, &kind, first).await?;
        let created = self.ledger.report.created > before;
        if created && kind.resource() == "customresourcedefinitions.apiextensions.k8s.io" {
            self.definitions().await?;
        }
        Ok(())
    }

    async fn create(&mut self, place: usize, kind: &KindInfo, first: bool) -> Result<(), RestoreError> {
        let resource = kind.resource();
        let pieces = self.streams.open(kind).await;
        let pieces = pieces.map_err(|source| RestoreError::Stream { resource: resource.clone(), source })?;
        let wanted = (!first).then(|| self.ledger.missing.remove(&place).unwrap_or_default());
        let creator = Creator { cluster: self.cluster, config: self.config, target: &self.target, kind };
        let (volumes, cluster) = (&self.volumes, self.cluster);
        let attempts = lines(&resource, pieces).map(|line| {
            let (creator, wanted, resource) = (&creator, &wanted, &resource);
            async move {
                let (number, line) = line?;
                let damaged =
                    |problem| RestoreError::Damaged { resource: resource.clone(), line: number, problem };
                let Some((named, object)) = creator.object(&line).map_err(damaged)? else { return Ok(None) };
                if wanted.as_ref().is_some_and(|wanted| !wanted.contains_key(&key(&named))) {
                    return Ok(None);
                }
                let there = async |volume: &str| volume_there(cluster, volumes, volume).await;
                creator.create(named, object, there).await.map(Some)
            }
        });
        let mut attempts = std::pin::pin!(attempts.buffer_unordered(self.config.parallel.max(1)));
        while let Some(attempt) = attempts.next().await {
            if let Some(attempt) = attempt? {
                self.ledger.settle(place, attempt);
            }
        }
        Ok(())
    }

    /// Waits until the kinds of this backup that only new definitions can bring are served. What
    /// does not come in time is left to the rounds.
    async fn definitions(&mut self) -> Result<(), RestoreError> {
        let waits = async {
            loop {
                let target = Target::read(self.cluster).await?;
                let missing =
                    self.kinds.iter().any(|kind| kind.group.contains('.') && target.find(kind).is_none());
                self.target = target;
                if !missing {
                    return Ok(());
                }
                tokio::time::sleep(ASK).await;
            }
        };
        match tokio::time::timeout(DEFINITIONS, waits).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    /// Sets the owners of what was created.
    async fn relink(&mut self) -> Result<(), RestoreError> {
        for (place, kind) in self.kinds.iter().enumerate() {
            let Some(target) = self.target.find(kind).filter(|_| self.ledger.owned[place]) else { continue };
            let resource = kind.resource();
            let pieces = self.streams.open(kind).await;
            let pieces =
                pieces.map_err(|source| RestoreError::Stream { resource: resource.clone(), source })?;
            let (cluster, uids) = (self.cluster, &self.ledger.uids);
            let patches = lines(&resource, pieces)
                .map(|line| async move { relink(cluster, target, &line?.1, uids).await })
                .buffer_unordered(self.config.parallel.max(1));
            let mut patches = std::pin::pin!(patches);
            while let Some(done) = patches.next().await {
                let done = done?;
                self.ledger.report.relinked += done.relinked;
                self.ledger.report.owners_lost += done.owners_lost;
            }
        }
        Ok(())
    }
}

/// Whether a PersistentVolume is there. Asked once for each.
async fn volume_there(
    cluster: &Cluster,
    known: &Mutex<HashMap<String, bool>>,
    volume: &str,
) -> Result<bool, RestoreError> {
    if let Some(there) = known.lock().await.get(volume) {
        return Ok(*there);
    }
    let Some(name) = segment(volume) else { return Ok(false) };
    let there = match cluster.get(&format!("/api/v1/persistentvolumes/{name}"), "", 16 << 20).await {
        Ok(_) => true,
        Err(error) if error.status().is_some() => false,
        Err(error) => return Err(error.into()),
    };
    known.lock().await.insert(volume.to_owned(), there);
    Ok(there)
}

/// What identifies an object between rounds.
type Key = [u8; 16];

fn key(object: &ObjectRef) -> Key {
    let mut hasher = blake3::Hasher::new();
    for part in [&object.resource, &object.namespace, &object.name] {
        hasher.update(&(part.len() as u64).to_le_bytes());
        hasher.update(part.as_bytes());
    }
    let mut key = [0; 16];
    key.copy_from_slice(&hasher.finalize().as_bytes()[..16]);
    key
}

/// What became of the objects so far.
struct Ledger<'a> {
    told: OutcomeSink<'a>,
    meter: &'a Meter,
    report: RestoreReport,
    uids: Uids,
    /// Objects to try again, by place of their kind: what the last try said. No entry is empty.
    missing: HashMap<usize, HashMap<Key, (ObjectRef, Outcome)>>,
    /// Which kinds have objects whose owners are still to be set.
    owned: Vec<bool>,
}

impl Ledger<'_> {
    fn left(&self) -> usize {
        self.missing.values().map(HashMap::len).sum()
    }

    /// Takes in what became of one object: it is settled, or waits for another round.
    fn settle(&mut self, place: usize, attempt: Attempt) {
        let Attempt { object, old_uid, new_uid, owned, ours, outcome, again, warnings } = attempt;
        for warning in warnings {
            if self.report.warnings.len() < WARNINGS {
                self.report.warnings.insert(warning);
            }
        }
        if again {
            self.missing.entry(place).or_default().insert(key(&object), (object, outcome));
            return;
        }
        self.owned[place] |= ours && owned;
        self.uids.learn(&old_uid, &new_uid, ours);
        self.count(object, outcome);
    }

    /// Nothing more goes: what is missing is settled as it was left.
    fn give_up(&mut self) {
        for (object, outcome) in
            std::mem::take(&mut self.missing).into_values().flat_map(HashMap::into_values)
        {
            self.count(object, outcome);
        }
    }

    fn count(&mut self, object: ObjectRef, outcome: Outcome) {
        (self.told)(&object, &outcome);
        self.meter.add_done(1);
        let report = &mut self.report;
        match outcome {
            Outcome::Created => report.created += 1,
            Outcome::Existed => report.existed += 1,
            Outcome::Derived(why) => *report.derived.entry(why).or_default() += 1,
            Outcome::Refused(gate) => *report.refused.entry(gate).or_default() += 1,
            Outcome::Unserved => *report.unserved.entry(object.resource).or_default() += 1,
            Outcome::Failed(refusal) => {
                report.failed += 1;
                if report.failures.len() < FAILURES {
                    report.failures.push((object, refusal));
                }
            }
        }
    }
}
