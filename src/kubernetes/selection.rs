//! The selection of namespaces, kinds and labels. Pure.

use super::KindInfo;
use super::referenced_kinds::{is_referenced, may_refer};
use crate::plan::{self, ClusterScoped, EVENT_KINDS, Glob, GlobError, ResourcesSpec};

/// The most namespaces that are listed one by one; above it, whole kinds are listed and filtered.
const MAX_NAMED_NAMESPACES: usize = 100;

/// The selected part of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Namespaces to read.
    pub namespaces: Vec<Glob>,
    /// Namespaces excluded from those.
    pub exclude_namespaces: Vec<Glob>,
    /// Kinds to read: `pods`, `deployments.apps`, `*.cert-manager.io`.
    pub kinds: Vec<Glob>,
    /// Kinds excluded from those.
    pub exclude_kinds: Vec<Glob>,
    /// A label selector in the API's syntax, applied by the server to every kind.
    pub labels: Option<String>,
    /// The rule for objects outside namespaces.
    pub cluster_scoped: ClusterScoped,
}

impl Selection {
    /// Returns the selection that a plan declares.
    ///
    /// # Errors
    /// [`GlobError`] for an invalid pattern.
    pub fn of(resources: &ResourcesSpec) -> Result<Self, GlobError> {
        let kinds = Glob::parse_all(&resources.kinds.include)?;
        let names = |event: &str| kinds.iter().any(|glob| !glob.is_everything() && glob.matches(event));
        let unnamed = EVENT_KINDS.into_iter().filter(|event| !names(event)).map(Glob::from_static);
        let mut exclude_kinds = Glob::parse_all(&resources.kinds.exclude)?;
        exclude_kinds.extend(unnamed);
        Ok(Self {
            namespaces: Glob::parse_all(&resources.namespaces.include)?,
            exclude_namespaces: Glob::parse_all(&resources.namespaces.exclude)?,
            kinds,
            exclude_kinds,
            labels: resources.selector.clone(),
            cluster_scoped: resources.cluster_scoped,
        })
    }
}

/// A selection that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// The selection matches no kind or namespace.
    #[error("the selection matches no kind that the cluster has")]
    Empty,
}

/// Returns true if a pattern matches this kind. A pattern with a dot or a wildcard is compared with
/// `plural.group`. A plain word matches the core group's resource of that name if there is one (so
/// that `events` does not match another group's), and otherwise any group's.
fn matches_kind(glob: &Glob, kind: &KindInfo, core: &dyn Fn(&str) -> bool) -> bool {
    if glob.as_str().contains(['.', '*', '?']) || kind.group.is_empty() {
        return glob.matches(&kind.resource());
    }
    glob.as_str() == kind.plural && !core(&kind.plural)
}

impl Default for Selection {
    /// Selects everything except events.
    fn default() -> Self {
        let glob = Glob::from_static;
        Self {
            namespaces: vec![glob("*")],
            exclude_namespaces: Vec::new(),
            kinds: vec![glob("*")],
            exclude_kinds: EVENT_KINDS.map(glob).to_vec(),
            labels: None,
            cluster_scoped: ClusterScoped::Auto,
        }
    }
}

