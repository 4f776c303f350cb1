//! A cluster of every kind of object, backed up by the program, restored into an empty one, and
//! compared by code that has nothing to do with the restore.

mod comparator;
mod coverage;
mod fixture;
mod garbage;
mod raw;
mod round_trip;
mod rules;
mod scale;

/// What a restore of a whole cluster into an empty one is told.
const DISASTER: &[&str] = &[
    "--allow",
    "rbac,webhooks,crds,apiservices,privileged",
    "--takeover",
    "--scope",
    "all",
    "--profile",
    "everything",
];

/// Whether everything runs at the size that scripts/soak asks for.
fn full() -> bool {
    std::env::var("KBAK_TEST_SIZE").is_ok_and(|size| size == "full")
}

/// Notes a figure for scripts/soak, and for whoever reads the test's output.
#[allow(clippy::print_stdout, reason = "the runner shows it")]
fn figure(what: &str, value: &str) {
    use std::io::Write as _;
    println!("{what}: {value}");
    if let Some(path) = std::env::var_os("KBAK_TEST_FIGURES") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a file");
        writeln!(file, "{what}\t{value}").expect("written");
    }
}
