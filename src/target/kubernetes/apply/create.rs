//! Creates one object in the cluster.

use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::Value;

use super::{
    attempt::{RestoreAttempt, WriteResult},
    dropped_fields::DroppedFields,
    restore_state::{ClaimVolume, RestoreState},
    webhooks::backends,
};
use crate::kubernetes::{ApiError, Cluster, KindInfo};
use crate::runtime::lock;
use crate::target::kubernetes::{
    ApiPaths, DecidedObject, ExistingObjects, ObjectDecision, ObjectRef, Outcome, PendingWrites,
    PreparedObject, Refusal, RefusalCause, RestoreConfig, RestoreError, get_object, matches_existing,
    shown_warnings, text,
};

/// Consecutive webhook failures after which a kind is left to another round. Each may have taken ten seconds
/// or more.
const MAX_WEBHOOK_FAILURES: u32 = 64;

/// Creates objects of one kind.
pub(crate) struct Creator<'a> {
    pub(crate) cluster: &'a Cluster,
    pub(crate) config: &'a RestoreConfig,
    pub(crate) shared: &'a RestoreState,
    pub(crate) breaker: &'a CircuitBreaker,
    pub(crate) existing: &'a ExistingObjects,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub(crate) foreign: bool,
    /// True if Services behind webhooks are waited for. Without nodes none becomes ready.
    pub(crate) backends: bool,
}

