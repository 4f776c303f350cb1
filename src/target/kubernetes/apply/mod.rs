//! Creates objects in rounds until all exist or no round makes progress, then does the second writes.

mod create;
mod given_up;
pub(crate) mod live_owners;
pub(crate) mod ownership;
mod restore_state;
mod results;
pub(crate) mod second_write;
pub(crate) mod webhooks;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use crate::kubernetes::{Cluster, KindInfo};
use crate::report::event::Meter;
use crate::runtime::lock;
use crate::target::kubernetes::apply::create::{Breaker, Creator};
use crate::target::kubernetes::apply::live_owners::Owners;
use crate::target::kubernetes::apply::restore_state::RestoreState;
use crate::target::kubernetes::apply::results::Ledger;
use crate::target::kubernetes::apply::second_write::{Finisher, Second};
use crate::target::kubernetes::cluster_state::ClusterState;
use crate::target::kubernetes::judge::{Judge, Verdict, is_one, merges};
use crate::target::kubernetes::lines::{Room, lines, open, paced};
use crate::target::kubernetes::object::{Key, ObjectRef, text};
use crate::target::kubernetes::outcome::{Obstacle, Outcome, Refusal, RestoreReport};
use crate::target::kubernetes::selection_usage::SelectionUsage;
use crate::target::kubernetes::served_kinds::{Target, segment};
use crate::target::kubernetes::warning::Warning;
use crate::target::kubernetes::{OutcomeSink, ResourceStreams, RestoreConfig, RestoreError, order};

/// Interval at which the cluster is polled while waiting.
const ASK: Duration = Duration::from_millis(250);
/// The longest pause between rounds, in seconds.
const PAUSE: u64 = 32;

/// Creates the stored resources in the cluster, then sets their owners. `told` is called once for each
/// object; the meter counts objects with a final outcome.
///
/// # Errors
/// [`RestoreError`] when the cluster or the backup can no longer be read. An object that cannot be created is
/// not an error; it is in the report.
pub async fn restore_resources(
    cluster: &Cluster,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    told: OutcomeSink<'_>,
    meter: &Meter,
) -> Result<RestoreReport, RestoreError> {
    let kinds = order::selected(streams, config);
    let ground = ClusterState::read(cluster).await?;
    let foreign = ground.is_foreign(config);
    let mut ledger = Ledger::new(told, meter, kinds.len());
    ledger.report.foreign = foreign;
    ledger.report.release_said = config.release.is_some();
    ledger.report.existing_said = config.existing.is_some();
    let mut restore = Restore {
        cluster,
        streams,
        config,
        ground,
        foreign,
        known: RestoreState::default(),
        names: HashMap::new(),
        defined: HashSet::new(),
        ledger,
        kinds,
        fits: SelectionUsage::new(config),
    };
    for last in [false, true] {
        restore.rounds(last).await?;
        restore.finish(last).await?;
    }
    restore.ledger.report.absent = restore.fits.absent();
    Ok(restore.ledger.report)
}

struct Restore<'a> {
    cluster: &'a Cluster,
    streams: &'a dyn ResourceStreams,
    config: &'a RestoreConfig,
    ground: ClusterState,
    foreign: bool,
    known: RestoreState,
    /// If namespaces are mapped: the line that took each name.
    names: HashMap<Key, u64>,
    /// Resources whose definitions were created by this restore.
    defined: HashSet<String>,
    ledger: Ledger<'a>,
    kinds: Vec<KindInfo>,
    fits: SelectionUsage<'a>,
}

