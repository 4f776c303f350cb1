//! The preflight against real servers: a sound setup passes, and every problem is reported with a remedy.

use std::sync::Arc;

use kbak::backup::epoch_secret::EpochSecretPlace;
use kbak::check::{CheckJob, CheckReport, DatabaseJob, Severity};
use kbak::cli::failure::explained;
use kbak::report::event::Reporter;
use kbak::runtime::{FixedClock, Runtime, SystemRandom, Workers};
use kbak::store::options::StoreOptions;
use serde_json::{Value, json};

use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, get, patch};
use crate::support::kinds::create_known_account;
use crate::support::owners::no_prompt;
use crate::support::postgres;
use crate::support::program::{beneath, run_json, set_mode};
use crate::support::servers::{READER, SECRET, seaweedfs};

/// Runs a check, with the words that the command line gives to errors.
async fn check(job: &CheckJob, runtime: &Runtime, reporter: &Reporter) -> CheckReport {
    let mut report = kbak::check::check(job, runtime, reporter).await;
    report.findings = report.findings.into_iter().map(explained).collect();
    report
}

/// Returns the findings of one weight: subject, finding, remedy.
fn findings_of(report: &Value, weight: &str) -> Vec<(String, String, String)> {
    let text = |finding: &Value, field: &str| finding[field].as_str().unwrap_or_default().to_owned();
    let findings = report["findings"].as_array().expect("findings").iter();
    findings
        .filter(|finding| finding["weight"] == weight)
        .map(|finding| (text(finding, "about"), text(finding, "what"), text(finding, "remedy")))
        .collect()
}