impl Selection {
    /// Returns the selected kinds of `all`: namespaced, then cluster-scoped, then definitions, so
    /// that objects come before those that they need. Otherwise keeps the given order.
    pub fn kinds<'a>(&self, all: &'a [KindInfo]) -> Vec<&'a KindInfo> {
        let core = |plural: &str| all.iter().any(|kind| kind.group.is_empty() && kind.plural == plural);
        let any = |globs: &[Glob], kind: &KindInfo| globs.iter().any(|glob| matches_kind(glob, kind, &core));
        let possible: Vec<&KindInfo> =
            all.iter().filter(|kind| self.in_scope(kind) && !any(&self.exclude_kinds, kind)).collect();
        let (chosen, others): (Vec<&KindInfo>, Vec<&KindInfo>) =
            possible.into_iter().partition(|kind| any(&self.kinds, kind));
        let is_needed =
            |kind: &&KindInfo| self.is_needed_beside(kind) && chosen.iter().any(|from| may_refer(from, kind));
        let needed: Vec<&KindInfo> = others.into_iter().filter(is_needed).collect();
        let is_selected =
            |kind: &&KindInfo| chosen.iter().chain(&needed).any(|one| std::ptr::eq(*one, *kind));
        let mut kinds: Vec<&KindInfo> = all.iter().filter(is_selected).collect();
        kinds.sort_by_key(|kind| kind.read_order());
        kinds
    }

    /// Returns the kinds that the selection names but the cluster does not have.
    pub fn unknown_kinds(&self, all: &[KindInfo]) -> Vec<String> {
        let core = |plural: &str| all.iter().any(|kind| kind.group.is_empty() && kind.plural == plural);
        let unknown =
            |glob: &&Glob| is_plain_name(glob) && !all.iter().any(|kind| matches_kind(glob, kind, &core));
        self.kinds.iter().filter(unknown).map(|glob| glob.as_str().to_owned()).collect()
    }

    /// Returns true if a namespace is selected.
    pub fn includes_namespace(&self, name: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(name));
        any(&self.namespaces) && !any(&self.exclude_namespaces)
    }

    /// Returns the namespaces if the selection names each of them, in the order of the server's
    /// keys. They are then listed one by one, and rights in them are enough.
    pub fn named_namespaces(&self) -> Option<Vec<String>> {
        if self.namespaces.len() > MAX_NAMED_NAMESPACES || !self.namespaces.iter().all(is_plain_name) {
            return None;
        }
        let mut names: Vec<String> = self.namespaces.iter().map(|glob| glob.as_str().to_owned()).collect();
        names.retain(|name| self.includes_namespace(name));
        // A key is the namespace, a slash and the name.
        names.sort_by_cached_key(|name| format!("{name}/"));
        names.dedup();
        Some(names)
    }

    /// Returns true if objects are read in part, and cluster-scoped ones as those need them.
    pub fn is_partial(&self) -> bool {
        self.cluster_scoped == ClusterScoped::Auto && (self.restricts_objects() || self.restricts_kinds())
    }

    /// Returns true if namespaces or labels leave out objects of a selected kind.
    fn restricts_objects(&self) -> bool {
        !self.includes_all_namespaces() || self.requires_labels()
    }

    fn restricts_kinds(&self) -> bool {
        !self.kinds.iter().any(Glob::is_everything)
    }

    /// Returns true if no kind pattern matches a cluster-scoped kind, and its objects are read because objects
    /// of the selected kinds cannot exist without them.
    fn is_needed_beside(&self, kind: &KindInfo) -> bool {
        self.is_read_on_demand(kind) && !self.names_kind(kind)
    }

    /// Returns true if a kind pattern matches a kind that others may need.
    fn names_kind(&self, kind: &KindInfo) -> bool {
        // The core group has none of the same name.
        self.kinds.iter().any(|glob| matches_kind(glob, kind, &|_| false))
    }

    /// Returns true if the label selector requires labels, and does not only exclude some.
    pub fn requires_labels(&self) -> bool {
        self.labels.as_deref().is_some_and(plan::includes_by_label)
    }

    /// Returns true if objects of a kind are read only because others need them.
    pub fn is_read_on_demand(&self, kind: &KindInfo) -> bool {
        self.cluster_scoped == ClusterScoped::Auto
            && (self.restricts_objects() || !self.names_kind(kind))
            && is_referenced(kind)
    }

    /// Returns true if a namespace is read whether or not an object in it is.
    pub fn includes_empty_namespace(&self, name: &str) -> bool {
        self.includes_namespace(name) && !self.requires_labels() && !self.includes_all_namespaces()
    }

    /// Returns true if the objects of a kind are read for themselves, and not only because a selected object
    /// names them.
    pub fn includes_unnamed(&self, kind: &KindInfo) -> bool {
        !self.requires_labels() && self.names_kind(kind)
    }

    /// Returns the label selector that the server applies to a kind. Objects that others need are
    /// read whatever labels the selector requires, but its exclusions apply.
    pub fn labels_for(&self, kind: &KindInfo) -> Option<String> {
        let labels = self.labels.as_deref()?;
        if self.is_read_on_demand(kind) { plan::excluding_terms(labels) } else { Some(labels.to_owned()) }
    }

    fn includes_all_namespaces(&self) -> bool {
        self.exclude_namespaces.is_empty() && self.namespaces.iter().any(Glob::is_everything)
    }

    fn in_scope(&self, kind: &KindInfo) -> bool {
        kind.namespaced
            || match self.cluster_scoped {
                ClusterScoped::All => true,
                ClusterScoped::None => false,
                ClusterScoped::Auto => self.includes_all_namespaces() || self.is_read_on_demand(kind),
            }
    }
}

