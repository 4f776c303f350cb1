//! What a cluster holds beside what a plan declares, as reports tell it.

use serde::{Deserialize, Serialize};

use super::text::plural;

/// The code of the gap that a plan accepts for what it does not declare.
pub const UNCOVERED: &str = "uncovered";

/// The maximum number of things named in a line.
const NAMED: usize = 5;

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

    /// `2 claims`.
    #[must_use]
    pub fn counted(self, number: usize) -> String {
        let (one, many) = match self {
            Self::Key => ("key that nothing can make again", "keys that nothing can make again"),
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

/// A resource that could not be read, or not to the end.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Unseen {
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
        let parts: Vec<String> = counted.map(|(what, count)| what.counted(count)).collect();
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
        let text = format!("{} {verb} not declared: {}", what.counted(all.len()), names.join("; "));
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