impl Creator<'_> {
    /// Restores one object. An error ends the restore; a failure of this object alone is an outcome.
    pub(crate) async fn restore(&self, decided: DecidedObject) -> Result<RestoreAttempt, RestoreError> {
        let mut attempt = RestoreAttempt {
            pending: PendingWrites::default(),
            suspended: false,
            object: decided.object,
            old_uid: decided.old_uid,
            new_uid: String::new(),
            outcome: Outcome::Unserved,
            unfinished: None,
            // Its definition may still be created.
            retry: matches!(decided.decision, ObjectDecision::Unserved(_)),
            warnings: Vec::new(),
        };
        attempt.outcome = match decided.decision {
            ObjectDecision::Create(prepared) => {
                let attempt = self.create(*prepared, attempt).await?;
                self.shared.record(&attempt.object, &attempt.outcome, self.foreign);
                return Ok(attempt);
            }
            ObjectDecision::Refuse(permission, prepared) => {
                if let Some(prepared) = prepared
                    && let Some(paths) = attempt.object.api_paths(&prepared.kind)
                    && let Some(existing) = self.find_existing(&paths, &attempt.object).await?
                    && matches_existing(&prepared, &existing)
                {
                    // The object already exists as it would be created, so no permission is needed.
                    text(&existing, "/metadata/uid").clone_into(&mut attempt.new_uid);
                    Outcome::Existed
                } else {
                    Outcome::Refused(permission)
                }
            }
            ObjectDecision::Skip(skip) => Outcome::Skipped(skip),
            ObjectDecision::Hold(effect) => Outcome::Held(effect),
            ObjectDecision::Invalid(refusal) => Outcome::Failed(refusal),
            ObjectDecision::Unserved(_) => Outcome::Unserved,
        };
        Ok(attempt)
    }

    async fn create(
        &self,
        mut prepared: PreparedObject,
        attempt: RestoreAttempt,
    ) -> Result<RestoreAttempt, RestoreError> {
        let Some(paths) = attempt.object.api_paths(&prepared.kind) else {
            return Ok(attempt.failed(Refusal::not_sent("InvalidName", "")));
        };
        if let Some(refusal) = self.terminating_refusal(&attempt.object) {
            return Ok(attempt.failed(refusal));
        }
        let (body, claim) = (&mut prepared.body, &attempt.object);
        let volume = self.shared.claim_volume(self.cluster, body, claim, self.foreign).await?;
        // A create counts against quotas and calls webhooks even if it is refused, so look first.
        let (mut attempt, remaining) =
            if let Some(existing) = self.find_existing(&paths, &attempt.object).await? {
                let remaining = volume.remaining_work_of_existing(&existing, &attempt.object);
                (self.reconcile_existing(prepared, &paths, Some(existing), false, attempt).await?, remaining)
            } else if let ClaimVolume::Pending(refusal) = volume {
                return Ok(attempt.failed_for_now(refusal));
            } else if let Some(refusal) = self.reason_to_wait(&prepared.kind, &prepared.body).await? {
                return Ok(attempt.failed_for_now(refusal));
            } else {
                volume.mark(&mut prepared.body);
                let attempt = self.send(prepared, &paths, attempt).await?;
                let remaining = volume.remaining_work(&attempt.new_uid, attempt.outcome == Outcome::Created);
                (attempt, remaining)
            };
        if attempt.outcome.is_fine() {
            attempt.unfinished = attempt.unfinished.or(remaining);
        }
        Ok(attempt)
    }

    /// Returns the existing object of that name, if it may be read.
    async fn find_existing(&self, paths: &ApiPaths, object: &ObjectRef) -> Result<Option<Value>, ApiError> {
        match self.existing.may_have(object) {
            true => Ok(get_object(self.cluster, &paths.object).await?.ok()),
            false => Ok(None),
        }
    }

    async fn send(
        &self,
        mut prepared: PreparedObject,
        paths: &ApiPaths,
        attempt: RestoreAttempt,
    ) -> Result<RestoreAttempt, RestoreError> {
        let mut result = WriteResult::post(self.cluster, paths, &prepared.body).await?;
        let mut dropped = DroppedFields::default();
        while let WriteResult::Refused { status, .. } = &result
            && dropped.drop_refused(status, &mut prepared.body)
        {
            result = WriteResult::post(self.cluster, paths, &prepared.body).await?;
        }
        match result {
            WriteResult::Written(created, headers) => {
                let mut warnings = shown_warnings(&attempt.object, &headers);
                warnings.extend(dropped.warnings(&attempt.object));
                self.breaker.record(None);
                let new_uid = text(&created, "/metadata/uid").to_owned();
                let attempt = attempt.with_pruned_fields(&prepared, &created, &headers);
                let (outcome, suspended) = (Outcome::Created, prepared.suspended);
                let pending = prepared.second_write.after_create();
                Ok(RestoreAttempt { outcome, new_uid, pending, suspended, warnings, ..attempt })
            }
            WriteResult::Unknown => Ok(attempt.failed_for_now(Refusal::no_object())),
            WriteResult::Refused { status, repeated }
                if status.code == 409 && status.reason == "AlreadyExists" =>
            {
                self.breaker.record(None);
                self.reconcile_existing(prepared, paths, None, repeated, attempt).await
            }
            WriteResult::Refused { status, .. } => {
                let refusal = Refusal::new(&prepared.kind, &status);
                self.breaker.record(Some(&refusal));
                let retry = refusal.cause != RefusalCause::Object;
                Ok(RestoreAttempt { retry, ..attempt.failed(refusal) })
            }
        }
    }

    /// Returns a refusal if the object's namespace was still being deleted at the deadline.
    fn terminating_refusal(&self, object: &ObjectRef) -> Option<Refusal> {
        self.shared.is_terminating(&object.namespace).then(|| {
            let message = format!("Namespace {} is still being deleted", object.namespace);
            Refusal::not_sent("NamespaceTerminating", message).with_cause(RefusalCause::Terminating)
        })
    }

    /// Returns the reason for not sending the object now, if there is one.
    async fn reason_to_wait(&self, kind: &KindInfo, body: &Value) -> Result<Option<Refusal>, ApiError> {
        if let Some(refusal) = self.breaker.open_reason() {
            return Ok(Some(refusal));
        }
        if !self.backends {
            return Ok(None);
        }
        for backend in backends(kind, body) {
            if !backend.is_ready(self.cluster).await? {
                let message = format!("{backend} has no ready endpoint");
                return Ok(Some(Refusal::not_sent("NoBackend", message).with_cause(RefusalCause::NoBackend)));
            }
        }
        Ok(None)
    }
}

/// Counts the consecutive webhook failures of one kind.
#[derive(Debug, Default)]
pub(crate) struct CircuitBreaker {
    failures: AtomicU32,
    last: Mutex<Option<Refusal>>,
}

impl CircuitBreaker {
    /// Returns the last failure if there were too many.
    fn open_reason(&self) -> Option<Refusal> {
        let last = || lock(&self.last).clone();
        (self.failures.load(Ordering::Relaxed) >= MAX_WEBHOOK_FAILURES).then(last).flatten()
    }

    fn record(&self, refusal: Option<&Refusal>) {
        match refusal.filter(|refusal| refusal.cause == RefusalCause::Webhook) {
            Some(refusal) => {
                self.failures.fetch_add(1, Ordering::Relaxed);
                *lock(&self.last) = Some(refusal.clone());
            }
            None => self.failures.store(0, Ordering::Relaxed),
        }
    }
}
