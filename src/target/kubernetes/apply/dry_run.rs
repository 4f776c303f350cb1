//! Compares an existing object with the one to restore by a dry run, where only the server can tell.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::attempt::FALLBACK_EDITS;
use crate::kubernetes::{ApiError, Cluster};
use crate::target::kubernetes::{
    Answered, ApiPaths, ExistingAction, FIELD_MANAGER, ObjectRef, PreparedObject, RestoreConfig,
    change::{compare, keep_server_fields},
    is_object, map_mut, reconcile,
};

/// Compares an `existing` object with the one that would be created. Asks the server where only it can tell.
pub(crate) async fn reconcile_with_server(
    cluster: &Cluster,
    config: &RestoreConfig,
    object: &ObjectRef,
    prepared: &mut PreparedObject,
    existing: &Value,
) -> Result<ExistingAction, ApiError> {
    let action = reconcile(config, object, prepared, existing);
    match (action, object.api_paths(&prepared.kind)) {
        (ExistingAction::MaybeAsCreated, Some(paths)) => {
            Ok(match dry_run_reproduces(cluster, &paths, prepared, existing).await? {
                true => ExistingAction::Unchanged,
                false => ExistingAction::Differs,
            })
        }
        (action, _) => Ok(action),
    }
}

/// True if the server, in a dry run, would turn the object into the one that is `existing`. A restore created
/// that one, but perhaps from another snapshot or with other options, and a removed list element leaves no
/// trace. A webhook or default explains the difference only if it makes it again. Some webhooks are called
/// for updates, some for creates, so both are tried.
async fn dry_run_reproduces(
    cluster: &Cluster,
    paths: &ApiPaths,
    prepared: &PreparedObject,
    existing: &Value,
) -> Result<bool, ApiError> {
    let mut update = prepared.body.clone();
    keep_server_fields(&prepared.kind, &mut update, existing);
    let mut create = prepared.body.clone();
    if let Some(metadata) = map_mut(&mut create, "/metadata") {
        // The object's own name is taken.
        metadata.remove("name");
        metadata.insert("generateName".to_owned(), "kbak-asks-".into());
    }
    for (method, path, mut body) in
        [(Method::PUT, &paths.object, update), (Method::POST, &paths.collection, create)]
    {
        let mut answer = dry_run(cluster, &method, path, "Warn", body.to_string().into()).await?;
        // The same fields are dropped as in a create.
        for (applies, edit, _) in FALLBACK_EDITS {
            if answer.as_ref().is_err_and(|status| applies(status)) && edit(&mut body) {
                if method == Method::PUT {
                    keep_server_fields(&prepared.kind, &mut body, existing);
                }
                answer = dry_run(cluster, &method, path, "Warn", body.to_string().into()).await?;
            }
        }
        // A proxy may have answered in the server's place.
        let Some(mut answer) = answer.ok().filter(is_object) else { continue };
        if let Some(metadata) = map_mut(&mut answer, "/metadata") {
            metadata.remove("generateName");
            metadata.insert("name".to_owned(), existing["metadata"]["name"].clone());
        }
        if let Some(object) = answer.as_object_mut() {
            object.remove("status");
        }
        if compare(&prepared.kind, false, &answer, existing).is_same() {
            return Ok(true);
        }
    }
    // The server would make a different object, or it cannot tell.
    Ok(false)
}

/// Returns the server's result of a write in a dry run; `validation` of its fields is `Warn` or `Strict`.
pub(crate) async fn dry_run(
    cluster: &Cluster,
    method: &Method,
    path: &str,
    validation: &str,
    body: Bytes,
) -> Result<Answered, ApiError> {
    let query = format!("dryRun=All&fieldManager={FIELD_MANAGER}&fieldValidation={validation}");
    match cluster.send(method.clone(), path, &query, "application/json", body).await {
        Ok(answer) => Ok(Ok(serde_json::from_slice(&answer.body).unwrap_or_default())),
        Err(error) => error.refusal().map(Err),
    }
}
