//! Which namespaces, kinds and labels are read. Pure.

use serde::{Deserialize, Serialize};

use super::KindInfo;
use crate::plan::{self, Glob};

/// The most namespaces that are listed one by one; above, whole kinds are listed and looked through.
const NAMED: usize = 100;

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
    /// All, when everything in namespaces is read. Otherwise those that what is read stands on: the
    /// namespaces themselves, definitions of its custom resources, classes that it names, cluster
    /// roles that are bound to it and their bindings, and the volumes of its claims.
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

/// Cluster-scoped kinds that objects in namespaces stand on ([`super::needs`] says which objects).
const FOUNDATIONS: &[(&str, &str)] = &[
    ("", "namespaces"),
    ("", "persistentvolumes"),
    ("apiextensions.k8s.io", "customresourcedefinitions"),
    ("scheduling.k8s.io", "priorityclasses"),
    ("storage.k8s.io", "storageclasses"),
    ("storage.k8s.io", "volumeattributesclasses"),
    ("snapshot.storage.k8s.io", "volumesnapshotclasses"),
    ("snapshot.storage.k8s.io", "volumesnapshotcontents"),
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
    /// The kinds of `all` that are wanted: those in namespaces, then those outside, definitions at the
    /// end; so that what stands on others comes before them. Otherwise in the order given.
    #[must_use]
    pub fn kinds<'a>(&self, all: &'a [KindInfo]) -> Vec<&'a KindInfo> {
        let core = |plural: &str| all.iter().any(|kind| kind.group.is_empty() && kind.plural == plural);
        let any = |globs: &[Glob], kind: &KindInfo| globs.iter().any(|glob| means(glob, kind, &core));
        let wanted = |kind: &&KindInfo| any(&self.kinds, kind) && !any(&self.exclude_kinds, kind);
        let mut kinds: Vec<&KindInfo> = all.iter().filter(wanted).filter(|kind| self.scope(kind)).collect();
        kinds.sort_by_key(|kind| kind.rank());
        kinds
    }

    /// Kinds that the selection names, and that the cluster does not have.
    #[must_use]
    pub fn unknown_kinds(&self, all: &[KindInfo]) -> Vec<String> {
        let core = |plural: &str| all.iter().any(|kind| kind.group.is_empty() && kind.plural == plural);
        let unknown = |glob: &&Glob| is_name(glob) && !all.iter().any(|kind| means(glob, kind, &core));
        self.kinds.iter().filter(unknown).map(|glob| glob.as_str().to_owned()).collect()
    }

    /// Whether a namespace is wanted.
    #[must_use]
    pub fn namespace(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        any(&self.namespaces) && !any(&self.exclude_namespaces)
    }

    /// The namespaces, when the selection names each of them, in the order of the server's keys. Then
    /// they are listed one by one, and rights in them are enough.
    #[must_use]
    pub fn named_namespaces(&self) -> Option<Vec<String>> {
        if self.namespaces.len() > NAMED || !self.namespaces.iter().all(is_name) {
            return None;
        }
        let mut names: Vec<String> = self.namespaces.iter().map(|glob| glob.as_str().to_owned()).collect();
        names.retain(|name| self.namespace(name));
        // A key is the namespace, a slash and the name.
        names.sort_by_cached_key(|name| format!("{name}/"));
        names.dedup();
        Some(names)
    }

    /// Whether only a part of what lies in namespaces is read, and of the rest only what it needs.
    #[must_use]
    pub fn is_partial(&self) -> bool {
        self.cluster_scoped == ClusterScoped::Auto && (!self.all_namespaces() || self.picks_out())
    }

    /// Whether the label selector picks out, beside leaving out.
    #[must_use]
    pub fn picks_out(&self) -> bool {
        self.labels.as_deref().is_some_and(plan::picks_out)
    }

    /// Whether objects of a kind are taken because others need them, and not for themselves.
    #[must_use]
    pub fn on_demand(&self, kind: &KindInfo) -> bool {
        !kind.namespaced
            && self.is_partial()
            && FOUNDATIONS.contains(&(kind.group.as_str(), kind.plural.as_str()))
    }

    /// The label selector that the server applies to a kind. What others need is taken whatever its
    /// labels are, unless they leave it out.
    #[must_use]
    pub fn labels_for(&self, kind: &KindInfo) -> Option<String> {
        let labels = self.labels.as_deref()?;
        if self.on_demand(kind) { plan::exclusions(labels) } else { Some(labels.to_owned()) }
    }

    fn all_namespaces(&self) -> bool {
        self.exclude_namespaces.is_empty() && self.namespaces.iter().any(Glob::is_everything)
    }

    fn scope(&self, kind: &KindInfo) -> bool {
        kind.namespaced
            || match self.cluster_scoped {
                ClusterScoped::All => true,
                ClusterScoped::None => false,
                ClusterScoped::Auto => self.all_namespaces() || self.on_demand(kind),
            }
    }
}

/// Whether a pattern stands for one name.
fn is_name(glob: &Glob) -> bool {
    !glob.as_str().contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, plural: &str, namespaced: bool) -> KindInfo {
        KindInfo { namespaced, ..KindInfo::named(group, "v1", plural) }
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
        assert_eq!(wanted, ["pods", "namespaces"], "what is needed comes after what needs it");
        assert!(selection.namespace("shop") && !selection.namespace("other"));
    }

    #[test]
    fn named_namespaces_come_in_the_order_of_keys() {
        let globs = |names: &[&str]| names.iter().map(|name| Glob::new(name).expect("a pattern")).collect();
        let selection = Selection { namespaces: globs(&["shop", "b", "shop-a"]), ..Selection::default() };
        assert_eq!(selection.named_namespaces().expect("names"), ["b", "shop-a", "shop"]);
        assert!(
            Selection { namespaces: globs(&["shop*"]), ..Selection::default() }.named_namespaces().is_none()
        );
    }

    #[test]
    fn a_kind_that_is_named_and_not_there_is_told() {
        let kinds = ["pods", "deployments.apps", "*.gone.io"].map(|kind| Glob::new(kind).expect("a pattern"));
        let selection = Selection { kinds: kinds.to_vec(), ..Selection::default() };
        assert_eq!(selection.unknown_kinds(&[kind("", "pods", true)]), ["deployments.apps"]);
    }
}
