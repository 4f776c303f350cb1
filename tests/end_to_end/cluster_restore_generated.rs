//! Generated objects: deep and wide, with odd names, owners, finalizers and deletions. A restore brings them
//! back, and a second one, a replacement and a comparison find no difference, in a bounded number of steps.

use std::time::Duration;

use kbak::kubernetes::{Cluster, steps_so_far};
use kbak::target::kubernetes::{ExistingPolicy, Permission, RestoreConfig, WaitLimits};
use serde_json::{Map, Value, json};

use crate::support::backup_builder::restore;
use crate::support::cli_repo::CliRepo;
use crate::support::control_plane::{ControlPlane, create, delete};
use crate::support::kinds::define;
use crate::support::memory_backup::{create_namespace, read};
use crate::support::program::{Run, at_full_size, print_figure};
use crate::support::proxy::Proxy;

/// The objects of one run.
fn count() -> usize {
    if at_full_size() { 2000 } else { 100 }
}

/// The longest time of one command, for a run that hangs. A run takes seconds.
const DEADLINE: Duration = Duration::from_secs(240);
/// The most requests for one object in one restore: look, ask twice, write, link, give back.
const MAX_REQUESTS: u64 = 8;
/// The most steps of walks for one byte of the backup.
const MAX_STEPS: u64 = 4;

/// A generator of numbers (xorshift64*), so that a seed gives the same objects.
struct Numbers(u64);

impl Numbers {
    fn below(&mut self, end: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33) as usize % end
    }

    fn chance(&mut self, one_in: usize) -> bool {
        self.below(one_in) == 0
    }

    fn pick<T: Copy>(&mut self, all: &[T]) -> T {
        all[self.below(all.len())]
    }
}

const TEXTS: [&str; 10] = [
    "",
    "yes",
    "1e3",
    "ünïcødé ✓",
    "line\nbreak",
    "\"quoted\" \\ back",
    "\u{1}\u{7f}",
    "~0/~1",
    "{{ x }}",
    "- a: b",
];
const KEYS: [&str; 9] = ["a", "b", "a/b", "x.y/z", "~", "*", "ключ", "with space", "-"];

fn value(numbers: &mut Numbers, depth: usize) -> Value {
    match numbers.below(if depth == 0 { 4 } else { 8 }) {
        0 => json!(numbers.pick(&TEXTS)),
        1 => json!(numbers.below(1 << 30) as i64 - (1 << 29)),
        2 => json!(numbers.chance(2)),
        3 => numbers.pick(&[0.5, 1e-7, 123_456.789]).into(),
        4 | 5 => (0..numbers.below(4)).map(|_| value(numbers, depth - 1)).collect(),
        _ => {
            let fields =
                (0..numbers.below(5)).map(|_| (numbers.pick(&KEYS).to_owned(), value(numbers, depth - 1)));
            Value::Object(fields.collect::<Map<_, _>>())
        }
    }
}

/// Returns a value with lists nested to this depth, beside a random one on each level.
fn nested(numbers: &mut Numbers, depth: usize) -> Value {
    let mut inner = value(numbers, 2);
    for _ in 0..depth {
        inner = json!([inner, value(numbers, 1)]);
    }
    inner
}

/// Returns a name: short, long, with dots, like a number.
fn name(numbers: &mut Numbers, number: usize) -> String {
    match numbers.below(5) {
        0 => number.to_string(),
        1 => format!("a.b-c.{number}"),
        2 => format!("{}{number}", "x".repeat(200)),
        3 => format!("0x{number:x}"),
        _ => format!("n-{number}"),
    }
}

struct Generated {
    path: String,
    name: String,
    /// True if it is deleted before the backup, and a finalizer holds it.
    is_ending: bool,
}

/// The kinds: path without namespace, `apiVersion`, `kind`.
const KINDS: [(&str, &str, &str, &str); 5] = [
    ("/api/v1", "configmaps", "v1", "ConfigMap"),
    ("/api/v1", "secrets", "v1", "Secret"),
    ("/api/v1", "services", "v1", "Service"),
    ("/api/v1", "serviceaccounts", "v1", "ServiceAccount"),
    ("/apis/gen.kbak.dev/v1", "deeps", "gen.kbak.dev/v1", "Deep"),
];

