//! The log of `--log-level`: requests, retries, packs and decisions at debug, and no content at any level.

use super::lifecycle::sample_repo;
use crate::support::cli_repo::as_strs;
use crate::support::program::kbak;

#[test]
fn debug_log_shows_requests_packs_and_decisions() {
    let cli = sample_repo();
    let (code, _, err) = cli.backup(&["--log-level", "debug"]);
    assert_eq!(code, 0, "{err}");
    for line in ["store request", "pack stored", "epoch reused", "snapshot committed"] {
        assert!(err.contains(line), "{line}: {err}");
    }
    let (_, _, err) = cli.run_reader(&["show", "--log-level", "debug"]);
    assert!(err.contains("snapshot selected"), "{err}");
}

#[test]
fn debug_log_shows_requests_to_the_cluster_and_retries() {
    let cli = sample_repo();
    let kubeconfig = cli.text("kubeconfig");
    let text = "apiVersion: v1\nkind: Config\ncurrent-context: c\nusers: [{name: u, user: {}}]\n\
                contexts: [{name: c, context: {cluster: c, user: u}}]\n\
                clusters: [{name: c, cluster: {server: \"http://127.0.0.1:1\"}}]\n";
    std::fs::write(&kubeconfig, text).expect("a file");
    let writer = cli.writer_args();
    let check = |level: &str| {
        let more = ["--resources", "--kubeconfig", &kubeconfig, "--log-level", level];
        kbak(&[&["check"], &as_strs(&writer)[..], &more].concat()).2
    };
    let (debug, warn) = (check("debug"), check("warn"));
    assert!(debug.contains("API request") && debug.contains("API retry"), "{debug}");
    assert!(!warn.contains("API re"), "{warn}");
}

#[test]
fn log_has_no_names_above_debug_and_never_content() {
    let cli = sample_repo();
    let (name, content) = ("canary-name-5127.txt", "canary-content-6138");
    std::fs::write(cli.at("data").join(name), content).expect("a file");
    for level in ["error", "warn", "info", "debug"] {
        let back = cli.text(&format!("back-{level}"));
        let mut log = cli.backup(&["--no-cache", "--log-level", level]).2;
        log += &cli.run_reader(&["restore", "--to", &back, "--log-level", level]).2;
        assert!(!log.contains(content), "{level}: {log}");
        if level != "debug" {
            assert!(!log.contains(name), "{level}: {log}");
            assert!(!log.contains("store request") && !log.contains("pack stored"), "{level}: {log}");
        }
    }
}
