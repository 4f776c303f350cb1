//! Decides about one object with a view of the cluster.

use std::collections::HashSet;
use std::sync::atomic::{AtomicBool, Ordering};

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::{Action, Conflict, Decision, Grade, Wait, counts::ObjectFacts, rights::Rights};
use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::target::kubernetes::{
    ClusterState, DecidedObject, Decider, ExistingAction, ExistingObjects, ObjectDecision, PendingWrites,
    PreparedObject, Refusal, RefusalCause, Requirements, RestoreConfig, RestoreError, SelectionUsage,
    TOO_DEEP,
    apply::{
        dropped_fields::DroppedFields,
        dry_run::{ReconciledAction, dry_run, reconcile_with_server},
        restore_state::RestoreState,
        second_write::UidMap,
        webhooks::{UnreachableWebhooks, backends},
    },
    matches_existing,
};

pub(super) struct Planner<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) config: &'a RestoreConfig,
    pub(super) cluster_state: ClusterState,
    pub(super) webhooks: UnreachableWebhooks,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub(super) foreign: bool,
    pub(super) usage: SelectionUsage<'a>,
    pub(super) requirements: Requirements,
    /// The volumes that claims name.
    pub(super) volumes: RestoreState,
    /// The rights of the user who restores.
    pub(super) rights: Rights,
    pub(super) dry_run: bool,
    /// Resources whose definitions this restore creates.
    pub(super) created_definitions: HashSet<String>,
    /// Namespaces that this restore creates.
    pub(super) namespaces: HashSet<String>,
    /// True if a part of the cluster may not be read.
    pub(super) has_unreadable: AtomicBool,
}

