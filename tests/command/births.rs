//! Runs that begin epochs at the same moment.

use std::process::{Child, Stdio};

use crate::support::desk::{Desk, texts};
use crate::support::program::command;

fn start(desk: &Desk, more: &[&str]) -> Child {
    let (data, writer) = (desk.text("data"), desk.writer());
    let args = [&["backup", "--path", &data], &texts(&writer)[..], more].concat();
    command(&args).stdout(Stdio::null()).stderr(Stdio::piped()).spawn().expect("it starts")
}

fn at_once(desk: &Desk, more: &[&str]) {
    let runs: Vec<Child> = (0..3).map(|_| start(desk, more)).collect();
    for run in runs {
        let output = run.wait_with_output().expect("it ends");
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{more:?}: {said}");
    }
}

#[test]
fn runs_that_begin_epochs_at_once_leave_a_plan_that_runs() {
    let desk = Desk::new();
    for round in 0..4 {
        let name = format!("new{round}");
        let plan = ["--plan-name", &name];
        at_once(&desk, &plan);
        let (code, _, err) = desk.backup(&plan);
        assert_eq!(code, 0, "{err}");
        // Again from an epoch that is there; then what follows goes on, and closes them all.
        at_once(&desk, &[&plan[..], &["--new-epoch"]].concat());
        for more in [&[][..], &[], &["--new-epoch"], &[]] {
            let (code, _, err) = desk.backup(&[&plan[..], more].concat());
            assert_eq!(code, 0, "{more:?}: {err}");
        }
        let secrets = std::fs::read_to_string(desk.at(&format!("keys/writer.key.{name}.epoch")));
        assert_eq!(
            secrets.expect("kept").matches("\"epoch\"").count(),
            1,
            "those that are over are forgotten"
        );
    }
}
