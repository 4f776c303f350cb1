//! One attempt to restore an object, and its writes.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use crate::kubernetes::{ApiError, ApiStatus, Cluster};
use crate::target::kubernetes::{
    ApiPaths, FIELD_MANAGER, ObjectRef, Outcome, PendingWrites, PreparedObject, Refusal, Warning, is_object,
    lost_fields, pruned_fields,
};

#[derive(Debug, Clone)]
pub(crate) struct RestoreAttempt {
    /// The object's name in the target cluster.
    pub(crate) object: ObjectRef,
    /// The object's UID in the backup.
    pub(crate) old_uid: String,
    /// The object's UID in the target cluster; empty if it is not known to exist.
    pub(crate) new_uid: String,
    /// Pending second writes, if this or an earlier restore created the object.
    pub(crate) pending: PendingWrites,
    pub(crate) suspended: bool,
    pub(crate) outcome: Outcome,
    /// Work that remains and that kbak does not do itself.
    pub(crate) unfinished: Option<Refusal>,
    pub(crate) retry: bool,
    /// Warnings of the server, and fields that were dropped so that it took the object.
    pub(crate) warnings: Vec<Warning>,
}

impl RestoreAttempt {
    pub(super) fn failed(self, refusal: Refusal) -> Self {
        Self { outcome: Outcome::Failed(refusal), ..self }
    }

    pub(super) fn failed_for_now(self, refusal: Refusal) -> Self {
        Self { retry: true, ..self.failed(refusal) }
    }

    /// Notes fields that the server pruned: the object exists but is not as in the backup.
    pub(super) fn with_pruned_fields(
        mut self,
        prepared: &PreparedObject,
        answer: &Value,
        headers: &[String],
    ) -> Self {
        let mut fields = pruned_fields(headers);
        if fields.is_empty() {
            fields = lost_fields(prepared, answer);
        }
        if !fields.is_empty() {
            let what = "the cluster defines this kind differently, so the server dropped these fields";
            self.unfinished = Some(Refusal { fields, ..Refusal::not_sent("Pruned", what) });
        }
        self
    }
}

/// The media type of a merge patch.
pub(super) const MERGE_PATCH: &str = "application/merge-patch+json";

pub(super) enum WriteResult {
    /// The object as it is now, and the headers with warnings.
    Written(Value, Vec<String>),
    /// The answer reports success but is not an object of an API server.
    Unknown,
    /// `repeated`: the request was sent more than once.
    Refused { status: Box<ApiStatus>, repeated: bool },
}

impl WriteResult {
    pub(super) async fn post(cluster: &Cluster, paths: &ApiPaths, body: &Value) -> Result<Self, ApiError> {
        Self::of(cluster, Method::POST, &paths.collection, "application/json", body).await
    }

    pub(super) async fn of(
        cluster: &Cluster,
        method: Method,
        path: &str,
        content_type: &'static str,
        body: &Value,
    ) -> Result<Self, ApiError> {
        let query = format!("fieldManager={FIELD_MANAGER}&fieldValidation=Warn");
        match cluster.send(method, path, &query, content_type, Bytes::from(body.to_string())).await {
            Ok(answer) => {
                let object: Value = serde_json::from_slice(&answer.body).unwrap_or_default();
                // A proxy may have answered in the server's place.
                Ok(if is_object(&object) { Self::Written(object, answer.warnings) } else { Self::Unknown })
            }
            Err(error) => {
                let repeated = error.repeated;
                error.refusal().map(|status| Self::Refused { status, repeated })
            }
        }
    }
}