/// Returns true if a pattern is a plain name, without wildcards.
fn is_plain_name(glob: &Glob) -> bool {
    !glob.as_str().contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn kind(group: &str, plural: &str, namespaced: bool) -> KindInfo {
        KindInfo { namespaced, ..KindInfo::from_path_parts(group, "v1", plural) }
    }

    #[test]
    fn excluding_core_events_keeps_events_of_other_groups() {
        let all = [
            kind("", "events", true),
            kind("events.k8s.io", "events", true),
            kind("audit.example.com", "events", true),
        ];
        let selected: Vec<_> = Selection::default().kinds(&all).iter().map(|k| k.resource()).collect();
        assert_eq!(selected, ["events.audit.example.com"]);
    }

    #[test]
    fn events_are_excluded_unless_the_plan_includes_them_by_name() {
        let all = [kind("", "events", true), kind("events.k8s.io", "events", true), kind("", "pods", true)];
        let selected = |kinds: &str| -> Vec<String> {
            let resources = serde_json::from_str(&format!(r#"{{"kinds": {kinds}}}"#)).expect("resources");
            let selection = Selection::of(&resources).expect("patterns");
            selection.kinds(&all).iter().map(|kind| kind.resource()).collect()
        };
        assert_eq!(selected(r#"{"exclude": ["leases.coordination.k8s.io"]}"#), ["pods"]);
        assert_eq!(selected(r#"{"exclude": []}"#), ["pods"]);
        assert_eq!(selected(r#"{"include": ["*", "events"]}"#), ["events", "pods"]);
        assert_eq!(selected(r#"{"include": ["*.events.k8s.io"]}"#), ["events.events.k8s.io"]);
    }

    #[test]
    fn partial_selection_adds_only_needed_cluster_scoped_kinds() {
        let selection =
            Selection { namespaces: vec![Glob::new("shop").expect("a pattern")], ..Selection::default() };
        let all = [kind("", "namespaces", false), kind("", "nodes", false), kind("", "pods", true)];
        let selected: Vec<_> = selection.kinds(&all).iter().map(|k| k.plural.clone()).collect();
        assert_eq!(selected, ["pods", "namespaces"], "what is needed comes after what needs it");
        assert!(selection.includes_namespace("shop") && !selection.includes_namespace("other"));
    }

    #[test]
    fn selected_kinds_bring_the_kinds_that_their_objects_need() {
        let globs = |names: &[&str]| names.iter().map(|name| Glob::new(name).expect("a pattern")).collect();
        let all = [
            kind("", "configmaps", true),
            kind("", "namespaces", false),
            kind("", "nodes", false),
            kind("", "persistentvolumeclaims", true),
            kind("", "persistentvolumes", false),
            kind("apiextensions.k8s.io", "customresourcedefinitions", false),
            kind("mv.example", "widgets", true),
            kind("rbac.authorization.k8s.io", "clusterrolebindings", false),
        ];
        let selected = |selection: &Selection| -> Vec<String> {
            selection.kinds(&all).iter().map(|kind| kind.plural.clone()).collect()
        };
        let chosen = Selection { kinds: globs(&["widgets.mv.example"]), ..Selection::default() };
        assert_eq!(selected(&chosen), ["widgets", "namespaces", "customresourcedefinitions"]);
        let claims = Selection { kinds: globs(&["persistentvolumeclaims"]), ..chosen.clone() };
        assert_eq!(selected(&claims), ["persistentvolumeclaims", "namespaces", "persistentvolumes"]);
        let maps = Selection { kinds: globs(&["configmaps"]), ..chosen.clone() };
        assert_eq!(selected(&maps), ["configmaps", "namespaces"], "no rights on kinds that they cannot need");
        assert!(chosen.is_read_on_demand(&all[1]) && chosen.is_partial());
        let named = Selection { kinds: globs(&["configmaps", "persistentvolumes"]), ..chosen.clone() };
        assert!(!named.is_read_on_demand(&all[4]), "all volumes were asked for");
        let excluded = Selection { exclude_kinds: globs(&["namespaces"]), ..chosen.clone() };
        assert_eq!(selected(&excluded), ["widgets", "customresourcedefinitions"]);
        let none = Selection { cluster_scoped: ClusterScoped::None, ..chosen };
        assert_eq!(selected(&none), ["widgets"]);
        assert!(!Selection::default().is_partial());
    }

    #[test]
    fn named_namespaces_are_in_the_order_of_server_keys() {
        let globs = |names: &[&str]| names.iter().map(|name| Glob::new(name).expect("a pattern")).collect();
        let selection = Selection { namespaces: globs(&["shop", "b", "shop-a"]), ..Selection::default() };
        assert_eq!(selection.named_namespaces().expect("names"), ["b", "shop-a", "shop"]);
        assert!(
            Selection { namespaces: globs(&["shop*"]), ..Selection::default() }.named_namespaces().is_none()
        );
    }

    #[test]
    fn named_kinds_missing_from_the_cluster_are_reported() {
        let kinds = ["pods", "deployments.apps", "*.gone.io"].map(|kind| Glob::new(kind).expect("a pattern"));
        let selection = Selection { kinds: kinds.to_vec(), ..Selection::default() };
        assert_eq!(selection.unknown_kinds(&[kind("", "pods", true)]), ["deployments.apps"]);
    }
}
