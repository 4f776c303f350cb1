//! Finds selectors that match no object: a misspelt name selects no object and would otherwise go unnoticed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use super::{ObjectRef, Requirements, RestoreConfig, Skip, namespace_of};
use crate::plan::Glob;
use crate::runtime::lock;

/// A selector that matches no object of the snapshot.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case", tag = "asked", content = "for")]
pub enum UnmatchedSelector {
    /// A namespace.
    Namespace(String),
    /// A kind.
    Kind(String),
    /// Labels.
    Labels(String),
    /// An object.
    Object(String),
    /// A namespace to be mapped.
    Mapping(String),
    /// A modifier's position in the plan, from 1.
    Modifier(usize),
    /// An object that is in the snapshot but is not restored, with the reason.
    LeftOut(String, Skip),
}

impl std::fmt::Display for UnmatchedSelector {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Namespace(name) => write!(f, "--namespace {name}"),
            Self::Kind(name) => write!(f, "--kind {name}"),
            Self::Labels(labels) => write!(f, "--selector {labels}"),
            Self::Object(object) | Self::LeftOut(object, _) => write!(f, "--object {object}"),
            Self::Mapping(name) => write!(f, "the mapping of namespace {name}"),
            Self::Modifier(number) => write!(f, "modifier {number}"),
        }
    }
}

/// One flag for each selector of a list.
type MatchFlags = Vec<AtomicBool>;

/// The selectors that have matched an object so far.
#[derive(Debug)]
pub(crate) struct SelectionUsage<'a> {
    config: &'a RestoreConfig,
    namespaces: MatchFlags,
    kinds: MatchFlags,
    labels: MatchFlags,
    objects: MatchFlags,
    /// True for each selected object that is restored in part or whole. `left_out` has the reason for others.
    restored: MatchFlags,
    left_out: Mutex<BTreeMap<usize, Skip>>,
    mappings: MatchFlags,
    modifiers: MatchFlags,
}

impl<'a> SelectionUsage<'a> {
    pub(crate) fn new(config: &'a RestoreConfig) -> Self {
        let none = |number: usize| (0..number).map(|_| AtomicBool::new(false)).collect();
        Self {
            config,
            namespaces: none(config.namespaces.len()),
            kinds: none(config.kinds.len()),
            labels: none(usize::from(config.labels.is_some())),
            objects: none(config.objects.len()),
            restored: none(config.objects.len()),
            left_out: Mutex::default(),
            mappings: none(config.mapping.namespaces.len()),
            modifiers: none(config.modifiers.len()),
        }
    }

    /// True if the config selects the object. Records the selectors that match it.
    pub(crate) fn selects(&self, named: &ObjectRef, namespaced: bool, object: &Value) -> bool {
        let namespace = namespaced.then_some(named.namespace.as_str());
        let selected = self.config.selects(&named.resource, namespace, &named.name, labels_of(object));
        self.record(named, namespaced, object, selected);
        selected
    }

    /// True if the config selects the object for itself, or others that it selects need it. Records the
    /// selectors that match it.
    pub(crate) fn selects_or_requires(
        &self,
        named: &ObjectRef,
        namespaced: bool,
        object: &Value,
        requirements: &Requirements,
    ) -> bool {
        let namespace = namespaced.then_some(named.namespace.as_str());
        let labels = labels_of(object);
        let selected = self.config.selects_itself(&named.resource, namespace, &named.name, labels)
            || requirements.contains(named);
        self.record(named, namespaced, object, selected);
        selected
    }

    fn record(&self, named: &ObjectRef, namespaced: bool, object: &Value, selected: bool) {
        let config = self.config;
        let (resource, name) = (named.resource.as_str(), named.name.as_str());
        let namespace = namespaced.then_some(named.namespace.as_str());
        let labels = labels_of(object);
        let space = namespace_of(resource, namespace, name);
        mark(&self.objects, &config.objects, |one| one.matches(resource, namespace, name));
        if !config.only_objects() && config.matches_kind_patterns(resource) {
            mark(&self.kinds, &config.kinds, |glob| glob.matches(resource));
            if config.matches_namespace_patterns(space) {
                mark(&self.namespaces, &config.namespaces, |glob| space.is_some_and(|s| glob.matches(s)));
                mark(&self.labels, &config.labels, |selector| selector.matches(labels));
            }
        }
        if selected {
            mark(&self.mappings, config.mapping.namespaces.keys(), |from| space == Some(from));
            mark(&self.modifiers, &config.modifiers, |modifier| modifier.matches(named, object));
        }
    }

    /// Records if a rule leaves out a selected object.
    pub(crate) fn record_skip(&self, named: &ObjectRef, namespaced: bool, skip: Option<Skip>) {
        let namespace = namespaced.then_some(named.namespace.as_str());
        for (at, one) in self.config.objects.iter().enumerate() {
            if one.matches(&named.resource, namespace, &named.name) {
                match skip {
                    None => self.restored[at].store(true, Ordering::Relaxed),
                    Some(skip) => {
                        lock(&self.left_out).entry(at).or_insert(skip);
                    }
                }
            }
        }
    }

