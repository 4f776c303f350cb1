//! Coverage: things that exist in a cluster and that the plan does not declare. [`uncovered`] is pure: an
//! inventory and a plan in, a list out.
//!
//! Coverage is one plan's view. Things that another plan backs up are accepted in this one
//! (`accept: {item: volume/shop/cache, gap: uncovered, …}`), or coverage is `off` in it.

mod declared;

use crate::inventory::{Database, Inventory, Mark, Wanted, read_inventory};
use crate::kubernetes::{Cluster, KindInfo, Selection};
use crate::plan::{self, item_matches};
use crate::report::coverage::{Coverage, UNCOVERED, Uncovered, Unseen, What};
use crate::report::event::Reporter;

pub use crate::inventory::coverage::declared::Declared;

/// The input of a coverage check.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The cluster to read.
    pub cluster: Cluster,
    /// The part of it that the plan declares.
    pub declared: Declared,
    /// `true` if undeclared things affect the outcome (`coverage: strict`).
    pub strict: bool,
    /// The gaps that the plan accepts today: items, also as patterns, and codes of gaps.
    pub accept: Vec<(String, String)>,
}

impl Watch {
    /// Reads the inventory and compares. A cluster that does not answer is reported as unseen: other readers
    /// of it fail by themselves.
    pub async fn look(&self, reporter: &Reporter) -> Coverage {
        let meter = reporter.meter("coverage", "lists");
        let wanted = self.declared.wanted();
        let seen = read_inventory(&self.cluster, &wanted, &meter).await;
        meter.end();
        match seen {
            Ok(seen) => self.compare(&seen),
            Err(error) => {
                let why = crate::report::error::causes(&error);
                let unseen = vec![Unseen { what: "the cluster".to_owned(), why, rule: None }];
                Coverage { strict: self.strict, unseen, ..Coverage::default() }
            }
        }
    }

    fn compare(&self, seen: &Inventory) -> Coverage {
        let (accepted, uncovered) =
            uncovered(seen, &self.declared).into_iter().partition(|one| self.accepts(one));
        Coverage { strict: self.strict, uncovered, accepted, unseen: seen.unseen.clone() }
    }

    fn accepts(&self, one: &Uncovered) -> bool {
        self.accept.iter().any(|(item, gap)| gap == UNCOVERED && item_matches(item, &one.item))
    }
}

/// Returns everything in `seen` that is not declared.
#[must_use]
pub fn uncovered(seen: &Inventory, declared: &Declared) -> Vec<Uncovered> {
    let mut found = Vec::new();
    let mut add = |what, item: String, detail: String| found.push(Uncovered { what, item, detail });
    for key in &seen.keys {
        if !declared.takes_secret(&key.namespace, &key.labels) {
            add(What::Key, format!("secret/{}/{}", key.namespace, key.name), key.what.clone());
        }
    }
    let covered: Vec<bool> = seen
        .databases
        .iter()
        .map(|database| declared.dumps(database, &seen.databases, &seen.services))
        .collect();
    for (database, covered) in seen.databases.iter().zip(&covered) {
        if !covered {
            let claims = seen
                .claims
                .iter()
                .filter(|claim| claim.database.is_some_and(|at| seen.databases[at] == *database));
            add(What::Database, database.item(), describe(database, claims.count()));
        }
    }
    for claim in &seen.claims {
        // A database's claims are reported with it, or its dump covers them.
        let derived = claim.database.is_some();
        if !derived && !declared.takes_claim(&claim.namespace, &claim.name, &claim.labels) {
            let parts = [claim.size.clone(), claim.class.as_ref().map(|class| format!("class {class}"))];
            let detail = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            add(What::Claim, format!("volume/{}/{}", claim.namespace, claim.name), detail);
        }
    }
    for namespace in &seen.namespaces {
        if !declared.takes_namespace(namespace) {
            add(What::Namespace, format!("namespace/{namespace}"), String::new());
        }
    }
    found
}

fn describe(database: &Database, claims: usize) -> String {
    let by = match &database.by {
        Mark::Image(image) => format!("runs {image}"),
        Mark::Port(port) => format!("keeps data and listens on {port}"),
        Mark::Operator => "run by its operator".to_owned(),
    };
    let claims = match claims {
        0 => String::new(),
        some => format!(", {}", What::Claim.counted(some)),
    };
    format!("{}, {}, {by}{claims}", database.engine, database.kind)
}

/// Returns the kind of Secrets, to which all keys belong.
fn secrets() -> KindInfo {
    KindInfo { kind: "Secret".to_owned(), ..KindInfo::named("", "v1", "secrets") }
}

/// True if coverage is on: set in the plan, or unset in a plan that reads a cluster.
#[must_use]
pub fn is_wanted(spec: &plan::Spec) -> bool {
    let reads = spec.resources.is_some() || spec.cluster.is_some();
    match spec.coverage {
        Some(plan::Coverage::Off) => false,
        Some(plan::Coverage::Warn | plan::Coverage::Strict) => true,
        None => reads,
    }
}

/// Returns the options of an inventory: the namespaces that `selection` names without a glob.
fn wanted(selection: Option<&Selection>, services: bool) -> Wanted {
    let named = selection.map(|selection| &selection.namespaces).into_iter().flatten();
    let plain = named.map(|glob| glob.as_str()).filter(|name| !name.contains(['*', '?']));
    Wanted { namespaces: plain.map(str::to_owned).collect(), services }
}
