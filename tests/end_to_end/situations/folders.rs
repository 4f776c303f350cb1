//! Folders: targets, existing files, selections, snapshots, keys and users.

use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use rustix::fs::{FlockOperation, flock};

use super::{Choices, Verdict, compose, difference, require_none};
use crate::support::cli_repo::CliRepo;
use crate::support::program::{beneath, command, good, read, set_mode, succeeds};

/// The account of nobody, as which most restores run: root may write everywhere.
const NOBODY: u32 = 65_534;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Absent,
    AbsentParents,
    Empty,
    NotEmpty,
    SameFiles,
    OtherTypes,
    File,
    BelowFile,
    LinkToEmpty,
    LinkToNotEmpty,
    DanglingLink,
    Locked,
    ReadOnly,
    InReadOnly,
    Tar,
    None,
}

const TARGETS: &[Target] = &[
    Target::Absent,
    Target::AbsentParents,
    Target::Empty,
    Target::NotEmpty,
    Target::SameFiles,
    Target::OtherTypes,
    Target::File,
    Target::BelowFile,
    Target::LinkToEmpty,
    Target::LinkToNotEmpty,
    Target::DanglingLink,
    Target::Locked,
    Target::ReadOnly,
    Target::InReadOnly,
    Target::Tar,
    Target::None,
];

#[derive(Debug, Clone, Copy)]
enum Store {
    Right,
    Absent,
    WithoutRepository,
    OfAnother,
    /// The writer's key was revoked after the first snapshot.
    Revoked,
    DamagedManifest,
}

#[derive(Debug, Clone, Copy)]
enum Key {
    Right,
    OfAnother,
    NoFile,
    NotGiven,
}

const KEYS: &[Key] = &[Key::Right, Key::OfAnother, Key::NoFile, Key::NotGiven];

struct Situation {
    target: Target,
    existing: &'static str,
    /// Items by their names in [`Fixture::item`]; none for all.
    items: &'static [&'static str],
    paths: &'static [&'static str],
    snapshot: &'static str,
    store: Store,
    identity: Key,
    signer: Key,
    is_root: bool,
}

fn situation(choices: &mut Choices) -> Situation {
    use Store::{Absent, DamagedManifest, OfAnother, Revoked, Right, WithoutRepository};
    const ITEMS: &[&[&str]] = &[
        &["data"],
        &["data", "more"],
        &["gone"],
        &["data", "gone"],
        &["theirs"],
        &["data", "theirs"],
        &["data", "data"],
        &["nonsense"],
        &["data", "nonsense"],
        &[],
    ];
    const PATHS: &[&[&str]] = &[
        &[],
        &["one.txt"],
        &["deep"],
        &["deep/two.txt", "deep"],
        &["two.txt"],
        &["two.txt", "one.txt"],
        &["one.txt/below"],
        &["./one.txt"],
        &["/one.txt"],
        &["."],
        &[""],
        &["../data/one.txt"],
    ];
    Situation {
        target: choices.pick("target", TARGETS),
        existing: choices.pick("existing files", &["refuse", "skip", "overwrite", "delete-extra"]),
        items: choices.pick("items", ITEMS),
        paths: choices.pick("paths", PATHS),
        snapshot: choices.pick("snapshot", &["1", "latest", "000002", "77", "abcdef", "-1", ""]),
        store: choices
            .pick("store", &[Right, Absent, WithoutRepository, OfAnother, Revoked, DamagedManifest]),
        identity: choices.pick("identity", KEYS),
        signer: choices.pick("signer", KEYS),
        is_root: choices.pick("root", &[false, true]),
    }
}

/// A repository whose first snapshot has four folders, and whose second lacks one; copies of it with faults.
struct Fixture {
    cli: CliRepo,
    other: CliRepo,
}

impl Fixture {
    fn new() -> Self {
        let cli = CliRepo::for_plan("nightly");
        for folder in ["data/deep", "more", "gone", "theirs"] {
            std::fs::create_dir(cli.at(folder)).expect("a folder");
        }
        for file in ["data/deep/two.txt", "more/one.txt", "gone/one.txt", "theirs/one.txt"] {
            std::fs::write(cli.at(file), file).expect("a file");
        }
        if is_root() {
            give_away(&["data", "more", "gone"].map(|folder| cli.at(folder)));
        }
        let folders =
            ["data", "more", "gone", "theirs"].map(|folder| format!("{{path: \"{}\"}}", cli.text(folder)));
        let plan = cli.write_plan(&format!("  volumes: [{}]\n", folders.join(", ")));
        good(&["backup", "--plan", &plan]);
        std::fs::remove_dir_all(cli.at("gone")).expect("removed");
        let (code, _, err) = read(command(&["backup", "--plan", &plan]).output().expect("it runs"));
        assert_eq!(code, 3, "one folder is not there: {err}");
        for copy in ["revoked", "damaged"] {
            succeeds(Command::new("cp").arg("-a").args([cli.at("store"), cli.at(copy)]));
        }
        std::fs::copy(cli.at("keys/kbak.pub"), cli.at("keys/revoked.pub")).expect("copied");
        let fixture = Self { cli, other: CliRepo::new() };
        fixture.revoke();
        fixture.damage();
        fixture.give_to_nobody();
        fixture
    }

