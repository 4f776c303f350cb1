//! Coverage: things that exist in a cluster and that the plan does not declare. [`uncovered`] is pure: an
//! inventory and a plan in, a list out.
//!
//! Coverage is one plan's view. Things that another plan backs up are accepted in this one
//! (`accept: {item: volume/shop/cache, gap: uncovered, …}`), or coverage is `off` in it.

mod declared;

use serde::{Deserialize, Serialize};

use crate::plan::{self, UNCOVERED, item_matches};
use crate::report::event::Reporter;
use crate::source::kubernetes::{Cluster, KindInfo, Selection};
use crate::survey::{Database, Mark, Survey, Unseen, Wanted, survey};

pub use declared::Declared;

/// The maximum number of things named in a line.
const NAMED: usize = 5;

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

/// The kind of an undeclared thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A Secret that cannot be recreated.
    Key,
    /// A database.
    Database,
    /// A PersistentVolumeClaim.
    Claim,
    /// A namespace.
    Namespace,
}

impl What {
    /// All kinds, the most severe first.
    pub const ALL: [Self; 4] = [Self::Key, Self::Database, Self::Claim, Self::Namespace];

    /// Returns the stable name, for programs.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Self::Key => "key",
            Self::Database => "database",
            Self::Claim => "claim",
            Self::Namespace => "namespace",
        }
    }

    fn count(self, number: usize) -> String {
        let (one, many) = match self {
            Self::Key => ("key that nothing can make again", "keys that nothing can make again"),
            Self::Database => ("database", "databases"),
            Self::Claim => ("claim", "claims"),
            Self::Namespace => ("namespace", "namespaces"),
        };
        crate::report::text::plural(number as u64, one, many)
    }
}

/// One thing that the plan does not declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    /// The kind of thing.
    pub what: What,
    /// The name that `accept` takes: `volume/shop/uploads`, `database/shop/orders-db`, `namespace/shop`,
    /// `secret/kube-system/sealed-secrets-key7x2p`.
    pub item: String,
    /// Details for people.
    pub detail: String,
}

/// The result of a coverage check.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// `true` if it affects the outcome (`coverage: strict`).
    pub strict: bool,
    /// Undeclared things.
    pub uncovered: Vec<Uncovered>,
    /// Undeclared things that the plan accepts.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Uncovered>,
    /// Resources that could not be read, or not to the end.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Unseen>,
}

/// A line for people. Its severity follows from [`What`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The kind of thing; `None` for a resource that could not be read.
    pub what: Option<What>,
    /// The finding.
    pub text: String,
    /// The remedy.
    pub remedy: String,
}

impl Watch {
    /// Reads the inventory and compares. A cluster that does not answer is reported as unseen: other readers
    /// of it fail by themselves.
    pub async fn look(&self, reporter: &Reporter) -> Coverage {
        let meter = reporter.meter("coverage", "lists");
        let wanted = self.declared.wanted();
        let seen = survey(&self.cluster, &wanted, &meter).await;
        meter.end();
        match seen {
            Ok(seen) => self.compare(&seen),
            Err(error) => {
                let why = crate::report::failure::causes(&error);
                let unseen = vec![Unseen { what: "the cluster".to_owned(), why, rule: None }];
                Coverage { strict: self.strict, unseen, ..Coverage::default() }
            }
        }
    }

    fn compare(&self, seen: &Survey) -> Coverage {
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
pub fn uncovered(seen: &Survey, declared: &Declared) -> Vec<Uncovered> {
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
        some => format!(", {}", What::Claim.count(some)),
    };
    format!("{}, {}, {by}{claims}", database.engine, database.kind)
}

impl Coverage {
    /// True if the run may count as complete: with `strict`, nothing may be undeclared or unseen.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        !self.strict || (self.uncovered.is_empty() && self.unseen.is_empty())
    }

    /// Returns the number of undeclared things of a kind.
    #[must_use]
    pub fn count(&self, what: What) -> usize {
        self.uncovered.iter().filter(|one| one.what == what).count()
    }

    /// Returns a summary in one line: `not declared: 2 claims, 1 namespace`.
    #[must_use]
    pub fn summary(&self) -> String {
        let counted = What::ALL.iter().map(|what| (what, self.count(*what))).filter(|(_, count)| *count > 0);
        let parts: Vec<String> = counted.map(|(what, count)| what.count(count)).collect();
        match (parts.is_empty(), self.unseen.is_empty()) {
            (true, true) => "everything that was looked for is declared".to_owned(),
            (true, false) => "not everything was looked at".to_owned(),
            (false, _) => format!("not declared: {}", parts.join(", ")),
        }
    }

    /// Returns the findings for people, a line for each kind of thing and each unseen resource.
    #[must_use]
    pub fn lines(&self) -> Vec<Line> {
        let mut lines: Vec<Line> = What::ALL.into_iter().filter_map(|what| self.line(what)).collect();
        for unseen in &self.unseen {
            let remedy = match &unseen.rule {
                Some(rule) => format!("add the rule {rule}"),
                None => "run it again, or look at the cluster".to_owned(),
            };
            let text = format!("{}: not looked at: {}", unseen.what, unseen.why);
            lines.push(Line { what: None, text, remedy });
        }
        lines
    }

    fn line(&self, what: What) -> Option<Line> {
        let all: Vec<&Uncovered> = self.uncovered.iter().filter(|one| one.what == what).collect();
        let first = all.first()?;
        let mut names: Vec<String> = all.iter().take(NAMED).map(|one| one.told()).collect();
        if all.len() > NAMED {
            names.push(format!("{} more (-o json names all)", all.len() - NAMED));
        }
        let verb = if all.len() == 1 { "is" } else { "are" };
        let text = format!("{} {verb} not declared: {}", what.count(all.len()), names.join("; "));
        let remedy = match what {
            What::Key => {
                "let resources take Secrets of that namespace: without the key what it opens is lost"
            }
            What::Database => "add it to databases",
            What::Claim => "add it to volumes",
            What::Namespace => "add it to resources.namespaces",
        };
        let remedy =
            format!("{remedy}, or accept {{item: {}, gap: {UNCOVERED}, reason: …, until: …}}", first.item);
        Some(Line { what: Some(what), text, remedy })
    }
}

impl Uncovered {
    /// Returns the name without the kind of thing, and the details.
    fn told(&self) -> String {
        let name = self.item.split_once('/').map_or(self.item.as_str(), |(_, name)| name);
        if self.detail.is_empty() { name.to_owned() } else { format!("{name} ({})", self.detail) }
    }
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
