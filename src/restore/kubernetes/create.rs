//! Creates one object.

use bytes::Bytes;
use http::Method;
use serde_json::Value;

use super::surgery::{self, Options};
use super::target::{Target, segment};
use super::{ObjectRef, Outcome, Refusal, RestoreConfig, RestoreError};
use super::{derived, order};
use crate::plan::Glob;
use crate::source::kubernetes::{ApiError, ApiErrorKind, ApiStatus, Cluster, KindInfo};

/// Under which name the server notes what a restore wrote.
const MANAGER: &str = "kbak";

/// What became of a line.
#[derive(Debug)]
pub(super) struct Attempt {
    /// Its object.
    pub(super) object: ObjectRef,
    /// The object's UID in the backup.
    pub(super) old_uid: String,
    /// Its UID now, where it is there.
    pub(super) new_uid: String,
    /// Whether it names owners.
    pub(super) owned: bool,
    /// Whether it was made by a restore, this one or one that was interrupted, and has no owners
    /// yet.
    pub(super) ours: bool,
    /// What became of it.
    pub(super) outcome: Outcome,
    /// Whether another try may go better.
    pub(super) again: bool,
    /// What the server warned of.
    pub(super) warnings: Vec<String>,
}

/// What is needed to create objects of one kind.
pub(super) struct Creator<'a> {
    pub(super) cluster: &'a Cluster,
    pub(super) config: &'a RestoreConfig,
    pub(super) target: &'a Target,
    pub(super) kind: &'a KindInfo,
}

impl Creator<'_> {
    /// The object of a line; none if it is not selected.
    pub(super) fn object(&self, line: &[u8]) -> Result<Option<(ObjectRef, Value)>, &'static str> {
        let object: Value = serde_json::from_slice(line).map_err(|_| "it is not JSON")?;
        let text = |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default();
        let (namespace, name) = (text("/metadata/namespace"), text("/metadata/name"));
        if name.is_empty() {
            return Err("it is no object with a name");
        }
        let named = ObjectRef {
            resource: self.kind.resource(),
            kind: self.kind.kind.clone(),
            namespace: if self.kind.namespaced { namespace.to_owned() } else { String::new() },
            name: name.to_owned(),
        };
        let wanted = |globs: &[Glob], name: &str| globs.is_empty() || globs.iter().any(|g| g.matches(name));
        let place = match (self.kind.namespaced, self.kind.resource() == "namespaces") {
            (true, _) => wanted(&self.config.namespaces, namespace),
            (false, true) => wanted(&self.config.namespaces, name),
            // Cluster-scoped objects belong to no selection of namespaces.
            (false, false) => self.config.namespaces.is_empty(),
        };
        Ok(place.then_some((named, object)))
    }

    /// Creates it, unless it is derived or not allowed. An error ends the restore; what concerns
    /// only this object is an outcome.
    pub(super) async fn create(
        &self,
        named: ObjectRef,
        mut object: Value,
        volume_there: impl AsyncFn(&str) -> Result<bool, RestoreError>,
    ) -> Result<Attempt, RestoreError> {
        let text =
            |pointer: &str| object.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned();
        let owned = object.pointer("/metadata/ownerReferences").is_some();
        let attempt = Attempt {
            object: named,
            old_uid: text("/metadata/uid"),
            new_uid: String::new(),
            owned,
            ours: false,
            outcome: Outcome::Unserved,
            again: false,
            warnings: Vec::new(),
        };
        if let Some(why) = derived::derived(self.kind, &object) {
            return Ok(Attempt { outcome: Outcome::Derived(why), ..attempt });
        }
        if let Some(gate) = order::gate(self.kind)
            && !self.config.allow.contains(&gate)
        {
            return Ok(Attempt { outcome: Outcome::Refused(gate), ..attempt });
        }
        // Its definition may still come.
        let Some(target) = self.target.find(self.kind) else { return Ok(Attempt { again: true, ..attempt }) };
        let Some(path) = path(target, &attempt.object) else {
            return Ok(Attempt { outcome: Outcome::Failed(unsent("InvalidName")), ..attempt });
        };
        let options = Options {
            status: target.has("status") || !target.group.contains('.') || target.group.ends_with(".k8s.io"),
            node_ports: self.config.node_ports,
        };
        surgery::cut(self.kind, &mut object, options);
        if self.kind.resource() == "persistentvolumeclaims" {
            let volume = object.pointer("/spec/volumeName").and_then(Value::as_str).map(str::to_owned);
            if let Some(volume) = volume
                && !volume_there(&volume).await?
            {
                surgery::unbind(&mut object);
            }
        }
        object["apiVersion"] = Value::from(target.api_version());
        object["kind"] = Value::from(target.kind.clone());
        self.post(target, &path, Bytes::from(object.to_string()), attempt).await
    }

    async fn post(
        &self,
        target: &KindInfo,
        path: &Paths,
        body: Bytes,
        attempt: Attempt,
    ) -> Result<Attempt, RestoreError> {
        let query = format!("fieldManager={MANAGER}&fieldValidation=Warn");
        let sent = self.cluster.send(Method::POST, &path.all, &query, "application/json", body).await;
        let error = match sent {
            Ok(answer) => {
                let new_uid = uid(&answer.body);
                let warnings = answer.warnings.into_iter().take(8).collect();
                return Ok(Attempt { outcome: Outcome::Created, new_uid, ours: true, warnings, ..attempt });
            }
            Err(error) => error,
        };
        let repeated = error.repeated;
        let status = match &error.kind {
            ApiErrorKind::Status(status) if status.code != 401 => status.clone(),
            _ => return Err(error.into()),
        };
        if status.code == 409 && status.reason == "AlreadyExists" {
            let existing = self.existing(&path.one).await?;
            // If the answer to an earlier try of the same create was lost, it is ours.
            let outcome = if repeated { Outcome::Created } else { Outcome::Existed };
            let (new_uid, ours) = (existing.uid(), existing.is_ours());
            return Ok(Attempt { outcome, new_uid, ours, ..attempt });
        }
        let again = may_go_better(&status);
        let refusal = refusal(target, &status);
        Ok(Attempt { outcome: Outcome::Failed(refusal), again, ..attempt })
    }

    async fn existing(&self, path: &str) -> Result<Existing, ApiError> {
        match self.cluster.get(path, "", 16 << 20).await {
            Ok(answer) => Ok(serde_json::from_slice(&answer.body).unwrap_or_default()),
            // Without the right to read it, or gone again: its children lose it as an owner.
            Err(error) if error.status().is_some() => Ok(Existing::default()),
            Err(error) => Err(error),
        }
    }
}

