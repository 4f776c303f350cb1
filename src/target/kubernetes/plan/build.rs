//! Makes the plan: reads the streams once and decides for every object.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use futures::{StreamExt as _, TryStreamExt as _};

use super::{
    Action, Decision, Plan,
    counts::{ObjectFacts, PlanCounts},
    decide::Planner,
    rights::Rights,
    totals::Totals,
};
use crate::kubernetes::{Cluster, KindInfo};
use crate::plan::{Glob, SideEffect};
use crate::report::event::Meter;
use crate::target::kubernetes::{
    ClusterState, DecidedObject, MemoryBudget, ObjectDecision, PARALLEL, ResourceStreams, RestoreConfig,
    RestoreError, SelectionUsage,
    apply::{restore_state::RestoreState, webhooks::UnreachableWebhooks},
    find_requirements, open_lines, order, with_budget,
};

/// Decides for every stored object what a restore with this config does, without writing. Calls `on_decision`
/// once for each object, in the order of the restore. With `dry_run`, the server is asked as well about
/// objects that can be created now. Fails with [`RestoreError`] if the cluster or the backup cannot be read.
pub async fn plan_resources(
    cluster: &Cluster,
    streams: &dyn ResourceStreams,
    config: &RestoreConfig,
    dry_run: bool,
    on_decision: &mut (dyn FnMut(&Decision) + Send),
    meter: &Meter,
) -> Result<Plan, RestoreError> {
    let cluster_state = ClusterState::read(cluster).await?;
    let mut requirements = find_requirements(cluster, &cluster_state, streams, config).await?;
    let kinds = order::selected_kinds(streams, config, |kind| requirements.has_kind(kind));
    let foreign = cluster_state.is_foreign(config);
    let can_select = !foreign || config.is_released(SideEffect::Volumes);
    let mut planner = Planner {
        cluster,
        config,
        foreign,
        cluster_state,
        volumes: RestoreState::new(requirements.take_volumes(), can_select),
        requirements,
        webhooks: UnreachableWebhooks::read(cluster).await?,
        usage: SelectionUsage::new(config),
        rights: Rights::default(),
        dry_run,
        created_definitions: HashSet::new(),
        namespaces: HashSet::new(),
        has_unreadable: AtomicBool::new(false),
    };
    planner.created_definitions = created_definitions(&planner, streams, &kinds).await?;
    let mut totals = Totals::default();
    totals.hash_value(&(planner.foreign, config.status.iter().map(Glob::as_str).collect::<Vec<_>>()));
    let mut counts = PlanCounts::default();
    for kind in &kinds {
        let mut decided = |decision: &Decision| {
            totals.add(decision);
            on_decision(decision);
            meter.add_done(1);
        };
        plan_kind(&mut planner, &mut counts, streams, kind, &mut decided).await?;
    }
    let mut plan = totals.finish();
    plan.notes.extend(notes_of(&counts, planner.has_unreadable.load(Ordering::Relaxed)));
    Ok(Plan {
        foreign: planner.foreign,
        clusters: (config.cluster_uid.clone(), planner.cluster_state.uid.clone()),
        writes: counts.writes,
        second_writes: counts.second_writes,
        bytes: counts.bytes,
        owners_lost: counts.owners_lost(cluster, &planner.cluster_state.target).await?,
        absent: planner.usage.unmatched(),
        has_release_choice: config.release.is_some(),
        has_existing_choice: config.existing.is_some(),
        ..plan
    })
}

fn notes_of(counts: &PlanCounts, has_unreadable: bool) -> Vec<String> {
    let (finished, moved) = (counts.finished, counts.helm_moved);
    let unreadable = "parts of the cluster may not be read: existing objects there are found on restore";
    let finished_note = format!(
        "{finished} existing objects lack owners, managers of fields or a status that an earlier restore could \
         not set: these are set now where possible"
    );
    let moved_note =
        format!("{moved} Helm releases name their old namespace inside: helm cannot manage the copies");
    let notes = [(has_unreadable, unreadable.into()), (finished > 0, finished_note), (moved > 0, moved_note)];
    notes.into_iter().filter_map(|(applies, note)| applies.then_some(note)).collect()
}

/// Returns the resources whose definitions this restore creates.
async fn created_definitions(
    planner: &Planner<'_>,
    streams: &dyn ResourceStreams,
    kinds: &[KindInfo],
) -> Result<HashSet<String>, RestoreError> {
    let mut created = HashSet::new();
    for kind in kinds.iter().filter(|kind| order::is_definition(kind)) {
        let decider = planner.decider(kind);
        let mut lines = open_lines(streams, kind).await?;
        while let Some((_, line)) = lines.try_next().await? {
            if let Ok(Some(DecidedObject { object, decision: ObjectDecision::Create(_), .. })) =
                decider.decide(&line)
            {
                created.insert(object.name);
            }
        }
    }
    Ok(created)
}

async fn plan_kind(
    planner: &mut Planner<'_>,
    counts: &mut PlanCounts,
    streams: &dyn ResourceStreams,
    kind: &KindInfo,
    on_decision: &mut (dyn FnMut(&Decision) + Send),
) -> Result<(), RestoreError> {
    let few = planner.config.only_objects();
    let existing = planner.cluster_state.existing_objects(planner.cluster, kind, few).await?;
    let lines = open_lines(streams, kind).await?;
    let mut created = Vec::new();
    {
        let (planner, existing, decider) = (&*planner, &existing, &planner.decider(kind));
        let budget = MemoryBudget::default();
        let decided = with_budget(lines, &budget).map(|line| async move {
            let (line, bytes, _permit) = line?;
            let damaged = |problem| RestoreError::damaged(kind, line, problem);
            let Some(decided) = decider.decide(&bytes).map_err(damaged)? else { return Ok(None) };
            planner.decide(decided, kind, existing).await.map(Some)
        });
        // In order, because the hash depends on it.
        let mut decided = std::pin::pin!(decided.buffered(PARALLEL));
        while let Some(decided) = decided.next().await {
            let decided: Result<Option<(Decision, ObjectFacts)>, RestoreError> = decided;
            let Some((mut decision, facts)) = decided? else { continue };
            if !counts.add(&mut decision, &facts) {
                continue;
            }
            if decision.object.resource == "namespaces" && decision.action == Action::Create {
                created.push(decision.object.name.clone());
            }
            on_decision(&decision);
        }
    }
    planner.namespaces.extend(created);
    Ok(())
}
