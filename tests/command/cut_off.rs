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
