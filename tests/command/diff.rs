//! `diff` of two snapshots of a folder: files that look the same from outside are compared by their bytes.

use std::path::Path;

use rustix::fs::XattrFlags;

use super::lifecycle::json;
use crate::support::cli_repo::{CliRepo, as_strs};
use crate::support::program::good;

/// Returns the exit code of `diff` and its rows: change, path, details.
fn rows(cli: &CliRepo, from: &str, to: &str) -> (i32, Vec<(String, String, String)>) {
    let (code, out, err) = cli.run_reader(&["diff", from, to, "-o", "json"]);
    assert!(code < 2, "{code}: {err}");
    assert_eq!(code == 0, err.contains("no difference"), "{err}");
    let text = |value: &serde_json::Value| value.as_str().expect("text").to_owned();
    let what = |row: &serde_json::Value| {
        row["what"]
            .as_array()
            .map_or_else(String::new, |all| all.iter().map(text).collect::<Vec<_>>().join(", "))
    };
    let rows = out.lines().map(json).map(|row| (text(&row["change"]), text(&row["path"]), what(&row)));
    (code, rows.collect())
}

fn changed(path: &str, what: &str) -> (String, String, String) {
    ("changed".to_owned(), path.to_owned(), what.to_owned())
}

fn backed_up(cli: &CliRepo) {
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
}

fn another_epoch(cli: &CliRepo) {
    good(&[&["epoch", "new"], &as_strs(&cli.writer_args())[..]].concat());
}

/// Rewrites a file in place and resets its modification time.
fn rewrite(path: &Path, bytes: &[u8]) {
    let before = std::fs::metadata(path).expect("the file");
    assert_eq!(before.len(), bytes.len() as u64);
    std::fs::write(path, bytes).expect("written");
    let file = std::fs::File::options().write(true).open(path).expect("the file");
    file.set_modified(before.modified().expect("a time")).expect("its time");
}

/// Returns a repository and `count` small files beside its own one.
fn many(count: usize) -> CliRepo {
    let cli = CliRepo::new();
    for number in 0..count {
        let text = format!("file {number} {}\n", "x".repeat(number % 700));
        std::fs::write(cli.at(&format!("data/{number:04}")), text).expect("a file");
    }
    cli
}

/// Returns bytes without repeated chunks.
fn noise(length: usize) -> Vec<u8> {
    let mut bytes = vec![0; length];
    blake3::Hasher::new().finalize_xof().fill(&mut bytes);
    bytes
}

#[test]
fn single_file_rewritten_with_the_same_mtime_is_a_difference() {
    let cli = CliRepo::new();
    backed_up(&cli);
    rewrite(&cli.at("data/one.txt"), b"two\n");
    backed_up(&cli);
    assert_eq!(rows(&cli, "1", "2"), (1, vec![changed("one.txt", "content")]));
    let (code, out, err) = cli.run_reader(&["diff", "1", "2"]);
    assert_eq!((code, out), (1, format!("~ {}:one.txt   content\n", cli.data_item())), "{err}");
    assert!(err.contains("1 difference"), "{err}");
}

#[test]
fn file_with_another_mtime_is_compared_by_content() {
    let cli = many(2);
    backed_up(&cli);
    let (one, other) = (cli.at("data/0000"), cli.at("data/0001"));
    let text = std::fs::read_to_string(&one).expect("the file").replace("file", "FILE");
    for (path, bytes) in [(&one, text.into_bytes()), (&other, std::fs::read(&other).expect("the file"))] {
        rewrite(path, &bytes);
        let file = std::fs::File::options().write(true).open(path).expect("the file");
        file.set_modified(std::time::SystemTime::UNIX_EPOCH).expect("its time");
    }
    backed_up(&cli);
    let expected = vec![changed("0000", "content"), changed("0001", "time of change")];
    assert_eq!(rows(&cli, "1", "2"), (1, expected));
}

#[test]
fn changed_file_among_many_is_reported_without_its_neighbours() {
    let cli = many(2000);
    backed_up(&cli);
    let one = cli.at("data/0777");
    let text = std::fs::read_to_string(&one).expect("the file").replace("file", "FILE");
    rewrite(&one, text.as_bytes());
    // Rewritten with the same content.
    let other = cli.at("data/0778");
    rewrite(&other, &std::fs::read(&other).expect("the file"));
    std::fs::remove_file(cli.at("data/0779")).expect("gone");
    backed_up(&cli);
    let removed = ("removed".to_owned(), "0779".to_owned(), String::new());
    let folder = changed(".", "time of change");
    assert_eq!(rows(&cli, "1", "2"), (1, vec![folder, changed("0777", "content"), removed]));
}

