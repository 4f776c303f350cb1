//! `kbak keys cut-off`: a stolen writer key is revoked in the pin and in the repository.

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::{beneath, kbak};

/// Returns the fingerprint of the writer's key, as the failure lists it.
fn fingerprint(cli: &CliRepo) -> String {
    let (code, _, said) = cut_off(cli, &["--key", "SHA256:none", "--last-good", "1"]);
    assert_eq!(code, 2, "{said}");
    let writer = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    assert!(writer.contains("kbak-manifest-v1"), "{writer}");
    let listed =
        said.split_whitespace().filter(|word| word.starts_with("SHA256:") && *word != "SHA256:none:");
    let pinned: Vec<&str> = listed.collect();
    assert!(pinned.len() >= 2, "the writer's and the owner's: {said}");
    // The pin names the writer first.
    pinned[0].to_owned()
}

fn cut_off(cli: &CliRepo, more: &[&str]) -> (i32, String, String) {
    let reader = cli.reader_args();
    kbak(&[&["keys", "cut-off", "--why", "a node was taken"], more, &as_strs(&reader)[..]].concat())
}

#[test]
fn stolen_key_counts_for_the_last_good_snapshot_only() {
    let cli = CliRepo::new();
    assert_eq!(cli.backup(&[]).0, 0);
    std::fs::write(cli.at("data/two.txt"), "two\n").expect("a file");
    assert_eq!(cli.backup(&[]).0, 0);
    let key = fingerprint(&cli);
    let (code, _, said) = cut_off(&cli, &["--key", &key, "--last-good", "7"]);
    assert!(code == 2 && said.contains("there is no such snapshot"), "{said}");

    let before = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    let (code, _, said) = cut_off(&cli, &["--key", &key, "--last-good", "1"]);
    assert_eq!(code, 0, "{said}");
    let after = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    assert!(after.starts_with(&before) && after.contains("# kbak-cut-off ssh-ed25519 "), "{after}");

    let (_, listed, said) = cli.run_reader(&["snapshots"]);
    assert!(listed.contains("000001") && !listed.contains("000002"), "{listed}{said}");
    // Again: the line is there once.
    assert_eq!(cut_off(&cli, &["--key", &key, "--last-good", "1"]).0, 0);
    let again = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    assert_eq!(again, after);

    // Whoever removes the record from the bucket changes nothing for those who have this pin; for the others the
    // record is enough.
    let records = beneath(&cli.at("store"));
    let records: Vec<_> = records
        .into_iter()
        .filter(|path| path.is_file() && path.to_string_lossy().contains("/trust/"))
        .collect();
    assert!(!records.is_empty());
    std::fs::write(cli.at("keys/old.pub"), &before).expect("the old pin");
    let (repo, old, owner) = (cli.url(), cli.text("keys/old.pub"), cli.text("keys/owner.key"));
    let read_with =
        |pin: &str| kbak(&["snapshots", "--repo", &repo, "--signer", pin, "--identity", &owner]).1;
    assert!(!read_with(&old).contains("000002"));
    records.iter().for_each(|record| std::fs::remove_file(record).expect("removed"));
    assert!(!read_with(&cli.text("keys/kbak.pub")).contains("000002"));
    assert!(read_with(&old).contains("000002"), "this limit is documented in docs/threat-model.md");
}

