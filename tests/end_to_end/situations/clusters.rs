//! Clusters: existing objects, namespaces and their rules, rights, selections, options; and files of resources.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Output;

use kbak::kubernetes::Cluster;
use serde_json::{Value, json};

use super::cluster_objects::{
    Admission, Existing, OBJECTS, apply_rules, change_objects, create_objects, take_port_and_volume,
};
use super::{Choices, Verdict, compose, difference, require_none};
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::ControlPlane;
use crate::support::kinds::{create_known_account, define};
use crate::support::memory_backup::create_namespace;
use crate::support::program::command;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Same,
    /// A copy in a new namespace.
    Copy,
    /// A copy in an existing namespace.
    CopyToExisting,
    Files,
    FilesExist,
    FilesInFile,
    FilesInNewFolders,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Selection {
    Namespace,
    Kind,
    Object,
    Labels,
    ObjectWithoutNamespace,
    NoNamespace,
    NoObject,
    NoLabels,
    NoKind,
}

struct Situation {
    states: Vec<Existing>,
    admission: Admission,
    target: Target,
    selection: Selection,
    account: &'static str,
    options: Vec<&'static str>,
    asks_server: bool,
    /// True if the port and the volume of the backup belong to others now.
    is_taken: bool,
}

/// Accounts and their rights besides reading.
const ACCOUNTS: &[&str] = &["admin", "reads", "creates-configmaps", "creates"];

fn situation(choices: &mut Choices) -> Situation {
    use Existing::{Absent, Different, Ending, Immutable, Same};
    let states =
        OBJECTS.iter().map(|(_, plural, _)| choices.pick(plural, &[Absent, Same, Different, Immutable]));
    let mut states: Vec<Existing> = states.collect();
    // It is waited for: seconds.
    let ending = choices.pick("being deleted", &[None, Some(0)]);
    if let Some(at) = ending {
        states[at] = Ending;
    }
    let admission = choices.pick(
        "admission",
        &[Admission::None, Admission::Quota, Admission::PodSecurity, Admission::LimitRange],
    );
    let target = choices.pick(
        "target",
        &[
            Target::Same,
            Target::Copy,
            Target::CopyToExisting,
            Target::Files,
            Target::FilesExist,
            Target::FilesInFile,
            Target::FilesInNewFolders,
        ],
    );
    let selection = choices.pick(
        "selection",
        &[
            Selection::Namespace,
            Selection::Kind,
            Selection::Object,
            Selection::Labels,
            Selection::ObjectWithoutNamespace,
            Selection::NoNamespace,
            Selection::NoObject,
            Selection::NoLabels,
            Selection::NoKind,
        ],
    );
    let account = choices.pick("account", ACCOUNTS);
    let mut options = Vec::new();
    for (option, values) in [
        ("--existing", &["", "skip", "patch", "replace"][..]),
        ("--allow", &["rbac", "", "rbac,crds,privileged"]),
        ("--release", &["", "none", "jobs", "ingress,jobs,volumes"]),
        ("--takeover", &["", "yes"]),
    ] {
        match choices.pick(option, values) {
            "" => {}
            "yes" => options.push(option),
            value => options.extend([option, value]),
        }
    }
    let asks_server = choices.pick("asks the server", &[false, true]) || admission != Admission::None;
    let is_taken = choices.pick("port and volume taken", &[false, true]);
    Situation { states, admission, target, selection, account, options, asks_server, is_taken }
}

/// A control plane with the objects of all situations, and a backup of them.
struct Fixture {
    cli: CliRepo,
    cluster: Cluster,
    /// The kubeconfig of each account.
    accounts: BTreeMap<&'static str, PathBuf>,
    _plane: ControlPlane,
}

impl Fixture {
    async fn new(seeds: impl Iterator<Item = u64>) -> Self {
        let plane = ControlPlane::start(&["--without-controllers"]);
        let (cluster, cli) = (plane.cluster().await, CliRepo::new());
        define(&cluster, "sits.kbak.dev", "v1", "widgets", "Widget", "Namespaced").await;
        for seed in seeds {
            create_objects(&cluster, seed).await;
        }
        cli.backup_cluster(&plane.kubeconfig()).await.ended(0);
        let reads = json!({"apiGroups": ["*"], "resources": ["*"], "verbs": ["get", "list"]});
        let creates = |groups: &str, resources: &str| json!({"apiGroups": [groups], "resources": [resources], "verbs": ["create"]});
        let mut accounts = BTreeMap::from([("admin", plane.kubeconfig())]);
        for (name, rules) in [
            ("reads", json!([reads])),
            ("creates-configmaps", json!([reads, creates("", "configmaps")])),
            ("creates", json!([reads, creates("*", "*")])),
        ] {
            let file = create_known_account(&plane, &cluster, &cli.at(""), name, rules).await;
            accounts.insert(name, file);
        }
        Self { cli, cluster, accounts, _plane: plane }
    }

    /// Makes the state of a situation.
    async fn change(&self, seed: u64, situation: &Situation) {
        let (cluster, space) = (&self.cluster, format!("s{seed}"));
        change_objects(cluster, seed, &situation.states).await;
        if situation.target == Target::CopyToExisting {
            create_namespace(cluster, &format!("{space}-copy")).await;
        }
        if situation.is_taken {
            take_port_and_volume(cluster, seed).await;
        }
        apply_rules(cluster, &space, situation.admission).await;
    }

