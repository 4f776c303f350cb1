//! Checks that the fixture holds an object of every kind that it should.

use std::collections::BTreeSet;

use super::raw::{Id, ListedCluster};

/// Built-in kinds that can be created but of which no object can be stored, at least in a test.
const WITHOUT: &[(&str, &str)] = &[
    ("bindings", "binds a pod to a node: not stored"),
    ("localsubjectaccessreviews.authorization.k8s.io", "is a review request: not stored"),
    ("selfsubjectaccessreviews.authorization.k8s.io", "is a review request: not stored"),
    ("selfsubjectrulesreviews.authorization.k8s.io", "is a review request: not stored"),
    ("subjectaccessreviews.authorization.k8s.io", "is a review request: not stored"),
    ("selfsubjectreviews.authentication.k8s.io", "is a review request: not stored"),
    ("tokenreviews.authentication.k8s.io", "is a review request: not stored"),
];

/// Returns kinds of which the fixture added an object to a cluster that began with `shipped`.
pub fn added(snapshot: &ListedCluster, shipped: &BTreeSet<Id>) -> BTreeSet<String> {
    let new = snapshot.objects.keys().filter(|id| !shipped.contains(*id));
    new.map(|(resource, ..)| resource.clone()).collect()
}

/// Returns creatable built-in kinds that the fixture lacks without a reason, and reasons that no longer hold.
pub fn missing(snapshot: &ListedCluster, shipped: &BTreeSet<Id>) -> Vec<String> {
    let added = added(snapshot, shipped);
    let definitions = "customresourcedefinitions.apiextensions.k8s.io";
    let of_definitions: BTreeSet<&str> = snapshot
        .objects
        .keys()
        .filter(|(resource, ..)| resource == definitions)
        .map(|(_, _, name)| name.as_str())
        .collect();
    let mut wrong = Vec::new();
    for (resource, kind) in &snapshot.kinds {
        let built_in = kind.verbs.contains("create") && !of_definitions.contains(resource.as_str());
        let reason = WITHOUT.iter().find(|(name, _)| name == resource);
        match (built_in, added.contains(resource), reason) {
            (true, false, None) => wrong.push(format!("{resource}: no object in the fixture")),
            (_, true, Some(_)) => wrong.push(format!("{resource}: in the fixture after all")),
            _ => {}
        }
    }
    for (name, _) in WITHOUT {
        if !snapshot.kinds.contains_key(*name) {
            wrong.push(format!("{name}: there is no such kind"));
        }
    }
    wrong
}
