//! Nested items, and links between the target and the place of an item.

use std::os::unix::fs::symlink;

use crate::support::desk::{Desk, texts};
use crate::support::program::kbak;

/// Backs up these paths.
fn backup(desk: &Desk, paths: &[&str]) {
    let writer = desk.writer();
    let mut args = vec!["backup"];
    paths.iter().for_each(|path| args.extend(["--path", path]));
    let (code, _, err) = kbak(&[&args[..], &texts(&writer)].concat());
    assert_eq!(code, 0, "{err}");
}

fn write(desk: &Desk, name: &str, text: &str) {
    let path = desk.at(name);
    std::fs::create_dir_all(path.parent().expect("a folder")).expect("folders");
    std::fs::write(path, text).expect("a file");
}

fn reads(desk: &Desk, name: &str) -> String {
    std::fs::read_to_string(desk.at(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Returns the place of a desk's folder beneath `to` when several items are restored.
fn placed(desk: &Desk, to: &str, name: &str) -> String {
    format!("{to}{}", desk.text(name))
}

#[test]
fn links_on_the_way_to_an_item_are_not_followed() {
    let desk = Desk::new();
    write(&desk, "outer/data/file", "f");
    write(&desk, "victim/precious", "precious");
    std::fs::rename(desk.at("outer/data"), desk.at("elsewhere")).expect("moved");
    symlink(desk.at("elsewhere"), desk.at("outer/sub")).expect("a link");
    let (outer, sub, data) = (desk.text("outer"), desk.text("outer/sub"), desk.text("data"));
    backup(&desk, &[&outer, &sub]);
    write(&desk, "elsewhere/newer", "newer");
    // The link comes from the backup itself, just before the item whose path goes through it.
    for existing in ["refuse", "skip", "overwrite", "delete-extra"] {
        let to = desk.text(&format!("to.{existing}"));
        let (code, _, err) = desk.reads(&["restore", "--to", &to, "--existing-files", existing]);
        assert!(code == 3 && err.contains("a link stands on the way"), "{existing}: {code} {err}");
        assert!(
            std::fs::symlink_metadata(placed(&desk, &to, "outer/sub")).is_ok_and(|meta| meta.is_symlink())
        );
        assert_eq!(
            (reads(&desk, "elsewhere/newer"), reads(&desk, "elsewhere/file")),
            ("newer".into(), "f".into())
        );
    }

    // The link was planted in the target.
    std::fs::remove_file(desk.at("outer/sub")).expect("gone");
    write(&desk, "outer/more", &"more".repeat(2000));
    std::fs::create_dir(desk.at("planted")).expect("a folder");
    let first = desk.text("data").split('/').nth(1).expect("a name").to_owned();
    symlink(desk.at("victim"), desk.at("planted").join(&first)).expect("a link");
    backup(&desk, &[&outer, &data]);
    let planted = desk.text("planted");
    for dry in [&["--dry-run"][..], &[]] {
        let args = ["restore", "--to", &planted, "--existing-files", "delete-extra"];
        let (code, _, err) = desk.reads(&[&args[..], dry].concat());
        assert!(matches!(code, 2 | 3), "{code} {err}");
    }
    symlink(desk.at("victim"), desk.at("planted/path")).expect("a link");
    let (code, _, err) = desk.reads(&["export", "--to", &planted]);
    assert_eq!(code, 2, "{err}");
    let left: Vec<_> = std::fs::read_dir(desk.at("victim")).expect("a folder").collect();
    assert_eq!((left.len(), reads(&desk, "victim/precious").as_str()), (1, "precious"));
}

#[test]
fn nested_item_is_restored_after_its_parent_and_kept_by_it() {
    let desk = Desk::of_plan("nightly");
    write(&desk, "outer/file", "o");
    write(&desk, "outer/db/file", "d");
    write(&desk, "outer/cache/file", "excluded");
    let (outer, inner) = (desk.text("outer"), desk.text("outer/db"));
    let plan = desk.plan(&format!(
        "  volumes:\n    - path: \"{inner}\"\n    - {{path: \"{outer}\", exclude: [\"/db/**\", \"/cache\"]}}\n"
    ));
    let (code, _, err) = kbak(&["backup", "--plan", &plan]);
    assert_eq!(code, 0, "{err}");
    for existing in ["refuse", "delete-extra", "delete-extra"] {
        let to = desk.text("to");
        let (code, _, err) = desk.reads(&["restore", "--to", &to, "--existing-files", existing]);
        assert_eq!(code, 0, "{existing}: {err}");
        for (name, text) in [("outer/file", "o"), ("outer/db/file", "d")] {
            assert_eq!(std::fs::read_to_string(placed(&desk, &to, name)).expect(name), text);
        }
    }
    // One item alone, into a target that is in use.
    write(&desk, "outer/strange/file", "goes");
    let alone =
        ["restore", "--item", &format!("path{outer}"), "--to", &outer, "--existing-files", "delete-extra"];
    let (code, _, err) = desk.reads(&alone);
    assert_eq!(code, 0, "{err}");
    assert_eq!(
        (reads(&desk, "outer/db/file"), reads(&desk, "outer/cache/file")),
        ("d".into(), "excluded".into())
    );
    assert!(!desk.at("outer/strange").exists());
}
