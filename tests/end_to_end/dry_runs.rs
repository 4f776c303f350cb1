//! Dry runs beside the real runs, in situations that `situations` does not generate: the same verdict and the same
//! exit code.

use std::path::Path;

use rustix::fs::{CWD, FileType, Mode, mknodat};

use crate::support::cli_repo::CliRepo;
use crate::support::postgres::PostgresServer;
use crate::support::program::{command, good, read, succeeds};

/// A situation: the arguments of a restore in it, and the exit code of both runs.
struct Situation {
    name: &'static str,
    args: Vec<String>,
    code: i32,
}

fn situation(name: &'static str, args: &[&str], code: i32) -> Situation {
    Situation { name, args: args.iter().map(|arg| (*arg).to_owned()).collect(), code }
}

/// Runs a restore without and with `--dry-run`, the dry run first, and compares exit codes and errors.
fn check_agreement(situation: &Situation, variables: &[(&str, &str)]) {
    let Situation { name, args, code } = situation;
    let run = |more: &[&str]| {
        let args =
            [vec!["restore".to_owned()], args.clone(), more.iter().map(|one| (*one).to_owned()).collect()];
        read(command(&args.concat()).envs(variables.iter().copied()).output().expect("it runs"))
    };
    let (dry, out, dry_err) = run(&["--dry-run"]);
    let (real, _, err) = run(&[]);
    assert_eq!((dry, real), (*code, *code), "{name}:\ndry: {out}{dry_err}\nreal: {err}");
    let error = |text: &str| text.lines().find(|line| line.starts_with("error:")).map(str::to_owned);
    assert_eq!(error(&dry_err), error(&err), "{name}:\ndry: {dry_err}\nreal: {err}");
}

/// A repository whose newest snapshot has a folder, a folder with a gap, and the database `shop`.
struct Fixture {
    cli: CliRepo,
    server: PostgresServer,
}

