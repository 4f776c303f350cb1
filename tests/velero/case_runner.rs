//! Two control planes for many concurrent cases. Each case fills its own namespace of the first, waits
//! until all have done so and the backup is made, and then restores its own objects into the second.

use std::sync::Arc;

use futures::future::BoxFuture;
use kbak::kubernetes::Cluster;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::ControlPlane;
use crate::support::program::Run;
use crate::support::webhooks::WebhookServer;

/// The state that all cases share.
struct CaseRunner {
    old: ControlPlane,
    new: ControlPlane,
    webhooks: WebhookServer,
    cli: CliRepo,
    made: watch::Sender<bool>,
    /// Limits concurrent restores to two, for two cores.
    runs: Semaphore,
}

/// The clusters and the runner as one case uses them.
pub struct CaseContext {
    /// The cluster that is backed up.
    pub source: Cluster,
    /// The cluster that is restored into, empty at first.
    pub target: Cluster,
    runner: Arc<CaseRunner>,
    prepared: Option<oneshot::Sender<()>>,
}

/// A case: its name, which begins with the number of Velero's issue, and its function.
pub type Case = (&'static str, fn(CaseContext) -> BoxFuture<'static, ()>);

/// Runs all cases and lists those that failed. `KBAK_TEST_CASE` selects cases whose names contain it.
pub async fn run_cases(cases: &[Case]) {
    let up = || tokio::task::spawn_blocking(|| ControlPlane::start(&[]));
    let (old, new) = tokio::join!(up(), up());
    let (made, _) = watch::channel(false);
    let runner = Arc::new(CaseRunner {
        old: old.expect("a control plane"),
        new: new.expect("a control plane"),
        webhooks: WebhookServer::start().await,
        cli: CliRepo::new(),
        made,
        runs: Semaphore::new(2),
    });
    let wanted = std::env::var("KBAK_TEST_CASE").unwrap_or_default();
    let (mut prepared, mut running) = (Vec::new(), Vec::new());
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&wanted)) {
        let (sender, receiver) = oneshot::channel();
        let context = CaseContext {
            source: runner.old.cluster().await,
            target: runner.new.cluster().await,
            runner: runner.clone(),
            prepared: Some(sender),
        };
        prepared.push(receiver);
        running.push((name, tokio::spawn(case(context))));
    }
    for one in prepared {
        // A case that fails early drops its sender as well.
        let _ = one.await;
    }
    runner.cli.backup_cluster(&runner.old.kubeconfig()).await.ended(0);
    runner.made.send_replace(true);
    let mut failed = Vec::new();
    for (name, case) in running {
        match case.await {
            Ok(()) => {}
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

impl CaseContext {
    /// Marks this case's objects in the first cluster as complete and waits for the backup.
    pub async fn wait_for_backup(&mut self) {
        drop(self.prepared.take());
        self.runner.made.subscribe().wait_for(|made| *made).await.expect("a backup");
    }

    /// Restores into the second cluster.
    pub async fn restore(&self, args: &[&str]) -> Run {
        let _turn = self.runner.runs.acquire().await.expect("open");
        self.runner.cli.restore_cluster(&self.runner.new.kubeconfig(), args).await
    }

    /// Restores with another kubeconfig.
    pub async fn restore_as(&self, kubeconfig: &std::path::Path, args: &[&str]) -> Run {
        let _turn = self.runner.runs.acquire().await.expect("open");
        self.runner.cli.restore_cluster(kubeconfig, args).await
    }

    /// Starts a restore that the case ends.
    pub fn start_restore(&self, args: &[&str]) -> tokio::process::Child {
        self.runner.cli.start_cluster_restore(&self.runner.new.kubeconfig(), args)
    }

    /// Returns the second cluster's kubeconfig.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.runner.new.kubeconfig()
    }

    pub fn webhooks(&self) -> &WebhookServer {
        &self.runner.webhooks
    }
}