#[test]
fn changed_attributes_of_files_and_folders_are_differences() {
    let cli = many(50);
    let folder = cli.at("data/folder");
    std::fs::create_dir(&folder).expect("a folder");
    let set = |path: &Path, name: &str, value: &str| {
        rustix::fs::setxattr(path, name, value.as_bytes(), XattrFlags::empty()).expect("an attribute");
    };
    set(&cli.at("data/0007"), "user.kept", "as it is");
    set(&cli.at("data/0008"), "user.note", "one");
    backed_up(&cli);
    set(&cli.at("data/0008"), "user.note", "two");
    set(&cli.at("data/0009"), "user.mark", "new");
    set(&folder, "user.color", "blue");
    backed_up(&cli);
    let expected = [("0008", "user.note"), ("0009", "user.mark"), ("folder", "user.color")];
    let expected = expected.map(|(path, name)| changed(path, &format!("xattr {name}"))).to_vec();
    assert_eq!(rows(&cli, "1", "2"), (1, expected));
}

#[test]
fn unchanged_tree_has_no_difference_across_epochs() {
    let cli = many(300);
    std::fs::write(cli.at("data/large"), noise(5_000_000)).expect("a file");
    let mut holes = vec![0; 400_000];
    holes.extend_from_slice(b"the end");
    std::fs::write(cli.at("data/holes"), holes).expect("a file");
    std::os::unix::fs::symlink("large", cli.at("data/symlink")).expect("a link");
    std::fs::hard_link(cli.at("data/large"), cli.at("data/name")).expect("a link");
    backed_up(&cli);
    backed_up(&cli);
    another_epoch(&cli);
    backed_up(&cli);
    assert_eq!(rows(&cli, "1", "2"), (0, Vec::new()));
    assert_eq!(rows(&cli, "1", "3"), (0, Vec::new()));
}

#[test]
fn changed_content_is_found_across_epochs() {
    let cli = many(300);
    let large = cli.at("data/large");
    let mut bytes = noise(5_000_000);
    std::fs::write(&large, &bytes).expect("a file");
    backed_up(&cli);
    bytes[3_456_789] ^= 1;
    rewrite(&large, &bytes);
    backed_up(&cli);
    assert_eq!(rows(&cli, "1", "2"), (1, vec![changed("large", "content")]));
    let one = cli.at("data/0123");
    let text = std::fs::read_to_string(&one).expect("the file").replace("file", "FILE");
    rewrite(&one, text.as_bytes());
    another_epoch(&cli);
    backed_up(&cli);
    assert_eq!(rows(&cli, "1", "3"), (1, vec![changed("0123", "content"), changed("large", "content")]));
    assert_eq!(rows(&cli, "2", "3"), (1, vec![changed("0123", "content")]));
}

#[test]
fn hole_changes_are_distinguished_from_content_changes() {
    use std::os::unix::fs::FileExt as _;
    let cli = CliRepo::new();
    let full = |name: &str| std::fs::write(cli.at(name), vec![0; 1 << 20]).expect("a file");
    let sparse = |name: &str, mark: &[u8]| {
        let path = cli.at(name);
        let time = std::fs::metadata(&path).and_then(|meta| meta.modified()).expect("a time");
        let file = std::fs::File::create(path).expect("a file");
        file.write_all_at(mark, 0).and_then(|()| file.set_len(1 << 20)).expect("a hole");
        file.set_modified(time).expect("its time");
    };
    // Keeps the folder from shrinking by half, which would be a gap.
    std::fs::write(cli.at("data/rest"), noise(4 << 20)).expect("a file");
    full("data/layout");
    full("data/other");
    backed_up(&cli);
    sparse("data/layout", &[0]);
    sparse("data/other", &[1]);
    backed_up(&cli);
    assert_eq!(rows(&cli, "1", "2"), (1, vec![changed("layout", "holes"), changed("other", "content")]));
}

#[test]
fn item_that_is_a_gap_is_not_compared() {
    let cli = CliRepo::new();
    let missing = cli.text("missing");
    for _ in 0..2 {
        let (code, _, err) = cli.backup(&["--path", &missing]);
        assert_eq!(code, 3, "{err}");
    }
    let (code, out, err) = cli.run_reader(&["diff", "1", "2"]);
    assert_eq!((code, out.as_str()), (3, ""), "{err}");
    assert!(err.contains("no difference in what was compared"), "{err}");
    assert!(err.contains(&format!("path{missing}: not compared: a gap of snapshot 1")), "{err}");
    let (code, _, err) = cli.run_reader(&["diff", "1", "2", "--item", &cli.data_item()]);
    assert_eq!(code, 0, "{err}");
}
