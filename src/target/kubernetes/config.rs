//! Settings of a restore: plain values that the arguments and a RestorePlan map to.

use std::collections::BTreeSet;
use std::time::Duration;

use super::{ObjectRef, change::Modifier};
use crate::kubernetes::KindInfo;
use crate::plan::{
    ExistingPolicy, Glob, GlobError, LabelSelector, LabelSelectorError, Mapping, Modify, NamePatterns,
    ObjectName, ObjectNameError, Permission, Profile, RestoreSpec, Scope, SideEffect,
};

/// The longest waits for events that a restore cannot speed up. Each time is one deadline for all objects.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WaitLimits {
    /// Until namespaces that are being deleted are gone.
    pub terminating: Duration,
    /// Until the kinds of new definitions are served.
    pub definitions: Duration,
    /// Until the Services behind webhooks and APIServices have endpoints.
    pub backends: Duration,
    /// Retries after rounds without progress. The pause before each doubles from one second, because
    /// controllers and webhooks need time to start.
    pub max_idle_rounds: u32,
}

impl Default for WaitLimits {
    fn default() -> Self {
        Self {
            terminating: Duration::from_secs(120),
            definitions: Duration::from_secs(60),
            backends: Duration::from_secs(120),
            max_idle_rounds: 3,
        }
    }
}

/// Selection and options of a restore.
#[derive(Debug, Clone, Default)]
pub struct RestoreConfig {
    /// Permissions for objects that are refused by default.
    pub allow: BTreeSet<Permission>,
    /// Only objects in these namespaces, and the namespaces themselves; empty: everything.
    pub namespaces: Vec<Glob>,
    /// Objects in these namespaces are excluded.
    pub exclude_namespaces: Vec<Glob>,
    /// Only these kinds (`pods`, `deployments.apps`); empty: all.
    pub kinds: Vec<Glob>,
    /// These kinds are excluded.
    pub exclude_kinds: Vec<Glob>,
    /// Only objects with these labels.
    pub labels: Option<LabelSelector>,
    /// These objects and their namespaces; alone, or in addition to the other selectors.
    pub objects: Vec<ObjectName>,
    /// Names that change.
    pub mapping: Mapping,
    /// Changes that the RestorePlan asks for, in order.
    pub modifiers: Vec<Modifier>,
    /// The share of the cluster that is restored.
    pub profile: Profile,
    /// Selects whether objects that Git holds are restored; by default only into mapped namespaces.
    pub scope: Option<Scope>,
    /// The treatment of existing objects that differ. By default they are left unchanged and the restore is
    /// incomplete.
    pub existing: Option<ExistingPolicy>,
    /// Effects that a copy may have. None: no choice was made, so objects held back count as missing.
    pub release: Option<BTreeSet<SideEffect>>,
    /// True if this cluster takes the place of the one in the backup, so that the restore is not a copy.
    pub takeover: bool,
    /// The UID of `kube-system` in the backup.
    pub cluster_uid: Option<String>,
    /// Kinds whose status is restored.
    pub status: Vec<Glob>,
    /// True to keep all node ports of Services. Otherwise only chosen ones are kept, and none in a copy.
    pub node_ports: bool,
    /// Deadlines of longer waits.
    pub waits: WaitLimits,
}

