//! Decides about a stored object from the object and the config alone, without asking the cluster. The plan
//! and the restore use the same function, so that a restore does what was shown.

mod allow;
mod derived;
mod gitops;
mod infrastructure;
mod kbak_objects;
mod ownership;
mod reconcile;
mod side_effects;
#[cfg(test)]
mod step_bounds;

use serde_json::Value;

use super::{
    ObjectRef, OwnerReference, Refusal, Requirements, RestoreConfig, SelectionUsage, ServedKind, ServedKinds,
    StoredObject, TOO_DEEP, api_paths,
    change::{self, ApiMove, Change, Changes, Comparison, NodePorts},
    each, text,
};
use crate::kubernetes::{KindInfo, MAX_NESTING};
use crate::plan::{Permission, Scope, SideEffect};

use allow::required_permission;
pub use derived::{Derived, Skip, is_always_derived};
pub use gitops::GitTool;
pub(crate) use gitops::TRACKING_MARKS;
pub use infrastructure::Infrastructure;
pub(crate) use ownership::{
    FIELD_MANAGER, PendingWrites, SecondWrite, has_restore_manager, may_be_from_restore,
    reset_observed_generation,
};
pub(crate) use reconcile::{
    ExistingAction, VOLUME_IN_USE, lacks_fields, lost_fields, matches_existing, reconcile,
    refuse_bound_volume,
};

/// The decision about an object by itself.
#[derive(Debug)]
pub(crate) enum ObjectDecision {
    /// Create this.
    Create(Box<PreparedObject>),
    /// Skip the object.
    Skip(Skip),
    /// Refuse it unless it is allowed; with the object to create, if its kind is served.
    Refuse(Permission, Option<Box<PreparedObject>>),
    /// Hold it back unless a copy may have this effect.
    Hold(SideEffect),
    /// The kind is not served, or not yet; with the second write after it is.
    Unserved(SecondWrite),
    /// The object cannot be sent.
    Invalid(Refusal),
}

/// An object that can be sent.
#[derive(Debug)]
pub(crate) struct PreparedObject {
    pub(crate) body: Value,
    /// The kind as the target serves it.
    pub(crate) kind: KindInfo,
    /// True if the backup has another version of the API.
    pub(crate) other_version: bool,
    pub(crate) suspended: bool,
    /// Fields that only a second write can set.
    pub(crate) second_write: SecondWrite,
}

impl PreparedObject {
    pub(crate) fn compare(&self, existing: &Value) -> Comparison {
        change::compare(&self.kind, self.other_version, &self.body, existing)
    }
}

#[derive(Debug)]
pub(crate) struct DecidedObject {
    /// The object's name in the target cluster.
    pub(crate) object: ObjectRef,
    /// The object's namespace in the backup, or its name if it is a namespace.
    pub(crate) from: String,
    /// The object's UID in the backup.
    pub(crate) old_uid: String,
    /// True if it is a Helm release in a mapped namespace.
    pub(crate) helm_moved: bool,
    pub(crate) changes: Vec<Change>,
    pub(crate) decision: ObjectDecision,
}

/// Decides about objects of one kind.
pub(crate) struct Decider<'a> {
    pub(crate) config: &'a RestoreConfig,
    pub(crate) target: &'a ServedKinds,
    pub(crate) kind: &'a KindInfo,
    /// True if the target is another cluster than that of the backup and does not take its place.
    pub(crate) foreign: bool,
    pub(crate) usage: &'a SelectionUsage<'a>,
    pub(crate) requirements: &'a Requirements,
}

