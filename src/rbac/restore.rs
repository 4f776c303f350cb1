//! The rights of a restore of resources.

use super::manifest::{Manifest, Role, Scope};
use super::{Request, Rules, add, with_secrets_apart};

/// Kinds whose objects grant rights. Creating them needs `escalate` and `bind`, or the same rights.
const GRANTING: &[&str] = &["clusterroles", "roles"];

/// Returns an account that may create and change what the plan backs up, and see what is there.
pub(super) fn manifests(request: &Request<'_>) -> Vec<Manifest> {
    let mut rules = Rules::new();
    for kind in &request.restored {
        add(&mut rules, &kind.group, &kind.plural, &["create", "get", "list", "patch", "update"]);
        if kind.group == "rbac.authorization.k8s.io" && GRANTING.contains(&kind.plural.as_str()) {
            add(&mut rules, &kind.group, &kind.plural, &["bind", "escalate"]);
        }
        if kind.subresources.iter().any(|name| name == "status") {
            add(&mut rules, &kind.group, &format!("{}/status", kind.plural), &["patch"]);
        }
    }
    add(&mut rules, "", "nodes", &["list"]);
    let role = Role::new(Scope::Cluster, request.name, "restore");
    let account = Manifest::account(request.namespace, request.name, "restore");
    std::iter::once(account).chain(with_secrets_apart(role, rules, request.namespace)).collect()
}
