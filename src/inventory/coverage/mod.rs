//! Coverage: things that exist in a cluster and that the plan does not declare. [`uncovered`] is pure: an
//! inventory and a plan in, a list out.
//!
//! Coverage is one plan's view. Things that another plan backs up are accepted in this one
//! (`accept: {item: volume/shop/cache, gap: uncovered, …}`), or coverage is `off` in it.

mod declared;

pub use declared::DeclaredScope;

use super::{
    DetectedDatabase, Inventory, InventoryOptions, IrreplaceableSecret, RecognisedBy, read_inventory,
};
use crate::kubernetes::{Cluster, KindInfo, Selection};
use crate::plan::{self, BackupSpec, GlobError, item_matches};
use crate::report::coverage::{Coverage, UNCOVERED, Uncovered, UndeclaredKind, UnreadResource};
use crate::report::event::Reporter;

/// The input of a coverage check.
#[derive(Debug, Clone)]
pub struct CoverageCheck {
    /// The cluster to read.
    pub cluster: Cluster,
    /// The part of it that the plan declares.
    pub declared: DeclaredScope,
    /// `true` if undeclared things affect the outcome (`coverage: strict`).
    pub strict: bool,
    /// The gaps that the plan accepts today: items, also as patterns, and codes of gaps.
    pub accept: Vec<(String, String)>,
}

impl CoverageCheck {
    /// Prepares the check of a plan in a connected cluster.
    ///
    /// # Errors
    /// [`GlobError`] for an invalid pattern.
    pub fn of(spec: &BackupSpec, cluster: Cluster, accept: Vec<(String, String)>) -> Result<Self, GlobError> {
        let declared = DeclaredScope::of(spec, spec.resources.as_ref().map(Selection::of).transpose()?);
        Ok(Self { cluster, declared, strict: spec.coverage == Some(plan::CoverageMode::Strict), accept })
    }

    /// Reads the inventory and compares. A cluster that does not answer is reported as unread: other readers
    /// of it fail by themselves.
    pub async fn run(&self, reporter: &Reporter) -> Coverage {
        let meter = reporter.meter("coverage", "lists");
        let options = self.declared.inventory_options();
        let inventory = read_inventory(&self.cluster, &options, &meter).await;
        meter.end();
        match inventory {
            Ok(inventory) => self.compare(&inventory),
            Err(error) => {
                let why = crate::report::error::causes(&error);
                let unread = UnreadResource { what: "the cluster".to_owned(), why, rule: None };
                Coverage { strict: self.strict, unseen: vec![unread], ..Coverage::default() }
            }
        }
    }

    fn compare(&self, inventory: &Inventory) -> Coverage {
        let (accepted, uncovered) =
            uncovered(inventory, &self.declared).into_iter().partition(|one| self.accepts(one));
        Coverage { strict: self.strict, uncovered, accepted, unseen: inventory.unread.clone() }
    }

    fn accepts(&self, one: &Uncovered) -> bool {
        self.accept.iter().any(|(item, gap)| gap == UNCOVERED && item_matches(item, &one.item))
    }
}

/// Returns everything in `inventory` that is not declared.
#[must_use]
pub fn uncovered(inventory: &Inventory, declared: &DeclaredScope) -> Vec<Uncovered> {
    let mut found = Vec::new();
    let mut add = |what, item: String, detail: String| found.push(Uncovered { what, item, detail });
    for IrreplaceableSecret { namespace, name, labels, description } in &inventory.irreplaceable_secrets {
        if !declared.includes_secret(namespace, labels) {
            add(UndeclaredKind::Key, format!("secret/{namespace}/{name}"), description.clone());
        }
    }
    for database in &inventory.databases {
        if !declared.dumps(database, &inventory.databases, &inventory.services) {
            let holds = |at: usize| inventory.databases[at] == *database;
            let claims = inventory.claims.iter().filter(|claim| claim.database.is_some_and(holds));
            add(UndeclaredKind::Database, database.item(), describe(database, claims.count()));
        }
    }
    for claim in &inventory.claims {
        // A database's claims are reported with it, or its dump covers them.
        let derived = claim.database.is_some();
        if !derived && !declared.includes_claim(&claim.namespace, &claim.name, &claim.labels) {
            let parts = [claim.size.clone(), claim.class.as_ref().map(|class| format!("class {class}"))];
            let detail = parts.into_iter().flatten().collect::<Vec<_>>().join(", ");
            add(UndeclaredKind::Claim, format!("volume/{}/{}", claim.namespace, claim.name), detail);
        }
    }
    for namespace in &inventory.namespaces {
        if !declared.includes_namespace(namespace) {
            add(UndeclaredKind::Namespace, format!("namespace/{namespace}"), String::new());
        }
    }
    found
}

fn describe(database: &DetectedDatabase, claims: usize) -> String {
    let by = match &database.recognised_by {
        RecognisedBy::Image(image) => format!("runs {image}"),
        RecognisedBy::Port(port) => format!("keeps data and listens on {port}"),
        RecognisedBy::Operator => "run by its operator".to_owned(),
    };
    let claims = match claims {
        0 => String::new(),
        some => format!(", {}", UndeclaredKind::Claim.counted(some)),
    };
    format!("{}, {}, {by}{claims}", database.engine, database.kind)
}

/// Returns the kind of Secrets.
fn secrets() -> KindInfo {
    KindInfo { kind: "Secret".to_owned(), ..KindInfo::from_path_parts("", "v1", "secrets") }
}

/// Returns the kinds that a plan's check of the coverage reads, of those of a cluster, with the verbs of the
/// requests; none if coverage is off.
///
/// # Errors
/// [`GlobError`] for an invalid pattern.
pub fn read_kinds<'a>(
    spec: &BackupSpec,
    kinds: &'a [KindInfo],
) -> Result<Vec<(&'a KindInfo, &'static [&'static str])>, GlobError> {
    if !is_wanted(spec) {
        return Ok(Vec::new());
    }
    let declared = DeclaredScope::of(spec, spec.resources.as_ref().map(Selection::of).transpose()?);
    Ok(super::read_kinds(kinds, &declared.inventory_options()))
}

/// True if coverage is on: set in the plan, or unset in a plan that reads a cluster.
#[must_use]
pub fn is_wanted(spec: &plan::BackupSpec) -> bool {
    let reads = spec.resources.is_some() || spec.cluster.is_some();
    match spec.coverage {
        Some(plan::CoverageMode::Off) => false,
        Some(plan::CoverageMode::Warn | plan::CoverageMode::Strict) => true,
        None => reads,
    }
}

/// Returns the options of an inventory: the namespaces that `selection` names without a glob.
fn inventory_options(
    selection: Option<&Selection>,
    services: bool,
    without_secrets: bool,
) -> InventoryOptions {
    let named = selection.map(|selection| &selection.namespaces).into_iter().flatten();
    let plain = named.map(|glob| glob.as_str()).filter(|name| !name.contains(['*', '?']));
    InventoryOptions { namespaces: plain.map(str::to_owned).collect(), services, without_secrets }
}
