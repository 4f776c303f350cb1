//! Takes over selection, schedule and retention from Velero and K8up, and names the rest in comments.

use super::cron::{go_period, interval};
use super::yaml::{Yaml, list, quoted};
use crate::inventory::existing_backup_tools::{
    K8upSchedule, KubernetesSelector, ToolConfigs, VeleroSchedule, VeleroTemplate,
};
use crate::plan::{EVENT_KINDS, Glob, LabelSelector, Period};

/// The requested schedule does not exist.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("no Velero schedule {requested} in the cluster; it has: {}", if existing.is_empty() { "none".to_owned() } else { existing.join(", ") })]
pub struct ScheduleNotFound {
    /// The requested schedule.
    pub requested: String,
    /// The existing schedules.
    pub existing: Vec<String>,
}

/// The configuration that a plan takes over.
pub(super) struct ImportedConfig<'a> {
    tool_configs: &'a ToolConfigs,
    /// The schedule whose selection the plan takes over.
    schedule: Option<&'a VeleroSchedule>,
}

fn name(schedule: &VeleroSchedule) -> String {
    format!("{}/{}", schedule.namespace, schedule.name)
}

impl<'a> ImportedConfig<'a> {
    /// Chooses the schedule that is named, else the only one that is not paused.
    pub(super) fn of(tool_configs: &'a ToolConfigs, from: Option<&str>) -> Result<Self, ScheduleNotFound> {
        let mut running = tool_configs.velero.iter().filter(|schedule| !schedule.paused);
        let schedule = match from {
            Some(requested) => {
                Some(tool_configs.velero.iter().find(|one| name(one) == requested).ok_or_else(|| {
                    ScheduleNotFound {
                        requested: requested.to_owned(),
                        existing: tool_configs.velero.iter().map(name).collect(),
                    }
                })?)
            }
            None => running.next().filter(|_| running.next().is_none()),
        };
        Ok(Self { tool_configs, schedule })
    }

    /// Writes the source of the selection as comments.
    pub(super) fn write_source(&self, yaml: &mut Yaml) {
        if let Some(schedule) = self.schedule {
            let name = name(schedule);
            let note = format!("Selection, schedule and retention are those of Velero's Schedule {name}.");
            yaml.comment(1, &note);
        }
        let others = self.tool_configs.velero.iter().filter(|one| self.schedule != Some(*one));
        for other in others {
            let paused = if other.paused { ", paused" } else { "" };
            yaml.comment(1, &format!(
                "Velero's Schedule {} ({}{paused}) is not taken over: kbak plan init --from {} writes a plan of it.",
                name(other), other.cron, name(other)
            ));
        }
        for schedule in &self.tool_configs.k8up {
            let K8upSchedule { namespace, name, cron, .. } = schedule;
            yaml.comment(1, &format!("K8up's Schedule {namespace}/{name} ({cron}) backs up that namespace's claims, not its objects."));
        }
    }

    pub(super) fn write_resources(&self, yaml: &mut Yaml) {
        yaml.line(1, "resources:");
        let none = VeleroTemplate::default();
        let template = self.schedule.map_or(&none, |schedule| &schedule.template);
        let mut wrong = Vec::new();
        let mut fine = |names: &[String], what: &str| -> Vec<String> {
            let (good, bad): (Vec<String>, Vec<String>) =
                names.iter().cloned().partition(|name| Glob::new(name).is_ok());
            wrong.extend(bad.iter().map(|bad| format!("{what} {bad:?}")));
            good
        };
        let all = |names: Vec<String>| if names.is_empty() { vec!["*".to_owned()] } else { names };
        let include = all(fine(&template.included_namespaces, "the namespace"));
        let exclude = fine(&template.excluded_namespaces, "the namespace");
        yaml.line(2, &format!("namespaces: {{include: {}, exclude: {}}}", list(&include), list(&exclude)));
        let kinds = all(fine(&template.included_resources, "the kind"));
        let mut left_out = EVENT_KINDS.map(str::to_owned).to_vec();
        left_out.extend(
            fine(&template.excluded_resources, "the kind")
                .into_iter()
                .filter(|kind| !EVENT_KINDS.contains(&kind.as_str())),
        );
        yaml.line(2, &format!("kinds: {{include: {}, exclude: {}}}", list(&kinds), list(&left_out)));
        self.write_selector(yaml, template);
        match template.include_cluster_resources {
            Some(true) => yaml.line(2, "clusterScoped: all"),
            Some(false) => yaml.line(2, "clusterScoped: none"),
            None => {}
        }
        for what in wrong {
            yaml.comment(2, &format!("Not taken over from Velero: {what} is no pattern here."));
        }
        if !template.hooks.resources.is_empty() {
            let hooks: Vec<&str> = template.hooks.resources.iter().map(|hook| hook.name.as_str()).collect();
            let what = format!("the hooks {}: not yet supported by this version", hooks.join(", "));
            yaml.comment(2, &format!("Not taken over from Velero: {what}."));
        }
        if template.default_volumes_to_fs_backup == Some(true) {
            let note =
                "Velero read all volumes of pods as files (defaultVolumesToFsBackup): see volumes below.";
            yaml.comment(2, note);
        }
    }