fn content(numbers: &mut Numbers, kind: &str) -> Value {
    match kind {
        "ConfigMap" => {
            let size = numbers.pick(&[0, 10, 10_000, 200_000]);
            json!({"data": {"text": numbers.pick(&TEXTS), "filler": "x".repeat(size)}, "binaryData": {"b": "AAEC"}})
        }
        "Secret" => json!({"stringData": {"password": numbers.pick(&TEXTS)}}),
        "Service" => {
            let kind = numbers.pick(&["ClusterIP", "ClusterIP", "NodePort"]);
            // A cluster has some 2,700 node ports.
            let most = if kind == "NodePort" { 3 } else { 60 };
            let ports: Vec<Value> = (0..=numbers.below(most))
                .map(|at| json!({"name": format!("p{at}"), "port": 1000 + at, "targetPort": 1}))
                .collect();
            json!({"spec": {"type": kind, "ports": ports}})
        }
        "Deep" => {
            let depth = numbers.pick(&[1, 5, 40, 100]);
            json!({"spec": {"nested": nested(numbers, depth), "value": value(numbers, 6)}})
        }
        _ => json!({}),
    }
}

/// Creates the objects, each perhaps owned by an earlier one of its namespace.
async fn generate(cluster: &Cluster, seed: u64) -> Vec<Generated> {
    let mut numbers = Numbers(seed);
    let spaces = ["gen-a", "gen-b", "gen-c"];
    for space in spaces {
        create_namespace(cluster, space).await;
    }
    define(cluster, "gen.kbak.dev", "v1", "deeps", "Deep", "Namespaced").await;
    let (mut made, mut owners) = (Vec::new(), Vec::<(&str, Value)>::new());
    for number in 0..count() {
        let (root, plural, version, kind) = numbers.pick(&KINDS);
        let space = numbers.pick(&spaces);
        // Names of Services are the shortest.
        let name = if kind == "Service" { format!("s{number}") } else { name(&mut numbers, number) };
        let mut object = content(&mut numbers, kind);
        object["apiVersion"] = json!(version);
        object["kind"] = json!(kind);
        let mut metadata = json!({"name": name, "labels": {"number": number.to_string()},
            "annotations": {"text": numbers.pick(&TEXTS), "long": "y".repeat(numbers.pick(&[0, 100, 50_000]))}});
        if numbers.chance(3) && !owners.is_empty() {
            let (of, owner) = owners[numbers.below(owners.len())].clone();
            if of == space {
                metadata["ownerReferences"] = json!([owner]);
            }
        }
        let is_ending = numbers.chance(10);
        if is_ending || numbers.chance(5) {
            metadata["finalizers"] = json!(["gen.kbak.dev/hold"]);
        }
        object["metadata"] = metadata;
        let path = format!("{root}/namespaces/{space}/{plural}");
        let created = create(cluster, &path, object).await;
        let owner =
            json!({"apiVersion": version, "kind": kind, "name": name, "uid": created["metadata"]["uid"]});
        let path = format!("{path}/{name}");
        if is_ending {
            delete(cluster, &path).await;
        } else {
            owners.push((space, owner));
        }
        made.push(Generated { path, name, is_ending });
    }
    made
}

