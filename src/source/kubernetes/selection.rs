//! Which namespaces, kinds and labels are read. Pure.

use serde::{Deserialize, Serialize};

use super::KindInfo;
use super::page::ItemMeta;
use crate::plan::Glob;

/// What of a cluster is wanted.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Namespaces to read.
    pub namespaces: Vec<Glob>,
    /// Namespaces left out of those.
    pub exclude_namespaces: Vec<Glob>,
    /// Kinds to read: `pods`, `deployments.apps`, `*.cert-manager.io`.
    pub kinds: Vec<Glob>,
    /// Kinds left out of those.
    pub exclude_kinds: Vec<Glob>,
    /// A label selector in the API's syntax, applied by the server to every kind.
    pub labels: Option<String>,
    /// What happens to objects outside namespaces.
    pub cluster_scoped: ClusterScoped,
}

/// Objects outside namespaces.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ClusterScoped {
    /// All, when all namespaces are read. Otherwise those that objects in namespaces stand on:
    /// the namespaces themselves, definitions, classes, cluster roles and their bindings, and
    /// the PersistentVolumes whose claims are in the namespaces.
    Auto,
    /// All.
    All,
    /// None, not even the namespaces.
    None,
}

/// A selection that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The selection names nothing that the cluster has.
    #[error("the selection matches no kind that the cluster has")]
    Empty,
}

/// Whether a pattern means this kind. A pattern with a dot or a star is held against
/// `plural.group`. A plain word means the core group's resource of that name if there is one
/// (so that `events` does not mean another group's), and otherwise any group's.
fn means(glob: &Glob, kind: &KindInfo, core: &dyn Fn(&str) -> bool) -> bool {
    if glob.as_str().contains(['.', '*', '?']) || kind.group.is_empty() {
        return glob.matches(&kind.resource());
    }
    glob.as_str() == kind.plural && !core(&kind.plural)
}

/// Cluster-scoped kinds that objects in namespaces stand on.
const FOUNDATIONS: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("snapshot.storage.k8s.io", "volumesnapshotclasses"),
    ("networking.k8s.io", "ingressclasses"),
    ("gateway.networking.k8s.io", "gatewayclasses"),
    ("node.k8s.io", "runtimeclasses"),
    ("resource.k8s.io", "deviceclasses"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
];

impl Default for Selection {
    /// Everything but events.
    fn default() -> Self {
        let glob = Glob::known;
        Self {
            namespaces: vec![glob("*")],
            exclude_namespaces: Vec::new(),
            kinds: vec![glob("*")],
            exclude_kinds: vec![glob("events"), glob("events.events.k8s.io")],
            labels: None,
            cluster_scoped: ClusterScoped::Auto,
        }
    }
}

impl Selection {
    /// The kinds of `all` that are wanted, in the order given.
    #[must_use]
    pub fn kinds<'a>(&self, all: &'a [KindInfo]) -> Vec<&'a KindInfo> {
        let core = |plural: &str| all.iter().any(|kind| kind.group.is_empty() && kind.plural == plural);
        let any = |globs: &[Glob], kind: &KindInfo| globs.iter().any(|glob| means(glob, kind, &core));
        all.iter()
            .filter(|kind| any(&self.kinds, kind) && !any(&self.exclude_kinds, kind))
            .filter(|kind| kind.namespaced || self.takes_cluster_scoped(kind))
            .collect()
    }

    /// Whether a namespace is wanted.
    #[must_use]
    pub fn namespace(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        any(&self.namespaces) && !any(&self.exclude_namespaces)
    }

    /// Whether an object of a wanted kind is wanted.
    #[must_use]
    pub fn object(&self, kind: &KindInfo, meta: &ItemMeta) -> bool {
        if kind.namespaced {
            return self.namespace(&meta.namespace);
        }
        if self.all_namespaces() || self.cluster_scoped != ClusterScoped::Auto {
            return true;
        }
        match (kind.group.as_str(), kind.plural.as_str()) {
            ("", "namespaces") => self.namespace(&meta.name),
            ("", "persistentvolumes") => meta.claim_namespace.as_deref().is_some_and(|ns| self.namespace(ns)),
            _ => true,
        }
    }

    fn all_namespaces(&self) -> bool {
        self.exclude_namespaces.is_empty() && self.namespaces.iter().any(Glob::is_everything)
    }

    fn takes_cluster_scoped(&self, kind: &KindInfo) -> bool {
        match self.cluster_scoped {
            ClusterScoped::All => true,
            ClusterScoped::None => false,
            ClusterScoped::Auto => {
                self.all_namespaces() || FOUNDATIONS.contains(&(kind.group.as_str(), kind.plural.as_str()))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, plural: &str, namespaced: bool) -> KindInfo {
        KindInfo {
            group: group.to_owned(),
            version: "v1".to_owned(),
            plural: plural.to_owned(),
            kind: plural.to_owned(),
            namespaced,
            subresources: Vec::new(),
        }
    }

    #[test]
    fn excluding_core_events_spares_another_groups_events() {
        let all = [
            kind("", "events", true),
            kind("events.k8s.io", "events", true),
            kind("audit.example.com", "events", true),
        ];
        let wanted: Vec<_> = Selection::default().kinds(&all).iter().map(|k| k.resource()).collect();
        assert_eq!(wanted, ["events.audit.example.com"]);
    }

    #[test]
    fn some_namespaces_bring_what_they_stand_on_and_no_more() {
        let selection =
            Selection { namespaces: vec![Glob::new("shop").expect("a pattern")], ..Selection::default() };
        let all = [kind("", "namespaces", false), kind("", "nodes", false), kind("", "pods", true)];
        let wanted: Vec<_> = selection.kinds(&all).iter().map(|k| k.plural.clone()).collect();
        assert_eq!(wanted, ["namespaces", "pods"]);
        let named = |name: &str| ItemMeta { name: name.to_owned(), ..ItemMeta::default() };
        assert!(selection.object(&all[0], &named("shop")) && !selection.object(&all[0], &named("other")));
    }
}