impl Planner<'_> {
    pub(super) fn decider<'b>(&'b self, kind: &'b KindInfo) -> Decider<'b> {
        let (config, target, usage) = (self.config, &self.cluster_state.target, &self.usage);
        Decider { config, target, kind, foreign: self.foreign, usage, requirements: &self.requirements }
    }

    pub(super) async fn decide(
        &self,
        decided: DecidedObject,
        kind: &KindInfo,
        listed: &ExistingObjects,
    ) -> Result<(Decision, ObjectFacts), RestoreError> {
        let mut decision = Decision::create(decided.object, decided.changes);
        let mut facts = ObjectFacts {
            from: decided.from,
            old_uid: UidMap::key(&decided.old_uid),
            helm_moved: decided.helm_moved,
            ..ObjectFacts::default()
        };
        match decided.decision {
            ObjectDecision::Create(prepared) => {
                let kind = prepared.kind.clone();
                self.decide_create(&mut decision, *prepared, listed, &mut facts).await?;
                if facts.pending.any() && decision.incomplete.is_none() {
                    decision.incomplete = self.refusal("patch", &kind, &decision).await?;
                }
            }
            ObjectDecision::Skip(skip) => decision.action = Action::Skip(skip),
            ObjectDecision::Refuse(permission, prepared) => {
                let existing = match &prepared {
                    Some(prepared) => self.find(&mut decision, prepared, listed).await?,
                    None => None,
                };
                let is_same = prepared
                    .zip(existing)
                    .is_some_and(|(prepared, existing)| matches_existing(&prepared, &existing));
                decision.action = if is_same { Action::Leave } else { Action::Refuse(permission) };
            }
            ObjectDecision::Hold(effect) => decision.action = Action::Hold(effect),
            ObjectDecision::Invalid(refusal) => {
                decision.refusal = Some(refusal);
                decision.action = Action::Conflict(Conflict::Unfit);
            }
            ObjectDecision::Unserved(second_write) => {
                let definition = Wait::Definition(kind.resource());
                decision.waits.push(definition.clone());
                if self.created_definitions.contains(&kind.resource()) {
                    facts.pending = second_write.after_create();
                    facts.owners = second_write.owners;
                    decision.grade = Grade::BlockedBy(definition);
                    self.namespace_wait(&mut decision);
                } else {
                    decision.action = Action::Conflict(Conflict::Unserved);
                }
            }
        }
        decision.second = facts.pending.any();
        Ok((decision, facts))
    }

    /// Returns the condition that the object's namespace imposes, and adds it to the waits if it matters.
    fn namespace_wait(&self, decision: &mut Decision) -> Option<Wait> {
        let is_namespace = decision.object.resource == "namespaces";
        let name = if is_namespace { &decision.object.name } else { &decision.object.namespace };
        let wait = match self.cluster_state.namespaces.get(name) {
            _ if name.is_empty() => None,
            Some(true) => Some(Wait::NamespaceTerminating(name.clone())),
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

    async fn decide_create(
        &self,
        decision: &mut Decision,
        mut prepared: PreparedObject,
        listed: &ExistingObjects,
        facts: &mut ObjectFacts,
    ) -> Result<(), RestoreError> {
        let (claim, foreign) = (&decision.object, self.foreign);
        let volume = self.volumes.claim_volume(self.cluster, &mut prepared.body, claim, foreign).await?;
        let body = Bytes::from(prepared.body.to_string());
        facts.bytes = body.len() as u64;
        facts.pending = prepared.second_write.after_create();
        facts.owners.clone_from(&prepared.second_write.owners);
        decision.digest = blake3::hash(&body).to_hex()[..32].to_owned();
        let wait = self.namespace_wait(decision);
        let is_terminating = matches!(wait, Some(Wait::NamespaceTerminating(_)));
        if !is_terminating && let Some(existing) = self.find(decision, &prepared, listed).await? {
            if existing.pointer("/metadata/deletionTimestamp").is_some() {
                decision.waits.push(Wait::ObjectTerminating(decision.object.to_string()));
                decision.grade = Grade::BlockedBy(Wait::ObjectTerminating(decision.object.to_string()));
                return Ok(());
            }
            decision.incomplete = volume.remaining_work_of_existing(&existing, &decision.object);
            decision.action = self.existing_action(decision, prepared, &existing, facts).await?;
            return Ok(());
        }
        if decision.refusal.is_some() {
            facts.pending = PendingWrites::default();
            decision.action = Action::Conflict(Conflict::Unfit);
            return Ok(());
        }
        if let Some(Wait::Namespace(name)) = &wait
            && self.cluster_state.lists_namespaces
            && !self.namespaces.contains(name)
        {
            facts.pending = PendingWrites::default();
            decision.action = Action::Conflict(Conflict::NoNamespace);
            return Ok(());
        }
        if let Some(refusal) = self.refusal("create", &prepared.kind, decision).await? {
            facts.pending = PendingWrites::default();
            decision.refusal = Some(refusal);
            decision.action = Action::Conflict(Conflict::NoRight);
            return Ok(());
        }
        decision.incomplete = volume.remaining_work("", true);
        if decision.object.resource == "persistentvolumes" {
            self.volumes.expect_volume(&decision.object.name, &prepared.body).await;
        }
        self.add_waits(decision, &prepared).await?;
        if self.dry_run {
            match wait {
                Some(wait) => decision.grade = Grade::BlockedBy(wait),
                None => self.ask_server(decision, &prepared, body).await?,
            }
        }
        Ok(())
    }

    /// Returns a refusal if the user may not use a verb on an object.
    async fn refusal(
        &self,
        verb: &'static str,
        kind: &KindInfo,
        decision: &Decision,
    ) -> Result<Option<Refusal>, ApiError> {
        self.rights.refusal(self.cluster, verb, kind, &decision.object.namespace).await
    }

    /// Adds the webhooks and Services that the create of an object waits for.
    async fn add_waits(&self, decision: &mut Decision, prepared: &PreparedObject) -> Result<(), ApiError> {
        if let Some(hook) = self.webhooks.first_called(&prepared.kind) {
            decision.waits.push(Wait::Webhook(hook.to_owned()));
        }
        if self.cluster_state.has_nodes {
            for backend in backends(&prepared.kind, &prepared.body) {
                if !backend.is_ready(self.cluster).await? {
                    decision.waits.push(Wait::Backend(backend.to_string()));
                }
            }
        }
        Ok(())
    }

    async fn find(
        &self,
        decision: &mut Decision,
        prepared: &PreparedObject,
        listed: &ExistingObjects,
    ) -> Result<Option<Value>, ApiError> {
        let found = listed.find(self.cluster, &prepared.kind, &decision.object).await?;
        if let Some(Err(status)) = &found {
            if status.reason == TOO_DEEP {
                decision.refusal = Some(Refusal::new(&prepared.kind, status));
            }
            self.has_unreadable.fetch_or(status.code == 403, Ordering::Relaxed);
        }
        Ok(found.and_then(Result::ok))
    }

    async fn existing_action(
        &self,
        decision: &mut Decision,
        mut prepared: PreparedObject,
        existing: &Value,
        facts: &mut ObjectFacts,
    ) -> Result<Action, ApiError> {
        let (cluster, config, object) = (self.cluster, self.config, &decision.object);
        let ReconciledAction { action, refusal } =
            reconcile_with_server(cluster, config, object, &mut prepared, existing).await?;
        // kbak itself refuses what it does not send; the server was not asked.
        let is_unfit = refusal.as_ref().is_some_and(|refusal| refusal.code == 0);
        if refusal.is_some() && !is_unfit {
            decision.grade = Grade::Refused;
        }
        decision.refusal = refusal;
        let is_patched = matches!(action, ExistingAction::Merge(_) | ExistingAction::Patch(Some(_)));
        if is_patched && decision.refusal.is_none() {
            // The server was not asked about all patches.
            decision.refusal = self.refusal("patch", &prepared.kind, decision).await?;
            if decision.refusal.is_some() {
                return Ok(Action::Conflict(Conflict::NoRight));
            }
        }
        facts.is_second_write_only = matches!(action, ExistingAction::Patch(None));
        facts.pending = action.pending_writes(&prepared.second_write, existing);
        Ok(match action {
            _ if is_unfit => Action::Conflict(Conflict::Unfit),
            ExistingAction::Unchanged => Action::Leave,
            ExistingAction::Differs | ExistingAction::MaybeAsCreated => Action::Conflict(Conflict::Differs),
            ExistingAction::Merge(_) | ExistingAction::Patch(_) => Action::Patch,
            ExistingAction::MaybeReplace | ExistingAction::Replace => Action::Replace,
        })
    }

    /// Asks the server in a dry run, which checks every field.
    async fn ask_server(
        &self,
        decision: &mut Decision,
        prepared: &PreparedObject,
        body: Bytes,
    ) -> Result<(), ApiError> {
        let Some(paths) = decision.object.api_paths(&prepared.kind) else { return Ok(()) };
        let mut object = prepared.body.clone();
        let mut dropped = DroppedFields::default();
        let ask = async |body| {
            dry_run(self.cluster, &Method::POST, &paths.collection, "Strict", "application/json", body).await
        };
        let mut sent = ask(body).await?;
        // The restore drops the same fields: ports that are taken.
        while let Err(status) = &sent
            && dropped.drop_refused(status, &mut object)
        {
            sent = ask(Bytes::from(object.to_string())).await?;
        }
        decision.dropped = dropped.into_words();
        match sent {
            Ok(_) => decision.grade = Grade::DryRun,
            Err(status) => {
                let refusal = Refusal::new(&prepared.kind, &status);
                decision.grade = match refusal.webhook() {
                    Some(hook) if refusal.cause == RefusalCause::Webhook => {
                        Grade::BlockedBy(Wait::Webhook(hook.to_owned()))
                    }
                    _ => Grade::Refused,
                };
                decision.refusal = Some(refusal);
            }
        }
        Ok(())
    }
}