impl Decider<'_> {
    /// Decides about the object of a line; none if it is not selected.
    pub(crate) fn decide(&self, line: &[u8]) -> Result<Option<DecidedObject>, &'static str> {
        let stored = StoredObject::parse(line)?;
        let object = stored.known();
        let named = ObjectRef::stored(self.kind, object);
        if named.name.is_empty() {
            return Err("it is not an object with a name");
        }
        if self.kind.namespaced && named.namespace.is_empty() {
            return Err("it has no namespace");
        }
        if !self.usage.selects_or_requires(&named, self.kind.namespaced, object, self.requirements) {
            return Ok(None);
        }
        Ok(Some(self.decide_selected(named, stored)))
    }

    fn decide_selected(&self, named: ObjectRef, stored: StoredObject) -> DecidedObject {
        let (object, is_whole) = match stored {
            StoredObject::Whole(object) => (object, true),
            StoredObject::TooDeep(object) => (object, false),
        };
        let namespace = if named.resource == "namespaces" { &named.name } else { &named.namespace };
        let mapped = self.config.is_mapped(namespace);
        let old_uid = text(&object, "/metadata/uid").to_owned();
        let helm_moved = mapped && gitops::is_helm_release(self.kind, &object);
        let skip = skip_reason(self.config, self.requirements, self.kind, &named, &object);
        self.usage.record_skip(&named, self.kind.namespaced, skip);
        let mut changes = Changes::default();
        let decision = match skip {
            Some(skip) => ObjectDecision::Skip(skip),
            None if !is_whole => ObjectDecision::Invalid(too_deep_refusal()),
            None => self
                .prepare(&named, object, self.foreign || mapped, &mut changes)
                .unwrap_or_else(|decision| decision),
        };
        if matches!(decision, ObjectDecision::Hold(_)) {
            changes = Changes::default();
        }
        let (object, from) = (self.renamed(&named), namespace.clone());
        DecidedObject { object, from, old_uid, helm_moved, changes: changes.into_vec(), decision }
    }

    fn second_write_of(&self, named: &ObjectRef, object: &Value) -> SecondWrite {
        let owners = each(object, "/metadata/ownerReferences");
        let owners = owners.map(|reference| OwnerReference::for_target(reference, self.config, self.target));
        let status = self.config.status.iter().any(|glob| glob.matches(&named.resource));
        SecondWrite::new(object, owners.collect(), status)
    }

    fn renamed(&self, named: &ObjectRef) -> ObjectRef {
        let mut object = named.clone();
        let space = if named.resource == "namespaces" { &mut object.name } else { &mut object.namespace };
        if let Some(to) = self.config.mapping.namespaces.get(space.as_str()) {
            to.clone_into(space);
        }
        object
    }

    /// Returns the object as it is sent, or the reason why it is not.
    fn prepare(
        &self,
        named: &ObjectRef,
        mut object: Value,
        copy: bool,
        changes: &mut Changes,
    ) -> Result<ObjectDecision, ObjectDecision> {
        let second_write = self.second_write_of(named, &object);
        let found = self.target.find(self.kind);
        let own = kbak_objects::is_own_job(self.kind, &object);
        let suspend = own || (copy && !self.config.is_released(SideEffect::Jobs));
        // In a copy, chosen ports may be in use by the original.
        let node_ports = match (self.config.node_ports, copy) {
            (true, _) => NodePorts::All,
            (false, true) => NodePorts::None,
            (false, false) => NodePorts::Chosen,
        };
        let own_status = found.as_ref().is_none_or(|place| place.kind.has("status"));
        let builtin = !self.kind.group.contains('.') || self.kind.group.ends_with(".k8s.io");
        let options = change::StripOptions { status: own_status || builtin, node_ports };
        change::strip_fields(self.kind, &mut object, options, changes);
        let kind = self.place(found, &mut object, changes)?;
        change::apply_mapping(self.kind, &mut object, &self.config.mapping, changes);
        change::apply_modifiers(named, &mut object, &self.config.modifiers, changes)
            .map_err(|error| ObjectDecision::Invalid(Refusal::not_sent("Modifier", error.to_string())))?;
        // Checked after the modifiers, because they may change the object's effects.
        if copy
            && let Some(release) = side_effects::side_effect_of(self.kind, &object)
            && !self.config.is_released(release)
        {
            return Err(ObjectDecision::Hold(release));
        }
        if copy && side_effects::retain_storage(self.kind, &mut object) {
            changes.add(Change::Retained);
        }
        let suspended = suspend && side_effects::suspend(self.kind, &mut object);
        if suspended {
            changes.add(Change::Suspended { own });
        }
        let refused = required_permission(self.kind, &object);
        let refused = refused.filter(|permission| !self.config.allow.contains(permission));
        let Some(kind) = kind else {
            return Err(match refused {
                Some(permission) => ObjectDecision::Refuse(permission, None),
                None => ObjectDecision::Unserved(second_write),
            });
        };
        if api_paths(&kind, text(&object, "/metadata/namespace"), text(&object, "/metadata/name")).is_none() {
            return Err(ObjectDecision::Invalid(Refusal::not_sent("InvalidName", "")));
        }
        let other_version = kind.api_version() != self.kind.api_version();
        let second_write = second_write.without_created(&object, &kind, other_version);
        let prepared =
            Box::new(PreparedObject { body: object, kind, other_version, suspended, second_write });
        Ok(match refused {
            None => ObjectDecision::Create(prepared),
            Some(permission) => ObjectDecision::Refuse(permission, Some(prepared)),
        })
    }

    /// Sets the version in which the object is created, and returns its kind in the target.
    fn place(
        &self,
        found: Option<ServedKind<'_>>,
        object: &mut Value,
        changes: &mut Changes,
    ) -> Result<Option<KindInfo>, ObjectDecision> {
        let Some(ServedKind { kind, api_move }) = found else { return Ok(None) };
        if let Some(ApiMove { convert, .. }) = api_move {
            convert(object)
                .map_err(|why| ObjectDecision::Invalid(Refusal::not_sent("RemovedVersion", why)))?;
        }
        let (from, to) = (self.kind.api_version(), kind.api_version());
        if from != to {
            changes.add(Change::Version { from, to: to.clone() });
        }
        object["apiVersion"] = Value::from(to);
        object["kind"] = Value::from(kind.kind.clone());
        Ok(Some(kind.clone()))
    }
}

