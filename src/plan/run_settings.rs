//! The parts of a plan that control a run: limits, objectives, accepted gaps, hooks, Jobs.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::selection::Glob;
use super::value::{Day, Period, Rate, Size};

/// A command or request to run before or after an item.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Hook {
    /// `pre` or `post`.
    pub when: HookTime,
    /// The item that it runs for. Default: the whole run.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub item: Option<String>,
    /// A command in a pod.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub exec: Option<ExecHook>,
    /// An HTTP request.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub http: Option<HttpHook>,
    /// The maximum duration.
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
    /// Before the item.
    Pre,
    /// After the item, also if the item failed.
    Post,
}

/// The consequence of a failed hook.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum OnError {
    /// The item is not safe.
    Gap,
    /// The run warns.
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
    /// The container of the pod. Default: its first.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub container: Option<String>,
    /// The command, as words; no shell.
    pub command: Vec<String>,
}

/// An HTTP request.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpHook {
    /// The address.
    pub url: String,
    /// The method. Default: `POST`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub method: Option<String>,
}

/// An accepted gap.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Accept")]
pub struct AcceptedGap {
    /// The item, as reports name it: `volume/shop/cache`. With the gap `uncovered`, its parts can be globs.
    pub item: String,
    /// The code of the gap, as reports name it: `rwop-in-use`; `uncovered` for things that the plan does
    /// not declare.
    pub gap: String,
    /// The reason why the gap is accepted.
    pub reason: String,
    /// The last day on which the gap is accepted.
    pub until: Day,
}

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

/// True if a text names things that no plan declares, or globs of them, in the form for [`item_matches`]:
/// `volume/shop/cache`, `database/shop/*`, `namespace/dev-*`, `secret/x/y`.
pub(super) fn is_uncovered_item(text: &str) -> bool {
    let parts: Vec<&str> = text.split('/').collect();
    let fits = matches!(parts.as_slice(), ["namespace", _] | ["volume" | "database" | "secret", _, _]);
    fits && parts.iter().all(|part| Glob::new(part).is_ok())
}

/// The report of things that the plan does not declare.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(rename = "Coverage")]
pub enum CoverageMode {
    /// List them.
    Warn,
    /// List them, and end with exit code 3; `check` ends with 2.
    Strict,
    /// Do not look.
    Off,
}

/// Objectives of an item or of a plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Objectives {
    /// The maximum age of the last good copy.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rpo: Option<Period>,
    /// The maximum duration of a restore.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub rto: Option<Period>,
}

/// Settings of the Jobs that kbak starts.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Jobs {
    /// Labels of Jobs and pods.
    pub labels: BTreeMap<String, String>,
    /// Requests and limits, in the form of Kubernetes.
    pub resources: BTreeMap<String, BTreeMap<String, String>>,
    /// A PriorityClass.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub priority_class: Option<String>,
    /// Tolerations, in the form of Kubernetes.
    pub tolerations: Vec<serde_json::Value>,
    /// Names of Secrets for pulling images.
    pub image_pull_secrets: Vec<String>,
    /// The security context of the pods, in the form of Kubernetes.
    pub security_context: serde_json::Map<String, serde_json::Value>,
    /// `create` makes a NetworkPolicy for them. Default: `create`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub network_policy: Option<JobNetworkPolicy>,
}

/// The NetworkPolicy of Jobs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum JobNetworkPolicy {
    /// A NetworkPolicy is created.
    Create,
    /// No NetworkPolicy is created.
    None,
}

/// The snapshots that prune keeps for each item: the newest good ones of the given numbers of hours, days, …
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema, Default)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
pub struct Retention {
    /// The number of the newest snapshots to keep.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_last: Option<u32>,
    /// For how many hours to keep one snapshot an hour.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_hourly: Option<u32>,
    /// For how many days to keep one snapshot a day.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_daily: Option<u32>,
    /// For how many weeks to keep one snapshot a week.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_weekly: Option<u32>,
    /// For how many months to keep one snapshot a month.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_monthly: Option<u32>,
    /// For how many years to keep one snapshot a year.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub keep_yearly: Option<u32>,
}

impl Retention {
    /// True if it keeps no snapshots.
    pub fn keeps_nothing(&self) -> bool {
        self.reach() == Period::seconds(0)
    }

    /// Returns how far back its rules reach, if runs keep coming: the longest of them. `keepLast` counts
    /// runs, not time, and is taken as days.
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

/// When the next run is expected.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Schedule {
    /// The time from one snapshot to the next; a later one raises an alarm.
    pub next: Period,
}

/// Limits of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields, default)]
#[schemars(rename = "Limits")]
pub struct RunLimits {
    /// The maximum resident memory of the process; at least 64Mi.
    pub memory: Size,
    /// The maximum rate of uploads to the store. Default: no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub upload: Option<Rate>,
    /// The number of parallel transfers, 1 to 64. Default: chosen from the memory limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub parallel: Option<u16>,
}

impl Default for RunLimits {
    fn default() -> Self {
        Self { memory: Size::mebi(128), upload: None, parallel: None }
    }
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