    /// Revokes the writer's key in one copy, all but its first snapshot.
    fn revoke(&self) {
        let cli = &self.cli;
        let pin = std::fs::read_to_string(cli.at("keys/revoked.pub")).expect("the pin");
        let line = pin.lines().find(|line| line.contains("kbak-manifest-v1")).expect("the writer");
        let (_, key) = line.split_once("ssh-ed25519 ").expect("a key");
        let key = format!("ssh-ed25519 {}", key.split(' ').next().expect("a key"));
        let args = ["keys", "cut-off", "--key", &key, "--last-good", "1", "--why", "taken"];
        let (repo, pin) = (format!("file://{}", cli.text("revoked")), cli.text("keys/revoked.pub"));
        let reader = ["--repo", &repo, "--signer", &pin, "--identity", &cli.text("keys/owner.key")];
        good(&[&args[..], &reader].concat());
    }

    fn damage(&self) {
        let is_manifest = |path: &PathBuf| path.is_file() && path.to_string_lossy().contains("/snapshots/");
        let manifests: Vec<PathBuf> =
            beneath(&self.cli.at("damaged")).into_iter().filter(is_manifest).collect();
        assert_eq!(manifests.len(), 2, "one of each snapshot");
        manifests.iter().for_each(|manifest| std::fs::write(manifest, "").expect("damaged"));
    }

    fn give_to_nobody(&self) {
        if !is_root() {
            return;
        }
        for cli in [&self.cli, &self.other] {
            set_mode(&cli.at(""), 0o755);
            give_away(&["keys", "store"].map(|name| cli.at(name)));
        }
        give_away(&["revoked", "damaged"].map(|name| self.cli.at(name)));
    }

    fn item(&self, name: &str) -> String {
        format!("path{}", self.cli.text(name))
    }

    /// Prepares the target of a seed and returns its path, and what has to be held meanwhile.
    fn prepare(&self, seed: u64, target: Target) -> (PathBuf, Option<std::fs::File>) {
        let home = self.cli.at(&format!("target-{seed}"));
        std::fs::create_dir(&home).expect("a folder");
        let to = home.join("to");
        let create = |path: &Path| std::fs::create_dir_all(path).expect("a folder");
        // Targets of one item, and of several.
        let below = ["data", "more", "gone", "theirs"].map(|name| {
            let path = self.cli.text(name);
            to.join(path.trim_start_matches('/'))
        });
        let places = || below.iter().map(PathBuf::as_path).chain([to.as_path()]);
        let mut held = None;
        match target {
            Target::Absent | Target::Tar | Target::None => {}
            Target::AbsentParents => return (to.join("a/b/c"), None),
            Target::Empty | Target::ReadOnly | Target::Locked => create(&to),
            Target::NotEmpty => places().for_each(|place| {
                create(place);
                std::fs::write(place.join("mine"), "mine").expect("a file");
            }),
            Target::SameFiles => places().for_each(|place| {
                create(&place.join("deep"));
                for file in ["one.txt", "deep/two.txt"] {
                    std::fs::write(place.join(file), "another text").expect("a file");
                }
            }),
            Target::OtherTypes => places().for_each(|place| {
                create(&place.join("one.txt/full"));
                std::fs::write(place.join("deep"), "a file").expect("a file");
            }),
            Target::File => std::fs::write(&to, "").expect("a file"),
            Target::BelowFile => {
                std::fs::write(&to, "").expect("a file");
                give_away_if_root(&home);
                return (to.join("below"), None);
            }
            Target::LinkToEmpty | Target::LinkToNotEmpty | Target::DanglingLink => {
                symlink("real", &to).expect("a link");
                if target != Target::DanglingLink {
                    create(&home.join("real"));
                }
                if target == Target::LinkToNotEmpty {
                    std::fs::write(home.join("real/mine"), "mine").expect("a file");
                }
            }
            Target::InReadOnly => {}
        }
        give_away_if_root(&home);
        match target {
            Target::ReadOnly => set_mode(&to, 0o555),
            Target::InReadOnly => set_mode(&home, 0o555),
            Target::Locked => {
                let folder = std::fs::File::open(&to).expect("a folder");
                flock(&folder, FlockOperation::LockExclusive).expect("a lock");
                held = Some(folder);
            }
            _ => {}
        }
        (to, held)
    }