/// What is looked at of an object that was there.
#[derive(Default, serde::Deserialize)]
struct Existing {
    #[serde(default)]
    metadata: ExistingMeta,
}

#[derive(Default, serde::Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct ExistingMeta {
    uid: String,
    owner_references: Vec<serde::de::IgnoredAny>,
    managed_fields: Vec<Manager>,
}

#[derive(Default, serde::Deserialize)]
#[serde(default)]
struct Manager {
    manager: String,
}

impl Existing {
    fn uid(&self) -> String {
        self.metadata.uid.clone()
    }

    /// Whether a restore made it and was interrupted before it set the owners: the server notes
    /// who wrote an object.
    fn is_ours(&self) -> bool {
        self.metadata.owner_references.is_empty()
            && self.metadata.managed_fields.iter().any(|fields| fields.manager == MANAGER)
    }
}

/// The paths of an object and of its kind.
struct Paths {
    all: String,
    one: String,
}

fn path(target: &KindInfo, object: &ObjectRef) -> Option<Paths> {
    let namespace = if target.namespaced { Some(segment(&object.namespace)?) } else { None };
    let all = target.path(namespace.as_deref());
    let one = format!("{all}/{}", segment(&object.name)?);
    Some(Paths { all, one })
}

fn uid(body: &[u8]) -> String {
    serde_json::from_slice::<Existing>(body).unwrap_or_default().uid()
}

/// An object that was not sent.
pub(super) fn unsent(reason: &str) -> Refusal {
    Refusal { code: 0, reason: reason.to_owned(), fields: Vec::new(), message: String::new() }
}

/// Whether the same object may be taken later, when others are there. What is wrong with the
/// object itself stays wrong.
fn may_go_better(status: &ApiStatus) -> bool {
    !matches!(status.code, 400 | 413 | 415 | 422)
}

/// What may be said of a refusal. A message about invalid fields quotes their values, and any
/// message about a Secret may; then only reason and fields are named.
fn refusal(kind: &KindInfo, status: &ApiStatus) -> Refusal {
    let quotes = matches!(status.code, 400 | 422) || kind.resource() == "secrets";
    let mut fields: Vec<String> = status.causes.iter().map(|cause| cause.field.clone()).collect();
    fields.retain(|field| !field.is_empty());
    fields.dedup();
    Refusal {
        code: status.code,
        reason: status.reason.clone(),
        fields,
        message: if quotes { String::new() } else { status.message.clone() },
    }
}
