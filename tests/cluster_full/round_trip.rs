//! Show 2: a whole cluster is restored.

use std::collections::BTreeSet;
use std::time::Duration;

use kbak::kubernetes::Cluster;

use super::comparator::{ClusterComparison, compare};
use super::raw::{self, Id, ListedCluster};
use super::rules::RULES;
use super::{FULL_RESTORE_ARGS, coverage, figure, fixture, garbage};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::ControlPlane;
use crate::support::program::at_full_size;
use crate::support::webhooks::WebhookServer;

/// The number of plain objects beside those of every kind.
fn bulk() -> usize {
    if at_full_size() { 5000 } else { 300 }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn cluster_with_every_kind_is_restored() {
    assert!(RULES.len() <= 25, "{} rules", RULES.len());
    let hooks = WebhookServer::start().await;
    let up = async || tokio::task::spawn_blocking(|| ControlPlane::start(&[])).await.expect("a plane");
    let old = up().await;
    let there = old.cluster().await;
    let shipped: BTreeSet<Id> = raw::read(&there).await.objects.into_keys().collect();
    fixture::fill(&there, &hooks, bulk()).await;

    let cli = CliRepo::new();
    cli.backup_cluster(&old.kubeconfig()).await.ended(0);
    let before = raw::read(&there).await;
    // Started later, the new server writes its own objects at another second than the old one. So
    // the set of matched rules does not depend on chance.
    let new = up().await;
    let target = new.cluster().await;
    assert_eq!(coverage::missing(&before, &shipped), Vec::<String>::new(), "kinds that the fixture lacks");
    // The data of a claim that a provisioner made is not restored, and nothing else is missing.
    let run = cli.restore_cluster(&new.kubeconfig(), FULL_RESTORE_ARGS).await.ended(3);
    let gaps = run.gaps();
    let [(code, object, _)] = gaps.as_slice() else { panic!("{}", run.all_output()) };
    assert_eq!((code.as_str(), object.as_str()), ("no-data", "PersistentVolumeClaim/shop/scratch"));
    let found = compare_when_settled(&before, &target).await;
    assert!(found.unexplained.is_empty(), "{}\n{}", found.report(), run.all_output());
    assert_eq!(found.unused_rules(), Vec::<String>::new(), "rules that explain no difference");
    let made = coverage::added(&before, &shipped);
    let back = made.intersection(&found.kinds).count();
    figure("restored kinds", &back.to_string());
    figure("objects compared", &found.compared.to_string());
    assert!(back >= 60, "{back} kinds were restored: {:?}", made.intersection(&found.kinds));
    assert!(found.compared >= bulk() + 200, "{} objects", found.compared);
    assert_eq!(garbage::deleted_objects(&target).await, Vec::<String>::new(), "collected as garbage");
}

/// Compares until the restored cluster's controllers have finished or have had enough time.
async fn compare_when_settled(before: &ListedCluster, target: &Cluster) -> ClusterComparison {
    let mut tries = 0;
    loop {
        let found = compare(before, &raw::read(target).await);
        tries += 1;
        if found.unexplained.is_empty() && found.unused_rules().is_empty() || tries == 40 {
            return found;
        }
        tokio::time::sleep(Duration::from_millis(500)).await;
    }
}
