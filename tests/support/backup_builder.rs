//! A backup put together by hand: objects as a cluster would have given them.

use bytes::Bytes;
use kbak::kubernetes::{Cluster, KindInfo};
use kbak::report::event::Reporter;
use kbak::runtime::lock;
use kbak::target::kubernetes::{
    Decision, ObjectRef, Outcome, Plan, RestoreConfig, RestoreError, RestoreReport, plan_resources,
    restore_resources,
};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::sync::Mutex;

use super::memory_backup::MemoryBackup;

/// Parses `apps/v1/deployments Deployment`; kinds without namespaces begin with a `-`.
pub fn kind_info(text: &str) -> KindInfo {
    let (path, kind) = text.split_once(' ').expect("a path and a kind");
    let namespaced = !path.starts_with('-');
    let mut parts = path.trim_start_matches('-').split('/');
    let group = parts.next().expect("a group").replace("core", "");
    let (version, plural) = (parts.next().expect("a version"), parts.next().expect("a plural"));
    KindInfo {
        group,
        version: version.into(),
        plural: plural.into(),
        kind: kind.into(),
        namespaced,
        subresources: Vec::new(),
    }
}

/// Returns the UID of an object in the backup.
pub fn backup_uid(kind: &str, place: &str) -> String {
    let hex = blake3::hash(format!("{kind} {place}").as_bytes()).to_hex();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..32])
}

/// Returns a backup of these objects. Each has a name as `namespace/name` or `name`, and fields.
pub fn backup_of(kinds: &[(&str, &[(&str, Value)])]) -> MemoryBackup {
    let mut held = MemoryBackup::default();
    for (of, objects) in kinds {
        let kind = kind_info(of);
        let line = |(place, fields): &(&str, Value)| {
            let mut object = json!({
                "apiVersion": kind.api_version(), "kind": kind.kind,
                "metadata": {"uid": backup_uid(&kind.kind, place), "resourceVersion": "7", "creationTimestamp": "2026-01-01T00:00:00Z"},
            });
            merge(&mut object, fields);
            let (namespace, name) = place.split_once('/').map_or((None, *place), |(n, o)| (Some(n), o));
            object["metadata"]["name"] = Value::from(name);
            if let Some(namespace) = namespace {
                object["metadata"]["namespace"] = Value::from(namespace);
            }
            Bytes::from(format!("{object}\n"))
        };
        let lines = objects.iter().map(line).collect();
        held.kinds.push((kind, lines));
    }
    held.kinds.sort_by(|(a, _), (b, _)| a.cmp(b));
    held
}

fn merge(into: &mut Value, from: &Value) {
    match (into, from) {
        (Value::Object(into), Value::Object(from)) => {
            for (field, value) in from {
                merge(into.entry(field.clone()).or_insert(Value::Null), value);
            }
        }
        (into, from) => *into = from.clone(),
    }
}

/// Restores and returns the outcome of each object, by `Kind/namespace/name`.
pub async fn restore(
    cluster: &Cluster,
    held: &MemoryBackup,
    config: &RestoreConfig,
) -> (Result<RestoreReport, RestoreError>, BTreeMap<String, Outcome>) {
    let told = Mutex::new(BTreeMap::new());
    let meter = Reporter::silent().meter("restore", "objects");
    let tell = |object: &ObjectRef, outcome: &Outcome| {
        // Colliding objects share a name, and accounts of merged namespaces are merged.
        if !matches!(outcome, Outcome::Collides(_)) {
            let before = lock(&told).insert(object.to_string(), outcome.clone());
            let merged = object.resource == "serviceaccounts" && object.name == "default";
            assert!(before.is_none() || merged, "{object} is reported once");
        }
    };
    let report = restore_resources(cluster, held, config, &tell, &meter).await;
    (report, told.into_inner().expect("a lock"))
}

/// Returns a plan and its decisions.
pub async fn plan(
    cluster: &Cluster,
    held: &MemoryBackup,
    config: &RestoreConfig,
    server: bool,
) -> (Plan, BTreeMap<String, Decision>) {
    let mut decisions = BTreeMap::new();
    let meter = Reporter::silent().meter("plan", "objects");
    let mut tell = |decision: &Decision| {
        decisions.insert(decision.object.to_string(), decision.clone());
    };
    let plan = plan_resources(cluster, held, config, server, &mut tell, &meter).await.expect("a plan");
    (plan, decisions)
}
