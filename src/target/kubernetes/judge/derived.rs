//! Objects that a cluster makes itself. They are backed up as evidence and not restored, because a controller
//! would conflict with them or they describe old machines.

use serde::Serialize;
use serde_json::Value;

use super::{gitops::GitTool, infrastructure::Infrastructure};
use crate::kubernetes::KindInfo;
use crate::target::kubernetes::{annotation, each, label, text};

/// The reason why an object is not restored although it has no fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Skip {
    /// The cluster makes the object itself.
    Derived(Derived),
    /// The object is infrastructure, which the profile excludes.
    Infrastructure(Infrastructure),
    /// The object has the marks of a tool that creates it from Git.
    Git(GitTool),
    /// The object holds kbak's own keys.
    OwnKeys,
    /// The object, its namespace or its definition was being deleted when the backup was made.
    BeingDeleted,
}

/// The reason why an object is derived.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Derived {
    /// Events, which record history and not a desired state.
    Event,
    /// Machines and their reports: Nodes, CSINodes, capacities, attachments, slices.
    Node,
    /// Leader elections and heartbeats.
    Lease,
    /// Addresses, storage versions and other bookkeeping of the API server.
    Bookkeeping,
    /// Requests that are answered once, for certificates or tokens.
    Request,
    /// Made by its controller: a Pod of a ReplicaSet, a Job of a CronJob.
    Controlled,
    /// Made by the endpoints controller from a Service.
    Endpoints,
    /// A mirror of a static pod of a node.
    MirrorPod,
    /// A finished Pod or Job.
    Finished,
    /// Shipped with the cluster: default roles, flow schemas, system priorities, its own Service.
    Default,
    /// Filled in by the cluster: the CA bundle, tokens of ServiceAccounts, bootstrap tokens.
    Credential,
    /// A volume that a provisioner made for a claim and deletes with it. The claim gets a new one.
    Provisioned,
}

/// Kinds whose objects are all derived: the reason, and resources separated by spaces.
const KINDS: &[(Derived, &str)] = &[
    (Derived::Event, "events events.events.k8s.io"),
    (Derived::Node, "nodes csinodes.storage.k8s.io csistoragecapacities.storage.k8s.io"),
    (Derived::Node, "volumeattachments.storage.k8s.io resourceslices.resource.k8s.io"),
    (Derived::Lease, "leases.coordination.k8s.io leasecandidates.coordination.k8s.io"),
    (Derived::Bookkeeping, "componentstatuses ipaddresses.networking.k8s.io"),
    (Derived::Bookkeeping, "storageversions.internal.apiserver.k8s.io"),
    (Derived::Request, "certificatesigningrequests.certificates.k8s.io"),
    (Derived::Request, "podcertificaterequests.certificates.k8s.io certificaterequests.cert-manager.io"),
    (Derived::Request, "orders.acme.cert-manager.io challenges.acme.cert-manager.io"),
];

/// True if all objects of a kind are derived, so that none is ever restored.
#[must_use]
pub fn is_always_derived(kind: &KindInfo) -> bool {
    derived_kind(kind).is_some()
}

fn derived_kind(kind: &KindInfo) -> Option<Derived> {
    let resource = kind.resource();
    let row = KINDS.iter().find(|(_, resources)| resources.split(' ').any(|one| one == resource));
    row.map(|(why, _)| *why)
}

/// Returns the reason why `object` is derived, if it is.
pub(crate) fn derived_reason(kind: &KindInfo, object: &Value) -> Option<Derived> {
    let (group, plural) = (kind.group.as_str(), kind.plural.as_str());
    derived_kind(kind).or_else(|| match (group, plural) {
        ("", "pods") => pod(object),
        ("batch", "jobs") => job(object),
        ("apps", "replicasets" | "controllerrevisions") => {
            is_controlled(object).then_some(Derived::Controlled)
        }
        ("", "endpoints") | ("discovery.k8s.io", "endpointslices") => endpoints(object),
        ("resource.k8s.io", "resourceclaims") => annotation(object, "resource.kubernetes.io/pod-claim-name")
            .is_some()
            .then_some(Derived::Controlled),
        ("", "secrets") => secret(object),
        ("", "persistentvolumes") => volume(object),
        ("", "persistentvolumeclaims") => is_ephemeral_claim(object).then_some(Derived::Controlled),
        _ => is_default_object(group, plural, object).then_some(Derived::Default),
    })
}

fn is_controlled(object: &Value) -> bool {
    each(object, "/metadata/ownerReferences").any(|owner| owner["controller"] == true)
}

/// True if the claim belongs to a generic ephemeral volume: a Pod controls it, and its name is the Pod's name
/// and then the volume's (KEP-1698). Only that Pod can use it. A Pod may also control a claim of a
/// StatefulSet (KEP-1847), but there the Pod's name comes last.
fn is_ephemeral_claim(claim: &Value) -> bool {
    let name = text(claim, "/metadata/name");
    each(claim, "/metadata/ownerReferences").any(|owner| {
        owner["controller"] == true
            && (text(owner, "/kind"), text(owner, "/apiVersion")) == ("Pod", "v1")
            && name.strip_prefix(text(owner, "/name")).is_some_and(|volume| volume.starts_with('-'))
    })
}

