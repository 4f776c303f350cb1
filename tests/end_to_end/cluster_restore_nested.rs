//! Objects whose lists are nested deep: whoever may create one must not hold up the restore of all others.

use std::time::Duration;

use bytes::Bytes;
use http::Method;
use kbak::kubernetes::{Cluster, MAX_NESTING, steps_so_far};
use kbak::source::kubernetes::GapReason;
use kbak::target::kubernetes::{
    Action, ExistingPolicy, FileFormat, Outcome, Permission, RestoreConfig, WaitLimits, write_directory,
};
use serde_json::Value;

use crate::support::backup_builder::{plan, restore};
use crate::support::control_plane::{ControlPlane, delete};
use crate::support::kinds::define;
use crate::support::memory_backup::{MemoryBackup, create_namespace, read};

const PATH: &str = "/apis/demo.kbak.dev/v1/namespaces/shop/deeps";

fn config(existing: Option<ExistingPolicy>) -> RestoreConfig {
    RestoreConfig {
        takeover: true,
        existing,
        allow: Permission::ALL.into(),
        waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
        ..RestoreConfig::default()
    }
}

/// Creates or replaces an object with this many levels in all.
async fn write(cluster: &Cluster, name: &str, levels: usize, replace: bool) {
    let (open, close) = ("[".repeat(levels - 2), "]".repeat(levels - 2));
    let text = format!(
        r#"{{"apiVersion":"demo.kbak.dev/v1","kind":"Deep","metadata":{{"name":"{name}"}},"spec":{{"v":{open}{close}}}}}"#
    );
    if replace {
        delete(cluster, &format!("{PATH}/{name}")).await;
    }
    let sent = cluster.send(Method::POST, PATH, "", "application/json", Bytes::from(text)).await;
    sent.unwrap_or_else(|error| panic!("{levels} levels: {error}"));
}

fn failed(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed(refusal) => &refusal.reason,
        other => panic!("{other:?}"),
    }
}

/// Keeps only the objects of the namespace `shop` and what they need.
fn of_shop(mut held: MemoryBackup) -> MemoryBackup {
    held.kinds.retain(|(kind, _)| {
        ["namespaces", "deeps", "customresourcedefinitions"].contains(&kind.plural.as_str())
    });
    for (_, lines) in &mut held.kinds {
        lines.retain(|line| String::from_utf8_lossy(line).contains("demo.kbak.dev") || line.len() < 1 << 10);
    }
    held
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn deeply_nested_objects_are_restored_or_named_and_hold_up_none() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    create_namespace(&cluster, "shop").await;
    define(&cluster, "demo.kbak.dev", "v1", "deeps", "Deep", "Namespaced").await;
    for (name, levels) in [("a", 3), ("b", 40), ("c", MAX_NESTING - 1), ("d", MAX_NESTING + 1), ("e", 1000)] {
        write(&cluster, name, levels, false).await;
    }
    let (held, report) = read(&cluster).await;
    let gaps: Vec<&GapReason> = report.gaps.iter().map(|gap| &gap.reason).collect();
    let [GapReason::TooDeep { count: 2, example, .. }] = gaps.as_slice() else { panic!("{gaps:?}") };
    assert_eq!((example.as_str(), report.gaps[0].object.as_str()), ("shop/d", "deeps.demo.kbak.dev"));
    let held = of_shop(held);

    let within = Duration::from_secs(60);
    for existing in [None, Some(ExistingPolicy::Patch), Some(ExistingPolicy::Replace)] {
        let before = steps_so_far();
        let config = config(existing);
        let run = async {
            let (planned, _) = plan(&cluster, &held, &config, false).await;
            (planned, restore(&cluster, &held, &config).await)
        };
        let (planned, (report, outcomes)) = tokio::time::timeout(within, run).await.expect("no hang");
        let report = report.expect("a report");
        for name in ["Deep/shop/a", "Deep/shop/b", "Deep/shop/c"] {
            assert_eq!(outcomes[name], Outcome::Existed, "{name}");
        }
        for name in ["Deep/shop/d", "Deep/shop/e"] {
            assert_eq!(failed(&outcomes[name]), "TooDeep", "{name}");
        }
        assert!(!planned.is_whole() && !report.is_whole() && report.failed == 2, "{report:#?}");
        let steps = steps_so_far() - before;
        assert!(steps < 100_000, "{steps} steps");
    }

    // A deeper object in the cluster than in the backup: it is named, and the others are compared.
    write(&cluster, "a", 500, true).await;
    for name in ["b", "c"] {
        delete(&cluster, &format!("{PATH}/{name}")).await;
    }
    let replace = config(Some(ExistingPolicy::Replace));
    let (_, decided) = plan(&cluster, &held, &replace, false).await;
    assert!(matches!(decided["Deep/shop/a"].action, Action::Conflict(_)));
    let (report, outcomes) = restore(&cluster, &held, &replace).await;
    assert_eq!(report.expect("a report").created, 2, "{outcomes:#?}");
    assert_eq!(failed(&outcomes["Deep/shop/a"]), "TooDeep");

    // As files all of them come back, for any tool without that limit.
    let folder = tempfile::tempdir().expect("a folder");
    let files = write_directory(&held, folder.path(), FileFormat::Yaml, &config(None)).await.expect("files");
    assert_eq!(files.absent, []);
    for name in ["b", "e"] {
        let text =
            std::fs::read_to_string(folder.path().join(format!("demo.kbak.dev/Deep/shop/{name}.yaml")));
        assert!(text.expect("a file").contains("kind"), "{name}");
    }
    let shallow =
        std::fs::read_to_string(folder.path().join("demo.kbak.dev/Deep/shop/b.yaml")).expect("a file");
    let parsed: Value = serde_saphyr::from_str(&shallow).expect("YAML");
    assert_eq!(parsed["metadata"]["name"], "b");
}