impl Restore<'_> {
    async fn rounds(&mut self, last: bool) -> Result<(), RestoreError> {
        let places: Vec<usize> =
            (0..self.kinds.len()).filter(|place| order::is_last(&self.kinds[*place]) == last).collect();
        let begun = Instant::now();
        let (mut patience, mut first) = (0, true);
        loop {
            let before = self.ledger.left();
            if !places.is_empty() {
                self.ledger.report.rounds += 1;
            }
            for place in &places {
                if first || self.ledger.missing.contains_key(place) {
                    self.kind(*place, first).await?;
                }
            }
            let left = self.ledger.left();
            if left == 0 {
                return Ok(());
            }
            let stands = !std::mem::take(&mut first) && left >= before;
            if !stands {
                patience = 0;
            } else if self.ledger.waits_for(|refusal| refusal.obstacle == Obstacle::NoBackend)
                && begun.elapsed() < self.config.waits.backends
            {
                tokio::time::sleep(ASK * 4).await;
            } else if patience == self.config.patience || !self.may_pass() {
                self.ledger.give_up();
                return Ok(());
            } else {
                patience += 1;
                tokio::time::sleep(Duration::from_secs((1 << (patience - 1).min(5)).min(PAUSE))).await;
            }
            self.ground.target = Target::read(self.cluster).await?;
        }
    }

    /// True if time alone may resolve something that is missing. If the cluster runs pods, an operator may
    /// still create its definitions.
    fn may_pass(&self) -> bool {
        self.ledger.waits_for(|refusal| refusal.obstacle.passes())
            || (self.ground.has_nodes && self.ledger.waits_for_kinds())
    }

    /// Runs one round over one kind. After definitions, waits until the kinds that they define are served.
    async fn kind(&mut self, place: usize, first: bool) -> Result<(), RestoreError> {
        let kind = self.kinds[place].clone();
        let before = self.ledger.report.created;
        self.create(place, &kind, first).await?;
        if first && kind.resource() == "namespaces" {
            self.terminating(place, &kind).await?;
        }
        if self.ledger.report.created > before && order::is_definition(&kind) {
            self.definitions().await?;
        }
        Ok(())
    }

    async fn create(&mut self, place: usize, kind: &KindInfo, first: bool) -> Result<(), RestoreError> {
        let resource = kind.resource();
        let pieces = open(self.streams, kind).await?;
        let wanted = (!first).then(|| self.ledger.missing.remove(&place).unwrap_or_default());
        let present = self.ground.present(self.cluster, kind, self.config.only_objects()).await?;
        let (breaker, room) = (Breaker::default(), Room::default());
        let (target, fits) = (&self.ground.target, &self.fits);
        let judge = Judge { config: self.config, target, kind, foreign: self.foreign, fits };
        let creator = Creator {
            cluster: self.cluster,
            config: self.config,
            known: &self.known,
            breaker: &breaker,
            present: &present,
            foreign: self.foreign,
            backends: self.ground.has_nodes,
        };
        let mapped = !self.config.mapping.namespaces.is_empty();
        let names = &mut self.names;
        // Names are assigned in line order, before objects are processed in parallel.
        let judged = paced(lines(&resource, pieces), &room).map(|line| {
            let (number, line, permit) = line?;
            let damaged =
                |problem| RestoreError::Damaged { resource: resource.clone(), line: number, problem };
            let Some(mut judged) = judge.judge(&line).map_err(damaged)? else { return Ok(None) };
            let key = judged.object.key();
            if wanted.as_ref().is_some_and(|wanted| !wanted.contains_key(&key)) {
                return Ok(None);
            }
            let comes = matches!(judged.verdict, Verdict::Create(_) | Verdict::Unserved);
            let taken = mapped && comes && *names.entry(key).or_insert(number) != number;
            if taken && is_one(&judged.object) {
                return Ok(None);
            }
            let collides = (taken && !merges(&judged.object)).then(|| judged.from.clone());
            if collides.is_some() {
                judged.verdict = Verdict::Unfit(Refusal::unsent("Collides", String::new()));
            }
            Ok::<_, RestoreError>(Some((judged, collides, permit)))
        });
        let attempts = judged.map(|judged| {
            let creator = &creator;
            async move {
                // The permit is released when the object is done.
                let Some((judged, collides, _permit)) = judged? else { return Ok::<_, RestoreError>(None) };
                let helm = judged.helm_moved.then(|| judged.object.to_string());
                let mut attempt = creator.bring(judged).await?;
                if let Some(from) = collides {
                    attempt.outcome = Outcome::Collides(from);
                }
                attempt.warnings.extend(helm.map(|object| {
                    Warning::Own(format!(
                        "{object}: the release names its old namespace inside: helm cannot manage it here"
                    ))
                }));
                Ok(Some(attempt))
            }
        });
        let mut attempts = std::pin::pin!(attempts.buffer_unordered(self.config.parallel.max(1)));
        while let Some(attempt) = attempts.next().await {
            let Some(attempt) = attempt? else { continue };
            if order::is_definition(kind) && attempt.outcome == Outcome::Created {
                self.defined.insert(attempt.object.name.clone());
            }
            self.ledger.settle(place, attempt);
        }
        Ok(())
    }

    /// Waits once, with one deadline for all, until namespaces that are being deleted are gone. Then creates
    /// them.
    async fn terminating(&mut self, place: usize, kind: &KindInfo) -> Result<(), RestoreError> {
        let ending = |(_, (object, outcome)): (&Key, &(ObjectRef, Outcome))| {
            matches!(outcome, Outcome::Failed(refusal) if refusal.obstacle == Obstacle::Terminating)
                .then(|| object.name.clone())
        };
        let names: HashSet<String> =
            self.ledger.missing.get(&place).into_iter().flatten().filter_map(ending).collect();
        if names.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut left = names.clone();
        while !left.is_empty() && begun.elapsed() < self.config.waits.terminating {
            for name in left.clone() {
                let path = segment(&name).map(|name| format!("/api/v1/namespaces/{name}"));
                let there = match path {
                    Some(path) => {
                        crate::target::kubernetes::cluster_state::look(self.cluster, &path).await?.ok()
                    }
                    None => None,
                };
                if there.is_none_or(|found| found.pointer("/metadata/deletionTimestamp").is_none()) {
                    left.remove(&name);
                }
            }
            if !left.is_empty() {
                tokio::time::sleep(ASK).await;
            }
        }
        lock(&self.known.stuck).extend(left.clone());
        self.create(place, kind, false).await?;
        self.ledger.give_up_on(place, |object| left.contains(&object.name));
        Ok(())
    }

    /// Waits until the kinds that this backup's new definitions bring are served. Kinds that are late are
    /// left to later rounds.
    async fn definitions(&mut self) -> Result<(), RestoreError> {
        let waits = async {
            loop {
                let target = Target::read(self.cluster).await?;
                let comes = |kind: &KindInfo| self.defined.contains(&kind.resource());
                let missing = self.kinds.iter().any(|kind| comes(kind) && target.find(kind).is_none());
                self.ground.target = target;
                if !missing {
                    return Ok(());
                }
                tokio::time::sleep(ASK).await;
            }
        };
        match tokio::time::timeout(self.config.waits.definitions, waits).await {
            Ok(result) => result,
            Err(_) => Ok(()),
        }
    }

    /// Sets owners, field managers and status of the objects that were created.
    async fn finish(&mut self, last: bool) -> Result<(), RestoreError> {
        let others = Owners::default();
        for (place, kind) in self.kinds.iter().enumerate() {
            if order::is_last(kind) != last || !self.ledger.unfinished[place] {
                continue;
            }
            let (target, fits) = (&self.ground.target, &self.fits);
            let judge = Judge { config: self.config, target, kind, foreign: self.foreign, fits };
            let resource = kind.resource();
            let pieces = open(self.streams, kind).await?;
            let finisher = Finisher {
                cluster: self.cluster,
                config: self.config,
                target: &self.ground.target,
                uids: &self.ledger.uids,
                others: &others,
            };
            let room = Room::default();
            let seconds = paced(lines(&resource, pieces), &room)
                .map(|line| {
                    let (judge, finisher) = (&judge, &finisher);
                    async move {
                        let (_, line, _permit) = line?;
                        let nothing = Ok::<_, RestoreError>(Second::default());
                        let Ok(stored) = serde_json::from_slice::<serde_json::Value>(&line) else {
                            return nothing;
                        };
                        let owes = finisher.uids.owes(text(&stored, "/metadata/uid"));
                        if !owes.any() {
                            return nothing;
                        }
                        let Ok(Some(judged)) = judge.judge(&line) else { return nothing };
                        let Verdict::Create(ready) = judged.verdict else { return nothing };
                        finisher.finish(&stored, owes, &judged.object, &ready.kind).await
                    }
                })
                .buffer_unordered(self.config.parallel.max(1));
            let mut seconds = std::pin::pin!(seconds);
            let report = &mut self.ledger.report;
            while let Some(done) = seconds.next().await {
                let done = done?;
                report.relinked += u64::from(done.relinked);
                report.managed += u64::from(done.managed);
                report.status += u64::from(done.status);
                report.owners_lost += done.owners_lost;
                if report.unfinished.len() < crate::target::kubernetes::apply::results::FAILURES {
                    report.unfinished.extend(done.refused);
                }
            }
        }
        Ok(())
    }
}
