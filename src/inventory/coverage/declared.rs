//! The part of a cluster that a plan declares, and how it matches existing things.

use std::collections::BTreeMap;

use crate::inventory::{DetectedDatabase, InventoryOptions, Service, is_or_extends};
use crate::kubernetes::Selection;
use crate::plan::{BackupSpec, DatabaseSpec, Glob, LabelSelector, VolumeSpec};

/// The part of a cluster that a plan declares.
#[derive(Debug, Clone, Default)]
pub struct DeclaredScope {
    selection: Option<Selection>,
    databases: Vec<DatabaseSpec>,
    claims: Vec<DeclaredClaims>,
}

#[derive(Debug, Clone)]
struct DeclaredClaims {
    namespace: String,
    globs: Vec<Glob>,
    selector: Option<String>,
}

impl DeclaredScope {
    /// Collects the declarations of `spec`; `selection` is made from its resources.
    #[must_use]
    pub fn of(spec: &BackupSpec, selection: Option<Selection>) -> Self {
        let claims = |volume: &VolumeSpec| {
            let globs = volume.claims.iter().filter_map(|claim| Glob::new(claim).ok()).collect();
            let (namespace, selector) = (volume.namespace.clone()?, volume.selector.clone());
            Some(DeclaredClaims { namespace, globs, selector })
        };
        Self {
            selection,
            databases: spec.databases.clone(),
            claims: spec.volumes.iter().filter_map(claims).collect(),
        }
    }

    pub(super) fn inventory_options(&self) -> InventoryOptions {
        super::inventory_options(self.selection.as_ref(), !self.databases.is_empty(), self.excludes_secrets())
    }

    /// True if the plan excludes Secrets: they are not to be read. A plan that only selects other kinds is told
    /// of keys that it misses.
    #[must_use]
    pub fn excludes_secrets(&self) -> bool {
        let secrets = super::secrets().resource();
        let excludes =
            |selection: &Selection| selection.exclude_kinds.iter().any(|glob| glob.matches(&secrets));
        self.selection.as_ref().is_some_and(excludes)
    }

    pub(super) fn includes_namespace(&self, namespace: &str) -> bool {
        self.selection.as_ref().is_some_and(|selection| selection.includes_namespace(namespace))
    }

    /// True if a Secret with these labels is in the backup.
    pub(super) fn includes_secret(&self, namespace: &str, labels: &BTreeMap<String, String>) -> bool {
        self.selection.as_ref().is_some_and(|selection| {
            let secrets = super::secrets();
            selection.includes_namespace(namespace)
                && !selection.kinds(std::slice::from_ref(&secrets)).is_empty()
                && selection.labels.as_deref().is_none_or(|selector| selects(selector, labels))
        })
    }

    pub(super) fn includes_claim(
        &self,
        namespace: &str,
        name: &str,
        labels: &BTreeMap<String, String>,
    ) -> bool {
        self.claims.iter().filter(|claims| claims.namespace == namespace).any(|claims| {
            claims.globs.iter().any(|glob| glob.matches(name))
                || claims.selector.as_deref().is_some_and(|selector| selects(selector, labels))
        })
    }

    /// True if the plan dumps an existing database: a Service, a pod or a host of the plan reaches it.
    pub(super) fn dumps(
        &self,
        database: &DetectedDatabase,
        all: &[DetectedDatabase],
        services: &[Service],
    ) -> bool {
        let reaches = |service: &&Service| {
            service.namespace == database.namespace && service_selects(service, database, all)
        };
        let reached: Vec<&Service> = services.iter().filter(reaches).collect();
        self.databases.iter().any(|declared| reaches_database(declared, database, &reached))
    }
}

/// True if `selector`, which the plan's check has parsed, matches these labels.
fn selects(selector: &str, labels: &BTreeMap<String, String>) -> bool {
    let takes = |selector: LabelSelector| selector.matches_by(|key| labels.get(key).map(String::as_str));
    selector.is_empty() || selector.parse().is_ok_and(takes)
}

/// True if a Service selects a database's pods: by its selector, or by the database's name as prefix (`shop` has
/// `shop-rw`, `shop-ro`), as operators do, unless another database's longer name fits, too.
fn service_selects(service: &Service, database: &DetectedDatabase, all: &[DetectedDatabase]) -> bool {
    if service.selects(database) {
        return true;
    }
    let is_prefix = |database: &&DetectedDatabase| service.is_named_after(database);
    let rivals = all.iter().filter(|other| other.namespace == service.namespace).filter(is_prefix);
    let longest = rivals.max_by_key(|other| other.name.len());
    longest.is_some_and(|longest| longest == database)
}

/// True if the plan's address of a database is that of `database`, which the Services `reached` select.
fn reaches_database(declared: &DatabaseSpec, database: &DetectedDatabase, reached: &[&Service]) -> bool {
    let by_service = |name: &str| {
        let here = declared.namespace.as_deref().is_none_or(|namespace| namespace == database.namespace);
        here && reached.iter().any(|service| service.name == name)
    };
    if declared.service.as_deref().is_some_and(by_service) {
        return true;
    }
    if let Some(pod) = &declared.pod {
        let here = declared.namespace.as_deref() == Some(database.namespace.as_str());
        return here && is_or_extends(pod, &database.name);
    }
    let Some(host) = &declared.host else { return false };
    if reached.iter().any(|service| service.addresses.contains(host)) {
        return true;
    }
    match in_cluster(host) {
        Some((service, Some(namespace))) => {
            namespace == database.namespace && reached.iter().any(|one| one.name == service)
        }
        Some((service, None)) => by_service(service),
        None => false,
    }
}

/// Returns the Service and the namespace that a host name means within a cluster:
/// `db`, `db.shop`, `db.shop.svc`, `db.shop.svc.cluster.local`, `db-0.db.shop.svc`.
fn in_cluster(host: &str) -> Option<(&str, Option<&str>)> {
    if host.starts_with('/') || host.parse::<std::net::IpAddr>().is_ok() {
        return None;
    }
    let parts: Vec<&str> = host.trim_end_matches('.').split('.').collect();
    let end = parts.iter().position(|part| *part == "svc").unwrap_or(parts.len());
    match parts.get(..end)? {
        [service] => Some((service, None)),
        [service, namespace] => Some((service, Some(namespace))),
        [_, service, namespace] if end < parts.len() => Some((service, Some(namespace))),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cluster_host_names_are_parsed() {
        let cases = [
            ("db", Some(("db", None))),
            ("db.shop", Some(("db", Some("shop")))),
            ("db.shop.svc.cluster.local", Some(("db", Some("shop")))),
            ("db-0.db.shop.svc", Some(("db", Some("shop")))),
            ("db.example.co.uk", None),
            ("/run/postgresql", None),
            ("10.0.0.1", None),
        ];
        for (host, meant) in cases {
            assert_eq!(in_cluster(host), meant, "{host}");
        }
    }

    #[test]
    fn all_selector_operators_are_evaluated() {
        let labels: BTreeMap<String, String> =
            [("app", "shop"), ("tier", "db")].map(|(k, v)| (k.to_owned(), v.to_owned())).into();
        for yes in [
            "",
            "app=shop",
            "app == shop",
            "app!=x",
            "x!=y",
            "app in (a, shop)",
            "x notin (a)",
            "app",
            "!x",
            "app=shop,tier in (db,x),!y",
        ] {
            assert!(selects(yes, &labels), "{yes}");
        }
        for no in ["app=x", "app!=shop", "app in (a,b)", "app notin (shop)", "x", "!app", "app=shop,tier=x"] {
            assert!(!selects(no, &labels), "{no}");
        }
    }
}