#[test]
fn pin_is_written_first_though_the_repository_cannot_be_listed() {
    let cli = CliRepo::new();
    let (_, out, err) = cli.backup(&["-o", "json"]);
    let report: serde_json::Value = serde_json::from_str(&out).unwrap_or_else(|_| panic!("{out}{err}"));
    let head = report["snapshot"]["hash"].as_str().expect("a hash").to_owned();
    let key = fingerprint(&cli);
    let before = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    let folder = beneath(&cli.at("store")).into_iter().find(|path| path.ends_with("epochs")).expect("copies");
    let aside = cli.at("aside");
    std::fs::rename(&folder, &aside).expect("moved");
    std::os::unix::fs::symlink(&aside, &folder).expect("a link");

    let (code, _, said) = cut_off(&cli, &["--key", &key, "--last-good", "1"]);
    assert!(code == 4 && said.contains("by their whole hashes"), "{code} {said}");
    assert_eq!(std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin"), before);
    let (code, _, said) = cut_off(&cli, &["--key", &key, "--last-good", &head]);
    assert!(code == 4 && said.contains("does not spread it yet"), "{code} {said}");
    let after = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    assert!(after.starts_with(&before) && after.contains("# kbak-cut-off ssh-ed25519 "), "{after}");
    // Once it can be read, the same command spreads it.
    std::fs::remove_file(&folder).expect("removed");
    std::fs::rename(&aside, &folder).expect("moved");
    let (code, _, said) = cut_off(&cli, &["--key", &key, "--last-good", &head]);
    assert!(code == 0 && said.contains("the repository spreads it"), "{said}");
    assert_eq!(std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin"), after);
}

#[test]
fn backup_refuses_a_signers_file_that_pins_another_key_of_the_writer() {
    let cli = CliRepo::for_plan("nightly");
    let plan = cli.write_plan(&format!("  volumes: [{{path: \"{}\"}}]\n", cli.text("data")));
    assert_eq!(kbak(&["backup", "--plan", &plan]).0, 0);
    let pin = std::fs::read_to_string(cli.at("keys/kbak.pub")).expect("the pin");
    let other = CliRepo::new();
    let others = std::fs::read_to_string(other.at("keys/kbak.pub")).expect("a pin");
    let key_of = |pin: &str| {
        let line = pin.lines().find(|line| line.contains("kbak-manifest-v1")).expect("the writer's line");
        line.split_whitespace().nth(3).expect("a key").to_owned()
    };
    std::fs::write(cli.at("keys/kbak.pub"), pin.replace(&key_of(&pin), &key_of(&others))).expect("written");
    let (code, _, said) = kbak(&["backup", "--plan", &plan]);
    assert!(code == 2 && said.contains("it pins another key of this writer"), "{code} {said}");
    assert!(said.contains("docs/keys.md"), "{said}");
}

#[test]
fn verify_names_the_key_of_a_later_owner_that_is_gone() {
    let cli = CliRepo::new();
    assert_eq!(cli.backup(&[]).0, 0);
    let key = cli.text("keys/carol.key");
    let made =
        crate::support::program::good(&["keygen", "-o", &key, "--no-passphrase", "--comment", "carol"]);
    let carol = String::from_utf8(made.stdout).expect("text");
    let (code, _, said) = cli.run_reader(&["keys", "add", "--owner", carol.trim_end()]);
    assert_eq!(code, 0, "{said}");
    assert_eq!(cli.run_reader(&["verify"]).0, 0);
    let is_wrap = |path: &std::path::PathBuf| path.extension().is_some_and(|end| end == "age");
    let wraps: Vec<_> = beneath(&cli.at("store")).into_iter().filter(is_wrap).collect();
    assert!(!wraps.is_empty());
    wraps.iter().for_each(|wrap| std::fs::remove_file(wrap).expect("removed"));
    let (code, out, said) = cli.run_reader(&["verify"]);
    assert!(code == 4 && out.contains("its owner cannot open this epoch"), "{out}{said}");
    assert!(out.contains("kbak keys add"), "{out}");
    let (code, _, said) = cli.run_reader(&["keys", "add", "--owner", carol.trim_end()]);
    assert_eq!(code, 0, "{said}");
    let (code, out, said) = cli.run_reader(&["verify"]);
    assert_eq!(code, 0, "{out}{said}");
}

#[test]
fn init_join_says_that_its_pin_holds_one_writer() {
    let cli = CliRepo::new();
    let (repo, folder, key) = (cli.url(), cli.text("joined"), cli.text("keys/owner.key"));
    let init = ["init", "--join", "--repo", &repo, "--recipient", &cli.recipient, "--single-owner"];
    let (code, _, said) = kbak(&[&init[..], &["--identity", &key, "--folder", &folder]].concat());
    assert_eq!(code, 0, "{said}");
    assert!(said.contains("added to the repository") && !said.contains("created;"), "{said}");
    assert!(said.contains("pins this writer alone") && said.contains("docs/keys.md"), "{said}");
}
