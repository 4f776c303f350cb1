//! Two control planes for many concurrent cases. Each case fills its own namespace of the first, waits
//! until all have done so and the backup is made, and then restores its own objects into the second.

use std::sync::Arc;

use futures::future::BoxFuture;
use kbak::kubernetes::Cluster;
use tokio::sync::{Semaphore, oneshot, watch};

use crate::support::cycle::{Cycle, Run};
use crate::support::hooks::Hooks;
use crate::support::plane::Plane;

/// The state that all cases share.
struct Stage {
    old: Plane,
    new: Plane,
    hooks: Hooks,
    cycle: Cycle,
    made: watch::Sender<bool>,
    /// Limits concurrent restores to two, for two cores.
    runs: Semaphore,
}

/// One case's view of the stage.
pub struct Scene {
    /// The cluster that is backed up.
    pub there: Cluster,
    /// The cluster that is restored into, empty at first.
    pub here: Cluster,
    stage: Arc<Stage>,
    arranged: Option<oneshot::Sender<()>>,
}

/// A case: its name, which begins with the number of Velero's issue, and its function.
pub type Case = (&'static str, fn(Scene) -> BoxFuture<'static, ()>);

/// Runs all cases and lists those that failed. `KBAK_TEST_CASE` selects cases whose names contain it.
pub async fn play(cases: &[Case]) {
    let up = || tokio::task::spawn_blocking(|| Plane::up(&[]));
    let (old, new) = tokio::join!(up(), up());
    let (made, _) = watch::channel(false);
    let stage = Arc::new(Stage {
        old: old.expect("a plane"),
        new: new.expect("a plane"),
        hooks: Hooks::start().await,
        cycle: Cycle::new(),
        made,
        runs: Semaphore::new(2),
    });
    let wanted = std::env::var("KBAK_TEST_CASE").unwrap_or_default();
    let (mut arranged, mut played) = (Vec::new(), Vec::new());
    for (name, case) in cases.iter().filter(|(name, _)| name.contains(&wanted)) {
        let (sender, receiver) = oneshot::channel();
        let scene = Scene {
            there: stage.old.cluster().await,
            here: stage.new.cluster().await,
            stage: stage.clone(),
            arranged: Some(sender),
        };
        arranged.push(receiver);
        played.push((name, tokio::spawn(case(scene))));
    }
    for one in arranged {
        // A case that fails early drops its sender as well.
        let _ = one.await;
    }
    stage.cycle.backup(&stage.old.kubeconfig(), &[]).await.ended(0);
    stage.made.send_replace(true);
    let mut failed = Vec::new();
    for (name, case) in played {
        match case.await {
            Ok(()) => {}
            Err(error) => failed.push(format!("{name}: {error}")),
        }
    }
    assert!(failed.is_empty(), "{} cases failed:\n{}", failed.len(), failed.join("\n"));
}

impl Scene {
    /// Marks this case's objects in the first cluster as complete and waits for the backup.
    pub async fn backed_up(&mut self) {
        drop(self.arranged.take());
        self.stage.made.subscribe().wait_for(|made| *made).await.expect("a backup");
    }

    /// Restores into the second cluster.
    pub async fn restore(&self, args: &[&str]) -> Run {
        let _turn = self.stage.runs.acquire().await.expect("open");
        self.stage.cycle.restore(&self.stage.new.kubeconfig(), args).await
    }

    /// Restores with another kubeconfig.
    pub async fn restore_as(&self, kubeconfig: &std::path::Path, args: &[&str]) -> Run {
        let _turn = self.stage.runs.acquire().await.expect("open");
        self.stage.cycle.restore(kubeconfig, args).await
    }

    /// Starts a restore that the case ends.
    pub fn start_restore(&self, args: &[&str]) -> tokio::process::Child {
        self.stage.cycle.start_restore(&self.stage.new.kubeconfig(), args)
    }

    /// Returns the second cluster's kubeconfig.
    pub fn kubeconfig(&self) -> std::path::PathBuf {
        self.stage.new.kubeconfig()
    }

    pub fn hooks(&self) -> &Hooks {
        &self.stage.hooks
    }
}
