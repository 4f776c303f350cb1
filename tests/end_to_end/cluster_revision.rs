//! A backup equals the datastore's state at one revision while others write. On etcd and on kine it is
//! compared with the datastore's own history. KBAK_TEST_SIZE=full slows the lists to half a minute and more.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use kbak::kubernetes::Cluster;
use kbak::source::kubernetes::{GapReason, KindConsistency, ResourcesConfig, ResourcesReport};
use serde_json::{Value, json};

use crate::support::control_plane::{self, ControlPlane, connect, create, delete, get, patch};
use crate::support::memory_backup::{
    MemoryBackup, NoHook, ReadHook, create_many, create_namespace, define_apples, read_with, sample_object,
};
use crate::support::postgres::PostgresServer;
use crate::support::program::{at_full_size, print_figure};
use crate::support::proxy::{Proxy, ProxyFault, upstream};

const KINDS: &[(&str, &str)] = &[
    ("configmaps", "/api/v1/namespaces/busy/configmaps"),
    ("secrets", "/api/v1/namespaces/busy/secrets"),
    ("serviceaccounts", "/api/v1/namespaces/busy/serviceaccounts"),
    ("leases.coordination.k8s.io", "/apis/coordination.k8s.io/v1/namespaces/busy/leases"),
    ("apples.demo.kbak.dev", "/apis/demo.kbak.dev/v1/namespaces/busy/apples"),
];
/// Writers, each with objects of its own.
const WRITERS: u64 = 4;

/// Counts writes, and stops the writers.
#[derive(Clone, Default)]
struct Writes {
    count: Arc<AtomicU64>,
    over: Arc<AtomicBool>,
}

impl Writes {
    fn count(&self) -> u64 {
        self.count.load(Ordering::Relaxed)
    }

    /// Creates, changes and deletes objects until stopped.
    async fn make(self, cluster: Cluster, writer: u64) {
        let mut existing: BTreeMap<String, bool> = BTreeMap::new();
        for count in 0u64.. {
            if self.over.load(Ordering::Relaxed) {
                return;
            }
            let (resource, path) = KINDS[usize::try_from(count).expect("small") % KINDS.len()];
            let name = format!("w{writer}-{}", (count / 5) % 20);
            let one = format!("{path}/{name}");
            let exists = existing.entry(one.clone()).or_default();
            match (*exists, count % 11) {
                (true, 0 | 7) => delete(&cluster, &one).await,
                (true, _) => {
                    patch(&cluster, &one, json!({"metadata": {"annotations": {"count": count.to_string()}}}))
                        .await;
                }
                (false, _) => {
                    create(&cluster, path, sample_object(resource, &name, count)).await;
                }
            }
            *exists = !(*exists && matches!(count % 11, 0 | 7));
            self.count.fetch_add(1, Ordering::Relaxed);
        }
    }
}

/// Waits for more writes before it goes on.
struct WaitForWrites(Writes);