    fn args(&self, seed: u64, situation: &Situation, files: &Path) -> Vec<String> {
        let space = format!("s{seed}");
        let mut args = vec!["restore".to_owned()];
        args.extend(self.cli.reader_args());
        let mut add = |more: &[&str]| args.extend(more.iter().map(|arg| (*arg).to_owned()));
        let config = self.accounts[situation.account].to_str().expect("UTF-8");
        let is_files = matches!(
            situation.target,
            Target::Files | Target::FilesExist | Target::FilesInFile | Target::FilesInNewFolders
        );
        if is_files {
            add(&["--resources-to", files.to_str().expect("UTF-8")]);
        } else {
            add(&["--cluster", "--kubeconfig", config]);
            add(&situation.options);
        }
        let mapped = match situation.target {
            Target::Copy | Target::CopyToExisting => format!("{space}:{space}-copy"),
            _ => space.clone(),
        };
        let (kind, object) = ("configmaps", format!("configmaps/{space}/settings"));
        match situation.selection {
            Selection::Namespace => add(&["--namespace", &mapped]),
            Selection::Kind => add(&["--namespace", &mapped, "--kind", kind, "--kind", "pods"]),
            Selection::Object => add(&["--namespace", &mapped, "--object", &object]),
            Selection::Labels => add(&["--namespace", &mapped, "--selector", "part in (configmaps, roles)"]),
            Selection::ObjectWithoutNamespace => {
                add(&["--namespace", &mapped, "--object", &format!("persistentvolumes/{space}")]);
            }
            Selection::NoNamespace => add(&["--namespace", &mapped, "--namespace", "nonsense"]),
            Selection::NoObject => add(&["--object", &format!("configmaps/{space}/nonsense")]),
            Selection::NoLabels => add(&["--namespace", &mapped, "--selector", "part=nonsense"]),
            Selection::NoKind => add(&["--namespace", &mapped, "--kind", "nonsense"]),
        }
        args
    }

    async fn check(&self, seed: u64, name: &str, situation: &Situation) -> Option<String> {
        self.change(seed, situation).await;
        let at = |what: &str| self.cli.at(&format!("{what}-{seed}"));
        let mut files = at("files");
        match situation.target {
            Target::FilesExist => {
                let folder = files.join(format!("core/ConfigMap/s{seed}"));
                std::fs::create_dir_all(&folder).expect("folders");
                std::fs::write(folder.join("settings.yaml"), "mine").expect("a file");
            }
            Target::FilesInFile => std::fs::write(&files, "").expect("a file"),
            Target::FilesInNewFolders => files = files.join("a/b"),
            _ => {}
        }
        let args = self.args(seed, situation, &files);
        let run = |report: &Path, more: &[&str]| -> Output {
            command(&args).args(more).arg("--report-file").arg(report).output().expect("it runs")
        };
        let mode = if situation.asks_server { "--dry-run=server" } else { "--dry-run" };
        let (dry_report, real_report, outcomes) = (at("dry"), at("real"), at("outcomes"));
        let dry = run(&dry_report, &[mode, "-o", "json"]);
        let real = run(&real_report, &["--outcomes", outcomes.to_str().expect("UTF-8")]);
        let (foreseen, found) = (foreseen_outcomes(&dry), outcomes_in(&outcomes));
        let differ = foreseen.iter().filter(|(object, outcome)| found.get(*object) != Some(outcome));
        let differ: Vec<String> =
            differ.map(|(object, outcome)| format!("{object}: {outcome}, {:?}", found.get(object))).collect();
        // A run that failed has no outcomes.
        let is_same = differ.is_empty() && (found.is_empty() || foreseen.len() == found.len());
        let verdicts = (Verdict::of_dry_run(&dry, &dry_report), Verdict::of_restore(&real, &real_report));
        let name = if is_same { name.to_owned() } else { format!("{name}: {differ:#?}") };
        difference(&name, (&verdicts.0, &dry), (&verdicts.1, &real)).or((!is_same).then_some(name))
    }
}

fn object_name(object: &Value) -> String {
    let text = |field: &str| object[field].as_str().unwrap_or_default();
    format!("{}/{}/{}", text("resource"), text("namespace"), text("name"))
}

/// Returns the outcome that a dry run foresees for each object.
fn foreseen_outcomes(dry: &Output) -> BTreeMap<String, String> {
    let shown: Value = serde_json::from_slice(&dry.stdout).unwrap_or_default();
    let objects = shown["objects"].as_array().into_iter().flatten();
    let outcome = |object: &Value| {
        let waits = object["waits"].as_array().into_iter().flatten();
        let is_ending = waits.into_iter().any(|wait| wait["for"] == "ending" || wait["for"] == "terminating");
        if object["grade"] == "refused" || is_ending {
            return "failed";
        }
        match (object["action"].as_str().unwrap_or_default(), object["why"].as_str().unwrap_or_default()) {
            ("create", _) => "created",
            ("leave", _) => "existed",
            ("patch", _) => "patched",
            ("replace", _) => "replaced",
            ("skip", _) => "skipped",
            ("refuse", _) => "refused",
            ("hold", _) => "held",
            ("conflict", "differs") => "differs",
            ("conflict", "collides") => "collides",
            ("conflict", "unserved") => "unserved",
            _ => "failed",
        }
    };
    objects.map(|object| (object_name(object), outcome(object).to_owned())).collect()
}

/// Returns the outcomes of a restore by the file of `--outcomes`.
fn outcomes_in(file: &Path) -> BTreeMap<String, String> {
    let text = std::fs::read_to_string(file).unwrap_or_default();
    let lines = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    lines.map(|line| (object_name(&line), line["outcome"].as_str().expect("an outcome").to_owned())).collect()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn dry_runs_into_clusters_agree_with_restores_in_generated_situations() {
    let situations = compose(20, situation);
    let fixture = Fixture::new(situations.iter().map(|(seed, ..)| *seed)).await;
    let mut differences = Vec::new();
    for (seed, name, situation) in &situations {
        differences.extend(fixture.check(*seed, name, situation).await);
    }
    require_none("clusters", &differences, situations.len());
}
