//! Coverage: what exists in a cluster and a plan does not declare. Pure: a survey and a plan in,
//! a list out.
//!
//! Coverage tells one plan's view. What another plan takes care of is accepted in this one
//! (`accept: {item: volume/shop/cache, gap: uncovered, …}`), or coverage is `off` in it.

mod declared;

use serde::{Deserialize, Serialize};

use crate::plan::{self, UNCOVERED, item_matches};
use crate::report::event::Reporter;
use crate::source::kubernetes::{Cluster, KindInfo, Selection};
use crate::survey::{Database, Mark, Survey, Unseen, Wanted, survey};

pub use declared::Declared;

/// How many things are named in a line.
const NAMED: usize = 5;

/// What a run or a check is to look for.
#[derive(Debug, Clone)]
pub struct Watch {
    /// The cluster.
    pub cluster: Cluster,
    /// What the plan declares of it.
    pub declared: Declared,
    /// Whether what is found counts.
    pub strict: bool,
    /// What the plan accepts today: items, also as patterns, and codes of gaps.
    pub accept: Vec<(String, String)>,
}

/// What kind of thing is not declared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum What {
    /// A Secret that nothing can make again.
    Key,
    /// A database.
    Database,
    /// A claim.
    Claim,
    /// A namespace.
    Namespace,
}

impl What {
    /// All of them, the worst first.
    pub const ALL: [Self; 4] = [Self::Key, Self::Database, Self::Claim, Self::Namespace];

    /// For programs.
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

/// One thing that is not declared.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    /// What kind of thing.
    pub what: What,
    /// As `accept` names it: `volume/shop/uploads`, `database/shop/orders-db`, `namespace/shop`,
    /// `secret/kube-system/sealed-secrets-key7x2p`.
    pub item: String,
    /// What is known of it, for people.
    pub detail: String,
}

/// What a cluster holds beside what a plan declares.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Coverage {
    /// Whether it counts (`coverage: strict`).
    pub strict: bool,
    /// What is not declared.
    pub uncovered: Vec<Uncovered>,
    /// What is not declared, and the plan accepts it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accepted: Vec<Uncovered>,
    /// What was not looked at.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unseen: Vec<Unseen>,
}

/// A line for people: how much it matters comes from [`What`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    /// The kind of thing, or none for what was not looked at.
    pub what: Option<What>,
    /// What was found.
    pub text: String,
    /// What to do.
    pub remedy: String,
}

impl Watch {
    /// Looks. A cluster that does not answer is something that was not looked at: whatever reads
    /// it besides fails by itself.
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

/// Everything in `seen` that is not declared.
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
        // The claims of a database are told with it, or are what it is dumped from.
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
    /// Whether it lets a run be whole: with `strict` nothing may be undeclared or unseen.
    #[must_use]
    pub fn is_fine(&self) -> bool {
        !self.strict || (self.uncovered.is_empty() && self.unseen.is_empty())
    }

    /// How many things of a kind are not declared.
    #[must_use]
    pub fn count(&self, what: What) -> usize {
        self.uncovered.iter().filter(|one| one.what == what).count()
    }

    /// In one line: `2 claims and 1 namespace are not declared`.
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

    /// What is found, a line for each kind of thing, for people.
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
    /// Its name without what kind of thing it is, and what is known of it.
    fn told(&self) -> String {
        let name = self.item.split_once('/').map_or(self.item.as_str(), |(_, name)| name);
        if self.detail.is_empty() { name.to_owned() } else { format!("{name} ({})", self.detail) }
    }
}

/// The kind that keys are of.
fn secrets() -> KindInfo {
    KindInfo { kind: "Secret".to_owned(), ..KindInfo::named("", "v1", "secrets") }
}

/// Whether a plan wants its cluster looked at: it reads one, and did not say `off`.
#[must_use]
pub fn is_wanted(spec: &plan::Spec) -> bool {
    let reads = spec.resources.is_some() || spec.cluster.is_some();
    match spec.coverage {
        Some(plan::Coverage::Off) => false,
        Some(plan::Coverage::Warn | plan::Coverage::Strict) => true,
        None => reads,
    }
}

/// What a survey for `selection` is told: where to look if not everywhere is allowed.
fn wanted(selection: Option<&Selection>, services: bool) -> Wanted {
    let named = selection.map(|selection| &selection.namespaces).into_iter().flatten();
    let plain = named.map(|glob| glob.as_str()).filter(|name| !name.contains(['*', '?']));
    Wanted { namespaces: plain.map(str::to_owned).collect(), services }
}