    fn args(&self, situation: &Situation, to: &Path) -> Vec<String> {
        let (cli, other) = (&self.cli, &self.other);
        let mut args = vec!["restore".to_owned(), "--".to_owned()];
        if !situation.snapshot.starts_with('-') {
            args.pop();
        }
        args.push(situation.snapshot.to_owned());
        let mut options = Vec::new();
        let mut add = |name: &str, value: String| options.extend([name.to_owned(), value]);
        for item in situation.items {
            add("--item", self.item(item));
        }
        for path in situation.paths {
            add("--path", (*path).to_owned());
        }
        let repo = match situation.store {
            Store::Right => cli.url(),
            Store::Absent => format!("{}-absent", cli.url()),
            Store::WithoutRepository => format!("file://{}", cli.text("data")),
            Store::OfAnother => other.url(),
            Store::Revoked => format!("file://{}", cli.text("revoked")),
            Store::DamagedManifest => format!("file://{}", cli.text("damaged")),
        };
        add("--repo", repo);
        let pin =
            if matches!(situation.store, Store::Revoked) { "keys/revoked.pub" } else { "keys/kbak.pub" };
        let key = |key: Key, name: &str| match key {
            Key::Right => Some(cli.text(name)),
            Key::OfAnother => Some(other.text(name).replace("revoked.pub", "kbak.pub")),
            Key::NoFile => Some(cli.text("no-such-key")),
            Key::NotGiven => None,
        };
        for (option, given) in [
            ("--signer", key(situation.signer, pin)),
            ("--identity", key(situation.identity, "keys/owner.key")),
        ] {
            if let Some(file) = given {
                add(option, file);
            }
        }
        add("--existing-files", situation.existing.to_owned());
        match situation.target {
            Target::Tar => options.push("--tar".to_owned()),
            Target::None => {}
            _ => add("--to", to.to_str().expect("UTF-8").to_owned()),
        }
        // Options come first: a number below zero is a snapshot only after `--`.
        args.splice(1..1, options);
        args
    }

    fn check(&self, seed: u64, name: &str, situation: &Situation) -> Option<String> {
        let (to, _held) = self.prepare(seed, situation.target);
        let args = self.args(situation, &to);
        let run = |report: &Path, more: &[&str]| -> Output {
            let mut run = as_user(situation.is_root);
            run.args(&args[..1]).args(more).arg("--report-file").arg(report).args(&args[1..]);
            run.output().expect("it runs")
        };
        let reports = ["dry", "real"].map(|name| self.cli.at(&format!("reports-{seed}")).join(name));
        let folder = self.cli.at(&format!("reports-{seed}"));
        std::fs::create_dir(&folder).expect("a folder");
        give_away_if_root(&folder);
        let dry = run(&reports[0], &["--dry-run", "-o", "json"]);
        let real = run(&reports[1], &[]);
        let verdicts = (Verdict::of_dry_run(&dry, &reports[0]), Verdict::of_restore(&real, &reports[1]));
        // Without any target, a dry run shows what there is; with a tar stream, standard output is not a report.
        if situation.target == Target::None && verdicts.0.code != verdicts.1.code {
            let is_documented = verdicts.0.failure.is_none() && verdicts.1.code == 2;
            return (!is_documented).then(|| format!("{name}: {verdicts:?}"));
        }
        difference(name, (&verdicts.0, &dry), (&verdicts.1, &real))
    }
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

fn give_away(paths: &[PathBuf]) {
    succeeds(Command::new("chown").arg("-hR").arg(format!("{NOBODY}:{NOBODY}")).args(paths));
}

fn give_away_if_root(path: &Path) {
    if is_root() {
        give_away(&[path.to_owned()]);
    }
}

/// Returns the program, run by root or by nobody; by the tester if they are not root.
fn as_user(root: bool) -> Command {
    if root || !is_root() {
        return command::<&str>(&[]);
    }
    let mut run = Command::new("setpriv");
    let (user, group) = (format!("--reuid={NOBODY}"), format!("--regid={NOBODY}"));
    run.args([&user, &group, "--clear-groups", "--", env!("CARGO_BIN_EXE_kbak")]);
    run
}

#[test]
fn dry_runs_of_folders_agree_with_restores_in_generated_situations() {
    let fixture = Fixture::new();
    let situations = compose(60, situation);
    let check = |(seed, name, situation): &(u64, String, Situation)| fixture.check(*seed, name, situation);
    let differences: Vec<String> = situations.iter().filter_map(check).collect();
    require_none("folders", &differences, situations.len());
}
