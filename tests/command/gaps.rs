//! Gaps of a snapshot are reported by every verb that outputs its bytes, and only if they concern
//! the request.

use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, Ordering};

use super::lifecycle::json;
use crate::support::cli_repo::CliRepo;
use crate::support::program::command;

/// Returns a repository whose snapshot has one torn file and one whole file.
fn repo_with_torn_file() -> CliRepo {
    let cli = CliRepo::new();
    let file = cli.at("data/restless");
    std::fs::write(&file, vec![b'x'; 48 << 20]).expect("a file");
    let over = AtomicBool::new(false);
    let (code, out, err) = std::thread::scope(|scope| {
        scope.spawn(|| {
            let file = std::fs::File::options().write(true).open(&file).expect("a file");
            while !over.load(Ordering::SeqCst) {
                file.write_all_at(b"y", 5).expect("written");
                std::thread::yield_now();
            }
        });
        let ran = cli.backup(&["-o", "json"]);
        over.store(true, Ordering::SeqCst);
        ran
    });
    assert_eq!((code, json(&out)["items"][0]["gaps"][0]["object"].as_str()), (3, Some("restless")), "{err}");
    cli
}

#[test]
fn torn_file_is_reported_by_every_verb_that_outputs_it() {
    let cli = repo_with_torn_file();
    let item = cli.data_item();
    let cat = |place: &str| cli.run_reader(&["cat", "latest", place]);
    let (code, out, err) = cat(&format!("{item}:restless"));
    assert!(
        code == 3 && out.len() == 48 << 20 && err.contains("restless: changed-while-read"),
        "{code} {err}"
    );
    let output = command(&["cat", "latest", &item]).args(cli.reader_args()).output().expect("it runs");
    assert_eq!(output.status.code(), Some(3), "the folder as tar");
    let (code, out, err) = cat(&format!("{item}:one.txt"));
    assert_eq!((code, out.as_str(), err.as_str()), (0, "one\n", ""));

    let to = cli.text("back");
    let (code, out, err) = cli.run_reader(&["restore", "--to", &to, "-o", "json"]);
    let gaps = &json(&out)["items"][0]["gaps"];
    assert_eq!((code, gaps[0]["object"].as_str()), (3, Some("restless")), "{out}{err}");
    assert!(err.contains("kbak snapshots"), "{err}");
    // A dry run shows the gap that the restore will have, and ends as it does.
    let (code, out, err) = cli.run_reader(&["restore", "--to", &cli.text("dry"), "--dry-run"]);
    assert!(code == 3 && out.contains("gap      restless"), "{code} {out}{err}");
    let one = ["restore", "--path", "one.txt", "--to", &cli.text("dry"), "--dry-run"];
    assert_eq!(cli.run_reader(&one).0, 0);
    let one = ["restore", "--path", "one.txt", "--to", &cli.text("one")];
    let (code, _, err) = cli.run_reader(&one);
    assert_eq!(code, 0, "what was asked for is whole: {err}");
    let both = ["restore", "--path", "one.txt", "--path", "restless", "--to", &cli.text("both")];
    assert_eq!(cli.run_reader(&both).0, 3);
}

#[test]
fn too_small_memory_limit_is_refused() {
    let cli = CliRepo::new();
    let (code, _, err) = cli.run_reader(&["restore", "--to", &cli.text("back"), "--memory", "32Mi"]);
    assert!(code == 2 && err.contains("64"), "{code} {err}");
}

#[test]
fn full_output_device_exits_three() {
    let cli = CliRepo::new();
    let (code, _, err) = cli.backup(&[]);
    assert_eq!(code, 0, "{err}");
    let place = format!("{}:one.txt", cli.data_item());
    for verb in [&["ls", "latest"][..], &["cat", "latest", &place], &["snapshots"]] {
        let full = std::fs::File::options().write(true).open("/dev/full").expect("the full device");
        let output = command(verb).args(cli.reader_args()).stdout(full).output().expect("it runs");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.code() == Some(3) && said.contains("No space left"), "{verb:?} {output:?}");
    }
}