/// Runs a restore before the deadline; returns it with the number of requests that it made.
async fn restored(cli: &CliRepo, proxy: &Proxy, more: &[&str]) -> (Run, u64) {
    let before = proxy.total();
    let allowed = [&["--takeover", "--allow", "rbac,crds,apiservices,webhooks,privileged"], more].concat();
    let kubeconfig = proxy.kubeconfig();
    let run = cli.restore_cluster(&kubeconfig, &allowed);
    let run = tokio::time::timeout(DEADLINE, run).await.unwrap_or_else(|_| panic!("{more:?} hangs"));
    (run.ended(0), proxy.total() - before)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn generated_objects_are_restored_twice_without_a_difference() {
    let seed = std::env::var("KBAK_TEST_SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or(18);
    let old = ControlPlane::start(&["--without-controllers"]);
    let source = old.cluster().await;
    let made = generate(&source, seed).await;
    let ending = made.iter().filter(|one| one.is_ending).count();
    assert!(ending > 0 && ending < made.len() / 2, "seed {seed}");
    let cli = CliRepo::new();
    let backup =
        tokio::time::timeout(DEADLINE, cli.backup_cluster(&old.kubeconfig())).await.expect("no hang");
    backup.ended(0);
    let (held, _) = read(&source).await;
    drop(old);

    let new = ControlPlane::start(&["--without-controllers"]);
    let proxy = Proxy::in_front_of(&new.kubeconfig(), |_| None).await;
    let (first, requests) = restored(&cli, &proxy, &[]).await;
    let said = first.all_output();
    let left_out = first.stderr.matches("was being deleted when the backup was made").count();
    assert_eq!(left_out, 1, "{said}");
    let most = MAX_REQUESTS * made.len() as u64 + 500;
    assert!(requests <= most, "{requests} requests for {} objects", made.len());
    for more in [&[][..], &["--existing", "patch"], &["--existing", "replace"], &[]] {
        let (run, requests) = restored(&cli, &proxy, more).await;
        assert!(requests <= most, "{more:?}: {requests} requests for {} objects", made.len());
        let objects = run.report["items"][0]["objects"].as_array().cloned().unwrap_or_default();
        let changed: Vec<&Value> =
            objects.iter().filter(|one| one["outcome"] != "existed" && one["outcome"] != "skipped").collect();
        assert_eq!(changed, Vec::<&Value>::new(), "{more:?}, seed {seed}");
        assert!(
            run.report["items"][0]["summary"]
                .as_str()
                .is_some_and(|text| text.starts_with("0 objects created"))
        );
    }
    compare_live(&cli, &new, &made, seed).await;

    // The same in this process, where the steps of all walks are counted.
    let bytes: usize = held.kinds.iter().flat_map(|(_, lines)| lines).map(|line| line.len()).sum();
    let target = new.cluster().await;
    for existing in [None, Some(ExistingPolicy::Replace)] {
        let config = RestoreConfig {
            takeover: true,
            existing,
            allow: Permission::ALL.into(),
            waits: WaitLimits { max_idle_rounds: 0, ..WaitLimits::default() },
            ..RestoreConfig::default()
        };
        let before = steps_so_far();
        let run = tokio::time::timeout(DEADLINE, restore(&target, &held, &config)).await.expect("no hang");
        assert!(run.0.expect("a report").is_whole(), "seed {seed}");
        let steps = steps_so_far() - before;
        assert!(steps <= MAX_STEPS * bytes as u64, "{steps} steps for {bytes} bytes, seed {seed}");
        print_figure(&format!("{} generated objects: {steps} steps for {bytes} bytes", made.len()));
    }
}

/// Compares the snapshot with the new cluster: only the objects that were being deleted are missing.
async fn compare_live(cli: &CliRepo, new: &ControlPlane, made: &[Generated], seed: u64) {
    let kubeconfig = new.kubeconfig();
    let mut args = vec!["diff", "latest", "--live", "-o", "json", "--kubeconfig"];
    args.push(kubeconfig.to_str().expect("UTF-8"));
    let reader = cli.reader_args();
    args.extend(reader.iter().map(String::as_str));
    let mut command = tokio::process::Command::from(crate::support::program::command(&args));
    let output = tokio::time::timeout(DEADLINE, command.output()).await.expect("no hang").expect("it runs");
    let text = String::from_utf8_lossy(&output.stdout);
    let rows = text.lines().map(|line| serde_json::from_str::<Value>(line).expect("JSON"));
    let mut missing: Vec<String> =
        made.iter().filter(|one| one.is_ending).map(|one| one.name.clone()).collect();
    let mut found = Vec::new();
    for row in rows {
        let path = row["path"].as_str().unwrap_or_default();
        if let Some((_, name)) = path.split_once('/').filter(|(space, _)| space.starts_with("gen-")) {
            assert_eq!(row["change"], "removed", "{row}, seed {seed}");
            found.push(name.to_owned());
        }
    }
    missing.sort();
    found.sort();
    assert_eq!(found, missing, "{}", String::from_utf8_lossy(&output.stderr));
    let paths: std::collections::BTreeSet<&str> = made.iter().map(|one| one.path.as_str()).collect();
    assert_eq!(paths.len(), made.len(), "each object has a name of its own");
}
