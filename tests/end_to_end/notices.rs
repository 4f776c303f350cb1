//! Notices of real runs to a real receiver: pings, webhooks, pushes of metrics.

use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

use kbak::notify::{NoticeLimits, Notifier, RunEnd};
use kbak::plan::{Notify, NotifyTarget, NotifyVerb, NotifyWhen, WebhookTarget};
use kbak::report::outcome::Outcome;
use kbak::report::run::RunReport;
use kbak::runtime::lock;
use rustix::process::{Pid, Signal, kill_process};
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::owners::collect_warnings;
use crate::support::program::{command, read, run_beside};
use crate::support::receiver::ReceiverServer;
use crate::support::tls::CA;

/// A text that must be in no output.
const CANARY: &str = "canary-5f1d";

/// Writes a plan with a folder and these receivers, and returns its path.
fn write_plan(cli: &CliRepo, folder: &str, notify: &Value) -> String {
    let more =
        format!("  volumes: [{{path: \"{folder}\"}}]\n  schedule: {{next: 24h}}\n  notify: {notify}\n");
    cli.write_plan(&more)
}

/// Returns a backup by a plan, with its JSON report on standard output.
fn backup(plan: &str) -> Command {
    command(&["backup", "--plan", plan, "-o", "json"])
}

/// Runs a command, which must end with `code`; returns its JSON and its messages.
async fn ended(command: Command, code: i32) -> (Value, String) {
    let (ended, out, err) = read(run_beside(command).await);
    assert_eq!(ended, code, "{out}\n{err}");
    (serde_json::from_str(&out).unwrap_or_default(), err)
}