fn pod(object: &Value) -> Option<Derived> {
    if annotation(object, "kubernetes.io/config.mirror").is_some() {
        return Some(Derived::MirrorPod);
    }
    if is_controlled(object) {
        return Some(Derived::Controlled);
    }
    matches!(text(object, "/status/phase"), "Succeeded" | "Failed").then_some(Derived::Finished)
}

fn job(object: &Value) -> Option<Derived> {
    if is_controlled(object) {
        return Some(Derived::Controlled);
    }
    let ended = |condition: &Value| {
        matches!(text(condition, "/type"), "Complete" | "Failed") && text(condition, "/status") == "True"
    };
    each(object, "/status/conditions").any(ended).then_some(Derived::Finished)
}

fn endpoints(object: &Value) -> Option<Derived> {
    let by = label(object, "endpointslice.kubernetes.io/managed-by");
    let is_derived = ["endpointslice-controller.k8s.io", "endpointslicemirroring-controller.k8s.io"]
        .contains(&by)
        || label(object, "endpoints.kubernetes.io/managed-by") == "endpoint-controller"
        || annotation(object, "endpoints.kubernetes.io/last-change-trigger-time").is_some()
        || (text(object, "/metadata/namespace") == "default"
            && text(object, "/metadata/name") == "kubernetes");
    is_derived.then_some(Derived::Endpoints)
}

fn secret(object: &Value) -> Option<Derived> {
    let (name, of) = (text(object, "/metadata/name"), text(object, "/type"));
    let token = of == "kubernetes.io/service-account-token"
        && annotation(object, "kubernetes.io/service-account.name")
            .and_then(|account| name.strip_prefix(account)?.strip_prefix("-token-"))
            .is_some_and(|rest| rest.len() == 5);
    (token || of == "bootstrap.kubernetes.io/token").then_some(Derived::Credential)
}

fn volume(object: &Value) -> Option<Derived> {
    let provisioned = annotation(object, "pv.kubernetes.io/provisioned-by").is_some();
    (provisioned && text(object, "/spec/persistentVolumeReclaimPolicy") == "Delete")
        .then_some(Derived::Provisioned)
}

/// True if every cluster has the object from its start.
fn is_default_object(group: &str, plural: &str, object: &Value) -> bool {
    let (namespace, name) = (text(object, "/metadata/namespace"), text(object, "/metadata/name"));
    match (group, plural) {
        ("", "services") => namespace == "default" && name == "kubernetes",
        ("", "configmaps") => {
            name == "kube-root-ca.crt"
                || (namespace == "kube-system"
                    && matches!(
                        name,
                        "extension-apiserver-authentication"
                            | "kube-apiserver-legacy-service-account-token-tracking"
                    ))
        }
        ("", "namespaces") => matches!(name, "kube-node-lease" | "kube-public"),
        ("networking.k8s.io", "servicecidrs") => name == "kubernetes",
        ("scheduling.k8s.io", "priorityclasses") => name.starts_with("system-"),
        ("rbac.authorization.k8s.io", _) => is_default_role(object),
        ("flowcontrol.apiserver.k8s.io", _) => {
            annotation(object, "apf.kubernetes.io/autoupdate-spec") == Some("true")
        }
        ("apiregistration.k8s.io", "apiservices") => {
            !label(object, "kube-aggregator.kubernetes.io/automanaged").is_empty()
                || object.pointer("/spec/service").is_none_or(Value::is_null)
        }
        _ => false,
    }
}

/// True if the API server makes and reconciles this role or binding itself. The mark alone is not enough:
/// copies of a default role have its labels. Users set it to `false` to keep their changes. A binding with a
/// user's own subject is theirs, too. Source: `plugin/pkg/auth/authorizer/rbac/bootstrappolicy`.
fn is_default_role(object: &Value) -> bool {
    let update = annotation(object, "rbac.authorization.kubernetes.io/autoupdate");
    let marked = label(object, "kubernetes.io/bootstrapping") == "rbac-defaults" || update.is_some();
    let name = text(object, "/metadata/name");
    let known = name.starts_with("system:")
        || matches!(
            name,
            "cluster-admin" | "admin" | "edit" | "view" | "extension-apiserver-authentication-reader"
        );
    let shipped = |subject: &Value| match text(subject, "/kind") {
        "ServiceAccount" => text(subject, "/namespace") == "kube-system",
        _ => text(subject, "/name").starts_with("system:"),
    };
    marked && update != Some("false") && known && each(object, "/subjects").all(shipped)
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn claims_of_ephemeral_volumes_are_derived() {
        let claim = |name: &str, kind: &str, controller: bool| {
            let owner = json!({"apiVersion": "v1", "kind": kind, "name": "web-0", "controller": controller});
            let claim = json!({"metadata": {"name": name, "ownerReferences": [owner]}});
            derived_reason(&KindInfo::from_path_parts("", "v1", "persistentvolumeclaims"), &claim)
        };
        assert_eq!(claim("web-0-scratch", "Pod", true), Some(Derived::Controlled));
        assert_eq!(claim("data-web-0", "Pod", true), None, "of a StatefulSet that is scaled down");
        assert_eq!(claim("web-0-scratch", "Pod", false), None);
        assert_eq!(claim("web-0-scratch", "ConfigMap", true), None);
    }
}
