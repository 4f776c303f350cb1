//! Makes the plan: reads the streams once and decides for every object.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use futures::StreamExt as _;
use http::Method;
use serde_json::Value;

use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::report::event::Meter;
use crate::target::kubernetes::apply::live_owners::Owners;
use crate::target::kubernetes::apply::ownership::{PendingWrites, SecondWrite, dry, meet};
use crate::target::kubernetes::apply::second_write::Uids;
use crate::target::kubernetes::apply::webhooks::{DeadHooks, backends};
use crate::target::kubernetes::cluster_state::{ClusterState, Present};
use crate::target::kubernetes::config::RestoreConfig;
use crate::target::kubernetes::judge::{
    ExistingAction, Judge, Judged, Ready, Verdict, is_one, is_there, merges, suspended,
};
use crate::target::kubernetes::lines::{Room, lines, open, paced};
use crate::target::kubernetes::object::{Key, Owner};
use crate::target::kubernetes::outcome::{Obstacle, Refusal};
use crate::target::kubernetes::plan::totals::Sums;
use crate::target::kubernetes::plan::{Action, Conflict, Decision, Grade, Plan, Wait};
use crate::target::kubernetes::selection_usage::SelectionUsage;
use crate::target::kubernetes::{ResourceStreams, RestoreError, order};

/// The largest number of owners that are looked up in the cluster.
const ELSEWHERE: usize = 10_000;

/// Decides for every stored object what a restore with this config does, without writing. `told` is called
/// once for each object, in the order of the restore. With `dry_run`, the server is asked as well about
/// objects that can be created now.
///
/// # Errors
/// [`RestoreError`] when the cluster or the backup cannot be read.
pub async fn plan_resources(
    cluster: &Cluster,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    dry_run: bool,
    told: &mut (dyn FnMut(&Decision) + Send),
    meter: &Meter,
) -> Result<Plan, RestoreError> {
    let ground = ClusterState::read(cluster).await?;
    let foreign = ground.is_foreign(config);
    let hooks = DeadHooks::read(cluster).await?;
    let kinds = order::selected(streams, config);
    let mut sums = Sums::default();
    sums.mix(&(foreign, config.status.iter().map(crate::plan::Glob::as_str).collect::<Vec<_>>()));
    let fits = SelectionUsage::new(config);
    let brought = definitions(streams, &kinds, config, &ground, foreign, &fits).await?;
    let mut survey = PlanPass {
        cluster,
        config,
        ground: &ground,
        hooks,
        foreign,
        fits: &fits,
        dry_run,
        brought,
        counted: Counted::default(),
        namespaces: HashSet::new(),
        blind: AtomicBool::new(false),
    };
    for kind in &kinds {
        survey
            .kind(streams, kind, &mut |decision| {
                sums.add(decision);
                told(decision);
                meter.add_done(1);
            })
            .await?;
    }
    let owners_lost = survey.owners_lost().await?;
    let Counted { writes, second_writes, finished, bytes, helm_moved, .. } = survey.counted;
    let summed = sums.finish();
    let mut notes = summed.notes;
    if survey.blind.load(Ordering::Relaxed) {
        notes
            .push("not all of the cluster may be read: what is there already is found out on the way".into());
    }
    if finished > 0 {
        notes.push(format!(
            "{finished} of those that are there lack owners, managers of fields or a status that an earlier \
             restore left out: they get them, where that can be"
        ));
    }
    if helm_moved > 0 {
        notes.push(format!(
            "{helm_moved} Helm releases name their old namespace inside: helm cannot manage the copies"
        ));
    }
    Ok(Plan {
        hash: summed.hash,
        foreign,
        clusters: (config.cluster_uid.clone(), ground.uid.clone()),
        sums: summed.sums,
        changes: summed.changes,
        waits: summed.waits,
        grades: summed.grades,
        refused: summed.refused,
        writes,
        second_writes,
        bytes,
        owners_lost,
        absent: fits.absent(),
        notes,
    })
}

