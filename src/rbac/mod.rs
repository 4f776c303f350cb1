//! The rights that the work of a plan needs in a cluster, as ServiceAccounts, roles and bindings. Pure: the
//! plan and the cluster's kinds in, manifests out.
//!
//! Rules name each kind and verb: a wildcard would also give subresources such as `pods/exec`, which a
//! `get` reaches through a WebSocket (kubernetes/kubernetes#78741). Secrets have roles of their own, so
//! that they can be left out.

mod manifest;
mod restore;

use std::collections::{BTreeMap, BTreeSet};

pub use manifest::Manifest;

use crate::kubernetes::{KindInfo, Selection};
use crate::plan::{BackupPlan, GlobError};
use manifest::Scope;

/// The input of [`manifests`].
#[derive(Debug)]
pub struct Request<'a> {
    /// The plan.
    pub plan: &'a BackupPlan,
    /// The namespace in which kbak runs.
    pub namespace: &'a str,
    /// The start of the names of all manifests.
    pub name: &'a str,
    /// The kinds of the cluster.
    pub kinds: &'a [KindInfo],
    /// The kinds that the check of the plan's coverage reads, with the verbs of its requests.
    pub coverage: Vec<(&'a KindInfo, &'static [&'static str])>,
    /// The kinds whose objects a restore may create.
    pub restored: Vec<&'a KindInfo>,
    /// The work that gets rights.
    pub tasks: BTreeSet<Task>,
}

/// A task with an identity of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Task {
    /// Backups.
    Backup,
    /// Verification. It reads no cluster.
    Verify,
    /// Restores, also of kinds that grant rights. Not to be kept installed.
    Restore,
}

/// Verbs for kinds. The key is the kind's group and plural.
type Rules = BTreeMap<(String, String), BTreeSet<&'static str>>;

/// Returns the manifests for the tasks, in an order in which they can be applied.
///
/// # Errors
/// [`GlobError`] for an invalid pattern of the plan.
pub fn manifests(request: &Request<'_>) -> Result<Vec<Manifest>, GlobError> {
    let mut found = Vec::new();
    for task in &request.tasks {
        match task {
            Task::Backup => found.extend(backup(request)?),
            Task::Verify => found.push(Manifest::account(request.namespace, request.name, "verify")),
            Task::Restore => found.extend(restore::manifests(request)),
        }
    }
    Ok(found)
}

fn backup(request: &Request<'_>) -> Result<Vec<Manifest>, GlobError> {
    let (namespace, name, spec) = (request.namespace, request.name, &request.plan.spec);
    let mut found = vec![Manifest::account(namespace, name, "backup")];
    let selection = spec.resources.as_ref().map(Selection::of).transpose()?;
    let (mut everywhere, mut named) = (Rules::new(), Rules::new());
    let mut namespaces = Vec::new();
    if let Some(selection) = &selection {
        let kinds = selection.kinds(request.kinds);
        let spaces = selection.named_namespaces();
        for kind in kinds {
            let rules = if spaces.is_some() && kind.namespaced { &mut named } else { &mut everywhere };
            add(rules, &kind.group, &kind.plural, &["list"]);
        }
        namespaces = spaces.unwrap_or_default();
    }
    for (kind, verbs) in &request.coverage {
        let apart = !namespaces.is_empty() && kind.namespaced;
        add(if apart { &mut named } else { &mut everywhere }, &kind.group, &kind.plural, verbs);
    }
    if !everywhere.is_empty() {
        // The UID of kube-system identifies the cluster; named namespaces are looked up one by one.
        let mut names = vec!["kube-system".to_owned()];
        names.extend(namespaces.iter().cloned());
        let mut role = manifest::Role::new(Scope::Cluster, name, "backup");
        role.add_named("", "namespaces", names, &["get"]);
        found.extend(with_secrets_apart(role, everywhere, namespace));
    }
    for space in &namespaces {
        let role = manifest::Role::new(Scope::Namespace(space.clone()), name, "backup");
        found.extend(with_secrets_apart(role, named.clone(), namespace));
    }
    if let Some(secret) = &spec.writer.epoch_secret {
        let mut role = manifest::Role::new(Scope::Namespace(namespace.to_owned()), name, "backup-epoch");
        role.add_named("", "secrets", vec![secret.clone()], &["get", "patch"]);
        found.extend(role.bound_to("backup", namespace));
    }
    found.extend(events(name, namespace));
    Ok(found)
}

/// Returns the rights to tell of a run in Events on its CronJob, which has the account's name. They are in a role
/// of their own, so that they can be left out.
fn events(name: &str, namespace: &str) -> Vec<Manifest> {
    let mut role = manifest::Role::new(Scope::Namespace(namespace.to_owned()), name, "backup-events");
    role.add_kinds([((String::new(), "events".to_owned()), ["create"].into())].into());
    role.add_named("batch", "cronjobs", vec![format!("{name}-backup")], &["get"]);
    role.bound_to("backup", namespace)
}

fn add(rules: &mut Rules, group: &str, plural: &str, verbs: &[&'static str]) {
    rules.entry((group.to_owned(), plural.to_owned())).or_default().extend(verbs);
}

/// Returns a role with the rules and its binding; those for Secrets are in a role of their own.
fn with_secrets_apart(mut role: manifest::Role, mut rules: Rules, namespace: &str) -> Vec<Manifest> {
    let secrets = rules.remove(&(String::new(), "secrets".to_owned()));
    let task = role.task.clone();
    let apart = secrets.map(|verbs| {
        let mut apart = role.sibling("secrets");
        apart.add_kinds([((String::new(), "secrets".to_owned()), verbs)].into());
        apart
    });
    role.add_kinds(rules);
    let mut found = role.bound_to(&task, namespace);
    found.extend(apart.into_iter().flat_map(|apart| apart.bound_to(&task, namespace)));
    found
}
