//! Who else brings an object: Argo CD and Flux bring back what Git holds, Helm says that it made it.

use serde::Serialize;
use serde_json::Value;

use super::super::object::{annotation, label};
use crate::source::kubernetes::KindInfo;

/// A tool that brings objects from Git.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
pub enum Tool {
    /// Argo CD.
    #[serde(rename = "Argo CD")]
    ArgoCd,
    /// Flux.
    Flux,
}

impl std::fmt::Display for Tool {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::ArgoCd => "Argo CD",
            Self::Flux => "Flux",
        })
    }
}

/// What Argo CD marks objects with. It can be told to use `app.kubernetes.io/instance`, which Helm
/// sets as well: that alone proves nothing.
const ARGO: [&str; 2] = ["argocd.argoproj.io/tracking-id", "argocd.argoproj.io/instance"];
/// What Flux marks objects with.
const FLUX: [&str; 2] = ["kustomize.toolkit.fluxcd.io/name", "helm.toolkit.fluxcd.io/name"];

/// Which tool brings `object` from Git.
pub(in super::super) fn tracked(object: &Value) -> Option<Tool> {
    let marked = |names: &[&str]| {
        names.iter().any(|name| annotation(object, name).is_some() || !label(object, name).is_empty())
    };
    if marked(&ARGO) {
        return Some(Tool::ArgoCd);
    }
    marked(&FLUX).then_some(Tool::Flux)
}

/// Whether others cannot be created before it is there, so that it comes although Git holds it.
pub(in super::super) fn others_need(kind: &KindInfo) -> bool {
    matches!(kind.resource().as_str(), "namespaces" | "customresourcedefinitions.apiextensions.k8s.io")
}

/// The marks, to be cut from a copy: Argo CD deletes what bears an application's mark and is not
/// in it.
pub(in super::super) const MARKS: [&str; 6] = [
    "argocd.argoproj.io/tracking-id",
    "argocd.argoproj.io/instance",
    "kustomize.toolkit.fluxcd.io/name",
    "kustomize.toolkit.fluxcd.io/namespace",
    "helm.toolkit.fluxcd.io/name",
    "helm.toolkit.fluxcd.io/namespace",
];

/// Whether it is a release of Helm, whose payload names its namespace.
pub(in super::super) fn helm_release(kind: &KindInfo, object: &Value) -> bool {
    kind.resource() == "secrets" && object.get("type").and_then(Value::as_str) == Some("helm.sh/release.v1")
        || kind.resource() == "configmaps"
            && label(object, "owner") == "helm"
            && label(object, "OWNER") == "TILLER"
}
