//! Creates objects in rounds until all exist or no round makes progress, then does the second writes.

mod attempt;
mod create;
pub(crate) mod dropped_fields;
pub(crate) mod dry_run;
mod existing;
mod outcome_tracker;
pub(crate) mod restore_state;
pub(crate) mod second_write;
pub(crate) mod webhooks;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use futures::StreamExt as _;

use super::{
    ClusterState, DecidedObject, Decider, LiveOwners, MemoryBudget, ObjectDecision, ObjectKey, ObjectRef,
    Outcome, OutcomeSink, PARALLEL, Refusal, RefusalCause, Requirements, ResourceStreams, RestoreConfig,
    RestoreError, RestoreReport, SelectionUsage, ServedKinds, Warning, find_requirements, get_object,
    is_merged, is_shared_namespace, open_lines, order, path_segment, text, with_budget,
};
use crate::kubernetes::{Cluster, KindInfo};
use crate::plan::SideEffect;
use crate::report::event::Meter;
use attempt::RestoreAttempt;
use create::{CircuitBreaker, Creator};
use outcome_tracker::{MAX_FAILURES, OutcomeTracker};
use restore_state::RestoreState;
use second_write::{SecondWriteResult, SecondWriter};

/// Interval at which the cluster is polled while waiting.
const POLL_INTERVAL: Duration = Duration::from_millis(250);
/// The longest pause between rounds, in seconds.
const MAX_PAUSE_SECONDS: u64 = 32;

/// Creates the stored resources in the cluster, then sets their owners. Calls `on_outcome` once for each
/// object; the meter counts objects with a final outcome. Fails with [`RestoreError`] if the cluster or the
/// backup can no longer be read. An object that cannot be created is not an error; it is in the report.
pub async fn restore_resources(
    cluster: &Cluster,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    on_outcome: OutcomeSink<'_>,
    meter: &Meter,
) -> Result<RestoreReport, RestoreError> {
    let cluster_state = ClusterState::read(cluster).await?;
    let mut requirements = find_requirements(cluster, &cluster_state, streams, config).await?;
    let kinds = order::selected_kinds(streams, config, |kind| requirements.has_kind(kind));
    let foreign = cluster_state.is_foreign(config);
    let mut tracker = OutcomeTracker::new(on_outcome, meter, kinds.len());
    tracker.report.foreign = foreign;
    tracker.report.has_release_choice = config.release.is_some();
    tracker.report.has_existing_choice = config.existing.is_some();
    let can_select = !foreign || config.is_released(SideEffect::Volumes);
    let mut restore = RestoreRun {
        cluster,
        streams,
        config,
        cluster_state,
        foreign,
        shared: RestoreState::new(requirements.take_volumes(), can_select),
        requirements,
        claimed_names: HashMap::new(),
        created_definitions: HashSet::new(),
        tracker,
        kinds,
        usage: SelectionUsage::new(config),
    };
    for last in [false, true] {
        restore.rounds(last).await?;
        restore.second_writes(last).await?;
    }
    restore.tracker.report.absent = restore.usage.unmatched();
    Ok(restore.tracker.report)
}

struct RestoreRun<'a> {
    cluster: &'a Cluster,
    streams: &'a dyn ResourceStreams,
    config: &'a RestoreConfig,
    cluster_state: ClusterState,
    foreign: bool,
    shared: RestoreState,
    /// If namespaces are mapped: the line that took each name.
    claimed_names: HashMap<ObjectKey, u64>,
    /// Resources whose definitions were created by this restore.
    created_definitions: HashSet<String>,
    tracker: OutcomeTracker<'a>,
    kinds: Vec<KindInfo>,
    usage: SelectionUsage<'a>,
    requirements: Requirements,
}

