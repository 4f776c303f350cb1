//! Detects other tools that create an object: Argo CD and Flux from Git, Helm by its releases.

use serde::Serialize;
use serde_json::Value;

use crate::kubernetes::KindInfo;
use crate::target::kubernetes::{annotation, label, text};

/// A tool that creates objects from Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum GitTool {
    /// Argo CD.
    #[serde(rename = "Argo CD")]
    ArgoCd,
    /// Flux.
    Flux,
}

impl std::fmt::Display for GitTool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
        })
    }
}

/// Marks that Argo CD sets. Helm sets `app.kubernetes.io/instance` as well, which Argo CD can be configured
/// to use, so that label alone proves nothing.
const ARGO: [&str; 2] = [TRACKING, "argocd.argoproj.io/instance"];
/// The annotation that names the application and the object.
const TRACKING: &str = "argocd.argoproj.io/tracking-id";
/// Marks that Flux sets.
const FLUX: [&str; 2] = ["kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"];

/// Returns the tool that creates `object` from Git, if any.
pub(crate) fn git_tool_of(kind: &KindInfo, object: &Value) -> Option<GitTool> {
    let marked = |names: &[&str]| {
        names.iter().any(|name| annotation(object, name).is_some() || !label(object, name).is_empty())
    };
    let argo = match annotation(object, TRACKING) {
        Some(id) => names(id, kind, object),
        None => marked(&ARGO),
    };
    if argo {
        return Some(GitTool::ArgoCd);
    }
    marked(&FLUX).then_some(GitTool::Flux)
}

/// True if a tracking id, `app:group/kind:namespace/name`, names the object that has it. Argo CD ignores an
/// id that was copied from another object.
fn names(id: &str, kind: &KindInfo, object: &Value) -> bool {
    let mut parts = id.splitn(3, ':');
    let (Some(_), Some(of), Some(place)) = (parts.next(), parts.next(), parts.next()) else { return false };
    let (Some((group, named_kind)), Some((namespace, name))) = (of.split_once('/'), place.split_once('/'))
    else {
        return false;
    };
    // For cluster-scoped objects the id has the namespace of the application's destination.
    let placed = !kind.namespaced || namespace == text(object, "/metadata/namespace");
    placed && group == kind.group && named_kind == kind.kind && name == text(object, "/metadata/name")
}

/// True if other objects cannot be created before this one, so that it is restored although Git holds it.
pub(crate) fn is_prerequisite(kind: &KindInfo) -> bool {
    matches!(kind.resource().as_str(), "namespaces" | "customresourcedefinitions.apiextensions.k8s.io")
}

/// Marks to remove from a copy: Argo CD deletes objects that have an application's mark but are not in it.
pub(crate) const TRACKING_MARKS: [&str; 6] = [
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
];

/// True if the object is a Helm release, whose payload names its namespace.
pub(crate) fn is_helm_release(kind: &KindInfo, object: &Value) -> bool {
    kind.resource() == "secrets" && object.get("type").and_then(Value::as_str) == Some("helm.sh/release.v1")
        || kind.resource() == "configmaps"
            && label(object, "owner") == "helm"
            && label(object, "OWNER") == "TILLER"
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn tracking_id_of_another_object_is_ignored() {
        let kind = |group: &str, kind: &str, namespaced: bool| KindInfo {
            kind: kind.into(),
            namespaced,
            ..KindInfo::from_path_parts(group, "v1", "")
        };
        let object = |id: &str| {
            let (labels, marks) = (json!({"argocd.argoproj.io/instance": "a"}), json!({TRACKING: id}));
            json!({"metadata": {"namespace": "shop", "name": "web", "labels": labels, "annotations": marks}})
        };
        let deployment = kind("apps", "Deployment", true);
        let argo = Some(GitTool::ArgoCd);
        assert_eq!(git_tool_of(&deployment, &object("a:apps/Deployment:shop/web")), argo);
        for other in [
            "a:apps/Deployment:shop/other",
            "a:apps/Deployment:other/web",
            "a:apps/StatefulSet:shop/web",
            "a:extensions/Deployment:shop/web",
            "a:apps/Deployment",
            "",
        ] {
            assert_eq!(git_tool_of(&deployment, &object(other)), None, "{other}");
        }
        let role = json!({"metadata": {"name": "system:web", "annotations": {TRACKING: "a:g/Role:shop/system:web"}}});
        assert_eq!(git_tool_of(&kind("g", "Role", false), &role), argo);
        let labelled = json!({"metadata": {"labels": {"argocd.argoproj.io/instance": "a"}}});
        assert_eq!(git_tool_of(&deployment, &labelled), argo);
    }
}
