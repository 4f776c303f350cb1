//! The parts of a plan that control a run: limits, objectives, accepted gaps, hooks, Jobs, notices.

use std::collections::BTreeMap;
use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selection::Glob;
use super::value::{Day, Period, Rate, Size};

/// What to run before or after an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// `pre` or `post`.
    pub when: HookTime,
    /// The item. Default: the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// A command in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHook>,
    /// A request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHook>,
    /// How long it may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout: Option<Period>,
    /// `gap` (the item is not safe) or `warn`. Default: `gap`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_error: Option<OnError>,
}

/// When a hook runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum HookTime {
    /// Before.
    Pre,
    /// After, also when the item failed.
    Post,
}

/// What a failed hook means.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The item is not safe.
    Gap,
    /// A warning.
    Warn,
}

/// A command in a pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ExecHook {
    /// The pod's namespace.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The container in it. Default: its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The command, as words; no shell.
    pub command: Vec<String>,
}

/// A request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHook {
    /// Where to.
    pub url: String,
    /// The method. Default: `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// A known gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Accept {
    /// The item, as reports name it: `volume/shop/cache`. With the gap `uncovered` its parts may be
    /// globs.
    pub item: String,
    /// The gap's code, as reports name it: `rwop-in-use`; `uncovered` for what no plan declares.
    pub gap: String,
    /// Why it is accepted.
    pub reason: String,
    /// Until when; afterwards it is a gap again.
    pub until: Day,
}

/// The gap code of a thing that no plan declares. Items of `accept` with this code are such things or globs:
/// `volume/shop/cache`, `database/shop/*`, `namespace/dev-*`, `secret/x/y`.
pub const UNCOVERED: &str = "uncovered";

/// True if `pattern`, an item whose parts may be globs, matches `item`.
#[must_use]
pub fn item_matches(pattern: &str, item: &str) -> bool {
    let (mut patterns, mut parts) = (pattern.split('/'), item.split('/'));
    loop {
        match (patterns.next(), parts.next()) {
            (None, None) => return true,
            (Some(pattern), Some(part)) => {
                if !Glob::new(pattern).is_ok_and(|glob| glob.matches(part)) {
                    return false;
                }
            }
            _ => return false,
        }
    }
}

/// True if a text names things that no plan declares, in the form for [`item_matches`].
pub(super) fn is_uncovered_item(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let fits = matches!(parts.as_slice(), ["namespace", _] | ["volume" | "database" | "secret", _, _]);
    fits && parts.iter().all(|part| Glob::new(part).is_ok())
}

/// What to do about things that no plan declares.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Coverage {
    /// Name them.
    Warn,
    /// Name them, and end with exit code 3; with 2 in `check`.
    Strict,
    /// Do not look.
    Off,
}

/// Promises.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objectives {
    /// How old the last good copy may be.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Period>,
    /// How long a restore may take.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Period>,
}

/// How the Jobs look that kbak starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jobs {
    /// Labels of Jobs and pods.
    pub labels: BTreeMap<String, String>,
    /// Requests and limits, as Kubernetes has them.
    pub resources: BTreeMap<String, BTreeMap<String, String>>,
    /// A PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Tolerations, as Kubernetes has them.
    pub tolerations: Vec<serde_json::Value>,
    /// Names of Secrets with which images are pulled.
    pub image_pull_secrets: Vec<String>,
    /// A pod's security context, as Kubernetes has it.
    pub security_context: serde_json::Map<String, serde_json::Value>,
    /// Whether a NetworkPolicy is made for them. Default: `create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<JobNetworkPolicy>,
}

/// Whether a NetworkPolicy is made.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobNetworkPolicy {
    /// It is.
    Create,
    /// It is not.
    None,
}

/// Which snapshots prune keeps, per item: the newest good ones of so many hours, days, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// The newest.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// One an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<u32>,
    /// One a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<u32>,
    /// One a week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<u32>,
    /// One a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<u32>,
    /// One a year.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<u32>,
}

impl Retention {
    /// True if it keeps no snapshots.
    #[must_use]
    pub fn keeps_nothing(&self) -> bool {
        [
            self.keep_last,
            self.keep_hourly,
            self.keep_daily,
            self.keep_weekly,
            self.keep_monthly,
            self.keep_yearly,
        ]
        .iter()
        .all(|rule| rule.is_none_or(|count| count == 0))
    }
}

impl Retention {
    /// Returns how far back its rules reach, if runs keep coming: the longest of them. `keepLast` counts
    /// runs, not time, and is taken as days.
    #[must_use]
    pub fn reach(&self) -> Period {
        let rules = [
            (self.keep_last, 86_400),
            (self.keep_hourly, 3_600),
            (self.keep_daily, 86_400),
            (self.keep_weekly, 604_800),
            (self.keep_monthly, 31 * 86_400),
            (self.keep_yearly, 366 * 86_400),
        ];
        let seconds = rules.iter().map(|(count, each)| u64::from(count.unwrap_or(0)) * each).max();
        Period::seconds(seconds.unwrap_or(0))
    }
}

/// The promise of the next run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// The next snapshot is there so long after this one: what is older is an alarm.
    pub next: Period,
}

/// What a run may use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Limits {
    /// The most memory that the process has resident; at least 64Mi.
    pub memory: Size,
    /// The most that is sent to the store. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<Rate>,
    /// How many transfers run at once, 1 to 64. Default: as suits the memory.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u16>,
}

impl Default for Limits {
    fn default() -> Self {
        Self { memory: Size::mebi(128), upload: None, parallel: None }
    }
}

/// Who is told of runs. Addresses that are secrets stand in files.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// A dead-man's switch: start, success and failure.
    Ping(Address),
    /// A webhook.
    Webhook(Address),
    /// A push of metrics.
    Metrics(Address),
}

/// Where a notice goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Address {
    /// An address that is no secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// A webhook's body, as a template.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_of_items_match_part_by_part() {
        for (pattern, item) in
            [("volume/shop/*", "volume/shop/cache"), ("namespace/dev-?", "namespace/dev-1")]
        {
            assert!(item_matches(pattern, item), "{pattern} {item}");
        }
        for (pattern, item) in [
            ("volume/*", "volume/shop/cache"),
            ("volume/shop/cache", "volume/shop"),
            ("*/shop/x y", "volume/shop/x"),
            ("secret/shop/*", "volume/shop/cache"),
        ] {
            assert!(!item_matches(pattern, item), "{pattern} {item}");
        }
    }
}
