//! Nested items, and links between the target and the place of an item.

use std::os::unix::fs::symlink;

use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::kbak;

/// Backs up these paths.
fn backup(cli: &CliRepo, paths: &[&str]) {
    let writer = cli.writer_args();
    let mut args = vec!["backup"];
    paths.iter().for_each(|path| args.extend(["--path", path]));
    let (code, _, err) = kbak(&[&args[..], &as_strs(&writer)].concat());
    assert_eq!(code, 0, "{err}");
}

fn write(cli: &CliRepo, name: &str, text: &str) {
    let path = cli.at(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    std::fs::write(path, text).expect("a file");
}

fn read_file(cli: &CliRepo, name: &str) -> String {
    std::fs::read_to_string(cli.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the place of a folder beneath `to` when several items are restored.
fn restored_path(cli: &CliRepo, to: &str, name: &str) -> String {
    format!("{to}{}", cli.text(name))
}

#[test]
fn links_on_the_way_to_an_item_are_not_followed() {
    let cli = CliRepo::new();
    write(&cli, "outer/data/file", "f");
    write(&cli, "victim/precious", "precious");
    std::fs::rename(cli.at("outer/data"), cli.at("elsewhere")).expect("moved");
    symlink(cli.at("elsewhere"), cli.at("outer/sub")).expect("a link");
    let (outer, sub, data) = (cli.text("outer"), cli.text("outer/sub"), cli.text("data"));
    backup(&cli, &[&outer, &sub]);
    write(&cli, "elsewhere/newer", "newer");
    // The link comes from the backup itself, just before the item whose path goes through it.
    for existing in ["refuse", "skip", "overwrite", "delete-extra"] {
        let to = cli.text(&format!("to.{existing}"));
        let (code, _, err) = cli.run_reader(&["restore", "--to", &to, "--existing-files", existing]);
        assert!(code == 3 && err.contains("a link stands on the way"), "{existing}: {code} {err}");
        assert!(
            std::fs::symlink_metadata(restored_path(&cli, &to, "outer/sub"))
                .is_ok_and(|meta| meta.is_symlink())
        );
        assert_eq!(
            (read_file(&cli, "elsewhere/newer"), read_file(&cli, "elsewhere/file")),
            ("newer".into(), "f".into())
        );
    }

    // The link was planted in the target.
    std::fs::remove_file(cli.at("outer/sub")).expect("gone");
    write(&cli, "outer/more", &"more".repeat(2000));
    std::fs::create_dir(cli.at("planted")).expect("a folder");
    let first = cli.text("data").split('/').nth(1).expect("a name").to_owned();
    symlink(cli.at("victim"), cli.at("planted").join(&first)).expect("a link");
    backup(&cli, &[&outer, &data]);
    let planted = cli.text("planted");
    for dry in [&["--dry-run"][..], &[]] {
        let args = ["restore", "--to", &planted, "--existing-files", "delete-extra"];
        let (code, _, err) = cli.run_reader(&[&args[..], dry].concat());
        assert!(matches!(code, 2 | 3), "{code} {err}");
    }
    symlink(cli.at("victim"), cli.at("planted/path")).expect("a link");
    let (code, _, err) = cli.run_reader(&["export", "--to", &planted]);
    assert_eq!(code, 2, "{err}");
    let left: Vec<_> = std::fs::read_dir(cli.at("victim")).expect("a folder").collect();
    assert_eq!((left.len(), read_file(&cli, "victim/precious").as_str()), (1, "precious"));
}

#[test]
fn nested_item_is_restored_after_its_parent_and_kept_by_it() {
    let cli = CliRepo::for_plan("nightly");
    write(&cli, "outer/file", "o");
    write(&cli, "outer/db/file", "d");
    write(&cli, "outer/cache/file", "excluded");
    let (outer, inner) = (cli.text("outer"), cli.text("outer/db"));
    let plan = cli.write_plan(&format!(
        "  volumes:\n    - path: \"{inner}\"\n    - {{path: \"{outer}\", exclude: [\"/db/**\", \"/cache\"]}}\n"
    ));
    let (code, _, err) = kbak(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{err}");
    for existing in ["refuse", "delete-extra", "delete-extra"] {
        let to = cli.text("to");
        let (code, _, err) = cli.run_reader(&["restore", "--to", &to, "--existing-files", existing]);
        assert_eq!(code, 0, "{existing}: {err}");
        for (name, text) in [("outer/file", "o"), ("outer/db/file", "d")] {
            assert_eq!(std::fs::read_to_string(restored_path(&cli, &to, name)).expect(name), text);
        }
    }
    // One item alone, into a target that is in use.
    write(&cli, "outer/strange/file", "goes");
    let alone =
        ["restore", "--item", &format!("path{outer}"), "--to", &outer, "--existing-files", "delete-extra"];
    let (code, _, err) = cli.run_reader(&alone);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        (read_file(&cli, "outer/db/file"), read_file(&cli, "outer/cache/file")),
        ("d".into(), "excluded".into())
    );
    assert!(!cli.at("outer/strange").exists());
}