/// Returns the only problem.
fn problem((code, report, said): (i32, Value, String)) -> (String, String, String) {
    assert_eq!(code, 2, "{report:#} {said}");
    let problems = findings_of(&report, "problem");
    let [one] = problems.as_slice() else { panic!("{problems:#?}") };
    one.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn sound_setup_passes_and_problems_are_reported() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let server = postgres::PostgresServer::start("secret", &[]);
    let cli = CliRepo::for_plan("nightly");
    std::fs::write(cli.at("password"), "secret\n").expect("a file");
    let (config, socket) = (plane.kubeconfig().display().to_string(), server.socket().display().to_string());
    let whole = |data: &str| {
        format!(
            "  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n  \
             databases: [{{name: shop, engine: postgresql, host: \"{socket}\", user: kbak, passwordFile: password}}]\n  \
             volumes: [{{path: \"{data}\", name: data}}]\n"
        )
    };
    let plan = cli.write_plan(&whole(&cli.text("data")));
    let before = beneath(&cli.at("store"));
    let (code, report, said) = run_json(&["check", "--plan", &plan]);
    assert_eq!(code, 0, "{report:#} {said}");
    let good: Vec<String> = findings_of(&report, "good").into_iter().map(|(about, ..)| about).collect();
    for about in [
        "store",
        "clock",
        "repository",
        "epoch",
        "writer",
        "signers",
        "owners",
        "cluster",
        "rights",
        "moment",
        "shop",
        "path/data",
        "coverage",
    ] {
        assert!(good.iter().any(|one| one == about), "{about} is missing in {good:?}");
    }
    assert_eq!(findings_of(&report, "warning").len(), 1, "one owner: {:?}", findings_of(&report, "warning"));
    assert!(report["wrote"].as_str().is_some_and(|wrote| wrote.contains("/probe/")), "{report:#}");
    assert_eq!(
        beneath(&cli.at("store")).iter().filter(|path| path.is_file()).count(),
        before.iter().filter(|path| path.is_file()).count()
    );

    // The table for people: a line for each finding, the verdict at the end.
    let table = crate::support::program::good(&["check", "--plan", &plan]);
    let table = String::from_utf8(table.stdout).expect("text");
    assert!(table.starts_with("✓ store "), "{table}");
    let last = table.lines().last().expect("a verdict");
    assert!(last.starts_with("0 problems, 1 warning. Nothing was written but the store's probe"), "{table}");

    // Names in the plan that the cluster lacks would be a gap of every backup.
    let names = |accept: &str| {
        cli.write_plan(&format!(
            "  cluster: {{kubeconfigFile: \"{config}\"}}\n  coverage: off\n{accept}  resources: {{namespaces: \
             {{include: [default, shpo]}}, kinds: {{include: [configmaps, deploymentz.apps]}}}}\n"
        ))
    };
    let (code, report, said) = run_json(&["check", "--plan", &names("")]);
    assert_eq!(code, 2, "{said}");
    let problems: Vec<(String, String)> =
        findings_of(&report, "problem").into_iter().map(|(about, what, _)| (about, what)).collect();
    let wanted = |what: &str| {
        let told = "and the plan names it: every backup would have the gap absent (exit 3)";
        ("resources".to_owned(), format!("{what} is missing in the cluster, {told}"))
    };
    assert_eq!(problems, [wanted("the kind deploymentz.apps"), wanted("the namespace shpo")]);
    let accept = "  accept: [{item: resources, gap: absent, reason: it comes, until: 2099-01-01}]\n";
    let (code, report, said) = run_json(&["check", "--plan", &names(accept)]);
    assert_eq!(code, 0, "{report:#} {said}");
    assert_eq!(findings_of(&report, "note").iter().filter(|(about, ..)| about == "resources").count(), 2);
    let plan = cli.write_plan(&whole(&cli.text("data")));

    set_mode(&cli.at("keys/writer.key"), 0o644);
    let (about, what, remedy) = problem(run_json(&["check", "--plan", &plan]));
    assert_eq!(
        (about.as_str(), remedy),
        ("writer", format!("chmod 600 {}", cli.text("keys/writer.key"))),
        "{what}"
    );
    set_mode(&cli.at("keys/writer.key"), 0o600);

    std::fs::rename(cli.at("keys/writer.key.nightly.epoch"), cli.at("away")).expect("moved");
    let (about, _, remedy) = problem(run_json(&["check", "--plan", &plan]));
    assert!(about == "epoch" && remedy.contains("--new-epoch"), "{about} {remedy}");
    std::fs::rename(cli.at("away"), cli.at("keys/writer.key.nightly.epoch")).expect("moved");

    let (about, what, _) =
        problem(run_json(&["check", "--plan", &cli.write_plan(&whole(&cli.text("nowhere")))]));
    assert!(about == "path/data" && what.contains("nowhere"), "{about} {what}");

    let plan = cli.write_plan(&whole(&cli.text("data")));
    drop(server);
    let (about, _, remedy) = problem(run_json(&["check", "--plan", &plan]));
    assert!(about == "shop" && remedy.contains("check that the server runs"), "{about} {remedy}");

    // An invalid recipient is a usage error: nothing is tried.
    let (repo, key, data) = (cli.url(), cli.text("keys/writer.key"), cli.text("data"));
    let short = ["check", "--repo", &repo, "--writer-key", &key, "--path", &data, "--recipient"];
    let (code, report, said) = run_json(&[&short[..], &["age1mistyped"]].concat());
    assert_eq!((code, report), (2, Value::Null), "{said}");
    assert!(said.contains("incomplete or mistyped"), "{said}");

    let config = cli.write_plan("  cluster: {kubeconfigFile: nowhere.yaml}\n  resources: {}\n");
    let (about, ..) = problem(run_json(&["check", "--plan", &config]));
    assert_eq!(about, "cluster");

    std::fs::copy(plane.kubeconfig(), cli.at("kubeconfig")).expect("a copy");
    drop(plane);
    let plan = cli.write_plan("  cluster: {kubeconfigFile: kubeconfig}\n  resources: {}\n");
    let (about, what, _) = problem(run_json(&["check", "--plan", &plan]));
    assert_eq!(about, "cluster", "{what}");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn missing_right_is_reported_with_the_rules_to_add() {
    let plane = ControlPlane::start(&["--without-controllers"]);
    let cluster = plane.cluster().await;
    let cli = CliRepo::for_plan("nightly");
    let rules =
        json!([{"apiGroups": [""], "resources": ["namespaces", "configmaps"], "verbs": ["get", "list"]}]);
    let config = create_known_account(&plane, &cluster, &cli.at(""), "checker", rules).await;
    let plan = cli.write_plan(&format!(
        "  cluster: {{kubeconfigFile: \"{}\"}}\n  coverage: off\n  \
         resources: {{kinds: {{include: [configmaps, secrets, deployments.apps]}}}}\n",
        config.display()
    ));
    let (about, what, remedy) = problem(run_json(&["check", "--plan", &plan]));
    assert_eq!(about, "rights");
    // What objects of these kinds may need to exist is read as well, and nothing else.
    assert!(what.starts_with("may not list secrets, deployments.apps, runtimeclasses.node.k8s.io"), "{what}");
    assert!(!what.contains("persistentvolumes") && !what.contains("clusterroles"), "{what}");
    // The lines after the first are the rules in the form of a role.
    let (_, lines) = remedy.split_once('\n').expect("rules");
    let more: Vec<Value> = serde_saphyr::from_str(lines).expect("YAML");
    let role = "/apis/rbac.authorization.k8s.io/v1/clusterroles/checker";
    let mut all = get(&cluster, role).await["rules"].clone();
    all.as_array_mut().expect("rules").extend(more);
    patch(&cluster, role, json!({"rules": all})).await;
    for _ in 0..100 {
        let (code, report, _) = run_json(&["check", "--plan", &plan]);
        if code == 0 {
            assert!(findings_of(&report, "good").iter().any(|(about, ..)| about == "rights"));
            return;
        }
        tokio::time::sleep(std::time::Duration::from_millis(50)).await;
    }
    panic!("the rules do not mend it");
}

/// Returns a job that checks only a store.
fn store_only(cli: &CliRepo, store: StoreOptions) -> CheckJob {
    CheckJob {
        plan: "nightly".into(),
        warnings: Vec::new(),
        no_longer_accepted: Vec::new(),
        store,
        writer_key: cli.at("keys/writer.key"),
        epoch_secret: EpochSecretPlace::File(cli.at("keys/writer.key.nightly.epoch")),
        signers_file: None,
        owners: Vec::new(),
        prompt: no_prompt(),
        cluster: None,
        databases: Vec::new(),
        folders: Vec::new(),
        receivers: Vec::new(),
        events: None,
    }
}

fn problems(checked: &CheckReport) -> Vec<(&str, &str)> {
    let problems = checked.findings.iter().filter(|finding| finding.weight == Severity::Problem);
    problems.map(|finding| (finding.about.as_str(), finding.what.as_str())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn store_is_judged_by_probing_it() {
    let server = seaweedfs();
    server.bucket("backups", false).await;
    let cli = CliRepo::for_plan("nightly");
    let reporter = Reporter::silent();
    let runtime = Runtime::real();

    let found = check(&store_only(&cli, server.options("backups")), &runtime, &reporter).await;
    let [(about, what)] = problems(&found)[..] else { panic!("{:#?}", found.findings) };
    assert!(about == "repository" && what.contains("no repository lies at"), "{what}");
    assert!(found.wrote.is_some());

    let wrong =
        check(&store_only(&cli, server.options_as("backups", "nobody", SECRET)), &runtime, &reporter).await;
    let [("store", what)] = problems(&wrong)[..] else { panic!("{:#?}", wrong.findings) };
    assert!(what.contains("credentials"), "{what}");
    assert_eq!(wrong.wrote, None);

    let reader =
        check(&store_only(&cli, server.options_as("backups", READER, SECRET)), &runtime, &reporter).await;
    let [("store", what)] = problems(&reader)[..] else { panic!("{:#?}", reader.findings) };
    assert!(what.contains("access denied"), "{what}");

    let none = check(&store_only(&cli, server.options("nowhere")), &runtime, &reporter).await;
    assert_eq!(problems(&none)[0].0, "store", "{:#?}", none.findings);

    let mut options = server.options("backups");
    options.endpoint = Some("http://127.0.0.1:9".into());
    let closed = check(&store_only(&cli, options), &runtime, &reporter).await;
    let [("store", what)] = problems(&closed)[..] else { panic!("{:#?}", closed.findings) };
    assert!(what.contains("gave up after"), "{what}");

    for (minutes, weight) in [(1, Severity::Good), (7, Severity::Warning), (20, Severity::Problem)] {
        let at = jiff::Timestamp::now() - jiff::SignedDuration::from_mins(minutes);
        let runtime = Runtime {
            clock: Arc::new(FixedClock::new(at)),
            random: Arc::new(SystemRandom),
            workers: Workers::Threads { count: 2 },
            stop: Default::default(),
        };
        let late = check(&store_only(&cli, server.options("backups")), &runtime, &reporter).await;
        let clock = late.findings.iter().find(|finding| finding.about == "clock").expect("a clock");
        assert_eq!(clock.weight, weight, "{clock:?}");
        assert!(clock.what.contains("ahead of this machine"), "{clock:?}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn database_is_probed_for_client_tools_and_rights() {
    let server = postgres::PostgresServer::start("secret", &[]);
    server.sql("postgres", "CREATE DATABASE orders");
    server.sql("postgres", "CREATE ROLE backup LOGIN PASSWORD 'secret'");
    server.sql("orders", "CREATE TABLE mine (a int); CREATE TABLE other (a int)");
    let cli = CliRepo::for_plan("nightly");
    let tried = async |config: kbak::source::database::DatabaseConfig| {
        let job = DatabaseJob { config: Box::new(config), databases: Vec::new() };
        let store = StoreOptions::new(cli.url());
        let job = CheckJob { databases: vec![("shop".into(), Ok(job))], ..store_only(&cli, store) };
        check(&job, &Runtime::real(), &Reporter::silent()).await
    };

    let found = tried(server.config()).await;
    assert_eq!(problems(&found), [], "{:#?}", found.findings);
    let good = found.findings.iter().find(|finding| finding.about == "shop").expect("a finding");
    assert!(good.what.contains("primary, pg_dump") && good.what.contains("2 databases"), "{good:?}");

    let mut config = server.config();
    config.user = "backup".into();
    let found = tried(config.clone()).await;
    let [("shop", what)] = problems(&found)[..] else { panic!("{:#?}", found.findings) };
    assert!(what.contains("2 tables and sequences of orders"), "{what}");
    let finding = found.findings.iter().find(|finding| finding.what == what).expect("it");
    assert!(finding.remedy.as_deref().is_some_and(|remedy| remedy.starts_with("GRANT")), "{finding:?}");
    server.sql("postgres", "GRANT pg_read_all_data TO backup");
    assert_eq!(problems(&tried(config).await), []);

    // Tools of an older version: the real psql, and a pg_dump that reports an old version.
    let real = server.config().tools.expect("tools");
    let old = cli.at("old");
    std::fs::create_dir(&old).expect("a folder");
    for tool in ["pg_dumpall", "pg_restore", "psql"] {
        std::os::unix::fs::symlink(real.join(tool), old.join(tool)).expect("a link");
    }
    std::fs::write(old.join("pg_dump"), "#!/bin/sh\necho 'pg_dump (PostgreSQL) 11.22'\n").expect("a script");
    set_mode(&old.join("pg_dump"), 0o755);
    let mut config = server.config();
    config.tools = Some(old);
    let found = tried(config).await;
    let [("shop", what)] = problems(&found)[..] else { panic!("{:#?}", found.findings) };
    assert!(what.contains("no pg_dump") && what.contains("11.22"), "{what}");

    let mut config = server.config();
    config.password = Some(kbak::source::database::Password::new("wrong-canary".into()));
    let found = tried(config).await;
    assert_eq!(problems(&found)[0].0, "shop");
    assert!(!format!("{:?}", found.findings).contains("wrong-canary"), "{:#?}", found.findings);
}