    /// Returns the selectors that matched no object; call it after all objects.
    pub(crate) fn unmatched(&self) -> Vec<UnmatchedSelector> {
        let config = self.config;
        let mut all = Vec::new();
        let is_selected = |from: &str| config.namespaces.iter().any(|glob| glob.as_str() == from);
        let glob = |glob: &Glob| glob.as_str().to_owned();
        all.extend(unseen(&self.namespaces, &config.namespaces, glob).map(UnmatchedSelector::Namespace));
        all.extend(unseen(&self.kinds, &config.kinds, glob).map(UnmatchedSelector::Kind));
        all.extend(unseen(&self.labels, &config.labels, ToString::to_string).map(UnmatchedSelector::Labels));
        all.extend(
            unseen(&self.objects, &config.objects, ToString::to_string).map(UnmatchedSelector::Object),
        );
        let left_out = lock(&self.left_out);
        let alone = left_out.iter().filter(|(at, _)| !self.restored[**at].load(Ordering::Relaxed));
        all.extend(
            alone.map(|(at, skip)| UnmatchedSelector::LeftOut(config.objects[*at].to_string(), *skip)),
        );
        let mapped = unseen(&self.mappings, config.mapping.namespaces.keys(), |from| from);
        // `--namespace FROM:TO` both selects and maps, and is reported once.
        all.extend(
            mapped.filter(|from| !is_selected(from)).map(|from| UnmatchedSelector::Mapping(from.clone())),
        );
        all.extend(unseen(&self.modifiers, 1..=config.modifiers.len(), UnmatchedSelector::Modifier));
        all
    }
}

fn labels_of(object: &Value) -> &Value {
    object.pointer("/metadata/labels").unwrap_or(&Value::Null)
}

fn mark<T>(seen: &MatchFlags, all: impl IntoIterator<Item = T>, matches: impl Fn(T) -> bool) {
    for (seen, one) in seen.iter().zip(all) {
        if !seen.load(Ordering::Relaxed) && matches(one) {
            seen.store(true, Ordering::Relaxed);
        }
    }
}

fn unseen<T, U>(
    seen: &MatchFlags,
    all: impl IntoIterator<Item = T>,
    selector: impl Fn(T) -> U,
) -> impl Iterator<Item = U> {
    let left = seen.iter().zip(all).filter(|(seen, _)| !seen.load(Ordering::Relaxed));
    left.map(move |(_, one)| selector(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::target::kubernetes::{Mapping, Modifier, ObjectName};
    use serde_json::json;

    fn glob(text: &str) -> Glob {
        Glob::new(text).expect("a glob")
    }

    /// Returns the unmatched selectors for a snapshot with one Deployment in the namespace shop.
    fn absent(config: &RestoreConfig) -> Vec<String> {
        let usage = SelectionUsage::new(config);
        for (resource, namespace, name) in
            [("namespaces", None, "shop"), ("deployments.apps", Some("shop"), "web")]
        {
            let object = json!({"metadata": {"labels": {"app": name}}});
            let named = ObjectRef {
                resource: resource.into(),
                kind: String::new(),
                namespace: namespace.unwrap_or_default().into(),
                name: name.into(),
            };
            usage.selects(&named, namespace.is_some(), &object);
        }
        usage.unmatched().iter().map(ToString::to_string).collect()
    }

    #[test]
    fn unmatched_selectors_are_reported() {
        let none = RestoreConfig::default;
        assert_eq!(absent(&none()), [""; 0]);
        let config = RestoreConfig { namespaces: vec![glob("sh*"), glob("typo")], ..none() };
        assert_eq!(absent(&config), ["--namespace typo"]);
        let labels = |text: &str| Some(text.parse().expect("a selector"));
        let config =
            RestoreConfig { namespaces: vec![glob("shop")], labels: labels("app in (db)"), ..none() };
        assert_eq!(absent(&config), ["--selector app=db"]);
        let config = RestoreConfig { namespaces: vec![glob("shop")], labels: labels("app=web"), ..none() };
        assert_eq!(absent(&config), [""; 0]);
        // The namespace has no object of the kind.
        let config = RestoreConfig { namespaces: vec![glob("shop")], kinds: vec![glob("secrets")], ..none() };
        assert_eq!(absent(&config), ["--namespace shop", "--kind secrets"]);
        let object = |name: &str| ObjectName {
            resource: glob("deployments.apps"),
            namespace: Some(glob("shop")),
            name: glob(name),
        };
        let config = RestoreConfig { objects: vec![object("web"), object("nope")], ..none() };
        assert_eq!(absent(&config), ["--object deployments.apps/shop/nope"]);
        let pairs = |all: &[(&str, &str)]| Mapping {
            namespaces: all.iter().map(|(from, to)| ((*from).into(), (*to).into())).collect(),
            ..Mapping::default()
        };
        let modifier = |name: &str| Modifier { names: vec![glob(name)], ..Modifier::default() };
        let config = RestoreConfig {
            namespaces: vec![glob("shop"), glob("both")],
            mapping: pairs(&[("shop", "a"), ("typo", "b"), ("both", "c")]),
            modifiers: vec![modifier("web"), modifier("nope")],
            ..none()
        };
        assert_eq!(absent(&config), ["--namespace both", "the mapping of namespace typo", "modifier 2"]);
    }
}
