//! Faults of an API server: each is reported, and no spoiled answer is taken for complete.

use std::sync::Mutex;

use async_trait::async_trait;
use kbak::kubernetes::Selection;
use kbak::plan::Glob;
use kbak::source::kubernetes::{
    GapReason, KindConsistency, ResourcesConfig, ResourcesError, ResourcesReport,
};
use serde_json::json;

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, connect, create, delete, patch};
use crate::support::kinds::create_account;
use crate::support::memory_backup::{
    MemoryBackup, NoHook, ReadHook, config_map, create_many, create_namespace, define_apples, read,
    read_with, sample_object,
};
use crate::support::program::{at_full_size, beneath, print_figure, run_beside};
use crate::support::proxy::{Proxy, ProxyFault};

const MAPS: &str = "/api/v1/configmaps";

fn config_for_kinds(kinds: &[&str]) -> ResourcesConfig {
    let kinds = kinds.iter().map(|kind| Glob::new(kind).expect("a pattern")).collect();
    ResourcesConfig { selection: Selection { kinds, ..Selection::default() }, ..ResourcesConfig::default() }
}

async fn create_maps(plane: &ControlPlane, count: u64) {
    let cluster = plane.cluster().await;
    let object =
        |number| ("/api/v1/namespaces/default/configmaps".to_owned(), config_map(&format!("c{number}"), "x"));
    create_many(&cluster, count, 8, object).await;
}

fn assert_complete(held: &MemoryBackup, report: &ResourcesReport, count: usize) {
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.kinds.iter().all(|kind| kind.consistency == KindConsistency::AtRevision));
    let own = held.objects("configmaps").keys().filter(|key| key.starts_with("default/c")).count();
    assert_eq!(own, count);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn transient_api_faults_are_retried() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    create_maps(&plane, 1200).await;
    // Faults of ConfigMap pages: more 429 than usual tries, a lost answer, a truncated one, a timeout.
    let proxy =
        Proxy::in_front_of(&plane.kubeconfig(), |request| match (request.path.as_str(), request.earlier) {
            (MAPS, 1..=12) => Some(ProxyFault::Status(429, Some(0))),
            (MAPS, 13) => Some(ProxyFault::Drop),
            (MAPS, 14) => Some(ProxyFault::Cut(1000)),
            (MAPS, 16) => Some(ProxyFault::Status(504, None)),
            ("/apis", 0) => Some(ProxyFault::Cut(10)),
            _ => None,
        })
        .await;
    let (held, report) = read(&connect(&proxy.kubeconfig()).await).await;
    assert_complete(&held, &report, 1200);
    assert!(proxy.count(MAPS) >= 18, "{}", proxy.count(MAPS));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kind_with_persistently_broken_answers_is_a_gap() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    create_maps(&plane, 3).await;
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), |request| match request.path.as_str() {
        MAPS if request.is_exact() => Some(ProxyFault::Body(|body| body[..body.len() / 2].to_vec())),
        "/api/v1/secrets" if request.is_exact() => Some(ProxyFault::Status(500, None)),
        "/api/v1/namespaces" if request.is_exact() => Some(ProxyFault::Body(|body| {
            let mut list: serde_json::Value = serde_json::from_slice(&body).expect("a list");
            list["metadata"]["remainingItemCount"] = json!(7);
            list.to_string().into_bytes()
        })),
        _ => None,
    })
    .await;
    let (held, report) = read(&connect(&proxy.kubeconfig()).await).await;
    let gaps: Vec<_> = report.gaps.iter().map(|gap| (gap.object.as_str(), &gap.reason)).collect();
    let [
        ("configmaps", GapReason::Malformed(_)),
        ("secrets", GapReason::Unavailable { code: 500, .. }),
        ("namespaces", GapReason::Malformed(short)),
    ] = gaps.as_slice()
    else {
        panic!("{gaps:?}")
    };
    assert_eq!(short, "the list ends, and says that 7 objects follow");
    assert!(held.objects("configmaps").is_empty(), "no part of a kind passes for the kind");
    let roles = "clusterroles.rbac.authorization.k8s.io";
    assert!(!held.objects(roles).is_empty(), "other kinds are in the backup");
}

/// Acts once, when the first object of a kind is forwarded.
struct Once<F> {
    at: &'static str,
    act: Mutex<Option<F>>,
}

impl<F> Once<F> {
    fn at(at: &'static str, act: F) -> Self {
        Self { at, act: Mutex::new(Some(act)) }
    }
}

#[async_trait]
impl<F: AsyncAction> ReadHook for Once<F> {
    async fn on_object(&mut self, resource: &str, objects: usize) {
        if resource == self.at && objects == 1 {
            let act = self.act.get_mut().expect("a lock").take();
            if let Some(act) = act {
                act.act().await;
            }
        }
    }
}

#[async_trait]
trait AsyncAction: Send + 'static {
    async fn act(self);
}

