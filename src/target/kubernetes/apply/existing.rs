//! Treats an object that exists already, as the config says.

use http::Method;
use serde_json::Value;

use super::{
    attempt::{MERGE_PATCH, RestoreAttempt, WriteResult},
    create::Creator,
    dropped_fields::DroppedFields,
    dry_run::{ReconciledAction, reconcile_with_server},
};
use crate::target::kubernetes::{
    ApiPaths, ExistingAction, Outcome, PreparedObject, Refusal, RefusalCause, RestoreError,
    change::keep_server_fields, get_object, has_restore_manager, may_be_from_restore, shown_warnings, text,
};

/// The number of attempts to change an existing object that others change meanwhile.
const MAX_ATTEMPTS: u32 = 5;

impl Creator<'_> {
    /// Treats an object whose name exists; `found` is the existing one if it was already read. `repeated`:
    /// the create was sent twice, since the first answer was lost.
    pub(super) async fn reconcile_existing(
        &self,
        mut prepared: PreparedObject,
        paths: &ApiPaths,
        mut found: Option<Value>,
        repeated: bool,
        attempt: RestoreAttempt,
    ) -> Result<RestoreAttempt, RestoreError> {
        for _ in 0..MAX_ATTEMPTS {
            let existing = match found.take() {
                Some(existing) => Ok(existing),
                None => get_object(self.cluster, &paths.object).await?,
            };
            let existing = match existing {
                Ok(existing) => existing,
                // It was deleted meanwhile, or it cannot be read. Another round tries again.
                Err(status) => return Ok(attempt.failed_for_now(Refusal::new(&prepared.kind, &status))),
            };
            // If the answer to an earlier attempt of the same create was lost, this restore created it.
            let is_own = repeated
                && existing.pointer("/metadata/ownerReferences").is_none()
                && (has_restore_manager(&existing) || is_own_write(&prepared, &existing));
            let done = self.reconcile_once(&mut prepared, paths, &existing, is_own, &attempt);
            if let Some(done) = done.await? {
                return Ok(done);
            }
        }
        let refusal = Refusal::not_sent("Conflict", "the object keeps changing");
        Ok(attempt.failed_for_now(refusal.with_cause(RefusalCause::Other)))
    }

    /// Returns none if the existing object changed meanwhile.
    async fn reconcile_once(
        &self,
        prepared: &mut PreparedObject,
        paths: &ApiPaths,
        existing: &Value,
        is_own: bool,
        attempt: &RestoreAttempt,
    ) -> Result<Option<RestoreAttempt>, RestoreError> {
        let new_uid = text(existing, "/metadata/uid").to_owned();
        let attempt = RestoreAttempt { new_uid, ..attempt.clone() };
        let with = |outcome, pending| Ok(Some(RestoreAttempt { outcome, pending, ..attempt.clone() }));
        if existing.pointer("/metadata/deletionTimestamp").is_some() {
            let refusal = Refusal::not_sent("Terminating", "the existing object is being deleted");
            return Ok(Some(attempt.failed_for_now(refusal.with_cause(RefusalCause::Terminating))));
        }
        if is_own {
            return with(Outcome::Created, prepared.second_write.after_create());
        }
        let (cluster, config, object) = (self.cluster, self.config, &attempt.object);
        let ReconciledAction { action, refusal } =
            reconcile_with_server(cluster, config, object, prepared, existing).await?;
        if let (ExistingAction::Differs, Some(refusal)) = (&action, refusal) {
            return Ok(Some(attempt.failed(refusal)));
        }
        let pending = action.pending_writes(&prepared.second_write, existing);
        let mut dropped = DroppedFields::default();
        let (result, outcome) = match &action {
            ExistingAction::Unchanged => return with(Outcome::Existed, pending),
            ExistingAction::Differs | ExistingAction::MaybeAsCreated => {
                return with(Outcome::Differs, pending);
            }
            ExistingAction::Patch(None) => return with(Outcome::Patched, pending),
            ExistingAction::Merge(patch) | ExistingAction::Patch(Some(patch)) => (
                WriteResult::of(cluster, Method::PATCH, &paths.object, MERGE_PATCH, patch).await?,
                Outcome::Patched,
            ),
            ExistingAction::MaybeReplace | ExistingAction::Replace => {
                (self.replace(prepared, &paths.object, existing, &mut dropped).await?, Outcome::Replaced)
            }
        };
        Ok(match result {
            WriteResult::Written(changed, headers) => {
                let mut warnings = shown_warnings(&attempt.object, &headers);
                warnings.extend(dropped.warnings(&attempt.object));
                let attempt = RestoreAttempt { outcome, pending, warnings, ..attempt };
                Some(attempt.with_pruned_fields(prepared, &changed, &headers))
            }
            WriteResult::Unknown => Some(attempt.failed_for_now(Refusal::no_object())),
            WriteResult::Refused { status, .. } if status.code == 409 => None,
            WriteResult::Refused { status, .. } => {
                let refusal = Refusal::of_change(&prepared.kind, &status);
                let retry = !matches!(refusal.cause, RefusalCause::Object | RefusalCause::Immutable);
                Some(RestoreAttempt { retry, ..attempt.failed(refusal) })
            }
        })
    }
}

impl Creator<'_> {
    /// Replaces an existing object; keeps the ports that it has where the backup's cannot be had.
    async fn replace(
        &self,
        prepared: &PreparedObject,
        path: &str,
        existing: &Value,
        dropped: &mut DroppedFields,
    ) -> Result<WriteResult, RestoreError> {
        let mut whole = prepared.body.clone();
        loop {
            keep_server_fields(&prepared.kind, &mut whole, existing);
            let result = WriteResult::of(self.cluster, Method::PUT, path, "application/json", &whole).await?;
            match &result {
                WriteResult::Refused { status, .. } if dropped.drop_refused(status, &mut whole) => {}
                _ => return Ok(result),
            }
        }
    }
}

/// True if a restore may have created `existing` and it equals the object that was sent. The server records no
/// manager for an object without fields.
fn is_own_write(prepared: &PreparedObject, existing: &Value) -> bool {
    may_be_from_restore(existing) && prepared.compare(existing).is_same()
}