    fn write_selector(&self, yaml: &mut Yaml, template: &VeleroTemplate) {
        let mut terms = Vec::new();
        for term in template.label_selector.iter().flat_map(selector_terms) {
            match term {
                Ok(term) => terms.push(term),
                Err(term) => {
                    let what = format!("{term:?} of its selector is no part of one here");
                    yaml.comment(2, &format!("Not taken over from Velero: {what}."));
                }
            }
        }
        if self.schedule.is_some() {
            // Velero always excludes these, whatever the schedule selects.
            terms.push("velero.io/exclude-from-backup!=true".to_owned());
        }
        if !terms.is_empty() {
            yaml.line(2, &format!("selector: {}", quoted(&terms.join(","))));
            let note = "Objects of every kind must fit the selector, as in Velero; look at keys above.";
            if terms.len() > 1 {
                yaml.comment(2, note);
            }
        }
        if !template.or_label_selectors.is_empty() {
            let note =
                "Not taken over from Velero: orLabelSelectors. Write one plan for each, or no selector.";
            yaml.comment(2, note);
        }
    }

    /// Writes retention and schedule.
    pub(super) fn write_rest(&self, yaml: &mut Yaml) {
        if let Some(schedule) = self.schedule {
            let (every, cron) = (interval(&schedule.cron), &schedule.cron);
            let ran = format!("# Velero's ran at {cron:?}");
            match every.map(with_slack) {
                Some(next) => {
                    let why = format!("{ran}; a CronJob or timer starts kbak");
                    yaml.line(1, &format!("schedule: {{next: {next}}}    {why}"));
                }
                None => {
                    yaml.comment(1, &format!("schedule: {{next: …}}    {ran}; say how old a backup may be"));
                }
            }
            self.write_ttl(yaml, &schedule.template.ttl, every);
            return;
        }
        let Some(schedule) = self.tool_configs.k8up.first() else { return };
        let K8upSchedule { namespace, name, cron, keeps } = schedule;
        if let Some(next) = interval(cron).map(with_slack) {
            let ran = format!("# K8up's {namespace}/{name} ran at {cron:?}");
            yaml.line(1, &format!("schedule: {{next: {next}}}    {ran}"));
        }
        let kept = K8UP_RULES.iter().filter_map(|rule| {
            let count = keeps.get(*rule).filter(|count| **count > 0)?;
            Some(format!("{rule}: {count}"))
        });
        let rules: Vec<String> = kept.collect();
        if !rules.is_empty() {
            let rules = rules.join(", ");
            yaml.line(1, &format!("retention: {{{rules}}}    # K8up's {namespace}/{name}"));
        }
    }

    fn write_ttl(&self, yaml: &mut Yaml, ttl: &str, every: Option<Period>) {
        let ttl = if ttl.is_empty() { "720h0m0s" } else { ttl };
        let Some(kept) = go_period(ttl) else {
            yaml.comment(1, &format!("retention: {{…}}    # Velero's ttl was {ttl:?}"));
            return;
        };
        let seconds = kept.duration().as_secs();
        let rule = match every.map(|every| every.duration().as_secs()) {
            Some(..=43_200) if seconds <= 14 * 86_400 => ("keepHourly", seconds / 3_600),
            Some(604_800) => ("keepWeekly", seconds / 604_800),
            _ => ("keepDaily", seconds / 86_400),
        };
        let (name, count) = (rule.0, rule.1.max(1));
        yaml.line(1, &format!("retention: {{{name}: {count}}}    # Velero's ttl was {ttl}"));
    }
}