/// Returns the resources whose definitions this restore creates.
async fn definitions(
    streams: &dyn ResourceStreams,
    kinds: &[KindInfo],
    config: &RestoreConfig,
    ground: &ClusterState,
    foreign: bool,
    fits: &SelectionUsage<'_>,
) -> Result<HashSet<String>, RestoreError> {
    let mut brought = HashSet::new();
    for kind in kinds.iter().filter(|kind| order::is_definition(kind)) {
        let judge = Judge { config, target: &ground.target, kind, foreign, fits };
        let resource = kind.resource();
        let pieces = open(streams, kind).await?;
        let mut lines = std::pin::pin!(lines(&resource, pieces));
        while let Some(line) = lines.next().await {
            if let Ok(Some(Judged { object, verdict: Verdict::Create(_), .. })) = judge.judge(&line?.1) {
                brought.insert(object.name);
            }
        }
    }
    Ok(brought)
}

/// Counts over all decisions so far.
#[derive(Default)]
struct Counted {
    writes: u64,
    second_writes: u64,
    /// Second writes to objects that are otherwise left unchanged.
    finished: u64,
    bytes: u64,
    helm_moved: u64,
    names: HashSet<Key>,
    /// Backup UIDs of objects that will exist.
    there: HashSet<u128>,
    /// Backup UIDs of owners, and the number of objects that name them.
    owners: HashMap<u128, u64>,
    /// Owners that may exist in the cluster, with the namespace of one object that they own.
    elsewhere: HashMap<u128, (Owner, String)>,
}

/// Data about an object that is kept for the counts after the object is dropped.
struct Facts {
    from: String,
    old_uid: u128,
    wants: SecondWrite,
    owes: PendingWrites,
    /// True if the object needs second writes only.
    alone: bool,
    helm_moved: bool,
    bytes: u64,
}

struct PlanPass<'a> {
    cluster: &'a Cluster,
    config: &'a RestoreConfig,
    ground: &'a ClusterState,
    hooks: DeadHooks,
    foreign: bool,
    fits: &'a SelectionUsage<'a>,
    dry_run: bool,
    brought: HashSet<String>,
    counted: Counted,
    /// Namespaces that this restore creates.
    namespaces: HashSet<String>,
    /// True if a part of the cluster may not be read.
    blind: AtomicBool,
}