/// Returns the warnings of a report: object and message.
fn warnings(report: &Value) -> Vec<(String, String)> {
    let text = |value: &Value| value.as_str().expect("text").to_owned();
    let all = report["warnings"].as_array().into_iter().flatten();
    all.map(|warning| (text(&warning["object"]), text(&warning["message"]))).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn receivers_get_start_and_success_without_names() {
    let receiver = ReceiverServer::start().await;
    let url = &receiver.url;
    let cli = CliRepo::for_plan("nightly");
    let notify = json!([
        {"ping": {"url": format!("{url}/ping?create=1")}},
        {"webhook": {"url": format!("{url}/hook")}},
        {"webhook": {"url": format!("{url}/only-failures"), "when": "failure"}},
        {"metrics": {"url": format!("{url}/push/")}},
        {"metrics": {"url": format!("{url}/push"), "cluster": "prod-eu"}},
        {"metrics": {"url": format!("{url}/push/metrics/job/own/cluster/own"), "cluster": "prod-eu"}},
        {"metrics": {"url": format!("{url}/metrics/job/own/cluster/prod"), "verbs": ["verify"]}},
    ]);
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    let (report, said) = ended(backup(&plan), 0).await;
    assert_eq!(warnings(&report), []);
    let received = receiver.received();
    let first: Vec<(&str, &str)> =
        received.iter().take(1).map(|one| (one.method.as_str(), one.path.as_str())).collect();
    assert_eq!(first, [("POST", "/ping/start?create=1")], "{said}");
    let mut rest = received[1..].to_vec();
    rest.sort_by(|one, other| one.path.cmp(&other.path));
    let paths: Vec<&str> = rest.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(
        paths,
        [
            "/hook",
            "/ping?create=1",
            "/push/metrics/job/kbak/cluster/prod-eu/plan/nightly/verb/backup",
            "/push/metrics/job/kbak/plan/nightly/verb/backup",
            "/push/metrics/job/own/cluster/own/plan/nightly/verb/backup",
        ]
    );

    let body: Value = serde_json::from_str(&rest[0].body).expect("JSON");
    assert_eq!(rest[0].content_type, "application/json");
    assert_eq!(
        (&body["status"], &body["exit"], &body["snapshot"]),
        (&json!("success"), &json!(0), &json!(1))
    );
    assert_eq!((&body["items"], &body["bytes"]), (&json!(1), &report["items"][0]["bytes"]));
    assert!(rest[1].body.starts_with("backup of plan nightly: complete (exit 0), snapshot 000001, 1 item, "));
    for notice in &received[..rest.len()] {
        let named = ["one.txt".to_owned(), cli.text("data"), cli.url()]
            .into_iter()
            .find(|name| notice.body.contains(name));
        assert!(named.is_none() || notice.path.starts_with("/push"), "{named:?} in {}", notice.body);
    }
    let metrics = &rest[2];
    assert_eq!(metrics.content_type, "text/plain; version=0.0.4; charset=utf-8");
    assert!(
        metrics.body.contains("kbak_run_exit_code{verb=\"backup\",plan=\"nightly\"} 0\n"),
        "{}",
        metrics.body
    );
    assert!(metrics.body.contains("\nkbak_next_due_timestamp_seconds{"), "{}", metrics.body);
    assert!(!metrics.body.contains("# EOF"), "the end of OpenMetrics is no line of this format");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn partial_refused_and_interrupted_runs_are_sent_as_failures() {
    let receiver = ReceiverServer::start().await;
    let url = &receiver.url;
    let cli = CliRepo::for_plan("nightly");
    let notify = json!([
        {"ping": {"url": format!("{url}/ping")}},
        {"webhook": {"url": format!("{url}/hook"), "when": "failure",
            "template": r#"{"text": "{{verdict}}: {{unsafeNames}}", "code": {{exit}}, "at": {{snapshot}}}"#}},
    ]);

    let plan = write_plan(&cli, &cli.text("absent"), &notify);
    ended(backup(&plan), 3).await;
    assert_eq!(receiver.lines()[0], "POST /ping/start");
    assert!(receiver.lines().contains(&"POST /ping/3".to_owned()), "{:?}", receiver.lines());
    let hook = receiver.received().into_iter().find(|one| one.path == "/hook").expect("a webhook");
    let body: Value = serde_json::from_str(&hook.body).expect("JSON");
    let item = format!("path{}", cli.text("absent"));
    let text = format!("snapshot 000001 committed with 1 gap: {item}");
    assert_eq!(body, json!({"text": text, "code": 3, "at": 1}), "a template can ask for names");

    // Interrupted as soon as the receiver knows that it began.
    std::fs::write(cli.at("data/large"), random(1 << 20)).expect("a file");
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    let before = receiver.received().len();
    let mut run = backup(&plan);
    let child = run.args(["--upload", "1Ki/s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("it starts");
    receiver.wait_for(before + 1).await;
    kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("an end");
    let (code, _, said) = read(output.expect("an output"));
    assert_eq!(code, 6, "{said}");
    let mut lines = receiver.lines().split_off(before);
    assert_eq!(lines.remove(0), "POST /ping/start");
    lines.sort();
    assert_eq!(lines, ["POST /hook", "POST /ping/6"]);

    // Refused before it began.
    std::fs::rename(cli.at("keys/writer.key"), cli.at("keys/away")).expect("moved");
    let before = receiver.received().len();
    ended(backup(&plan), 2).await;
    let mut lines = receiver.lines().split_off(before);
    lines.sort();
    assert_eq!(lines, ["POST /hook", "POST /ping/2"]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn second_signal_ends_the_notices_of_an_interruption() {
    let receiver = ReceiverServer::start().await;
    let url = &receiver.url;
    let cli = CliRepo::for_plan("nightly");
    std::fs::write(cli.at("data/large"), random(1 << 20)).expect("a file");
    let notify =
        json!([{"ping": {"url": format!("{url}/ping")}}, {"webhook": {"url": format!("{url}/hang")}}]);
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    let mut run = backup(&plan);
    let child = run.args(["--upload", "1Ki/s"]).stdout(Stdio::piped()).stderr(Stdio::piped());
    let child = child.spawn().expect("it starts");
    for requests in [1, 3] {
        receiver.wait_for(requests).await;
        kill_process(Pid::from_child(&child), Signal::TERM).expect("a signal");
    }
    let output = tokio::task::spawn_blocking(move || child.wait_with_output()).await.expect("an end");
    let (code, out, said) = read(output.expect("an output"));
    assert_eq!(code, 6, "{said}");
    let report: Value = serde_json::from_str(&out).expect("a report");
    let ended = ("notify".to_owned(), "a signal ended the sending of notices".to_owned());
    assert_eq!(warnings(&report), [ended]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn proxies_and_certificates_come_from_the_environment() {
    let (proxy, receiver) = (ReceiverServer::start().await, ReceiverServer::start_tls().await);
    let cli = CliRepo::for_plan("nightly");
    std::fs::write(cli.at("ca.pem"), CA).expect("a file");
    let notify = json!([
        {"webhook": {"url": "http://receiver.invalid/hook"}},
        {"webhook": {"url": format!("{}/hook", receiver.url)}},
    ]);
    let mut run = backup(&write_plan(&cli, &cli.text("data"), &notify));
    run.env("HTTP_PROXY", &proxy.url).env("NO_PROXY", "127.0.0.1").env("SSL_CERT_FILE", cli.at("ca.pem"));
    for name in ["http_proxy", "https_proxy", "no_proxy", "HTTPS_PROXY", "ALL_PROXY", "all_proxy"] {
        run.env_remove(name);
    }
    let (report, said) = ended(run, 0).await;
    assert_eq!(warnings(&report), [], "{said}");
    assert_eq!(proxy.lines(), ["POST http://receiver.invalid/hook"]);
    assert_eq!(receiver.lines(), ["POST /hook"]);
}

fn random(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    kbak::runtime::Runtime::real().random.fill(&mut bytes);
    bytes
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn failing_receivers_are_warnings_and_no_output_has_an_address() {
    let receiver = ReceiverServer::start().await;
    let url = &receiver.url;
    let cli = CliRepo::for_plan("nightly");
    let secret = |name: &str, text: &str| {
        std::fs::write(cli.at(name), text).expect("a file");
        cli.text(name)
    };
    let hook =
        |path: &str| json!({"webhook": {"urlFile": secret(path, &format!("  {url}/{path}/{CANARY}\n"))}});
    let notify = json!([
        hook("reset"),
        hook("redirect"),
        hook("error"),
        hook("gone"),
        hook("endless"),
        {"ping": {"urlFile": secret("words", &format!("no address {CANARY}"))}},
        {"ping": {"urlFile": cli.text("absent")}},
        {"metrics": {"url": "http://127.0.0.1:1/closed"}},
    ]);
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    let mut run = command(&["--log-level", "debug", "backup", "--plan", &plan, "-o", "json"]);
    for (option, file) in
        [("--report-file", "report"), ("--metrics-file", "prom"), ("--termination-log", "log")]
    {
        run.arg(option).arg(cli.at(file));
    }
    let (report, said) = ended(run, 0).await;
    let found: Vec<(String, String)> =
        warnings(&report).into_iter().filter(|(object, _)| object.starts_with("notify[")).collect();
    for (place, reason) in [
        ("notify[0].webhook", "no connection"),
        ("notify[1].webhook", "it redirects (302), which is not followed"),
        ("notify[2].webhook", "it answers with 500"),
        ("notify[3].webhook", "it answers with 404"),
        ("notify[5].ping", "it is not an address"),
        ("notify[6].ping", "the address cannot be read"),
        ("notify[7].metrics", "no connection (connection refused)"),
    ] {
        let is = |(object, message): &(String, String)| object == place && message.contains(reason);
        assert!(found.iter().any(is), "{place}: {reason}: {found:?}");
    }
    assert!(found.iter().all(|(object, _)| object != "notify[4].webhook"), "{found:?}");
    let tries = |path: &str| receiver.lines().iter().filter(|line| line.contains(path)).count();
    assert_eq!((tries("/error/"), tries("/gone/"), tries("/redirect/"), tries("/elsewhere")), (3, 1, 1, 0));

    let mut outputs = vec![said, report.to_string()];
    outputs
        .extend(["report", "prom", "log"].map(|file| std::fs::read_to_string(cli.at(file)).expect("text")));
    for output in outputs {
        assert!(!output.contains(CANARY) && !output.contains(url.as_str()), "{output}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn check_reads_addresses_and_asks_nobody() {
    let receiver = ReceiverServer::start().await;
    let cli = CliRepo::for_plan("nightly");
    std::fs::write(cli.at("words"), CANARY).expect("a file");
    let notify = json!([
        {"ping": {"url": format!("{}/ping", receiver.url)}},
        {"ping": {"urlFile": cli.text("words")}},
    ]);
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    let (checked, said) = ended(command(&["check", "--plan", &plan, "-o", "json"]), 2).await;
    let findings = checked["findings"].as_array().expect("findings").iter();
    let findings: Vec<&Value> = findings
        .filter(|one| one["about"].as_str().is_some_and(|about| about.starts_with("notify")))
        .collect();
    assert_eq!((&findings[0]["weight"], &findings[1]["weight"]), (&json!("good"), &json!("problem")));
    assert!(!checked.to_string().contains(CANARY) && !said.contains(CANARY), "{checked:#}");
    assert_eq!(receiver.lines(), Vec::<String>::new());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn verification_by_a_plan_takes_its_repository_signers_and_receivers() {
    let receiver = ReceiverServer::start().await;
    let url = &receiver.url;
    let cli = CliRepo::for_plan("nightly");
    let notify = json!([
        {"ping": {"url": format!("{url}/backup")}},
        {"ping": {"url": format!("{url}/verify"), "verbs": ["verify"]}},
        {"ping": {"url": format!("{url}/api/push/t0?status=up&msg=OK&ping=&x=1"), "verbs": ["verify"]}},
        {"metrics": {"url": format!("{url}/metrics/job/own"), "verbs": ["verify"]}},
    ]);
    let plan = write_plan(&cli, &cli.text("data"), &notify);
    ended(backup(&plan), 0).await;
    let before = receiver.received().len();
    assert_eq!(receiver.lines(), ["POST /backup/start", "POST /backup"]);

    // Neither needs the writer's key.
    std::fs::rename(cli.at("keys/writer.key"), cli.at("keys/away")).expect("moved");
    ended(command(&["verify", "--plan", &plan]), 0).await;
    let mut lines = receiver.lines().split_off(before);
    assert_eq!(lines.remove(0), "POST /verify/start");
    lines.sort();
    assert_eq!(lines.len(), 3, "{lines:?}");
    let kuma = "GET /api/push/t0?x=1&status=up&msg=verify+of+plan+nightly%3A+complete+%28exit+0%29";
    assert!(lines[0].starts_with(kuma) && lines[0].contains("&ping="), "{lines:?}");
    assert_eq!(lines[1..], ["POST /metrics/job/own/plan/nightly/verb/verify", "POST /verify"]);
    let metrics =
        receiver.received().into_iter().find(|one| one.path.starts_with("/metrics")).expect("metrics");
    assert!(metrics.body.contains("kbak_last_success_timestamp_seconds{verb=\"verify\",plan=\"nightly\"}"));

    let (repo, pin) = (cli.url(), cli.text("keys/kbak.pub"));
    for (option, value) in [("--repo", &repo), ("--region", &repo), ("--signer", &pin)] {
        let (_, said) = ended(command(&["verify", "--plan", &plan, option, value]), 2).await;
        assert!(said.contains(&format!("--plan and {option} contradict each other")), "{said}");
    }
    let lines = receiver.lines();
    assert_eq!(
        lines.iter().filter(|line| *line == "POST /verify/2").count(),
        3,
        "a refusal is a failure: {lines:?}"
    );
}

/// Returns the report of a run that ended well.
fn report() -> RunReport {
    let report = json!({
        "verb": "backup", "version": "0.1.0", "repository": "s3://backups/prod", "plan": "nightly",
        "started": "2026-11-23T02:00:00Z", "finished": "2026-11-23T02:00:25Z", "exit": "safe",
        "verdict": "snapshot 000042 committed", "stored": {"bytes": 1, "packs": 1},
    });
    serde_json::from_value(report).expect("a report")
}

/// Sends the end of a run to one webhook, and returns the warnings.
async fn send(url: String, ca_file: Option<&Path>, limits: NoticeLimits) -> Vec<String> {
    let hook = Notify::Webhook(WebhookTarget { url: Some(url), ..WebhookTarget::default() });
    let notifier = Notifier::new(&[hook], NotifyVerb::Backup, ca_file.map(Path::to_owned), None);
    let (heard, reporter) = collect_warnings();
    let report = report();
    notifier.send_end(RunEnd { report: &report, code: 0, metrics: "" }, limits, &reporter).await;
    lock(&heard.0).clone()
}

#[tokio::test]
async fn receiver_that_hangs_ends_at_the_limit() {
    let receiver = ReceiverServer::start().await;
    let limits =
        NoticeLimits { total: Duration::from_millis(300), answer: Duration::from_secs(600), tries: 3 };
    let warned = send(format!("{}/hang", receiver.url), None, limits).await;
    assert_eq!(warned, ["notify[0].webhook: the notice was not sent: no answer within 300ms"]);
    assert_eq!(receiver.lines(), ["POST /hang"]);
    let warned = send(format!("{}/late", receiver.url), None, NoticeLimits::END).await;
    assert_eq!(warned, Vec::<String>::new());
}

#[tokio::test]
async fn receiver_of_a_private_ca_is_trusted_by_the_plans_ca_alone() {
    let receiver = ReceiverServer::start_tls().await;
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ca.pem");
    std::fs::write(&file, CA).expect("a file");
    let url = format!("{}/hook", receiver.url);
    assert_eq!(send(url.clone(), Some(&file), NoticeLimits::END).await, Vec::<String>::new());
    assert_eq!(receiver.lines(), ["POST /hook"]);
    let warned = send(url, None, NoticeLimits::END).await;
    assert_eq!(
        warned,
        ["notify[0].webhook: the notice was not sent: its certificate is not accepted, or TLS failed"]
    );
    assert_eq!(receiver.received().len(), 1);
}

#[tokio::test]
async fn failure_webhook_and_pings_follow_the_outcome() {
    let receiver = ReceiverServer::start().await;
    let target = |path: &str| NotifyTarget {
        url: Some(format!("{}/{path}", receiver.url)),
        ..NotifyTarget::default()
    };
    let hook = WebhookTarget {
        url: target("hook").url,
        when: Some(NotifyWhen::Failure),
        ..WebhookTarget::default()
    };
    let receivers = [Notify::Ping(target("ping")), Notify::Webhook(hook)];
    let notifier = Notifier::new(&receivers, NotifyVerb::Backup, None, None);
    let (heard, reporter) = collect_warnings();
    for (outcome, code) in [(Outcome::Safe, 0), (Outcome::Damaged, 4), (Outcome::Unreachable, 5)] {
        let report = RunReport { exit: outcome, ..report() };
        notifier.send_end(RunEnd { report: &report, code, metrics: "" }, NoticeLimits::END, &reporter).await;
    }
    assert_eq!(*lock(&heard.0), Vec::<String>::new());
    let mut lines = receiver.lines();
    lines.sort();
    assert_eq!(lines, ["POST /hook", "POST /hook", "POST /ping", "POST /ping/4", "POST /ping/5"]);
}