impl RestoreRun<'_> {
    async fn rounds(&mut self, last: bool) -> Result<(), RestoreError> {
        let indexes: Vec<usize> =
            (0..self.kinds.len()).filter(|index| order::is_last(&self.kinds[*index]) == last).collect();
        let begun = Instant::now();
        let (mut idle_rounds, mut first) = (0, true);
        loop {
            let before = self.tracker.missing_count();
            if !indexes.is_empty() {
                self.tracker.report.rounds += 1;
            }
            for index in &indexes {
                if first || self.tracker.missing.contains_key(index) {
                    self.run_kind(*index, first).await?;
                }
            }
            let left = self.tracker.missing_count();
            if left == 0 {
                return Ok(());
            }
            let is_idle = !std::mem::take(&mut first) && left >= before;
            if !is_idle {
                idle_rounds = 0;
            } else if self.tracker.has_refusal(|refusal| refusal.cause == RefusalCause::NoBackend)
                && begun.elapsed() < self.config.waits.backends
            {
                tokio::time::sleep(POLL_INTERVAL * 4).await;
            } else if idle_rounds == self.config.waits.max_idle_rounds || !self.may_resolve_itself() {
                self.tracker.finalize_missing();
                return Ok(());
            } else {
                idle_rounds += 1;
                let pause = (1 << (idle_rounds - 1).min(5)).min(MAX_PAUSE_SECONDS);
                tokio::time::sleep(Duration::from_secs(pause)).await;
            }
            self.cluster_state.target = ServedKinds::read(self.cluster).await?;
        }
    }

    /// True if time alone may resolve something that is missing. If the cluster runs pods, an operator may
    /// still create its definitions.
    fn may_resolve_itself(&self) -> bool {
        self.tracker.has_refusal(|refusal| refusal.cause.is_transient())
            || (self.cluster_state.has_nodes && self.tracker.has_unserved())
    }

    /// Runs one round over one kind. After definitions, waits until the kinds that they define are served.
    async fn run_kind(&mut self, index: usize, first: bool) -> Result<(), RestoreError> {
        let kind = self.kinds[index].clone();
        let before = self.tracker.report.created;
        self.create_kind(index, &kind, first).await?;
        if first && kind.resource() == "namespaces" {
            self.await_namespaces(index, &kind).await?;
        }
        if self.tracker.report.created > before && order::is_definition(&kind) {
            self.await_definitions().await?;
        }
        Ok(())
    }

    async fn create_kind(&mut self, index: usize, kind: &KindInfo, first: bool) -> Result<(), RestoreError> {
        let lines = open_lines(self.streams, kind).await?;
        let retried = (!first).then(|| self.tracker.missing.remove(&index).unwrap_or_default());
        let only_objects = self.config.only_objects();
        let existing = self.cluster_state.existing_objects(self.cluster, kind, only_objects).await?;
        let (breaker, budget) = (CircuitBreaker::default(), MemoryBudget::default());
        let (target, usage) = (&self.cluster_state.target, &self.usage);
        let (config, foreign, requirements) = (self.config, self.foreign, &self.requirements);
        let decider = Decider { config, target, kind, foreign, usage, requirements };
        let creator = Creator {
            cluster: self.cluster,
            config: self.config,
            shared: &self.shared,
            breaker: &breaker,
            existing: &existing,
            foreign: self.foreign,
            backends: self.cluster_state.has_nodes,
        };
        let mapped = !self.config.mapping.namespaces.is_empty();
        let names = &mut self.claimed_names;
        // Names are assigned in line order, before objects are processed in parallel.
        let claimed = with_budget(lines, &budget).map(|line| {
            let (line, bytes, permit) = line?;
            let damaged = |problem| RestoreError::damaged(kind, line, problem);
            let Some(decided) = decider.decide(&bytes).map_err(damaged)? else { return Ok(None) };
            let key = decided.object.key();
            if retried.as_ref().is_some_and(|retried| !retried.contains_key(&key)) {
                return Ok(None);
            }
            let claimed = if mapped { claim_name(names, line, decided) } else { Some((decided, None)) };
            Ok::<_, RestoreError>(claimed.map(|(decided, collides)| (decided, collides, permit)))
        });
        let attempts = claimed.map(|claimed| {
            let creator = &creator;
            async move {
                // The permit is released when the object is done.
                let Some((decided, collides, _permit)) = claimed? else { return Ok::<_, RestoreError>(None) };
                attempt(creator, decided, collides).await.map(Some)
            }
        });
        let mut attempts = std::pin::pin!(attempts.buffer_unordered(PARALLEL));
        while let Some(attempt) = attempts.next().await {
            let Some(attempt) = attempt? else { continue };
            if order::is_definition(kind) && attempt.outcome == Outcome::Created {
                self.created_definitions.insert(attempt.object.name.clone());
            }
            self.tracker.record(index, attempt);
        }
        Ok(())
    }

    /// Waits once, with one deadline for all, until namespaces that are being deleted are gone. Then creates
    /// them.
    async fn await_namespaces(&mut self, index: usize, kind: &KindInfo) -> Result<(), RestoreError> {
        let ending = |(_, (object, outcome)): (&ObjectKey, &(ObjectRef, Outcome))| {
            matches!(outcome, Outcome::Failed(refusal) if refusal.cause == RefusalCause::Terminating)
                .then(|| object.name.clone())
        };
        let names: HashSet<String> =
            self.tracker.missing.get(&index).into_iter().flatten().filter_map(ending).collect();
        if names.is_empty() {
            return Ok(());
        }
        let begun = Instant::now();
        let mut left = names.clone();
        while !left.is_empty() && begun.elapsed() < self.config.waits.terminating {
            for name in left.clone() {
                let path = path_segment(&name).map(|name| format!("/api/v1/namespaces/{name}"));
                let existing = match path {
                    Some(path) => get_object(self.cluster, &path).await?.ok(),
                    None => None,
                };
                if existing.is_none_or(|found| found.pointer("/metadata/deletionTimestamp").is_none()) {
                    left.remove(&name);
                }
            }
            if !left.is_empty() {
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        }
        self.shared.add_terminating(&left);
        self.create_kind(index, kind, false).await?;
        self.tracker.finalize_missing_of(index, |object| left.contains(&object.name));
        Ok(())
    }

    /// Waits until the kinds that this backup's new definitions bring are served. Kinds that are late are
    /// left to later rounds.
    async fn await_definitions(&mut self) -> Result<(), RestoreError> {
        let waits = async {
            loop {
                let target = ServedKinds::read(self.cluster).await?;
                let comes = |kind: &KindInfo| self.created_definitions.contains(&kind.resource());
                let missing = self.kinds.iter().any(|kind| comes(kind) && target.find(kind).is_none());
                self.cluster_state.target = target;
                if !missing {
                    return Ok(());
                }
                tokio::time::sleep(POLL_INTERVAL).await;
            }
        };
        tokio::time::timeout(self.config.waits.definitions, waits).await.unwrap_or(Ok(()))
    }

    /// Sets owners, field managers and status of the objects that were created.
    async fn second_writes(&mut self, last: bool) -> Result<(), RestoreError> {
        let live_owners = LiveOwners::default();
        for (index, kind) in self.kinds.iter().enumerate() {
            if order::is_last(kind) != last || !self.tracker.unfinished[index] {
                continue;
            }
            let (target, usage) = (&self.cluster_state.target, &self.usage);
            let (config, foreign, requirements) = (self.config, self.foreign, &self.requirements);
            let decider = Decider { config, target, kind, foreign, usage, requirements };
            let lines = open_lines(self.streams, kind).await?;
            let writer = SecondWriter {
                cluster: self.cluster,
                config: self.config,
                target: &self.cluster_state.target,
                uids: &self.tracker.uids,
                live_owners: &live_owners,
            };
            let budget = MemoryBudget::default();
            let seconds = with_budget(lines, &budget)
                .map(|line| {
                    let (decider, writer) = (&decider, &writer);
                    async move {
                        let (_, line, _permit) = line?;
                        let nothing = Ok::<_, RestoreError>(SecondWriteResult::default());
                        let Ok(stored) = serde_json::from_slice::<serde_json::Value>(&line) else {
                            return nothing;
                        };
                        let pending = writer.uids.pending(text(&stored, "/metadata/uid"));
                        if !pending.any() {
                            return nothing;
                        }
                        let Ok(Some(decided)) = decider.decide(&line) else { return nothing };
                        let ObjectDecision::Create(prepared) = decided.decision else { return nothing };
                        writer.write(&stored, pending, &decided.object, &prepared.kind).await
                    }
                })
                .buffer_unordered(PARALLEL);
            let mut seconds = std::pin::pin!(seconds);
            let report = &mut self.tracker.report;
            while let Some(done) = seconds.next().await {
                let done = done?;
                report.relinked += u64::from(done.relinked);
                report.managed += u64::from(done.managed);
                report.status += u64::from(done.status);
                report.owners_lost += done.owners_lost;
                if report.unfinished.len() < MAX_FAILURES {
                    report.unfinished.extend(done.refused);
                }
            }
        }
        Ok(())
    }
}