/// Returns the refusal of an object that is nested too deep to be sent.
fn too_deep_refusal() -> Refusal {
    let message = format!(
        "it has more than {MAX_NESTING} levels of lists and maps; --resources-to writes it to a file for kubectl"
    );
    Refusal::not_sent(TOO_DEEP, message)
}

/// Returns the rule that leaves out a selected object, if one does.
pub(crate) fn skip_reason(
    config: &RestoreConfig,
    requirements: &Requirements,
    kind: &KindInfo,
    named: &ObjectRef,
    object: &Value,
) -> Option<Skip> {
    if let Some(why) = derived::derived_reason(kind, object) {
        return Some(Skip::Derived(why));
    }
    if requirements.was_being_deleted(kind, named, object) && !config.names_object(kind, named) {
        return Some(Skip::BeingDeleted);
    }
    if kbak_objects::holds_own_keys(kind, object) {
        return Some(Skip::OwnKeys);
    }
    if let Some(why) = infrastructure::infrastructure_reason(kind, object, config.profile) {
        return Some(Skip::Infrastructure(why));
    }
    // A mapped namespace is not in Git, so its objects are restored by default.
    let namespace = if named.resource == "namespaces" { &named.name } else { &named.namespace };
    let data = config.scope.map_or(!config.is_mapped(namespace), |scope| scope == Scope::Data);
    if !data || gitops::is_prerequisite(kind) {
        return None;
    }
    gitops::git_tool_of(kind, object).map(Skip::Git)
}

/// True if several namespaces mapped to one name count as one object. Its labels are those of the first.
pub(crate) fn is_shared_namespace(object: &ObjectRef) -> bool {
    object.resource == "namespaces"
}

/// True if an existing object is merged instead of left unchanged: every namespace has this account, and its
/// additions are the user's.
pub(crate) fn is_merged(object: &ObjectRef) -> bool {
    object.resource == "serviceaccounts" && object.name == "default"
}