impl PlanPass<'_> {
    async fn kind(
        &mut self,
        streams: &dyn ResourceStreams,
        kind: &KindInfo,
        told: &mut (dyn FnMut(&Decision) + Send),
    ) -> Result<(), RestoreError> {
        let resource = kind.resource();
        let (target, fits) = (&self.ground.target, self.fits);
        let judge = Judge { config: self.config, target, kind, foreign: self.foreign, fits };
        let present = self.ground.present(self.cluster, kind, self.config.only_objects()).await?;
        let pieces = open(streams, kind).await?;
        let mut counted = std::mem::take(&mut self.counted);
        let mut created = Vec::new();
        {
            let (survey, judge, present, resource) = (&*self, &judge, &present, &resource);
            let room = Room::default();
            let decided = paced(lines(resource, pieces), &room).map(|line| async move {
                let (number, line, _permit) = line?;
                let damaged =
                    |problem| RestoreError::Damaged { resource: resource.clone(), line: number, problem };
                let Some(judged) = judge.judge(&line).map_err(damaged)? else { return Ok(None) };
                survey.decide(judged, kind, present).await.map(Some)
            });
            // In order, because the hash depends on it.
            let mut decided = std::pin::pin!(decided.buffered(self.config.parallel.clamp(1, 32)));
            while let Some(one) = decided.next().await {
                let one: Result<Option<(Decision, Facts)>, RestoreError> = one;
                let Some((mut decision, facts)) = one? else { continue };
                if !self.count(&mut counted, &mut decision, &facts) {
                    continue;
                }
                if decision.object.resource == "namespaces" && decision.action == Action::Create {
                    created.push(decision.object.name.clone());
                }
                told(&decision);
            }
        }
        self.namespaces.extend(created);
        self.counted = counted;
        Ok(())
    }

    /// Counts an object. Returns false if it is a namespace that was counted before.
    fn count(&self, counted: &mut Counted, decision: &mut Decision, facts: &Facts) -> bool {
        let sent = matches!(decision.action, Action::Create | Action::Patch | Action::Replace);
        let stands = sent || matches!(decision.action, Action::Leave | Action::Conflict(Conflict::Differs));
        if stands && !counted.names.insert(decision.object.key()) && !merges(&decision.object) {
            decision.action = Action::Conflict(Conflict::Collides);
            let message = format!("that of namespace {} does not come, another has its name", facts.from);
            decision.refusal = Some(Refusal::unsent("Collides", message));
            return !is_one(&decision.object);
        }
        counted.helm_moved += u64::from(facts.helm_moved);
        if stands {
            counted.there.insert(facts.old_uid);
        }
        if sent && !facts.alone {
            counted.writes += 1;
            counted.bytes += facts.bytes;
        }
        counted.second_writes += u64::from(decision.second);
        counted.finished += u64::from(decision.second && !sent);
        let owners = if facts.owes.owners { facts.wants.owners.as_slice() } else { &[] };
        for owner in owners {
            let uid = Uids::key(&owner.uid);
            *counted.owners.entry(uid).or_default() += 1;
            if !counted.there.contains(&uid) && counted.elsewhere.len() < ELSEWHERE {
                let of = || (owner.clone(), decision.object.namespace.clone());
                counted.elsewhere.entry(uid).or_insert_with(of);
            }
        }
        true
    }

    /// Returns the number of references whose owner is neither restored nor in the cluster.
    async fn owners_lost(&self) -> Result<u64, ApiError> {
        let (counted, others) = (&self.counted, Owners::default());
        let mut lost = 0;
        for (uid, number) in counted.owners.iter().filter(|(uid, _)| !counted.there.contains(*uid)) {
            let there = match counted.elsewhere.get(uid) {
                Some((owner, namespace)) => {
                    others.uid(self.cluster, &self.ground.target, owner, namespace).await?.unwrap_or_default()
                }
                None => None,
            };
            lost += if there.is_some() { 0 } else { *number };
        }
        Ok(lost)
    }

    async fn decide(
        &self,
        judged: Judged,
        kind: &KindInfo,
        present: &Present,
    ) -> Result<(Decision, Facts), RestoreError> {
        let mut decision = Decision {
            object: judged.object,
            action: Action::Create,
            changes: judged.changes,
            waits: Vec::new(),
            grade: Grade::Offline,
            refusal: None,
            second: false,
            digest: String::new(),
        };
        let mut facts = Facts {
            from: judged.from,
            old_uid: Uids::key(&judged.old_uid),
            wants: judged.wants,
            owes: PendingWrites::default(),
            alone: false,
            helm_moved: judged.helm_moved,
            bytes: 0,
        };
        decision.action = match judged.verdict {
            Verdict::Create(ready) => {
                let body = Bytes::from(ready.body.to_string());
                facts.bytes = body.len() as u64;
                let mut decision = self.create(decision, *ready, body, present, &mut facts).await?;
                decision.second = facts.owes.any();
                return Ok((decision, facts));
            }
            Verdict::Skip(skip) => Action::Skip(skip),
            Verdict::Refuse(allow, ready) => match ready {
                Some(ready) if self.is_same(&decision, &ready, &facts.wants, present).await? => Action::Leave,
                _ => Action::Refuse(allow),
            },
            Verdict::Hold(release) => Action::Hold(release),
            Verdict::Unfit(refusal) => {
                decision.refusal = Some(refusal);
                Action::Conflict(Conflict::Unfit)
            }
            Verdict::Unserved => {
                let definition = Wait::Definition(kind.resource());
                decision.waits.push(definition.clone());
                if self.brought.contains(&kind.resource()) {
                    facts.owes = facts.wants.all();
                    decision.grade = Grade::NotBefore(definition);
                    Action::Create
                } else {
                    Action::Conflict(Conflict::Unserved)
                }
            }
        };
        if decision.action == Action::Create {
            self.namespace(&mut decision);
        }
        decision.second = facts.owes.any();
        Ok((decision, facts))
    }

    /// Returns the condition that the object's namespace imposes, and adds it to the waits if it matters.
    fn namespace(&self, decision: &mut Decision) -> Option<Wait> {
        let is_namespace = decision.object.resource == "namespaces";
        let name = if is_namespace { &decision.object.name } else { &decision.object.namespace };
        let wait = match self.ground.namespaces.get(name) {
            _ if name.is_empty() => None,
            Some(true) => Some(Wait::Terminating(name.clone())),
            Some(false) => None,
            None if is_namespace => None,
            None => Some(Wait::Namespace(name.clone())),
        }?;
        // A namespace always comes before its objects, so that wait is not reported.
        let comes = matches!(&wait, Wait::Namespace(name) if self.namespaces.contains(name));
        if !comes {
            decision.waits.push(wait.clone());
        }
        Some(wait)
    }

    /// Decides about an object that can be sent.
    async fn create(
        &self,
        mut decision: Decision,
        ready: Ready,
        body: Bytes,
        present: &Present,
        facts: &mut Facts,
    ) -> Result<Decision, RestoreError> {
        facts.owes = facts.wants.all();
        decision.digest = blake3::hash(&body).to_hex()[..32].to_owned();
        let wait = self.namespace(&mut decision);
        let going = matches!(wait, Some(Wait::Terminating(_)));
        if !going && let Some(there) = self.find(&decision, &ready, present).await? {
            if there.pointer("/metadata/deletionTimestamp").is_some() {
                decision.waits.push(Wait::Ending(decision.object.to_string()));
                decision.grade = Grade::NotBefore(Wait::Ending(decision.object.to_string()));
                return Ok(decision);
            }
            decision.action = self.meets(&decision, ready, &there, facts).await?;
            return Ok(decision);
        }
        if let Some(Wait::Namespace(name)) = &wait
            && self.ground.lists_namespaces
            && !self.namespaces.contains(name)
        {
            facts.owes = PendingWrites::default();
            decision.action = Action::Conflict(Conflict::NoNamespace);
            return Ok(decision);
        }
        if let Some(hook) = self.hooks.of(&ready.kind) {
            decision.waits.push(Wait::Webhook(hook.to_owned()));
        }
        if self.ground.has_nodes {
            for backend in backends(&ready.kind, &ready.body) {
                if !backend.is_ready(self.cluster).await? {
                    decision.waits.push(Wait::Backend(backend.to_string()));
                }
            }
        }
        if self.dry_run {
            match wait {
                Some(wait) => decision.grade = Grade::NotBefore(wait),
                None => self.ask(&mut decision, &ready, body).await?,
            }
        }
        Ok(decision)
    }

    /// Returns the existing object.
    async fn find(
        &self,
        decision: &Decision,
        ready: &Ready,
        present: &Present,
    ) -> Result<Option<Value>, ApiError> {
        let found = present.find(self.cluster, &ready.kind, &decision.object).await?;
        if let Some(Err(status)) = &found {
            self.blind.fetch_or(status.code == 403, Ordering::Relaxed);
        }
        Ok(found.and_then(Result::ok))
    }

    /// True if the object exists as it would be created.
    async fn is_same(
        &self,
        decision: &Decision,
        ready: &Ready,
        wants: &SecondWrite,
        present: &Present,
    ) -> Result<bool, ApiError> {
        let there = self.find(decision, ready, present).await?;
        Ok(there.is_some_and(|there| is_there(ready, wants, &there)))
    }

    /// Returns the action for an object that exists.
    async fn meets(
        &self,
        decision: &Decision,
        mut ready: Ready,
        there: &Value,
        facts: &mut Facts,
    ) -> Result<Action, ApiError> {
        let (suspended, wants) = (suspended(&decision.changes), &facts.wants);
        let met =
            meet(self.cluster, self.config, &decision.object, &mut ready, wants, suspended, there).await?;
        facts.alone = matches!(met, ExistingAction::Patch(None));
        facts.owes = wants.after(&met, there);
        Ok(match met {
            ExistingAction::Leave => Action::Leave,
            ExistingAction::Differs | ExistingAction::AsMade => Action::Conflict(Conflict::Differs),
            ExistingAction::Merge(_) | ExistingAction::Patch(_) => Action::Patch,
            ExistingAction::Replace => Action::Replace,
        })
    }

    /// Asks the server in a dry run, which checks every field.
    async fn ask(&self, decision: &mut Decision, ready: &Ready, body: Bytes) -> Result<(), ApiError> {
        let Some(paths) = decision.object.paths(&ready.kind) else { return Ok(()) };
        match dry(self.cluster, &Method::POST, &paths.all, "Strict", body).await? {
            Ok(_) => decision.grade = Grade::DryRun,
            Err(status) => {
                let refusal = Refusal::new(&ready.kind, &status);
                decision.grade = match refusal.webhook() {
                    Some(hook) if refusal.obstacle == Obstacle::Webhook => {
                        Grade::NotBefore(Wait::Webhook(hook.to_owned()))
                    }
                    _ => Grade::Refused,
                };
                decision.refusal = Some(refusal);
            }
        }
        Ok(())
    }
}
