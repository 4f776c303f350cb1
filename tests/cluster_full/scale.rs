//! Very many objects in fixed memory, at rates beside those of the same API server's own lists and writes
//! (benches/resources).

use std::time::Instant;

use kbak::kubernetes::Cluster;

use super::fixture::batch::Batch;
use super::fixture::{bulk, definitions};
use super::velero_server::{Velero, VeleroRun};
use super::{FULL_RESTORE_ARGS, figure};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, get};
use crate::support::program::{Run, at_full_size};
use crate::support::wait::until;
use crate::support::webhooks::WebhookServer;

/// The number of objects created at once.
const SLICE: usize = 2000;

/// The objects of a page: as many as kubectl requests.
const PAGE: u64 = 500;

/// The paths of the many kinds.
const PATHS: &[&str] = &[
    "/api/v1/configmaps",
    "/api/v1/secrets",
    "/api/v1/serviceaccounts",
    "/api/v1/services",
    "/apis/demo.kbak.dev/v1/gadgets",
    "/apis/demo.kbak.dev/v1/apples",
];

/// Returns the number of objects: 2,000, 100,000 at full size, or KBAK_TEST_OBJECTS.
fn object_count() -> usize {
    let given = std::env::var("KBAK_TEST_OBJECTS").ok().map(|text| text.parse().expect("a number"));
    let count: usize = given.unwrap_or(if at_full_size() { 100_000 } else { SLICE });
    count.next_multiple_of(SLICE)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn very_many_objects_are_restored_in_fixed_memory() {
    let count = object_count();
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
    let start = Instant::now();
    let (pages, bytes) = list_plainly(&there).await;
    let plain = start.elapsed().as_secs_f64();
    assert_eq!(pages, wanted.iter().map(|count| count.div_ceil(PAGE)).sum::<u64>());
    figure("bytes of their lists", &format!("{} MB", bytes / 1_000_000));
    rate("listed by a plain client", count, plain);

    let cli = CliRepo::new();
    let start = Instant::now();
    let run = cli.backup_cluster(&old.kubeconfig()).await.ended(0);
    let took = start.elapsed().as_secs_f64();
    rate("backed up", count, took);
    ratio("backup's rate of the plain list's", plain / took);
    held("backup", &run);
    let velero = Velero::from_environment().await;
    if let Some(velero) = &velero {
        by_velero("backed up", count, took, &velero.back_up(&old, &cli.at("")).await);
    }
    drop(old);
    let new = ControlPlane::start(&[]);
    let cluster = new.cluster().await;
    let before = writes(&cluster).await;
    let start = Instant::now();
    let run = cli.restore_cluster(&new.kubeconfig(), FULL_RESTORE_ARGS).await.ended(0);
    let took = start.elapsed().as_secs_f64();
    rate("restored", count, took);
    ratio("restore's rate of the plain client's", raw / took);
    let written = writes(&cluster).await - before;
    figure("writes for each object", &format!("{:.2}", written as f64 / count as f64));
    held("restore", &run);
    assert_eq!(counts(&cluster).await, wanted);
    drop(new);
    if let Some(velero) = &velero {
        let new = ControlPlane::start(&[]);
        by_velero("restored", count, took, &velero.restore(&new, &cli.at("")).await);
    }
}

/// Notes a run of Velero beside kbak's, which took `ours` seconds.
fn by_velero(label: &str, count: usize, ours: f64, run: &VeleroRun) {
    rate(&format!("{label} by Velero"), count, run.seconds);
    figure(&format!("{label} by Velero: its status"), run.status["phase"].as_str().unwrap_or("none"));
    figure(&format!("{label} by Velero: times of kbak's"), &format!("{:.1}", run.seconds / ours));
    figure(&format!("{label} by Velero: memory of its server"), &format!("{} MiB", run.peak >> 20));
}

fn ratio(label: &str, ratio: f64) {
    figure(label, &format!("{:.0} %", 100.0 * ratio));
}

/// Lists the many kinds one after the other, as a plain client that reads no more of a page than the token of
/// the next one. Returns the number of pages and of bytes.
async fn list_plainly(cluster: &Cluster) -> (u64, u64) {
    let (mut pages, mut bytes) = (0, 0);
    for path in PATHS {
        let mut next = Some(String::new());
        while let Some(token) = next {
            let query = match token.as_str() {
                "" => format!("limit={PAGE}"),
                token => format!("limit={PAGE}&continue={token}"),
            };
            let body = cluster.get(path, &query, 64 << 20).await.expect("a page").body;
            (pages, bytes) = (pages + 1, bytes + body.len() as u64);
            next = next_token(&body);
        }
    }
    (pages, bytes)
}

/// Returns the token in a page's metadata, which is at its beginning, or for custom resources at its end.
fn next_token(body: &[u8]) -> Option<String> {
    let ends = [&body[..body.len().min(1024)], &body[body.len().saturating_sub(1024)..]];
    ends.into_iter().find_map(|part| {
        let text = String::from_utf8_lossy(part);
        let (_, rest) = text.split_once("\"continue\":\"")?;
        Some(rest.split_once('"')?.0.to_owned()).filter(|token| !token.is_empty())
    })
}

/// Returns the number of requests so far that wrote objects of the many kinds, whoever sent them.
async fn writes(cluster: &Cluster) -> u64 {
    let metrics = cluster.get("/metrics", "", 64 << 20).await.expect("metrics").body;
    let text = String::from_utf8(metrics.to_vec()).expect("text");
    let many = |line: &&str| {
        let has = |label: &str, values: &[&str]| {
            values.iter().any(|value| line.contains(&format!("{label}=\"{value}\"")))
        };
        line.starts_with("apiserver_request_total{")
            && has("dry_run", &[""])
            && has("subresource", &[""])
            && has("verb", &["POST", "PUT", "PATCH", "APPLY"])
            && PATHS.iter().any(|path| has("resource", &[path.rsplit('/').next().unwrap_or_default()]))
    };
    let value = |line: &str| line.rsplit(' ').next().and_then(|number| number.parse::<f64>().ok());
    text.lines().filter(many).filter_map(value).sum::<f64>() as u64
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
    for path in PATHS {
        let first = get(cluster, &format!("{path}?limit=1")).await;
        all.push(1 + first["metadata"]["remainingItemCount"].as_u64().expect("a count"));
    }
    all
}
