//! Which namespaces, kinds and labels are read. Pure.

use serde::{Deserialize, Serialize};

use super::KindInfo;
use super::page::ItemMeta;

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

/// A pattern over names: `*` stands for any run of characters, `?` for one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Glob(String);

/// A selection that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SelectionError {
    /// A pattern that no name can match.
    #[error("{0:?} is no pattern for names: letters, digits, '-', '.', '_', ':', '*', '?'")]
    Pattern(String),
    /// The selection names nothing that the cluster has.
    #[error("the selection matches no kind that the cluster has")]
    Empty,
}

impl Glob {
    /// A pattern.
    ///
    /// # Errors
    /// [`SelectionError::Pattern`] when it is empty or holds what no name holds.
    pub fn new(pattern: &str) -> Result<Self, SelectionError> {
        let fits = |c: char| c.is_ascii_alphanumeric() || "-._:*?".contains(c);
        if pattern.is_empty() || pattern.len() > 512 || !pattern.chars().all(fits) {
            return Err(SelectionError::Pattern(pattern.chars().take(80).collect()));
        }
        Ok(Self(pattern.to_owned()))
    }

    /// The pattern as it was given.
    #[must_use]
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether it matches everything.
    #[must_use]
    pub fn is_everything(&self) -> bool {
        self.0.chars().all(|c| c == '*')
    }

    /// Whether `name` matches, from its first to its last character.
    #[must_use]
    pub fn matches(&self, name: &str) -> bool {
        let (pattern, name) = (self.0.as_bytes(), name.as_bytes());
        let (mut p, mut n) = (0, 0);
        // Where to go on when what follows the last star does not fit: linear in memory, and at
        // most pattern × name steps.
        let mut back: Option<(usize, usize)> = None;
        while n < name.len() {
            match pattern.get(p) {
                Some(b'*') => {
                    back = Some((p, n));
                    p += 1;
                }
                Some(b'?') => (p, n) = (p + 1, n + 1),
                Some(byte) if *byte == name[n] => (p, n) = (p + 1, n + 1),
                _ => match back {
                    Some((star, from)) => {
                        back = Some((star, from + 1));
                        (p, n) = (star + 1, from + 1);
                    }
                    None => return false,
                },
            }
        }
        pattern[p..].iter().all(|byte| *byte == b'*')
    }

    /// Whether it means this kind. A pattern with a dot or a star is held against
    /// `plural.group`. A plain word means the core group's resource of that name if there is one
    /// (so that `events` does not mean another group's), and otherwise any group's.
    fn means(&self, kind: &KindInfo, core: &dyn Fn(&str) -> bool) -> bool {
        if self.0.contains(['.', '*', '?']) || kind.group.is_empty() {
            return self.matches(&kind.resource());
        }
        self.0 == kind.plural && !core(&kind.plural)
    }
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
        let glob = |pattern: &str| Glob(pattern.to_owned());
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
        let any = |globs: &[Glob], kind: &KindInfo| globs.iter().any(|glob| glob.means(kind, &core));
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
    fn globs_match_whole_names() {
        for (pattern, name, fits) in [
            ("*", "", true),
            ("a*c", "abbbc", true),
            ("a*c", "abbbcd", false),
            ("*.cert-manager.io", "issuers.cert-manager.io", true),
            ("a?c", "ac", false),
            ("**a**b", "xaxab", true),
            ("team-*-x*", "team-a-b-xy", true),
        ] {
            assert_eq!(Glob::new(pattern).expect("a pattern").matches(name), fits, "{pattern} on {name}");
        }
        assert!(Glob::new("a b").is_err() && Glob::new("").is_err() && Glob::new("a/b").is_err());
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