/// Claims the object's name in the target. Returns none if an earlier line is the same namespace; with the
/// object's old namespace if the object of an earlier line has its name.
fn claim_name(
    names: &mut HashMap<ObjectKey, u64>,
    line: u64,
    mut decided: DecidedObject,
) -> Option<(DecidedObject, Option<String>)> {
    let is_created = matches!(decided.decision, ObjectDecision::Create(_) | ObjectDecision::Unserved(_));
    let is_taken = is_created && *names.entry(decided.object.key()).or_insert(line) != line;
    if is_taken && is_shared_namespace(&decided.object) {
        return None;
    }
    if !is_taken || is_merged(&decided.object) {
        return Some((decided, None));
    }
    decided.decision = ObjectDecision::Invalid(Refusal::not_sent("Collides", ""));
    let from = decided.from.clone();
    Some((decided, Some(from)))
}

/// Restores one object. `collides`: the old namespace of an object whose name is taken.
async fn attempt(
    creator: &Creator<'_>,
    decided: DecidedObject,
    collides: Option<String>,
) -> Result<RestoreAttempt, RestoreError> {
    let helm = decided.helm_moved.then(|| decided.object.to_string());
    let mut attempt = creator.restore(decided).await?;
    if let Some(from) = collides {
        attempt.outcome = Outcome::Collides(from);
    }
    attempt.warnings.extend(helm.map(|object| {
        Warning::Own(format!(
            "{object}: the release names its old namespace inside: helm cannot manage it here"
        ))
    }));
    Ok(attempt)
}
