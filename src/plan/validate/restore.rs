//! Checks of a restore plan that types cannot express.

use super::{Problem, Problems};
use crate::plan::labels::LabelSelector;
use crate::plan::policy::SideEffect;
use crate::plan::restore_spec::{Match, Modify, RestoreSpec};
use crate::plan::selection::{ObjectName, is_namespace};

/// Returns all problems of a restore plan, without their positions.
pub(in crate::plan) fn restore_problems(spec: &RestoreSpec) -> Vec<Problem> {
    let mut found = Problems(Vec::new());
    let select = &spec.select;
    let globs = [
        ("spec.select.namespaces.include", &select.namespaces.include),
        ("spec.select.namespaces.exclude", &select.namespaces.exclude),
        ("spec.select.kinds.include", &select.kinds.include),
        ("spec.select.kinds.exclude", &select.kinds.exclude),
        ("spec.status", &spec.status),
    ];
    for (field, patterns) in globs {
        found.check_globs(field, patterns);
    }
    found.check_selector("spec.select.selector", select.selector.as_deref());
    for (number, object) in select.objects.iter().enumerate() {
        if let Err(error) = object.parse::<ObjectName>() {
            found.bad_value(format!("spec.select.objects[{number}]"), error.to_string());
        }
    }
    for (number, modify) in spec.modify.iter().enumerate() {
        found.check_modify(&format!("spec.modify[{number}]"), modify);
    }
    for (from, to) in &spec.map.namespaces {
        if !is_namespace(from) || !is_namespace(to) {
            let message = format!("{from}: {to} are not valid names of namespaces");
            found.bad_value(format!("spec.map.namespaces.{from}"), message);
        }
    }
    if spec.release.contains(&SideEffect::None) && spec.release.len() > 1 {
        found.bad_value("spec.release", "none excludes all other values");
    }
    found.0
}

impl Problems {
    fn check_modify(&mut self, field: &str, modify: &Modify) {
        if modify.merge.is_none() && modify.patch.is_none() {
            self.bad_value(field, "the entry changes nothing; give merge or patch");
        }
        if let Some(patch) = &modify.patch
            && let Err(error) = serde_json::from_value::<json_patch::Patch>(patch.clone())
        {
            self.bad_value(format!("{field}.patch"), format!("this is not a JSON patch: {error}"));
        }
        self.check_match(&format!("{field}.match"), &modify.r#match);
    }

    fn check_match(&mut self, field: &str, objects: &Match) {
        if let Some(regex) = &objects.name_regex
            && let Err(error) = regex::Regex::new(regex)
        {
            let line = error.to_string().lines().last().unwrap_or_default().trim().to_owned();
            let message = format!("this is not a regular expression: {line}");
            self.bad_value(format!("{field}.nameRegex"), message);
        }
        self.check_globs(&format!("{field}.kinds"), &objects.kinds);
        self.check_globs(&format!("{field}.namespaces"), &objects.namespaces);
        self.check_globs(&format!("{field}.names"), &objects.names);
        self.check_selector(&format!("{field}.selector"), objects.selector.as_deref());
    }

    fn check_selector(&mut self, field: &str, text: Option<&str>) {
        if let Some(Err(error)) = text.map(str::parse::<LabelSelector>) {
            self.bad_value(field, error.to_string());
        }
    }
}