#[async_trait]
impl ReadHook for WaitForWrites {
    async fn on_object(&mut self, _: &str, objects: usize) {
        let wanted = self.0.count() + 5;
        while objects.is_multiple_of(50) && self.0.count() < wanted {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    }
}

/// Reads a cluster while others write to it.
async fn read_while_written(kubeconfig: &Path) -> (MemoryBackup, ResourcesReport) {
    let (late, least) =
        if at_full_size() { (Duration::from_millis(2200), 2000) } else { (Duration::from_millis(100), 200) };
    let cluster = connect(kubeconfig).await;
    create_namespace(&cluster, "busy").await;
    define_apples(&cluster).await;
    for number in 0..700 {
        create(&cluster, KINDS[0].1, sample_object("configmaps", &format!("still{number}"), 0)).await;
    }
    let writes = Writes::default();
    let writers: Vec<_> =
        (0..WRITERS).map(|writer| tokio::spawn(writes.clone().make(cluster.clone(), writer))).collect();
    while writes.count() < 100 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let proxy =
        Proxy::in_front_of(kubeconfig, move |request| request.is_exact().then_some(ProxyFault::Late(late)))
            .await;
    // 14 MB of ConfigMaps in a budget of 8 MiB: pages wait for the sink, and the sink for writes.
    let config = ResourcesConfig { budget: ResourcesConfig::LEAST_BUDGET, ..ResourcesConfig::default() };
    let (before, began) = (writes.count(), std::time::Instant::now());
    let slowed = connect(&proxy.kubeconfig()).await;
    let (held, report) = read_with(&slowed, &config, WaitForWrites(writes.clone())).await;
    let (made, took) = (writes.count() - before, began.elapsed());
    writes.over.store(true, Ordering::Relaxed);
    for writer in writers {
        writer.await.expect("a writer");
    }
    assert!(made >= least, "only {made} writes went on meanwhile");
    let report = report.expect("a report");
    let objects: u64 = report.kinds.iter().map(|kind| kind.objects).sum();
    print_figure(&format!(
        "{made} writes in {:.1} s of listing {objects} objects of {} kinds at revision {}, {} listed again",
        took.as_secs_f64(),
        report.kinds.len(),
        report.revision,
        report.repeated.as_deref().unwrap_or("nothing"),
    ));
    assert!(report.gaps.is_empty() && report.notes.is_empty(), "{:?} {:?}", report.gaps, report.notes);
    assert!(report.kinds.len() > 50 && report.restarts == 0, "{} kinds", report.kinds.len());
    assert!(report.kinds.iter().all(|kind| kind.consistency == KindConsistency::AtRevision));
    assert!(report.repeated.is_some(), "a kind was listed again");
    let apples = report.kinds.iter().find(|kind| kind.kind.plural == "apples").expect("apples");
    assert_eq!(apples.kind.version, "v1", "custom resources are read at their storage version");
    let system = get(&cluster, "/api/v1/namespaces/kube-system").await;
    assert_eq!(report.cluster_uid.as_deref(), system["metadata"]["uid"].as_str());
    (held, report)
}

/// Checks that the backup equals the datastore's state at its revision: the same objects, each at
/// the revision that wrote it. In one store no two objects share a revision.
fn compare(held: &MemoryBackup, state: &BTreeMap<u64, String>) {
    /// Keys of the API server that are no objects; and events, which are left out.
    const NO_OBJECTS: &[&str] = &["masterleases/", "ranges/", "peerserverleases/", "events/", "health"];
    let mut found = BTreeMap::new();
    for (kind, lines) in &held.kinds {
        for line in lines {
            let object: Value = serde_json::from_slice(line).expect("JSON");
            let text = |field: &str| object["metadata"][field].as_str().unwrap_or_default().to_owned();
            let revision: u64 = text("resourceVersion").parse().expect("a revision");
            let at = format!("{}/{}", text("namespace"), text("name"));
            let key = state.get(&revision);
            assert!(
                key.is_some_and(|key| key.ends_with(&at) || key.ends_with(&format!("/{}", text("name")))),
                "{} {at} of revision {revision} was not there: {key:?}",
                kind.resource()
            );
            assert!(found.insert(revision, at).is_none(), "{revision} twice");
        }
    }
    for (revision, key) in state {
        let name = key.strip_prefix("/registry/").expect("its place");
        let is_object = !NO_OBJECTS.iter().any(|prefix| name.starts_with(prefix));
        assert!(!is_object || found.contains_key(revision), "{key} of revision {revision} is missing");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_matches_what_etcd_held_at_one_revision_while_others_write() {
    let plane = ControlPlane::start(&[]);
    let (held, report) = read_while_written(&plane.kubeconfig()).await;
    compare(&held, &plane.state_at(report.revision.parse().expect("a number")));
}

/// Returns a folder of components in which kine replaces etcd.
fn with_kine(folder: &Path, database: &str) -> PathBuf {
    use std::os::unix::fs::PermissionsExt as _;
    let kine = std::env::var("KBAK_TEST_KINE")
        .expect("KBAK_TEST_KINE names kine: eval \"$(scripts/tools --need kine)\"");
    let script = format!(
        "#!/bin/sh\nfor a; do case $a in --listen-client-urls=http://*) at=${{a#*http://}} ;; esac; done\n\
         exec '{kine}' -listen \"$at\" -database '{database}'\n"
    );
    let etcd = folder.join("etcd");
    std::fs::write(&etcd, script).expect("a script");
    std::fs::set_permissions(&etcd, std::fs::Permissions::from_mode(0o755)).expect("its mode");
    for component in ["kube-apiserver", "kube-controller-manager"] {
        std::os::unix::fs::symlink(control_plane::program(), folder.join(component)).expect("a link");
    }
    folder.to_owned()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn every_kind_matches_what_kine_held_at_one_revision_while_others_write() {
    let server = PostgresServer::start("kine", &["max_connections=100"]);
    let database = format!("postgres://kbak:kine@/kine?host={}&sslmode=disable", server.socket().display());
    let folder = tempfile::tempdir().expect("a folder");
    let assets = with_kine(folder.path(), &database);
    let plane = ControlPlane::start(&["--assets", assets.to_str().expect("UTF-8")]);
    let (held, report) = read_while_written(&plane.kubeconfig()).await;
    let sql = format!(
        "SELECT id || ' ' || name FROM (SELECT DISTINCT ON (name) id, name, deleted FROM kine \
         WHERE id <= {} AND name LIKE '/registry/%' ORDER BY name, id DESC) AS s WHERE deleted = 0",
        report.revision
    );
    let rows = server.sql("kine", &sql);
    let state = rows.lines().map(|row| {
        let (id, name) = row.split_once(' ').expect("two columns");
        (id.parse().expect("a number"), name.to_owned())
    });
    compare(&held, &state.collect());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn separate_store_with_a_similar_revision_number_is_detected() {
    // Two clusters with the same custom resource. The second answers requests for the first one's
    // apples, like an aggregated API with its own store.
    let (plane, other) =
        (ControlPlane::start(&["--without-controllers"]), ControlPlane::start(&["--without-controllers"]));
    let (cluster, apart) = (plane.cluster().await, other.cluster().await);
    for cluster in [&cluster, &apart] {
        define_apples(cluster).await;
        create(
            cluster,
            "/apis/demo.kbak.dev/v1/namespaces/default/apples",
            sample_object("apples.demo.kbak.dev", "one", 1),
        )
        .await;
    }
    let elsewhere = upstream(&other.kubeconfig()).await;
    // At the first probe its revision happens to lie between two of the first cluster's.
    let shown = Arc::new(AtomicU64::new(0));
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), {
        let shown = shown.clone();
        move |request| {
            if !request.path.ends_with("/apples") {
                return None;
            }
            let probes = request.query == "limit=1";
            if probes && shown.fetch_add(1, Ordering::Relaxed) == 0 {
                return None;
            }
            Some(ProxyFault::OtherServer(elsewhere.clone()))
        }
    })
    .await;
    let through = connect(&proxy.kubeconfig()).await;
    // Writes must go on meanwhile, or the first probe would be a proof.
    let writes = Writes::default();
    create_namespace(&cluster, "busy").await;
    let writer = tokio::spawn(writes.clone().make(cluster.clone(), 0));
    while writes.count() < 20 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    // Makes the other store know the requested revision, and be far beyond it.
    let behind = revision_now(&cluster).await.saturating_sub(revision_now(&apart).await) + 3000;
    create_many(&apart, behind, 8, |count| {
        let object = json!({"metadata": {"name": format!("c{count}")}});
        ("/api/v1/namespaces/default/configmaps".to_owned(), object)
    })
    .await;
    let (_, report) = read_with(&through, &ResourcesConfig::default(), NoHook).await;
    writes.over.store(true, Ordering::Relaxed);
    writer.await.expect("the writer");
    let report = report.expect("a report");
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    assert_eq!(gap.object, "apples.demo.kbak.dev");
    assert!(matches!(&gap.reason, GapReason::NotAtRevision { .. }), "{gap}");
    for kind in &report.kinds {
        assert_eq!(kind.consistency == KindConsistency::AtRevision, kind.kind.plural != "apples", "{kind:?}");
    }
}

async fn revision_now(cluster: &Cluster) -> u64 {
    let list = get(cluster, "/api/v1/namespaces?limit=1").await;
    list["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn server_that_ignores_the_requested_revision_is_detected() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    // A second list at the revision lacks one of its objects.
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), |request| {
        let again = request.is_exact() && request.earlier >= 2;
        again.then_some(ProxyFault::Body(|body| {
            let mut list: Value = serde_json::from_slice(&body).expect("JSON");
            list["items"].as_array_mut().expect("items").pop();
            list.to_string().into_bytes()
        }))
    })
    .await;
    let through = connect(&proxy.kubeconfig()).await;
    let (_, report) = read_with(&through, &ResourcesConfig::default(), NoHook).await;
    let report = report.expect("a report");
    assert!(
        report.kinds.iter().all(|kind| kind.consistency == KindConsistency::Unproved),
        "{:?}",
        report.kinds
    );
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    assert!(gap.reason.to_string().contains("listed again"), "{gap}");
    assert_eq!(report.repeated, None);
}
