//! Applies the modifiers of a RestorePlan, which select objects by kind, name, namespace and labels.

use json_patch::Patch;
use regex::Regex;
use serde_json::Value;

use super::{Change, Changes};
use crate::plan::{Glob, LabelSelector};
use crate::target::kubernetes::{ObjectRef, text};

/// A change and the objects that it applies to. Names are those in the backup.
#[derive(Debug, Clone, Default)]
pub struct Modifier {
    /// Kinds (`deployments.apps`); empty: all.
    pub kinds: Vec<Glob>,
    /// Namespaces; empty: all, and cluster-scoped objects.
    pub namespaces: Vec<Glob>,
    /// Names; empty: all.
    pub names: Vec<Glob>,
    /// A regular expression that the whole name matches.
    pub name_regex: Option<Regex>,
    /// Labels that the object must have; none: any.
    pub labels: Option<LabelSelector>,
    /// A JSON merge patch (RFC 7396).
    pub merge: Option<Value>,
    /// A JSON patch (RFC 6902), applied as a whole or not at all.
    pub patch: Option<Patch>,
}

/// The reason why a modifier cannot be applied.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ModifierError {
    /// The JSON patch does not fit the object.
    #[error("modifier {modifier} does not apply: operation {operation} at {path}")]
    DoesNotApply {
        /// The modifier's position in the plan, from 1.
        modifier: usize,
        /// The operation's position in the patch, from 1.
        operation: usize,
        /// The path that the operation names.
        path: String,
    },
    /// The modifier changes the object's identity.
    #[error("modifier {0} changes the object's identity: its name, namespace, kind or version")]
    Renames(usize),
}

impl Modifier {
    pub(crate) fn matches(&self, named: &ObjectRef, object: &Value) -> bool {
        let any =
            |globs: &[Glob], name: &str| globs.is_empty() || globs.iter().any(|glob| glob.matches(name));
        any(&self.kinds, &named.resource)
            && any(&self.namespaces, &named.namespace)
            && any(&self.names, &named.name)
            && self.name_regex.as_ref().is_none_or(|regex| whole(regex, &named.name))
            && self.labels.as_ref().is_none_or(|labels| {
                labels.matches(object.pointer("/metadata/labels").unwrap_or(&Value::Null))
            })
    }
}

fn whole(regex: &Regex, name: &str) -> bool {
    regex.find_iter(name).any(|found| found.range() == (0..name.len()))
}

/// Applies the modifiers to `object`, whose name in the backup is `named`.
pub(crate) fn apply_modifiers(
    named: &ObjectRef,
    object: &mut Value,
    modifiers: &[Modifier],
    changes: &mut Changes,
) -> Result<(), ModifierError> {
    let is = |object: &Value| {
        ["/apiVersion", "/kind", "/metadata/name", "/metadata/namespace"]
            .map(|at| text(object, at).to_owned())
    };
    for (number, modifier) in modifiers.iter().enumerate().map(|(at, modifier)| (at + 1, modifier)) {
        if !modifier.matches(named, object) {
            continue;
        }
        let before = is(object);
        if let Some(merge) = &modifier.merge {
            json_patch::merge(object, merge);
        }
        if let Some(patch) = &modifier.patch {
            json_patch::patch(object, patch).map_err(|error| ModifierError::DoesNotApply {
                modifier: number,
                operation: error.operation + 1,
                path: error.path.to_string(),
            })?;
        }
        if is(object) != before {
            return Err(ModifierError::Renames(number));
        }
        changes.add(Change::Modified { modifier: number });
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn modifier_changes_only_selected_objects() {
        let patch = |value: Value| Some(serde_json::from_value::<Patch>(value).expect("a patch"));
        let modifiers = [
            Modifier {
                kinds: vec![Glob::new("deployments.*").expect("a glob")],
                name_regex: Some(Regex::new("web-[0-9]+").expect("a regex")),
                labels: Some("tier in (front)".parse().expect("a selector")),
                merge: Some(json!({"spec": {"replicas": 1, "paused": null}})),
                ..Modifier::default()
            },
            Modifier {
                names: vec![Glob::new("strict").expect("a glob")],
                patch: patch(json!([{"op": "remove", "path": "/spec/missing"}])),
                ..Modifier::default()
            },
            Modifier {
                names: vec![Glob::new("renamed").expect("a glob")],
                merge: Some(json!({"metadata": {"name": "other"}})),
                ..Modifier::default()
            },
        ];
        let run = |name: &str| {
            let mut object = json!({"metadata": {"name": name, "labels": {"tier": "front"}}, "spec": {"replicas": 5, "paused": true}});
            let named = ObjectRef {
                resource: "deployments.apps".into(),
                kind: "Deployment".into(),
                namespace: "shop".into(),
                name: name.into(),
            };
            apply_modifiers(&named, &mut object, &modifiers, &mut Changes::default())
                .map(|()| object["spec"].clone())
        };
        assert_eq!(run("web-1"), Ok(json!({"replicas": 1})));
        assert_eq!(
            run("my-web-1"),
            Ok(json!({"replicas": 5, "paused": true})),
            "a regex takes the whole name"
        );
        let error = ModifierError::DoesNotApply { modifier: 2, operation: 1, path: "/spec/missing".into() };
        assert_eq!(run("strict"), Err(error));
        assert_eq!(run("renamed"), Err(ModifierError::Renames(3)));
    }
}
