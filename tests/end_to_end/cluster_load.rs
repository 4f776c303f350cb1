//! Many objects under the memory limit: 3,000, or KBAK_TEST_OBJECTS (scripts/soak: 300,000). Rates
//! are printed beside those of the same server's plain list.

use std::time::Instant;

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::ControlPlane;
use crate::support::memory_backup::{config_map, create_many, create_namespace};
use crate::support::program::{print_figure, run_beside};

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn backup_of_many_objects_stays_within_the_memory_limit() {
    let count: u64 = std::env::var("KBAK_TEST_OBJECTS").map_or(3000, |text| text.parse().expect("a number"));
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    let namespaces = count.div_ceil(10_000);
    for number in 0..namespaces {
        create_namespace(&cluster, &format!("many{number}")).await;
    }
    let filler = "0123456789".repeat(60);
    let began = Instant::now();
    create_many(&cluster, count, 32, |number| {
        let path = format!("/api/v1/namespaces/many{}/configmaps", number % namespaces);
        (path, config_map(&format!("c{number:06}"), &format!("{number}{filler}")))
    })
    .await;
    let filled = began.elapsed().as_secs_f64();

    // The plain list of the same server in pages of 500; bodies are read and discarded.
    let (began, mut token, mut listed) = (Instant::now(), String::new(), 0u64);
    loop {
        let query = format!("limit=500&continue={token}");
        let query = if token.is_empty() { "limit=500" } else { &query };
        let body = cluster.get("/api/v1/configmaps", query, 64 << 20).await.expect("a page").body;
        listed += body.len() as u64;
        let page = kbak::kubernetes::split_list(&body).expect("a list");
        token = page.metadata.continue_token;
        if token.is_empty() {
            break;
        }
    }
    let plain = began.elapsed().as_secs_f64();

    let cli = CliRepo::new();
    for which in ["first", "second"] {
        let began = Instant::now();
        let output = run_beside(cli.cluster_backup_command(&plane.kubeconfig())).await;
        assert_eq!(output.status.code(), Some(0), "{}", String::from_utf8_lossy(&output.stderr));
        let took = began.elapsed().as_secs_f64();
        let peak = cli.last_report()["memory_peak"].as_u64().expect("a figure");
        let rate = |seconds: f64| (count as f64 / seconds).round();
        print_figure(&format!(
            "{which} backup of {count} objects, {} MB: {took:.1} s, {}/s, {} MiB resident at most; plain list {plain:.1} s, \
             {}/s; created {}/s",
            listed / 1_000_000,
            rate(took),
            peak >> 20,
            rate(plain),
            rate(filled),
        ));
        assert!(peak <= 128 << 20, "{} MiB were resident", peak >> 20);
    }
}
