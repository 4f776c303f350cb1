//! Finds selectors that match no object: a misspelt name selects no object and would otherwise go unnoticed.

use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};

use serde::Serialize;
use serde_json::Value;

use crate::runtime::lock;
use crate::target::kubernetes::config::{RestoreConfig, space};
use crate::target::kubernetes::judge::Skip;
use crate::target::kubernetes::object::ObjectRef;

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
type Seen = Vec<AtomicBool>;

/// The selectors that have matched an object so far.
#[derive(Debug)]
pub(crate) struct SelectionUsage<'a> {
    config: &'a RestoreConfig,
    namespaces: Seen,
    kinds: Seen,
    labels: Seen,
    objects: Seen,
    /// True for each selected object that is restored in part or whole. `left_out` has the reason for others.
    brought: Seen,
    left_out: Mutex<BTreeMap<usize, Skip>>,
    mappings: Seen,
    modifiers: Seen,
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
            brought: none(config.objects.len()),
            left_out: Mutex::default(),
            mappings: none(config.mapping.namespaces.len()),
            modifiers: none(config.modifiers.len()),
        }
    }

    /// Records the selectors that match an object of the snapshot. `selected`: the config selects it.
    pub(crate) fn note(&self, named: &ObjectRef, namespaced: bool, object: &Value, selected: bool) {
        let config = self.config;
        let (resource, name) = (named.resource.as_str(), named.name.as_str());
        let namespace = namespaced.then_some(named.namespace.as_str());
        let space = space(resource, namespace, name);
        mark(&self.objects, &config.objects, |one| one.takes(resource, namespace, name));
        if !config.only_objects() && config.takes_kind(resource) {
            mark(&self.kinds, &config.kinds, |glob| glob.matches(resource));
            if config.takes_space(space) {
                mark(&self.namespaces, &config.namespaces, |glob| space.is_some_and(|s| glob.matches(s)));
                let labels = object.pointer("/metadata/labels").unwrap_or(&Value::Null);
                mark(&self.labels, &config.labels, |selector| selector.matches(labels));
            }
        }
        if selected {
            mark(&self.mappings, config.mapping.namespaces.keys(), |from| space == Some(from));
            mark(&self.modifiers, &config.modifiers, |modifier| modifier.takes(named, object));
        }
    }

    /// Records if a rule leaves out a selected object.
    pub(crate) fn note_rule(&self, named: &ObjectRef, namespaced: bool, skip: Option<Skip>) {
        let namespace = namespaced.then_some(named.namespace.as_str());
        for (at, one) in self.config.objects.iter().enumerate() {
            if one.takes(&named.resource, namespace, &named.name) {
                match skip {
                    None => self.brought[at].store(true, Ordering::Relaxed),
                    Some(skip) => {
                        let mut left_out = lock(&self.left_out);
                        left_out.entry(at).or_insert(skip);
                    }
                }
            }
        }
    }

    /// Returns the selectors that matched no object; call it after all objects.
    pub(crate) fn absent(&self) -> Vec<UnmatchedSelector> {
        let config = self.config;
        let mut absent = Vec::new();
        let is_selected = |from: &str| config.namespaces.iter().any(|glob| glob.as_str() == from);
        absent.extend(left(&self.namespaces, &config.namespaces, |glob| {
            UnmatchedSelector::Namespace(glob.as_str().into())
        }));
        absent.extend(left(&self.kinds, &config.kinds, |glob| UnmatchedSelector::Kind(glob.as_str().into())));
        absent.extend(left(&self.labels, &config.labels, |labels| {
            UnmatchedSelector::Labels(labels.to_string())
        }));
        absent.extend(left(&self.objects, &config.objects, |object| {
            UnmatchedSelector::Object(object.to_string())
        }));
        let left_out = lock(&self.left_out);
        let alone = left_out.iter().filter(|(at, _)| !self.brought[**at].load(Ordering::Relaxed));
        absent.extend(
            alone.map(|(at, skip)| UnmatchedSelector::LeftOut(config.objects[*at].to_string(), *skip)),
        );
        let mapped = left(&self.mappings, config.mapping.namespaces.keys(), |from| from);
        // `--namespace FROM:TO` both selects and maps, and is reported once.
        absent.extend(
            mapped.filter(|from| !is_selected(from)).map(|from| UnmatchedSelector::Mapping(from.clone())),
        );
        absent.extend(left(&self.modifiers, 1..=config.modifiers.len(), UnmatchedSelector::Modifier));
        absent
    }
}

fn mark<T>(seen: &Seen, all: impl IntoIterator<Item = T>, fits: impl Fn(T) -> bool) {
    for (seen, one) in seen.iter().zip(all) {
        if !seen.load(Ordering::Relaxed) && fits(one) {
            seen.store(true, Ordering::Relaxed);
        }
    }
}

fn left<T, U>(
    seen: &Seen,
    all: impl IntoIterator<Item = T>,
    told: impl Fn(T) -> U,
) -> impl Iterator<Item = U> {
    let left = seen.iter().zip(all).filter(|(seen, _)| !seen.load(Ordering::Relaxed));
    left.map(move |(_, one)| told(one))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::plan::Glob;
    use crate::target::kubernetes::{Mapping, Modifier, Selected};
    use serde_json::json;

    fn glob(text: &str) -> Glob {
        Glob::new(text).expect("a glob")
    }

    /// Returns the unmatched selectors for a snapshot with one Deployment in the namespace shop.
    fn absent(config: &RestoreConfig) -> Vec<String> {
        let fits = SelectionUsage::new(config);
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
            let selected = config.selects(resource, namespace, name, &object["metadata"]["labels"]);
            fits.note(&named, namespace.is_some(), &object, selected);
        }
        fits.absent().iter().map(ToString::to_string).collect()
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
        let object = |name: &str| Selected {
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
