//! A real control plane, read at one moment.

use std::collections::{BTreeMap, BTreeSet};

use async_trait::async_trait;
use kbak::plan::Glob;
use kbak::source::kubernetes::{Cluster, Consistency, GapReason, ResourcesConfig, ResourcesError, Selection};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::support::plane::{Plane, connect, create, delete, get, patch};
use crate::support::resources::{NoPause, Pause, config_map, definition, namespace, read_with, thing};

fn revision(object: &Value) -> u64 {
    object["metadata"]["resourceVersion"].as_str().and_then(|text| text.parse().ok()).expect("a revision")
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

/// Compacts the datastore while the first objects are handed on, as often as it is told.
struct Compact<'a> {
    plane: &'a Plane,
    times: u32,
}

#[async_trait]
impl Pause for Compact<'_> {
    async fn at(&mut self, _: &str, objects: usize) {
        if objects == 1 && self.times > 0 {
            self.times -= 1;
            self.plane.compact();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_revision_that_is_compacted_away_restarts_everything() {
    // Without snapshots in the server's cache, so that every page is read from etcd.
    let plane = Plane::up(&[
        "--without-controllers",
        "--apiserver-arg",
        "--feature-gates=ListFromCacheSnapshot=false",
    ]);
    let cluster = plane.cluster().await;
    for number in 0..1100 {
        create(&cluster, "/api/v1/namespaces/default/configmaps", config_map(&format!("c{number}"), "x"))
            .await;
    }
    let config = ResourcesConfig { parallel: 1, ..ResourcesConfig::default() };
    let (held, report) = read_with(&cluster, &config, Compact { plane: &plane, times: 1 }).await;
    let report = report.expect("a report");
    assert_eq!((report.restarts, held.restarts), (1, 1));
    assert!(report.gaps.is_empty(), "{:?}", report.gaps);
    assert!(report.kinds.iter().all(|kind| kind.consistency == Consistency::AtRevision));
    assert!(held.objects("configmaps").len() >= 1100);

    let (held, report) = read_with(&cluster, &config, Compact { plane: &plane, times: 9 }).await;
    let error = report.expect_err("not for ever");
    assert!(matches!(error, ResourcesError::Expired { tries: 4, .. }), "{error}");
    assert_eq!(held.restarts, 3);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kind_with_a_store_of_its_own_is_read_and_named() {
    let plane = Plane::up(&["--events-etcd", "--without-controllers"]);
    let cluster = plane.cluster().await;
    let event =
        json!({"metadata": {"name": "e1"}, "involvedObject": {"namespace": "default"}, "reason": "Test"});
    create(&cluster, "/api/v1/namespaces/default/events", event).await;
    let selection = Selection { exclude_kinds: Vec::new(), ..Selection::default() };
    let config = ResourcesConfig { selection, ..ResourcesConfig::default() };
    let (held, report) = read_with(&cluster, &config, NoPause).await;
    let report = report.expect("a report");
    let named: Vec<&str> = report.gaps.iter().map(|gap| gap.object.as_str()).collect();
    assert_eq!(named, ["events", "events.events.k8s.io"], "{:?}", report.gaps);
    assert!(report.gaps.iter().all(|gap| matches!(gap.reason, GapReason::NotAtRevision { .. })));
    assert_eq!(held.objects("events").len(), 1, "and its objects are there all the same");
    for kind in &report.kinds {
        let apart = matches!(kind.consistency, Consistency::OwnRevision(_));
        assert_eq!(apart, kind.kind.plural == "events", "{kind:?}");
    }
}

/// A kubeconfig of a ServiceAccount that may do what `rules` say.
async fn limited(
    plane: &Plane,
    cluster: &Cluster,
    folder: &std::path::Path,
    rules: Value,
) -> std::path::PathBuf {
    let rbac = "/apis/rbac.authorization.k8s.io/v1";
    create(cluster, "/api/v1/namespaces/default/serviceaccounts", json!({"metadata": {"name": "reader"}}))
        .await;
    create(cluster, &format!("{rbac}/clusterroles"), json!({"metadata": {"name": "reader"}, "rules": rules}))
        .await;
    let binding = json!({
        "metadata": {"name": "reader"},
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": "ClusterRole", "name": "reader"},
        "subjects": [{"kind": "ServiceAccount", "namespace": "default", "name": "reader"}],
    });
    create(cluster, &format!("{rbac}/clusterrolebindings"), binding).await;
    let request = json!({"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {"expirationSeconds": 3600}});
    let token = create(cluster, "/api/v1/namespaces/default/serviceaccounts/reader/token", request).await;
    let mut config: Value = {
        let text = std::fs::read_to_string(plane.kubeconfig()).expect("a kubeconfig");
        serde_saphyr::from_str(&text).expect("YAML")
    };
    config["users"][0]["user"] = json!({"token": token["status"]["token"]});
    let path = folder.join("kubeconfig");
    std::fs::write(&path, config.to_string()).expect("a kubeconfig");
    path
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_missing_right_is_a_gap_that_names_the_rule_to_add() {
    let plane = Plane::up(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create(&cluster, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    create(&cluster, "/api/v1/namespaces/default/configmaps", config_map("c", "x")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let most =
        json!([{"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list"]}]);
    let reader = connect(&limited(&plane, &cluster, folder.path(), most).await).await;
    let kinds = ["configmaps", "secrets"].map(|kind| Glob::new(kind).expect("a pattern")).to_vec();
    let config = ResourcesConfig {
        selection: Selection { kinds, ..Selection::default() },
        ..ResourcesConfig::default()
    };
    let (held, report) = read_with(&reader, &config, NoPause).await;
    let report = report.expect("a report");
    assert!(held.objects("configmaps").contains_key("default/c"));
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    let GapReason::Forbidden { rule } = &gap.reason else { panic!("{gap}") };
    assert_eq!(gap.object, "secrets");

    // The rule that it names, and nothing else, closes the gap.
    let rule: Value = serde_saphyr::from_str(rule).expect("YAML");
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/reader";
    let mut rules = get(&cluster, role).await["rules"].clone();
    rules.as_array_mut().expect("rules").push(rule);
    patch(&cluster, role, json!({"rules": rules})).await;
    for _ in 0..200 {
        // The authorizer learns of it a moment later.
        let (held, report) = read_with(&reader, &config, NoPause).await;
        if report.expect("a report").gaps.is_empty() {
            assert!(held.objects("secrets").contains_key("default/s"));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the gap stays");
}
