//! ServiceAccounts, roles and bindings as Kubernetes takes them.

use std::collections::BTreeMap;

use serde::Serialize;

use super::Rules;

/// A Kubernetes object, to be written as YAML or JSON.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct Manifest {
    api_version: &'static str,
    kind: &'static str,
    metadata: Metadata,
    #[serde(skip_serializing_if = "Option::is_none")]
    automount_service_account_token: Option<bool>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    rules: Vec<Rule>,
    #[serde(skip_serializing_if = "Option::is_none")]
    role_ref: Option<Reference>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    subjects: Vec<Reference>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
struct Metadata {
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
    labels: BTreeMap<&'static str, String>,
}

/// One rule of a role.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Rule {
    api_groups: Vec<String>,
    resources: Vec<String>,
    #[serde(skip_serializing_if = "Vec::is_empty")]
    resource_names: Vec<String>,
    verbs: Vec<&'static str>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "camelCase")]
struct Reference {
    #[serde(skip_serializing_if = "String::is_empty")]
    api_group: String,
    kind: &'static str,
    name: String,
    #[serde(skip_serializing_if = "String::is_empty")]
    namespace: String,
}

/// The place in which a role holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Scope {
    /// The whole cluster.
    Cluster,
    /// One namespace.
    Namespace(String),
}

/// A role with its rules.
#[derive(Debug, Clone)]
pub(super) struct Role {
    scope: Scope,
    prefix: String,
    /// The task that the role is for, which also ends its name.
    pub(super) task: String,
    suffix: String,
    rules: Vec<Rule>,
}

const GROUP: &str = "rbac.authorization.k8s.io";
const API_VERSION: &str = "rbac.authorization.k8s.io/v1";

impl Role {
    pub(super) fn new(scope: Scope, prefix: &str, task: &str) -> Self {
        let (prefix, task) = (prefix.to_owned(), task.to_owned());
        Self { scope, prefix, task, suffix: String::new(), rules: Vec::new() }
    }

    /// Returns an empty role of the same scope and task.
    pub(super) fn sibling(&self, suffix: &str) -> Self {
        Self { suffix: format!("-{suffix}"), rules: Vec::new(), ..self.clone() }
    }

    /// Adds a rule for objects of these names.
    pub(super) fn add_named(
        &mut self,
        group: &str,
        plural: &str,
        names: Vec<String>,
        verbs: &[&'static str],
    ) {
        self.rules.push(Rule {
            api_groups: vec![group.to_owned()],
            resources: vec![plural.to_owned()],
            resource_names: names,
            verbs: verbs.to_vec(),
        });
    }

    /// Adds rules for kinds: one for the kinds of a group that have the same verbs.
    pub(super) fn add_kinds(&mut self, rules: Rules) {
        let mut grouped: BTreeMap<(String, Vec<&'static str>), Vec<String>> = BTreeMap::new();
        for ((group, plural), verbs) in rules {
            grouped.entry((group, verbs.into_iter().collect())).or_default().push(plural);
        }
        self.rules.extend(grouped.into_iter().map(|((group, verbs), resources)| Rule {
            api_groups: vec![group],
            resources,
            resource_names: Vec::new(),
            verbs,
        }));
    }

    /// Returns the role and its binding to the account of `task`; nothing for a role without rules.
    pub(super) fn bound_to(self, task: &str, namespace: &str) -> Vec<Manifest> {
        if self.rules.is_empty() {
            return Vec::new();
        }
        let labels = labels(namespace, &self.prefix, task);
        let (kind, binding, space) = match self.scope {
            Scope::Cluster => ("ClusterRole", "ClusterRoleBinding", String::new()),
            Scope::Namespace(space) => ("Role", "RoleBinding", space),
        };
        let mut name = format!("{}-{}{}", self.prefix, self.task, self.suffix);
        if space.is_empty() {
            // A second installation, in another namespace, has names of its own.
            name = format!("{namespace}-{name}");
        }
        let role =
            Manifest { rules: self.rules, ..Manifest::new(API_VERSION, kind, &name, &space, labels.clone()) };
        let account = Reference {
            api_group: String::new(),
            kind: "ServiceAccount",
            name: format!("{}-{task}", self.prefix),
            namespace: namespace.to_owned(),
        };
        let role_ref =
            Reference { api_group: GROUP.to_owned(), kind, name: name.clone(), namespace: String::new() };
        let binding = Manifest {
            role_ref: Some(role_ref),
            subjects: vec![account],
            ..Manifest::new(API_VERSION, binding, &name, &space, labels)
        };
        vec![role, binding]
    }
}

/// Returns the labels by which all manifests of an installation are found, also those outside of its namespace.
fn labels(namespace: &str, prefix: &str, task: &str) -> BTreeMap<&'static str, String> {
    BTreeMap::from([
        ("app.kubernetes.io/component", task.to_owned()),
        ("app.kubernetes.io/instance", prefix.to_owned()),
        ("app.kubernetes.io/managed-by", "kbak-rbac".to_owned()),
        ("app.kubernetes.io/name", "kbak".to_owned()),
        ("app.kubernetes.io/version", env!("CARGO_PKG_VERSION").to_owned()),
        ("kbak.dev/namespace", namespace.to_owned()),
    ])
}

impl Manifest {
    fn new(
        api_version: &'static str,
        kind: &'static str,
        name: &str,
        namespace: &str,
        labels: BTreeMap<&'static str, String>,
    ) -> Self {
        let metadata = Metadata { name: name.to_owned(), namespace: namespace.to_owned(), labels };
        Self {
            api_version,
            kind,
            metadata,
            automount_service_account_token: None,
            rules: Vec::new(),
            role_ref: None,
            subjects: Vec::new(),
        }
    }

    /// Returns the ServiceAccount of a task. Pods that talk to the API server mount its token themselves.
    pub(super) fn account(namespace: &str, prefix: &str, task: &str) -> Self {
        let name = format!("{prefix}-{task}");
        let labels = labels(namespace, prefix, task);
        let automount_service_account_token = Some(false);
        Self {
            automount_service_account_token,
            ..Self::new("v1", "ServiceAccount", &name, namespace, labels)
        }
    }
}