impl Fixture {
    fn new() -> Self {
        let server = PostgresServer::start("secret", &[]);
        server.sql("postgres", "CREATE DATABASE shop");
        server.sql("shop", "CREATE TABLE orders AS SELECT n FROM generate_series(1, 100) n");
        let cli = CliRepo::for_plan("nightly");
        mknodat(CWD, cli.at("data/pipe"), FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
        std::fs::write(cli.at("password"), "secret").expect("a file");
        let plan = cli.write_plan(&format!(
            "  volumes: [{{path: \"{}\"}}, {{path: \"{}\"}}]\n  databases:\n  - {{name: shop, engine: postgresql, \
             host: \"{}\", user: kbak, passwordFile: \"{}\", databases: [shop], transport: local}}\n",
            cli.text("data"),
            cli.text("gone"),
            server.socket().display(),
            cli.text("password"),
        ));
        let (code, _, err) = read(command(&["backup", "--plan", &plan]).output().expect("it runs"));
        assert_eq!(code, 3, "one folder is not there: {err}");
        Self { cli, server }
    }

    fn url(&self, user: &str) -> String {
        format!("postgresql://{user}@/postgres?host={}", self.server.socket().display())
    }

    fn check(&self, mut situation: Situation) {
        situation.args.extend(self.cli.reader_args());
        check_agreement(&situation, &[("PGPASSWORD", "secret")]);
    }
}

#[test]
fn dry_run_of_several_items_agrees_with_the_restore() {
    let fixture = Fixture::new();
    let (server, cli) = (&fixture.server, &fixture.cli);
    let check = |name, args: &[&str], code| fixture.check(situation(name, args, code));
    let (url, item) = (fixture.url("kbak"), cli.data_item());
    check("a target for some items only", &["--to", &cli.text("x")], 2);
    check("several items as one tar", &["--tar"], 2);
    check("a path in several folders", &["--to", &cli.text("x"), "--path", "one.txt"], 2);
    let away = format!("postgresql://kbak@/postgres?host={}&port=1", server.socket().display());
    check("no server", &["--item", "shop", "--database", &away], 5);
    let both = ["--item", "shop", "--item", &item, "--database", &url, "--replace-databases", "--to"];
    let below = Path::new(&cli.text("data")).strip_prefix("/").expect("a path").to_owned();
    let full = cli.at("full").join(below);
    std::fs::create_dir_all(&full).expect("folders");
    std::fs::write(full.join("mine"), "").expect("a file");
    let (full, new) = (cli.text("full"), cli.text("both"));
    check("a database and a folder", &[&both[..], &[&new]].concat(), 0);
    check("a database, and a folder that is not empty", &[&both[..], &[&full]].concat(), 3);
}

#[test]
fn dry_run_names_server_and_databases_to_be_dropped() {
    let fixture = Fixture::new();
    let (url, reader) = (fixture.url("kbak"), fixture.cli.reader_args());
    let base = ["restore", "--item", "shop", "--database", &url, "--dry-run"];
    let run = |more: &[&str]| {
        let mut run = command(&[&base[..], more].concat());
        read(run.args(&reader).env("PGPASSWORD", "secret").output().expect("it runs"))
    };
    let (code, out, err) = run(&["--replace-databases"]);
    assert_eq!(code, 0, "{err}");
    let place = format!("the server {}:5432, as kbak", fixture.server.socket().display());
    assert!(out.contains(&place), "{out}");
    assert!(out.contains("dropped   shop: it exists and is DROPPED first, with its 1 object"), "{out}");
    let (code, out, err) = run(&[]);
    assert_eq!(code, 3, "{err}");
    assert!(out.contains("not restored   shop: ") && out.contains("only with --replace-databases"), "{out}");
    let (code, out, _) = run(&["--replace-databases", "-o", "json"]);
    let shown: serde_json::Value = serde_json::from_str(&out).expect("JSON");
    let database = &shown["items"][0]["databases"][0];
    assert_eq!(
        (code, database["database"].as_str(), database["action"].as_str()),
        (0, Some("shop"), Some("dropped"))
    );
}

#[test]
fn devices_and_owners_that_cannot_be_restored_are_foreseen() {
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let cli = CliRepo::new();
    mknodat(CWD, cli.at("data/null"), FileType::CharacterDevice, Mode::RUSR, rustix::fs::makedev(1, 3))
        .expect("a device");
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let mut args = vec!["--to".to_owned(), cli.text("back")];
    args.extend(cli.reader_args());
    check_agreement(&Situation { name: "a device that is not allowed", args, code: 3 }, &[]);
    let mut args = vec!["--allow".to_owned(), "devices".to_owned(), "--to".to_owned(), cli.text("back2")];
    args.extend(cli.reader_args());
    check_agreement(&Situation { name: "a device that is allowed", args, code: 0 }, &[]);
    std::fs::remove_file(cli.at("data/null")).expect("removed");
    std::fs::create_dir(cli.at("theirs")).expect("a folder");
    good(&["keygen", "--no-passphrase", "-o", &cli.text("unused.key")]);
    let as_nobody = |dry: bool| {
        let mut run = std::process::Command::new("setpriv");
        run.args(["--reuid", "65534", "--regid", "65534", "--clear-groups"]).arg(env!("CARGO_BIN_EXE_kbak"));
        run.args(["restore", "latest", "--to"]).arg(cli.at("theirs").join("back")).args(cli.reader_args());
        read(if dry { run.arg("--dry-run").output() } else { run.output() }.expect("it runs"))
    };
    // The key and the store are the user's to read, the target theirs to write.
    succeeds(std::process::Command::new("chown").args(["-R", "65534:65534"]).args([
        cli.at("theirs"),
        cli.at("keys"),
        cli.at("store"),
    ]));
    let root = cli.at("data").parent().expect("a folder").to_owned();
    crate::support::program::set_mode(&root, 0o755);
    let (dry, out, dry_err) = as_nobody(true);
    let (real, _, err) = as_nobody(false);
    assert_eq!((dry, real), (3, 3), "{out}{dry_err}\n{err}");
    assert!(out.contains("this user cannot set owner and group"), "{out}");
}

#[test]
fn remedies_fit_the_fault_of_a_target() {
    let fixture = Fixture::new();
    let cli = &fixture.cli;
    std::fs::write(cli.at("file"), "").expect("a file");
    let (item, url) = (cli.data_item(), fixture.url("nobody"));
    let away = format!("postgresql://kbak@/postgres?host={}&port=1", fixture.server.socket().display());
    for (args, code, remedy) in [
        (vec!["--item", &item, "--to", "FILE"], 2, "a file is in the place of the target"),
        (vec!["--item", "shop", "--database", &away], 5, "check the host and port of --database"),
        (vec!["--item", "shop", "--database", &url], 2, "check the user and the database of --database"),
    ] {
        let file = cli.text("file");
        let args: Vec<&str> =
            args.into_iter().map(|arg| if arg == "FILE" { file.as_str() } else { arg }).collect();
        let mut run = command(&[&["restore"][..], &args].concat());
        let output = run.args(cli.reader_args()).env("PGPASSWORD", "secret").output().expect("it runs");
        let (ended, _, err) = read(output);
        assert!(ended == code && err.contains(remedy), "{args:?}: {ended}: {err}");
    }
    let config = cli.text("kubeconfig");
    let text = "{apiVersion: v1, kind: Config, current-context: c, contexts: [{name: c, context: {cluster: k}}], \
                clusters: [{name: k, cluster: {server: \"http://127.0.0.1:1\"}}]}";
    std::fs::write(&config, text).expect("a kubeconfig");
    let plan = cli.write_plan(&format!("  cluster: {{kubeconfigFile: \"{config}\"}}\n  resources: {{}}\n"));
    let (code, _, err) = read(command(&["rbac", "--plan", &plan]).output().expect("it runs"));
    assert!(code == 5 && err.contains("check the server of the kubeconfig"), "{code}: {err}");
}
