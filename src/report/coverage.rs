//! Things in a cluster that a plan does not declare, as reports show them.

use serde::{Deserialize, Serialize};

use super::text::plural;

/// The code of the gap that a plan accepts for what it does not declare.
pub const UNCOVERED: &str = "uncovered";

/// The maximum number of things named in a line.
const MAX_NAMES: usize = 5;

/// The kind of an undeclared thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum UndeclaredKind {
    /// A Secret that cannot be recreated.
    Key,
    /// A database.
    Database,
    /// A PersistentVolumeClaim.
    Claim,
    /// A namespace.
    Namespace,
}

impl UndeclaredKind {
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

    /// `2 claims`.
    #[must_use]
    pub fn counted(self, number: usize) -> String {
        let (one, many) = match self {
            Self::Key => ("Secret that cannot be recreated", "Secrets that cannot be recreated"),
            Self::Database => ("database", "databases"),
            Self::Claim => ("claim", "claims"),
            Self::Namespace => ("namespace", "namespaces"),
        };
        plural(number as u64, one, many)
    }
}

/// One thing that the plan does not declare.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Uncovered {
    /// The kind of thing.
    pub what: UndeclaredKind,
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
    pub unseen: Vec<UnreadResource>,
}

/// A finding for people, in one line. Its severity follows from [`UndeclaredKind`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CoverageFinding {
    /// The kind of thing; `None` for a resource that could not be read.
    pub what: Option<UndeclaredKind>,
    /// The finding.
    pub text: String,
    /// The remedy.
    pub remedy: String,
}

/// A resource that could not be read, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct UnreadResource {
    /// The resource: `deployments.apps`.
    pub what: String,
    /// The reason.
    pub why: String,
    /// The RBAC rule to add, if a right is missing.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rule: Option<String>,
}

impl Coverage {
    /// True if the run may count as complete: with `strict`, nothing may be undeclared or unseen.
    pub fn is_fine(&self) -> bool {
        !self.strict || (self.uncovered.is_empty() && self.unseen.is_empty())
    }

    /// Returns the number of undeclared things of a kind.
    pub fn count(&self, what: UndeclaredKind) -> usize {
        self.uncovered.iter().filter(|one| one.what == what).count()
    }

    /// Returns a summary in one line: `not declared: 2 claims, 1 namespace`.
    pub fn summary(&self) -> String {
        let counted =
            UndeclaredKind::ALL.iter().map(|what| (what, self.count(*what))).filter(|(_, count)| *count > 0);
        let parts: Vec<String> = counted.map(|(what, count)| what.counted(count)).collect();
        match (parts.is_empty(), self.unseen.is_empty()) {
            (true, true) => "everything that was looked for is declared".to_owned(),
            (true, false) => "not everything could be read".to_owned(),
            (false, _) => format!("not declared: {}", parts.join(", ")),
        }
    }

    /// Returns the findings for people, a line for each kind of thing and each unseen resource.
    pub fn findings(&self) -> Vec<CoverageFinding> {
        let mut findings: Vec<CoverageFinding> =
            UndeclaredKind::ALL.into_iter().filter_map(|what| self.finding(what)).collect();
        for unread in &self.unseen {
            let remedy = match &unread.rule {
                Some(rule) => format!("add the rule {rule}"),
                None => "run it again, or check the cluster".to_owned(),
            };
            let text = format!("{}: not read: {}", unread.what, unread.why);
            findings.push(CoverageFinding { what: None, text, remedy });
        }
        findings
    }

    fn finding(&self, what: UndeclaredKind) -> Option<CoverageFinding> {
        let all: Vec<&Uncovered> = self.uncovered.iter().filter(|one| one.what == what).collect();
        let first = all.first()?;
        let mut names: Vec<String> = all.iter().take(MAX_NAMES).map(|one| one.described()).collect();
        if all.len() > MAX_NAMES {
            names.push(format!("{} more (-o json names all)", all.len() - MAX_NAMES));
        }
        let verb = if all.len() == 1 { "is" } else { "are" };
        let text = format!("{} {verb} not declared: {}", what.counted(all.len()), names.join("; "));
        let remedy = match what {
            UndeclaredKind::Key => {
                "include Secrets of that namespace in resources: without the key, what it decrypts is lost"
            }
            UndeclaredKind::Database => "add it to databases",
            UndeclaredKind::Claim => "add it to volumes",
            UndeclaredKind::Namespace => "add it to resources.namespaces",
        };
        let remedy =
            format!("{remedy}, or accept {{item: {}, gap: {UNCOVERED}, reason: …, until: …}}", first.item);
        Some(CoverageFinding { what: Some(what), text, remedy })
    }
}

impl Uncovered {
    /// Returns the name without the kind of thing, and the details.
    fn described(&self) -> String {
        let name = self.item.split_once('/').map_or(self.item.as_str(), |(_, name)| name);
        if self.detail.is_empty() { name.to_owned() } else { format!("{name} ({})", self.detail) }
    }
}