#[async_trait]
impl<F, R> AsyncAction for F
where
    F: FnOnce() -> R + Send + 'static,
    R: Future<Output = ()> + Send,
{
    async fn act(self) {
        self().await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_continues_after_api_server_restart() {
    let mut plane = ControlPlane::start(&["--without-controllers"]);
    create_maps(&plane, 1200).await;
    let cluster = plane.cluster().await;
    let (tell, hear) = std::sync::mpsc::channel::<()>();
    let restarts = std::thread::spawn(move || {
        hear.recv().expect("the reading has begun");
        plane.command("kill kube-apiserver");
        plane.command("start kube-apiserver");
        plane
    });
    let config = ResourcesConfig { parallel: 1, ..ResourcesConfig::default() };
    let pause = Once::at("configmaps", move || async move { tell.send(()).expect("it waits") });
    let (held, report) = read_with(&cluster, &config, pause).await;
    let plane = restarts.join().expect("it is up again");
    assert_complete(&held, &report.expect("a report"), 1200);
    drop(plane);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn unreachable_api_server_is_an_error() {
    let mut plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    plane.command("kill kube-apiserver");
    let (_, report) = read_with(&cluster, &ResourcesConfig::default(), NoHook).await;
    let error = report.expect_err("the server is down");
    let ResourcesError::Api(error) = error else { panic!("{error}") };
    assert!(error.is_transient(), "{error}");
    let output = run_beside(CliRepo::new().cluster_backup_command(&plane.kubeconfig())).await;
    let text = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{text}");
    assert!(text.contains("cannot be reached"), "{text}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn definition_deleted_during_backup_is_a_gap() {
    let plane = ControlPlane::start(&[]);
    let cluster = plane.cluster().await;
    define_apples(&cluster).await;
    create(
        &cluster,
        "/apis/demo.kbak.dev/v1/namespaces/default/apples",
        sample_object("apples.demo.kbak.dev", "one", 1),
    )
    .await;
    let admin = cluster.clone();
    let gone = move || async move {
        delete(&admin, "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/apples.demo.kbak.dev").await;
        while admin.get("/apis/demo.kbak.dev/v1/apples", "", 1 << 20).await.is_ok() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
    };
    let config = ResourcesConfig { parallel: 1, ..config_for_kinds(&["configmaps", "apples.demo.kbak.dev"]) };
    // The list of apples comes after that of ConfigMaps, and waits for it.
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), |request| {
        let late = request.path.ends_with("/apples") && request.is_exact();
        late.then_some(ProxyFault::Late(std::time::Duration::from_secs(2)))
    })
    .await;
    let slow = connect(&proxy.kubeconfig()).await;
    let (held, report) = read_with(&slow, &config, Once::at("configmaps", gone)).await;
    let report = report.expect("a report");
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    assert_eq!((gap.object.as_str(), &gap.reason), ("apples.demo.kbak.dev", &GapReason::Gone));
    assert!(!held.objects("configmaps").is_empty());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rights_revoked_during_backup_are_gaps() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create(&cluster, "/api/v1/namespaces/default/configmaps", config_map("c", "x")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let rules = json!([{"apiGroups": [""], "resources": ["namespaces", "configmaps", "secrets"], "verbs": ["get", "list"]}]);
    let kubeconfig = create_account(&plane, &cluster, folder.path(), "reader", rules).await;
    let admin = cluster.clone();
    let revoke = move || async move {
        let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/reader";
        let rules = json!([{"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list"]}]);
        patch(&admin, role, json!({"rules": rules})).await;
    };
    let config =
        ResourcesConfig { parallel: 1, ..config_for_kinds(&["configmaps", "secrets", "namespaces"]) };
    let proxy = Proxy::in_front_of(&kubeconfig, |request| {
        let late = request.path.ends_with("/secrets") && request.is_exact();
        late.then_some(ProxyFault::Late(std::time::Duration::from_secs(2)))
    })
    .await;
    let reader = connect(&proxy.kubeconfig()).await;
    let (held, report) = read_with(&reader, &config, Once::at("configmaps", revoke)).await;
    let report = report.expect("a report");
    let forbidden: Vec<_> =
        report.gaps.iter().filter(|gap| matches!(gap.reason, GapReason::Forbidden { .. })).collect();
    let [gap] = forbidden.as_slice() else { panic!("{:?}", report.gaps) };
    assert_eq!(gap.object, "secrets");
    assert!(held.objects("configmaps").contains_key("default/c"));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dead_webhooks_and_aggregated_servers_are_reported() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    define_apples(&cluster).await;
    let apples = "/apis/demo.kbak.dev/v1/namespaces/default/apples";
    create(&cluster, apples, sample_object("apples.demo.kbak.dev", "one", 1)).await;
    // A conversion webhook that does not answer: it is not called for the storage version.
    let definition = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/apples.demo.kbak.dev";
    let hook = json!({"strategy": "Webhook", "webhook": {"conversionReviewVersions": ["v1"], "clientConfig": {"url": "https://127.0.0.1:1/convert"}}});
    patch(&cluster, definition, json!({"spec": {"conversion": hook}})).await;
    let service = json!({
        "metadata": {"name": "v1.dead.kbak.dev"},
        "spec": {"group": "dead.kbak.dev", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 100,
            "insecureSkipTLSVerify": true, "service": {"namespace": "default", "name": "nobody"}},
    });
    create(&cluster, "/apis/apiregistration.k8s.io/v1/apiservices", service).await;
    let mut known = false;
    for _ in 0..600 {
        let (held, report) = read(&cluster).await;
        assert!(held.objects("apples.demo.kbak.dev").contains_key("default/one"), "{:?}", report.gaps);
        if let [gap] = report.gaps.as_slice() {
            assert_eq!((gap.object.as_str(), &gap.reason), ("dead.kbak.dev/v1", &GapReason::Stale));
            known = true;
            break;
        }
    }
    assert!(known, "the dead API is never named");

    // Stored in a former storage version, the objects cannot be listed without the webhook.
    let versions = ["v1", "v2"].map(|name| {
        let schema =
            json!({"openAPIV3Schema": {"type": "object", "x-kubernetes-preserve-unknown-fields": true}});
        json!({"name": name, "served": true, "storage": name == "v2", "schema": schema})
    });
    patch(&cluster, definition, json!({"spec": {"versions": versions}})).await;
    for _ in 0..600 {
        let (held, report) = read(&cluster).await;
        let gap = report.gaps.iter().find(|gap| gap.object == "apples.demo.kbak.dev");
        let Some(gap) = gap else { continue };
        let GapReason::Unavailable { code: 500, message } = &gap.reason else { panic!("{gap}") };
        assert!(message.contains("conversion webhook"), "{message}");
        assert!(held.objects("apples.demo.kbak.dev").is_empty());
        return;
    }
    panic!("the dead webhook is never named");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn frequent_compaction_is_survived_or_reported() {
    // A revision lives for one to two intervals.
    let (interval, late) = if at_full_size() {
        ("--etcd-compaction-interval=15s", 40)
    } else {
        ("--etcd-compaction-interval=5s", 13)
    };
    let plane = ControlPlane::start(&[
        "--without-controllers",
        "--apiserver-arg",
        interval,
        "--apiserver-arg",
        "--feature-gates=ListFromCacheSnapshot=false",
    ]);
    create_maps(&plane, 1200).await;
    let cluster = plane.cluster().await;
    // A run shorter than the interval is not affected.
    let (held, report) = read(&cluster).await;
    assert_complete(&held, &report, 1200);
    // A run whose second page comes too late at first begins again.
    let proxy = Proxy::in_front_of(&plane.kubeconfig(), move |request| {
        let second = request.path == MAPS && request.query.contains("continue=") && request.earlier < 3;
        second.then_some(ProxyFault::Late(std::time::Duration::from_secs(late)))
    })
    .await;
    let slow = connect(&proxy.kubeconfig()).await;
    let (held, report) = read_with(&slow, &config_for_kinds(&["configmaps", "namespaces"]), NoHook).await;
    let report = report.expect("a report");
    assert_eq!((report.restarts, held.restarts), (1, 1));
    assert_complete(&held, &report, 1200);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn large_objects_stay_within_the_memory_limit() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "large").await;
    // 1.5 MiB is etcd's own limit by default. Values differ, so that something has to be stored.
    let count = if at_full_size() { 1000 } else { 150 };
    let object = |number: u64| {
        let size = if number == 0 { 1_500_000 } else { 1_000_000 };
        let value: String =
            (0..size / 20).map(|at: u64| format!("{:020}", at.wrapping_mul(number + 7919))).collect();
        ("/api/v1/namespaces/large/apples".to_owned(), config_map(&format!("c{number:04}"), &value))
    };
    let maps = |number| {
        let (_, mut object) = object(number);
        // A ConfigMap's own limit is 1 MiB; a custom resource may be larger.
        object["kind"] = json!("Apple");
        object["apiVersion"] = json!("demo.kbak.dev/v1");
        ("/apis/demo.kbak.dev/v1/namespaces/large/apples".to_owned(), object)
    };
    define_apples(&cluster).await;
    create_many(&cluster, count, 4, maps).await;
    let cli = CliRepo::new();
    let output = run_beside(cli.cluster_backup_command(&plane.kubeconfig())).await;
    assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
    let peak = cli.last_report()["memory_peak"].as_u64().expect("a figure");
    print_figure(&format!("{count} objects of 1 MB: {} MiB resident at most", peak >> 20));
    assert!(peak <= 128 << 20, "{} MiB were resident", peak >> 20);
    let back = beneath(&cli.restore_as_files(0));
    let large = back.iter().filter(|path| path.metadata().expect("metadata").len() > 900_000).count();
    assert_eq!(large as u64, count);
}