/// Rules of K8up's prune with the same meaning in kbak.
const K8UP_RULES: &[&str] =
    &["keepLast", "keepHourly", "keepDaily", "keepWeekly", "keepMonthly", "keepYearly"];

/// Adds time for the run itself to an interval, so that a late run is no alarm.
fn with_slack(every: Period) -> Period {
    let seconds = every.duration().as_secs();
    Period::seconds(seconds + (seconds / 12).clamp(600, 7_200))
}

/// Returns the terms of a selector; `Err` holds those that have no equivalent, as they would read.
fn selector_terms(selector: &KubernetesSelector) -> Vec<Result<String, String>> {
    let labels = selector.match_labels.iter().map(|(key, value)| {
        let term = format!("{key}={value}");
        check_term(term, std::slice::from_ref(value))
    });
    let expressions = selector.match_expressions.iter().map(|expression| {
        let (key, values) = (&expression.key, &expression.values);
        let joined = values.join(",");
        match expression.operator.as_str() {
            "In" => check_term(format!("{key} in ({joined})"), values),
            "NotIn" => check_term(format!("{key} notin ({joined})"), values),
            "DoesNotExist" => check_term(format!("!{key}"), &[]),
            "Exists" => check_term(key.clone(), &[]),
            other => Err(format!("{key} {other} ({joined})")),
        }
    });
    labels.chain(expressions).collect()
}

/// Checks that a term parses as one term, and that no value ends it or adds another one.
fn check_term(term: String, values: &[String]) -> Result<String, String> {
    let is_value_char = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    // Commas may only separate values.
    let is_sound = term.matches(',').count() == values.len().saturating_sub(1)
        && values.iter().all(|value| value.chars().all(is_value_char))
        && term.parse::<LabelSelector>().is_ok();
    if is_sound { Ok(term) } else { Err(term) }
}

/// Writes the annotations of pods as comments. Commands are named by their dump tool, never copied.
pub(super) fn write_pod_annotations(tool_configs: &ToolConfigs, yaml: &mut Yaml) {
    for pod in &tool_configs.pods {
        let place = format!("{}/{}", pod.namespace, pod.pod);
        for (key, value) in &pod.annotations {
            let line = match key.as_str() {
                "backup.velero.io/backup-volumes" => {
                    format!("Velero read the volumes {value} of pod {place} as files")
                }
                "backup.velero.io/backup-volumes-excludes" => {
                    format!("Velero left out the volumes {value} of pod {place}")
                }
                key if key.ends_with("command") => {
                    let with = pod.dump_tool.map(|tool| format!(" ({tool})")).unwrap_or_default();
                    format!(
                        "pod {place} has the annotation {key}{with}: its command is not copied, it may contain a password"
                    )
                }
                _ => continue,
            };
            yaml.comment(1, &line);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn selector_terms_without_equivalent_are_rejected() {
        let selector: KubernetesSelector = serde_json::from_value(json!({
            "matchLabels": {"app": "web", "bad key": "x", "tier": "a,b", "eq": "=x"},
            "matchExpressions": [
                {"key": "env", "operator": "NotIn", "values": ["dev", "test"]},
                {"key": "a,b", "operator": "Exists"},
                {"key": "old", "operator": "Like", "values": ["x"]},
                {"key": "gone", "operator": "DoesNotExist"},
            ],
        }))
        .expect("a selector");
        let (good, bad): (Vec<_>, Vec<_>) = selector_terms(&selector).into_iter().partition(Result::is_ok);
        let texts = |all: Vec<Result<String, String>>| -> Vec<String> {
            all.into_iter().map(|one| one.unwrap_or_else(|bad| bad)).collect()
        };
        assert_eq!(texts(good), ["app=web", "env notin (dev,test)", "!gone"]);
        assert_eq!(texts(bad), ["bad key=x", "eq==x", "tier=a,b", "a,b", "old Like (x)"]);
    }
}
