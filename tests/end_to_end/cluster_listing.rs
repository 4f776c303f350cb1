//! A real control plane, listed at one revision.

use async_trait::async_trait;
use kbak::kubernetes::Selection;
use kbak::plan::Glob;
use kbak::source::kubernetes::{GapReason, KindConsistency, ResourcesConfig};
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, connect, create, get, patch, try_create};
use crate::support::kinds::create_account;
use crate::support::memory_backup::{NoHook, ReadHook, config_map, read_with};
use crate::support::program::{beneath, run_beside};

/// Compacts the datastore while the first objects are forwarded, a given number of times.
struct Compact<'a> {
    plane: &'a ControlPlane,
    times: u32,
}

#[async_trait]
impl ReadHook for Compact<'_> {
    async fn on_object(&mut self, _: &str, objects: usize) {
        if objects == 1 && self.times > 0 {
            self.times -= 1;
            self.plane.compact();
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn compacted_revision_restarts_the_whole_listing() {
    // Without snapshots in the server's cache, every page is read from etcd.
    let plane = ControlPlane::start(&[
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
    assert!(report.kinds.iter().all(|kind| kind.consistency == KindConsistency::AtRevision));
    assert!(held.objects("configmaps").len() >= 1100);

    let (held, report) = read_with(&cluster, &config, Compact { plane: &plane, times: 9 }).await;
    let report = report.expect("what can be had");
    assert_eq!((report.restarts, held.restarts), (4, 4), "not for ever");
    assert!(report.kinds.iter().all(|kind| matches!(kind.consistency, KindConsistency::OwnRevision(_))));
    // Compaction between two pages of one kind, again and again, is a gap.
    let given_up = report.gaps.iter().any(|gap| matches!(gap.reason, GapReason::Expired { .. }));
    assert!(given_up || held.objects("configmaps").len() >= 1100, "each kind is one moment");
    for kind in &report.kinds {
        let named = report.gaps.iter().any(|gap| {
            gap.object == kind.kind.resource() && matches!(gap.reason, GapReason::NotAtRevision { .. })
        });
        assert!(named, "{} is not named: {:?}", kind.kind.resource(), report.gaps);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn kind_in_a_separate_store_is_read_and_reported() {
    let plane = ControlPlane::start(&["--events-etcd", "--without-controllers"]);
    let cluster = plane.cluster().await;
    let event =
        json!({"metadata": {"name": "e1"}, "involvedObject": {"namespace": "default"}, "reason": "Test"});
    // The API server's readiness says nothing of this second store.
    let mut made = false;
    for _ in 0..600 {
        let answer = try_create(&cluster, "/api/v1/namespaces/default/events", event.clone()).await;
        made |= answer.map_or_else(|error| error.code() == Some(409), |_| true);
        if made {
            break;
        }
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    assert!(made, "the store of events is up");
    let selection = Selection { exclude_kinds: Vec::new(), ..Selection::default() };
    let config = ResourcesConfig { selection, ..ResourcesConfig::default() };
    let (held, report) = read_with(&cluster, &config, NoHook).await;
    let report = report.expect("a report");
    let named: Vec<&str> = report.gaps.iter().map(|gap| gap.object.as_str()).collect();
    assert_eq!(named, ["events", "events.events.k8s.io"], "{:?}", report.gaps);
    assert!(report.gaps.iter().all(|gap| matches!(gap.reason, GapReason::NotAtRevision { .. })));
    // The server itself may have created an event.
    assert!(held.objects("events").contains_key("default/e1"), "its objects are in the backup");
    for kind in &report.kinds {
        let apart = matches!(kind.consistency, KindConsistency::OwnRevision(_));
        assert_eq!(apart, kind.kind.plural == "events", "{kind:?}");
    }

    // The plan decides what that means; the objects are in the snapshot either way.
    let cli = CliRepo::new();
    for (consistency, code, place) in [("strict", 3, "gaps"), ("best-effort", 0, "notes")] {
        let kinds = json!({"include": ["*", "events", "events.events.k8s.io"]});
        let resources = json!({"kinds": kinds, "consistency": consistency});
        let output = run_beside(cli.plan_backup_command(&plane.kubeconfig(), resources)).await;
        assert_eq!(output.status.code(), Some(code), "{}", String::from_utf8_lossy(&output.stderr));
        let item = &cli.read_json(&["show", "latest"])["items"][0];
        let told = item[place].as_array().expect("gaps or notes").iter();
        let told: Vec<_> = told.filter(|gap| gap["code"] == "not-at-revision").collect();
        assert_eq!(told.len(), 2, "{item:#}");
        assert!(
            beneath(&cli.restore_as_files(code)).iter().any(|path| path.to_string_lossy().contains("e1"))
        );
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_right_is_a_gap_that_names_the_rule_to_add() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create(&cluster, "/api/v1/namespaces/default/secrets", json!({"metadata": {"name": "s"}})).await;
    create(&cluster, "/api/v1/namespaces/default/configmaps", config_map("c", "x")).await;
    let folder = tempfile::tempdir().expect("a folder");
    let most =
        json!([{"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list"]}]);
    let reader = connect(&create_account(&plane, &cluster, folder.path(), "reader", most).await).await;
    let kinds = ["configmaps", "secrets"].map(|kind| Glob::new(kind).expect("a pattern")).to_vec();
    let config = ResourcesConfig {
        selection: Selection { kinds, ..Selection::default() },
        ..ResourcesConfig::default()
    };
    let (held, report) = read_with(&reader, &config, NoHook).await;
    let report = report.expect("a report");
    assert!(held.objects("configmaps").contains_key("default/c"));
    let [gap] = report.gaps.as_slice() else { panic!("{:?}", report.gaps) };
    let GapReason::Forbidden { rule, .. } = &gap.reason else { panic!("{gap}") };
    assert_eq!(gap.object, "secrets");

    // The named rule alone closes the gap.
    let rule: Value = serde_saphyr::from_str(rule).expect("YAML");
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/reader";
    let mut rules = get(&cluster, role).await["rules"].clone();
    rules.as_array_mut().expect("rules").push(rule);
    patch(&cluster, role, json!({"rules": rules})).await;
    for _ in 0..200 {
        // The authorizer learns of it a moment later.
        let (held, report) = read_with(&reader, &config, NoHook).await;
        if report.expect("a report").gaps.is_empty() {
            assert!(held.objects("secrets").contains_key("default/s"));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the gap stays");
}
