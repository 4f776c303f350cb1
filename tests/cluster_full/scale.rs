//! Show 4, the restore's half: very many objects in fixed memory.

use std::time::Instant;

use kbak::kubernetes::Cluster;

use super::fixture::batch::Batch;
use super::fixture::{bulk, definitions};
use super::{FULL_RESTORE_ARGS, figure};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, get};
use crate::support::program::{Run, at_full_size};
use crate::support::wait::until;
use crate::support::webhooks::WebhookServer;

/// The number of objects created at once.
const SLICE: usize = 2000;

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn very_many_objects_are_restored_in_fixed_memory() {
    let count = if at_full_size() { 100_000 } else { 2000 };
    let hooks = WebhookServer::start().await;
    let old = ControlPlane::start(&[]);
    let there = old.cluster().await;
    let mut first = Batch::default();
    bulk::namespaces(&mut first);
    definitions::objects(&mut first, &hooks);
    first.create(&there).await;
    for path in definitions::served() {
        until(&there, &path, |list| list["items"].is_array()).await;
    }
    let start = Instant::now();
    for from in (0..count).step_by(SLICE) {
        let mut slice = Batch::default();
        bulk::objects(&mut slice, from / bulk::SET..(from + SLICE) / bulk::SET);
        slice.create(&there).await;
    }
    let raw = start.elapsed().as_secs_f64();
    figure("objects", &count.to_string());
    rate("created by a plain client", count, raw);
    let wanted = counts(&there).await;

    let cli = CliRepo::new();
    let start = Instant::now();
    let run = cli.backup_cluster(&old.kubeconfig()).await.ended(0);
    rate("backed up", count, start.elapsed().as_secs_f64());
    held("backup", &run);
    drop(old);
    let new = ControlPlane::start(&[]);
    let start = Instant::now();
    let run = cli.restore_cluster(&new.kubeconfig(), FULL_RESTORE_ARGS).await.ended(0);
    rate("restored", count, start.elapsed().as_secs_f64());
    held("restore", &run);
    assert_eq!(counts(&new.cluster().await).await, wanted);
}

fn rate(what: &str, count: usize, seconds: f64) {
    figure(what, &format!("{:.0} objects a second ({seconds:.0} s)", count as f64 / seconds));
}

fn held(what: &str, run: &Run) {
    let peak = run.report["memory_peak"].as_u64().expect("a figure");
    figure(&format!("memory of the {what}"), &format!("{} MiB", peak >> 20));
    assert!(peak <= 128 << 20, "{what}: {} MiB were resident", peak >> 20);
}

/// Returns the number of objects of each of the many kinds.
async fn counts(cluster: &Cluster) -> Vec<u64> {
    let mut all = Vec::new();
    for path in [
        "/api/v1/configmaps",
        "/api/v1/secrets",
        "/api/v1/serviceaccounts",
        "/api/v1/services",
        "/apis/demo.kbak.dev/v1/gadgets",
        "/apis/demo.kbak.dev/v1/apples",
    ] {
        let first = get(cluster, &format!("{path}?limit=1")).await;
        all.push(1 + first["metadata"]["remainingItemCount"].as_u64().expect("a count"));
    }
    all
}
