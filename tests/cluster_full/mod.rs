//! A cluster of every kind of object, backed up by the program, restored into an empty one, and
//! compared by code that is independent of the restore.

mod comparator;
mod coverage;
mod fixture;
mod garbage;
mod raw;
mod rights;
mod round_trip;
mod rules;
mod scale;
mod velero_server;

/// The options that restore a whole cluster into an empty one.
const FULL_RESTORE_ARGS: &[&str] = &[
    "--allow",
    "rbac,webhooks,crds,apiservices,privileged",
    "--takeover",
    "--scope",
    "all",
    "--profile",
    "everything",
];

/// Prints a figure, and appends it to KBAK_TEST_FIGURES for scripts/soak.
#[allow(clippy::print_stdout, reason = "the runner shows it")]
fn figure(what: &str, value: &str) {
    use std::io::Write as _;
    println!("{what}: {value}");
    if let Some(path) = std::env::var_os("KBAK_TEST_FIGURES") {
        let mut file = std::fs::File::options().create(true).append(true).open(path).expect("a file");
        writeln!(file, "{what}\t{value}").expect("written");
    }
}
