//! A backup of resources in memory, and objects to fill a cluster with.

use std::collections::BTreeMap;

use async_trait::async_trait;
use bytes::Bytes;
use futures::stream::{BoxStream, StreamExt as _};
use kbak::kubernetes::{Cluster, KindInfo};
use kbak::report::event::Reporter;
use kbak::source::kubernetes::{
    ResourceSink, ResourcesConfig, ResourcesError, ResourcesReport, SinkError, read_resources,
};
use kbak::target::kubernetes::{ResourceStreams, StreamError};
use serde_json::{Value, json};

use super::control_plane::{create, get};

/// The content of a backup, in memory.
#[derive(Default)]
pub struct MemoryBackup {
    pub kinds: Vec<(KindInfo, Vec<Bytes>)>,
    pub restarts: u32,
}

impl MemoryBackup {
    pub fn objects(&self, resource: &str) -> BTreeMap<String, Value> {
        let lines = self.kinds.iter().find(|(kind, _)| kind.resource() == resource).map(|(_, lines)| lines);
        lines
            .into_iter()
            .flatten()
            .map(|line| {
                let object: Value = serde_json::from_slice(line).expect("JSON");
                (object_name(&object), object)
            })
            .collect()
    }
}

pub fn object_name(object: &Value) -> String {
    let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
    format!("{}/{}", text("namespace"), text("name"))
}

/// The names of an object; the rest may be nested at any depth.
#[derive(serde::Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
    metadata: HeadMetadata,
}

#[derive(serde::Deserialize)]
struct HeadMetadata {
    #[serde(default)]
    namespace: String,
    name: String,
}

/// A hook that waits at the places where a test acts.
#[async_trait]
pub trait ReadHook: Send {
    async fn on_object(&mut self, resource: &str, objects: usize);
}

pub struct NoHook;

#[async_trait]
impl ReadHook for NoHook {
    async fn on_object(&mut self, _: &str, _: usize) {}
}

struct Sink<P> {
    held: MemoryBackup,
    hook: P,
    open: bool,
}

#[async_trait]
impl<P: ReadHook> ResourceSink for Sink<P> {
    async fn begin(&mut self, kind: &KindInfo) -> Result<(), SinkError> {
        assert!(!self.open, "one kind after the other");
        self.open = true;
        fn order(kind: &KindInfo) -> (u8, &str, &str, &str) {
            (kind.read_order(), &kind.group, &kind.version, &kind.plural)
        }
        assert!(self.held.kinds.last().is_none_or(|(last, _)| order(last) < order(kind)), "in order");
        self.held.kinds.push((kind.clone(), Vec::new()));
        self.hook.on_object(&kind.resource(), 0).await;
        Ok(())
    }

    async fn object(&mut self, namespace: &str, name: &str, line: Bytes) -> Result<(), SinkError> {
        let head: Head = serde_json::from_slice(&line).expect("an object");
        assert_eq!((head.metadata.namespace.as_str(), head.metadata.name.as_str()), (namespace, name));
        assert!(line.ends_with(b"\n") && line.iter().filter(|byte| **byte == b'\n').count() == 1);
        let (kind, lines) = self.held.kinds.last_mut().expect("begun");
        assert_eq!((head.api_version, &head.kind), (kind.api_version(), &kind.kind));
        lines.push(line);
        let (resource, objects) = (kind.resource(), lines.len());
        self.hook.on_object(&resource, objects).await;
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

pub async fn read_with<P: ReadHook>(
    cluster: &Cluster,
    config: &ResourcesConfig,
    hook: P,
) -> (MemoryBackup, Result<ResourcesReport, ResourcesError>) {
    let mut sink = Sink { held: MemoryBackup::default(), hook, open: false };
    let reporter = Reporter::silent();
    let meter = reporter.meter("resources", "objects");
    let report = read_resources(cluster, config, &mut sink, &reporter, &meter).await;
    (sink.held, report)
}

pub async fn read(cluster: &Cluster) -> (MemoryBackup, ResourcesReport) {
    let (held, report) = read_with(cluster, &ResourcesConfig::default(), NoHook).await;
    (held, report.expect("a report"))
}

#[async_trait]
impl ResourceStreams for MemoryBackup {
    fn kinds(&self) -> Vec<KindInfo> {
        self.kinds.iter().map(|(kind, _)| kind.clone()).collect()
    }

    /// Returns the lines in pieces that do not end at line ends.
    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError> {
        let (_, lines) = self.kinds.iter().find(|(held, _)| held == kind).ok_or("no such kind")?;
        let all: Vec<u8> = lines.concat();
        let pieces: Vec<_> = all.chunks(1000).map(|piece| Ok(Bytes::copy_from_slice(piece))).collect();
        Ok(futures::stream::iter(pieces).boxed())
    }
}

/// Creates `count` objects through `connections` at once; `object` returns path and object of a number.
pub async fn create_many(
    cluster: &Cluster,
    count: u64,
    connections: usize,
    object: impl Fn(u64) -> (String, Value),
) {
    let object = &object;
    futures::stream::iter(0..count)
        .for_each_concurrent(connections, |number| async move {
            let (path, object) = object(number);
            create(cluster, &path, object).await;
        })
        .await;
}

pub fn config_map(name: &str, value: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": name}, "data": {"value": value}})
}

pub async fn create_namespace(cluster: &Cluster, name: &str) {
    create(cluster, "/api/v1/namespaces", json!({"metadata": {"name": name}})).await;
}

pub fn sample_object(resource: &str, name: &str, count: u64) -> Value {
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

pub async fn define_apples(cluster: &Cluster) {
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