/// A RestorePlan that cannot be carried out.
#[derive(Debug, thiserror::Error)]
pub enum RestoreConfigError {
    /// A pattern is invalid.
    #[error("invalid pattern")]
    Pattern(#[from] GlobError),
    /// An object is not named as one.
    #[error("a selected object has no valid name")]
    Object(#[from] ObjectNameError),
    /// The label selector is invalid.
    #[error("invalid label selector")]
    Selector(#[source] LabelSelectorError),
    /// A modifier is invalid.
    #[error("a modifier is invalid")]
    Modifier(#[source] Box<dyn std::error::Error + Send + Sync>),
}

impl RestoreConfig {
    /// Returns the settings of a RestorePlan. [`Self::cluster_uid`] is that of the item.
    ///
    /// # Errors
    /// [`RestoreConfigError`] for an invalid pattern, name, selector or modifier.
    pub fn of(spec: &RestoreSpec) -> Result<Self, RestoreConfigError> {
        let select = &spec.select;
        let unless_all = |patterns: &NamePatterns| match patterns.include.as_slice() {
            [all] if all == "*" => Ok(Vec::new()),
            include => Glob::parse_all(include),
        };
        let labels = select.selector.as_deref().map(str::parse).transpose();
        Ok(Self {
            allow: spec.allow.iter().copied().collect(),
            namespaces: unless_all(&select.namespaces)?,
            exclude_namespaces: Glob::parse_all(&select.namespaces.exclude)?,
            kinds: unless_all(&select.kinds)?,
            exclude_kinds: Glob::parse_all(&select.kinds.exclude)?,
            labels: labels.map_err(RestoreConfigError::Selector)?,
            objects: select.objects.iter().map(|object| object.parse()).collect::<Result<_, _>>()?,
            mapping: spec.map.clone(),
            modifiers: spec.modify.iter().map(modifier).collect::<Result<_, _>>()?,
            profile: spec.profile,
            scope: spec.scope,
            existing: spec.existing,
            release: (!spec.release.is_empty()).then(|| spec.release.iter().copied().collect()),
            takeover: spec.takeover,
            status: Glob::parse_all(&spec.status)?,
            node_ports: spec.node_ports,
            ..Self::default()
        })
    }

    /// True if a copy may have this effect.
    #[must_use]
    pub fn is_released(&self, effect: SideEffect) -> bool {
        self.release.as_ref().is_some_and(|released| released.contains(&effect))
    }

    /// True if the namespace has another name in the target cluster.
    #[must_use]
    pub fn is_mapped(&self, namespace: &str) -> bool {
        self.mapping.namespaces.get(namespace).is_some_and(|to| to != namespace)
    }

    /// True if only `objects` select anything.
    #[must_use]
    pub fn only_objects(&self) -> bool {
        !self.objects.is_empty()
            && self.namespaces.is_empty()
            && self.kinds.is_empty()
            && self.labels.is_none()
    }

    /// True if objects of a kind can be selected.
    #[must_use]
    pub fn selects_kind(&self, resource: &str) -> bool {
        self.objects.iter().any(|object| {
            object.resource.matches(resource) || (resource == "namespaces" && object.namespace.is_some())
        }) || (!self.only_objects() && self.matches_kind_patterns(resource))
    }

    pub(crate) fn matches_kind_patterns(&self, resource: &str) -> bool {
        let any = |globs: &[Glob]| globs.iter().any(|glob| glob.matches(resource));
        (self.kinds.is_empty() || any(&self.kinds)) && !any(&self.exclude_kinds)
    }

    /// True if objects in `space` are selected. A selection of namespaces excludes objects without a
    /// namespace.
    pub(crate) fn matches_namespace_patterns(&self, space: Option<&str>) -> bool {
        let any = |globs: &[Glob], name: &str| globs.iter().any(|glob| glob.matches(name));
        space.map_or(self.namespaces.is_empty(), |space| {
            (self.namespaces.is_empty() || any(&self.namespaces, space))
                && !any(&self.exclude_namespaces, space)
        })
    }

    /// True if one of the selected objects is this one. Names are those in the backup.
    pub(crate) fn names_object(&self, kind: &KindInfo, named: &ObjectRef) -> bool {
        let namespace = kind.namespaced.then_some(named.namespace.as_str());
        self.objects.iter().any(|object| object.matches(&named.resource, namespace, &named.name))
    }

    /// True if the object is selected, or is the namespace of a selected one. `labels` are its labels; names are
    /// those in the backup.
    #[must_use]
    pub fn selects(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
        labels: &serde_json::Value,
    ) -> bool {
        let holds = |object: &ObjectName| object.namespace.as_ref().is_some_and(|of| of.as_str() == name);
        (resource == "namespaces" && self.objects.iter().any(holds))
            || self.selects_itself(resource, namespace, name, labels)
    }

    /// True if the object is selected for itself, and not because another needs it.
    pub(crate) fn selects_itself(
        &self,
        resource: &str,
        namespace: Option<&str>,
        name: &str,
        labels: &serde_json::Value,
    ) -> bool {
        if self.objects.iter().any(|object| object.matches(resource, namespace, name)) {
            return true;
        }
        if self.only_objects() || !self.matches_kind_patterns(resource) {
            return false;
        }
        // A namespace rarely has the labels of the objects in it.
        let labelled = self.labels.as_ref().is_none_or(|selector| {
            (resource == "namespaces" && !self.namespaces.is_empty()) || selector.matches(labels)
        });
        labelled && self.matches_namespace_patterns(namespace_of(resource, namespace, name))
    }

    /// True if some objects are not selected.
    pub(crate) fn is_partial(&self) -> bool {
        !self.objects.is_empty()
            || !self.namespaces.is_empty()
            || !self.exclude_namespaces.is_empty()
            || !self.kinds.is_empty()
            || !self.exclude_kinds.is_empty()
            || self.labels.is_some()
    }

    /// True if the namespace of each selected object is selected for itself.
    pub(crate) fn selects_own_namespaces(&self) -> bool {
        self.objects.is_empty()
            && self.matches_kind_patterns("namespaces")
            && (self.labels.is_none() || !self.namespaces.is_empty())
    }

    /// True if objects of a kind are excluded, also those that others need.
    pub(crate) fn excludes_kind(&self, resource: &str) -> bool {
        self.exclude_kinds.iter().any(|glob| glob.matches(resource))
    }
}

/// Returns a modifier. The plan's check has already refused invalid ones.
fn modifier(modify: &Modify) -> Result<Modifier, RestoreConfigError> {
    fn invalid(error: impl std::error::Error + Send + Sync + 'static) -> RestoreConfigError {
        RestoreConfigError::Modifier(error.into())
    }
    let matched = &modify.r#match;
    let regex = matched.name_regex.as_deref().map(regex::Regex::new).transpose();
    let labels = matched.selector.as_deref().map(str::parse::<LabelSelector>).transpose();
    let patch = modify.patch.clone().map(serde_json::from_value).transpose();
    Ok(Modifier {
        kinds: Glob::parse_all(&matched.kinds)?,
        namespaces: Glob::parse_all(&matched.namespaces)?,
        names: Glob::parse_all(&matched.names)?,
        name_regex: regex.map_err(invalid)?,
        labels: labels.map_err(invalid)?,
        merge: modify.merge.clone(),
        patch: patch.map_err(invalid)?,
    })
}

/// Returns the namespace of an object, or the name of the object if it is a namespace.
pub(crate) fn namespace_of<'a>(resource: &str, namespace: Option<&'a str>, name: &'a str) -> Option<&'a str> {
    namespace.or_else(|| (resource == "namespaces").then_some(name))
}
