//! A real control plane, read and created again.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use kbak::report::event::Reporter;
use kbak::restore::kubernetes::{
    Allow, FileFormat, Outcome, ResourceStreams, RestoreConfig, StreamError, restore_resources,
    write_directory,
};
use kbak::source::kubernetes::{
    Cluster, Consistency, GapReason, Glob, KindInfo, ResourceSink, ResourcesConfig, ResourcesError,
    ResourcesReport, Selection, SinkError, read_resources,
};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::plane::{Plane, connect, create, delete, get, patch};

/// What a backup holds, in memory.
#[derive(Default)]
struct Held {
    kinds: Vec<(KindInfo, Vec<Bytes>)>,
    restarts: u32,
}

impl Held {
    fn objects(&self, resource: &str) -> BTreeMap<String, Value> {
        let lines = self.kinds.iter().find(|(kind, _)| kind.resource() == resource).map(|(_, lines)| lines);
        lines
            .into_iter()
            .flatten()
            .map(|line| {
                let object: Value = serde_json::from_slice(line).expect("JSON");
                (key(&object), object)
            })
            .collect()
    }
}

fn key(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// Waits at the places where a test wants to act.
#[async_trait]
trait Pause: Send {
    async fn at(&mut self, resource: &str, objects: usize);
}

struct NoPause;

#[async_trait]
impl Pause for NoPause {
    async fn at(&mut self, _: &str, _: usize) {}
}

struct Sink<P> {
    held: Held,
    pause: P,
    open: bool,
}

#[async_trait]
impl<P: Pause> ResourceSink for Sink<P> {
    async fn begin(&mut self, kind: &KindInfo) -> Result<(), SinkError> {
        assert!(!self.open, "one kind after the other");
        self.open = true;
        let last = self.held.kinds.last().map(|(last, _)| (&last.group, &last.version, &last.plural));
        assert!(last < Some((&kind.group, &kind.version, &kind.plural)), "in order");
        self.held.kinds.push((kind.clone(), Vec::new()));
        self.pause.at(&kind.resource(), 0).await;
        Ok(())
    }

    async fn object(&mut self, namespace: &str, name: &str, line: Bytes) -> Result<(), SinkError> {
        let object: Value = serde_json::from_slice(&line).expect("JSON");
        assert_eq!(key(&object), format!("{namespace}/{name}"));
        assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        let (kind, lines) = self.held.kinds.last_mut().expect("begun");
        assert_eq!(
            (object["apiVersion"].as_str(), object["kind"].as_str()),
            (Some(kind.api_version().as_str()), Some(kind.kind.as_str()))
        );
        lines.push(line);
        let (resource, objects) = (kind.resource(), lines.len());
        self.pause.at(&resource, objects).await;
        Ok(())
    }

    async fn end(&mut self) -> Result<(), SinkError> {
        assert!(std::mem::take(&mut self.open));
        Ok(())
    }

    async fn discard(&mut self) -> Result<(), SinkError> {
        assert!(std::mem::take(&mut self.open));
        self.held.kinds.pop();
        Ok(())
    }

    async fn restart(&mut self) -> Result<(), SinkError> {
        self.open = false;
        self.held.kinds.clear();
        self.held.restarts += 1;
        Ok(())
    }
}

async fn read_with<P: Pause>(
    cluster: &Cluster,
    config: &ResourcesConfig,
    pause: P,
) -> (Held, Result<ResourcesReport, ResourcesError>) {
    let mut sink = Sink { held: Held::default(), pause, open: false };
    let reporter = Reporter::silent();
    let meter = reporter.meter("resources", "objects");
    let report = read_resources(cluster, config, &mut sink, &reporter, &meter).await;
    (sink.held, report)
}

async fn read(cluster: &Cluster) -> (Held, ResourcesReport) {
    let (held, report) = read_with(cluster, &ResourcesConfig::default(), NoPause).await;
    (held, report.expect("a report"))
}

#[async_trait]
impl ResourceStreams for Held {
    fn kinds(&self) -> Vec<KindInfo> {
        self.kinds.iter().map(|(kind, _)| kind.clone()).collect()
    }

    /// In pieces that are no lines.
    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError> {
        let (_, lines) = self.kinds.iter().find(|(held, _)| held == kind).ok_or("no such kind")?;
        let all: Vec<u8> = lines.concat();
        let pieces: Vec<_> = all.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(futures::stream::iter(pieces).boxed())
    }
}

fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

async fn namespace(cluster: &Cluster, name: &str) {
    create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
}

/// Lets the writer make so many more writes before it goes on.
struct AfterWrites {
    written: watch::Receiver<u64>,
}

#[async_trait]
impl Pause for AfterWrites {
    async fn at(&mut self, resource: &str, objects: usize) {
        if (resource == "configmaps" && objects.is_multiple_of(50)) || objects == 0 {
            let wanted = *self.written.borrow() + 5;
            self.written.wait_for(|count| *count >= wanted).await.expect("the writer goes on");
        }
    }
}

/// Every kind's state at each revision that a write made: one writer, so that what lies between
/// two of its writes is its own doing.
type History = BTreeMap<String, BTreeMap<String, Vec<(u64, Option<Value>)>>>;

const KINDS: &[(&str, &str)] = &[
    ("configmaps", "/api/v1/namespaces/busy/configmaps"),
    ("secrets", "/api/v1/namespaces/busy/secrets"),
    ("leases.coordination.k8s.io", "/apis/coordination.k8s.io/v1/namespaces/busy/leases"),
    ("apples.demo.kbak.dev", "/apis/demo.kbak.dev/v1/namespaces/busy/apples"),
];

fn thing(resource: &str, name: &str, count: u64) -> Value {
    let mut object = json!({"metadata": {"name": name, "annotations": {"count": count.to_string()}}});
    match resource {
        "configmaps" => object["data"] = json!({"filler": "x".repeat(20_000)}),
        "apples.demo.kbak.dev" => {
            object["apiVersion"] = json!("demo.kbak.dev/v1");
            object["kind"] = json!("Apple");
        }
        _ => {}
    }
    object
}

async fn definition(cluster: &Cluster) {
    let path = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions";
    let schema = json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
    let object = json!({
        "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
        "metadata": {"name": "apples.demo.kbak.dev"},
        "spec": {
            "group": "demo.kbak.dev", "scope": "Namespaced",
            "names": {"plural": "apples", "singular": "apple", "kind": "Apple", "listKind": "AppleList"},
            "versions": [
                {"name": "v2", "served": true, "storage": false, "schema": schema},
                {"name": "v1", "served": true, "storage": true, "schema": schema},
            ],
        },
    });
    create(cluster, path, object).await;
    for _ in 0..600 {
        let answer = cluster.get("/apis/demo.kbak.dev/v1/apples", "limit=1", 1 << 20).await;
        let established = get(cluster, &format!("{path}/apples.demo.kbak.dev")).await["status"]["conditions"]
            .as_array()
            .is_some_and(|all| all.iter().any(|c| c["type"] == "Established" && c["status"] == "True"));
        if established && answer.is_ok() {
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the definition is not established");
}

/// Creates, changes and deletes until it is told to stop; says how many writes it made.
async fn write(
    cluster: Cluster,
    said: watch::Sender<u64>,
    mut stop: watch::Receiver<bool>,
    mut history: History,
) -> History {
    let mut count = 0u64;
    while !*stop.borrow_and_update() {
        let (resource, path) = KINDS[usize::try_from(count).expect("small") % KINDS.len()];
        let name = format!("n{}", (count / 4) % 40);
        let states = history.entry(resource.to_owned()).or_default().entry(name.clone()).or_default();
        let there = states.last().is_some_and(|(_, state)| state.is_some());
        let one = format!("{path}/{name}");
        let made = match (there, count % 11) {
            (true, 0 | 7) => {
                delete(&cluster, &one).await;
                // The deletion's own revision is not told, but that of a write right after is
                // the next of this writer's: a marker bounds it.
                let marker = patch(
                    &cluster,
                    "/api/v1/namespaces/busy",
                    json!({"metadata": {"annotations": {"c": count.to_string()}}}),
                )
                .await;
                states.push((revision(&marker), None));
                count += 1;
                said.send_replace(count);
                continue;
            }
            (true, _) => {
                patch(&cluster, &one, json!({"metadata": {"annotations": {"count": count.to_string()}}}))
                    .await
            }
            (false, _) => create(&cluster, path, thing(resource, &name, count)).await,
        };
        states.push((revision(&made), Some(made)));
        count += 1;
        said.send_replace(count);
    }
    history
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_is_read_at_one_moment_while_others_write() {
    let plane = Plane::up(&[]);
    let cluster = plane.cluster().await;
    namespace(&cluster, "busy").await;
    definition(&cluster).await;
    let mut history = History::new();
    for (resource, path) in KINDS {
        let states = history.entry((*resource).to_owned()).or_default();
        for number in 0..if *resource == "configmaps" { 700 } else { 30 } {
            let name = format!("{}{number}", if number < 30 { "n" } else { "still" });
            let made = create(&cluster, path, thing(resource, &name, 0)).await;
            states.insert(name, vec![(revision(&made), Some(made))]);
        }
    }
    let (said, written) = watch::channel(0);
    let (stop, stopped) = watch::channel(false);
    let writer = tokio::spawn(write(cluster.clone(), said, stopped, history));
    // 14 MB of ConfigMaps in a budget of 8 MiB: pages wait for the sink, and the sink for writes.
    let config = ResourcesConfig { budget: ResourcesConfig::LEAST_BUDGET, ..ResourcesConfig::default() };
    let (held, report) = read_with(&cluster, &config, AfterWrites { written: written.clone() }).await;
    stop.send(true).expect("the writer runs");
    let history = writer.await.expect("the writer");
    let report = report.expect("a report");
    let writes = *written.borrow();
    assert!(writes > 150, "only {writes} writes went on meanwhile");

    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.kinds.len() > 50 && report.restarts == 0, "{}", report.kinds.len());
    assert!(report.kinds.iter().all(|kind| kind.consistency == Consistency::AtRevision));
    let apples = report.kinds.iter().find(|kind| kind.kind.plural == "apples").expect("apples");
    assert_eq!(apples.kind.version, "v1", "custom resources come at their storage version");
    let system = get(&cluster, "/api/v1/namespaces/kube-system").await;
    assert_eq!(report.cluster_uid.as_deref(), system["metadata"]["uid"].as_str());
    let at: u64 = report.revision.parse().expect("a number");
    for (resource, names) in &history {
        let held = held.objects(resource);
        let mut wanted = BTreeMap::new();
        let mut open = BTreeSet::new();
        for (name, states) in names {
            let before = states.iter().rev().find(|(revision, _)| *revision <= at);
            let after = states.iter().find(|(revision, _)| *revision > at);
            // A deletion lies between the revision before and its marker's.
            if after.is_some_and(|(_, state)| state.is_none()) {
                open.insert(format!("busy/{name}"));
            }
            if let Some((_, Some(object))) = before {
                wanted.insert(format!("busy/{name}"), object.clone());
            }
        }
        for (key, object) in &wanted {
            match held.get(key) {
                Some(found) => assert_eq!(
                    (revision(found), &found["metadata"]["annotations"]),
                    (revision(object), &object["metadata"]["annotations"]),
                    "{resource} {key} at {at}"
                ),
                None => assert!(open.contains(key), "{resource} {key} is missing at {at}"),
            }
        }
        for key in held.keys().filter(|key| key.starts_with("busy/n") || key.starts_with("busy/still")) {
            assert!(wanted.contains_key(key), "{resource} {key} was not there at {at}");
        }
    }
}
