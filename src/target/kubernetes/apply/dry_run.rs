//! Compares an existing object with the one to restore by dry runs, where only the server can tell.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::attempt::MERGE_PATCH;
use super::dropped_fields::DroppedFields;
use crate::kubernetes::{ApiError, ApiStatus, Cluster};
use crate::plan::ExistingPolicy;
use crate::target::kubernetes::{
    Answered, ApiPaths, ExistingAction, FIELD_MANAGER, ObjectRef, PreparedObject, Refusal, RestoreConfig,
    change::{compare, keep_server_fields},
    is_object, lacks_fields, map_mut, reconcile, refuse_bound_volume,
};

/// The action for an existing object, and the refusal that the server announces for it.
pub(crate) struct ReconciledAction {
    pub(crate) action: ExistingAction,
    pub(crate) refusal: Option<Refusal>,
}

/// Compares an `existing` object with the one that would be created. Where they differ, the server is asked
/// what it would store: defaults, limits and webhooks may make the difference again.
pub(crate) async fn reconcile_with_server(
    cluster: &Cluster,
    config: &RestoreConfig,
    object: &ObjectRef,
    prepared: &mut PreparedObject,
    existing: &Value,
) -> Result<ReconciledAction, ApiError> {
    let action = reconcile(config, object, prepared, existing);
    if config.existing != Some(ExistingPolicy::Skip)
        && let Some(refusal) = refuse_bound_volume(prepared, existing)
    {
        return Ok(ReconciledAction { action: ExistingAction::Differs, refusal: Some(refusal) });
    }
    let Some(paths) = object.api_paths(&prepared.kind) else {
        return Ok(ReconciledAction { action, refusal: None });
    };
    let question = Question { cluster, paths: &paths, prepared, existing };
    let mut refused = None;
    let action = match action {
        ExistingAction::MaybeAsCreated => match question.is_reproduced(&mut refused).await? {
            true => ExistingAction::Unchanged,
            false => return Ok(ReconciledAction { action: ExistingAction::Differs, refusal: None }),
        },
        ExistingAction::MaybeReplace => match question.is_reproduced(&mut refused).await? {
            true => prepared.unchanged(existing),
            false => ExistingAction::Replace,
        },
        // A field of the backup that is not there is no default: the server may refuse to store it, and says so.
        ExistingAction::Patch(Some(patch))
            if prepared.second_write.is_owned(existing) && !lacks_fields(existing, &patch) =>
        {
            // A list is replaced whole, without the defaults in it, which a create sets again.
            let is_same =
                question.is_kept_by(&patch, &mut refused).await? || question.is_reproduced(&mut None).await?;
            if is_same { prepared.unchanged(existing) } else { ExistingAction::Patch(Some(patch)) }
        }
        action => action,
    };
    let changes = matches!(action, ExistingAction::Replace | ExistingAction::Patch(Some(_)));
    let refusal = refused.filter(|_| changes).map(|status| Refusal::of_change(&prepared.kind, &status));
    Ok(ReconciledAction { action, refusal: refusal.filter(|refusal| !refusal.cause.is_transient()) })
}

/// An existing object, and the one to restore under its name.
struct Question<'a> {
    cluster: &'a Cluster,
    paths: &'a ApiPaths,
    prepared: &'a PreparedObject,
    existing: &'a Value,
}

impl Question<'_> {
    /// True if the server, in a dry run, would turn the object into the one that exists. A default or a webhook
    /// explains a difference only if it makes it again. Some webhooks are called for updates, some for creates,
    /// and some fields can only be set by a create, so both are tried. `refused` is the answer to the update.
    async fn is_reproduced(&self, refused: &mut Option<Box<ApiStatus>>) -> Result<bool, ApiError> {
        let mut update = self.prepared.body.clone();
        keep_server_fields(&self.prepared.kind, &mut update, self.existing);
        match self.ask(Method::PUT, &self.paths.object, update).await? {
            Ok(answer) => {
                if self.is_same(answer) {
                    return Ok(true);
                }
            }
            Err(status) => *refused = Some(status),
        }
        let mut create = self.prepared.body.clone();
        if let Some(metadata) = map_mut(&mut create, "/metadata") {
            // The object's own name is taken.
            metadata.remove("name");
            metadata.insert("generateName".to_owned(), "kbak-asks-".into());
        }
        // Without an answer the server would make a different object, or it cannot tell.
        let created = self.ask(Method::POST, &self.paths.collection, create).await?;
        Ok(created.is_ok_and(|answer| self.is_same(answer)))
    }

    /// True if the object is the same after a merge patch.
    async fn is_kept_by(
        &self,
        patch: &Value,
        refused: &mut Option<Box<ApiStatus>>,
    ) -> Result<bool, ApiError> {
        let body = Bytes::from(patch.to_string());
        match dry_run(self.cluster, &Method::PATCH, &self.paths.object, "Warn", MERGE_PATCH, body).await? {
            Ok(answer) => Ok(self.is_same(answer)),
            Err(status) => {
                *refused = Some(status);
                Ok(false)
            }
        }
    }

    /// Asks the server. The same fields are dropped as in a restore.
    async fn ask(&self, method: Method, path: &str, mut body: Value) -> Result<Answered, ApiError> {
        let mut dropped = DroppedFields::default();
        loop {
            let text = Bytes::from(body.to_string());
            let answer = dry_run(self.cluster, &method, path, "Warn", "application/json", text).await?;
            match &answer {
                Err(status) if dropped.drop_refused(status, &mut body) => {
                    if method == Method::PUT {
                        keep_server_fields(&self.prepared.kind, &mut body, self.existing);
                    }
                }
                _ => return Ok(answer),
            }
        }
    }

    fn is_same(&self, mut answer: Value) -> bool {
        // A proxy may have answered in the server's place.
        if !is_object(&answer) {
            return false;
        }
        if let Some(metadata) = map_mut(&mut answer, "/metadata") {
            metadata.remove("generateName");
            metadata.insert("name".to_owned(), self.existing["metadata"]["name"].clone());
        }
        if let Some(object) = answer.as_object_mut() {
            object.remove("status");
        }
        compare(&self.prepared.kind, false, &answer, self.existing).is_same()
    }
}

/// Returns the server's result of a write in a dry run; `validation` of its fields is `Warn` or `Strict`.
pub(crate) async fn dry_run(
    cluster: &Cluster,
    method: &Method,
    path: &str,
    validation: &str,
    content_type: &'static str,
    body: Bytes,
) -> Result<Answered, ApiError> {
    let query = format!("dryRun=All&fieldManager={FIELD_MANAGER}&fieldValidation={validation}");
    match cluster.send(method.clone(), path, &query, content_type, body).await {
        Ok(answer) => Ok(Ok(serde_json::from_slice(&answer.body).unwrap_or_default())),
        Err(error) => error.refusal().map(Err),
    }
}
