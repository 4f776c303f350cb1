//! Checks folders: that they exist, and that everything in them may be read.

use std::path::{Path, PathBuf};
use std::time::Duration;

use tokio::time::Instant;

use super::Finding;
use crate::fs::FileType;
use crate::report::{error::causes, event::Reporter, text::count};
use crate::runtime::Runtime;
use crate::source::volume::{VolumeOptions, VolumeReader, WalkEvent};

/// The time limit of a walk: long enough to find common problems, short enough to wait for.
const LONGEST: Duration = Duration::from_secs(20);
/// The maximum number of unreadable files that are named.
const NAMED: usize = 5;

pub(super) async fn check(
    folders: &[(String, PathBuf, VolumeOptions)],
    runtime: &Runtime,
    reporter: &Reporter,
) -> Vec<Finding> {
    let mut found = Vec::new();
    for (name, path, options) in folders {
        let meter = reporter.meter(name, "files");
        let (about, path, options) = (name.clone(), path.clone(), options.clone());
        let shown = meter.clone();
        let walk = move || walk(&about, &path, options, &|| shown.add_done(1));
        found.extend(runtime.workers.run(walk).await);
        meter.end();
    }
    found
}

fn walk(about: &str, path: &Path, options: VolumeOptions, seen: &dyn Fn()) -> Vec<Finding> {
    let began = Instant::now();
    let volume = match VolumeReader::open(path, options) {
        Ok(volume) => volume,
        Err(error) => {
            let finding = Finding::problem(about, format!("{}: {}", path.display(), causes(&error)));
            return vec![finding.remedy("is the folder there, mounted, and readable for this account?")];
        }
    };
    let (mut members, mut whole) = (0u64, true);
    let mut unreadable: Vec<String> = Vec::new();
    let mut more = 0u64;
    for walked in volume.walk() {
        let problem = match &walked {
            WalkEvent::Member(member) => {
                members += 1;
                seen();
                (member.stat.file_type == FileType::File)
                    .then(|| unreadable_reason(path, &member.entry.path))
                    .flatten()
            }
            WalkEvent::Gap(gap) => Some(format!("{gap}: {}", causes(&gap.kind))),
            WalkEvent::Skipped(_) => None,
        };
        match problem {
            Some(problem) if unreadable.len() < NAMED => unreadable.push(problem),
            Some(_) => more += 1,
            None => {}
        }
        if began.elapsed() > LONGEST {
            whole = false;
            break;
        }
    }
    let mut findings = Vec::new();
    let entries = count(members);
    findings.push(if whole {
        Finding::good(about, format!("{entries} entries in {}", path.display())).took(began)
    } else {
        let seconds = LONGEST.as_secs();
        Finding::note(about, format!("{entries} entries looked at in {seconds} s; the rest was not"))
            .took(began)
    });
    if !unreadable.is_empty() {
        let more = if more > 0 { format!(" and {} more", count(more)) } else { String::new() };
        let what = format!("not readable: {}{more}", unreadable.join(", "));
        let remedy = "run kbak as an account that may read it (CAP_DAC_OVERRIDE), or exclude it";
        findings.push(Finding::problem(about, what).remedy(remedy));
    }
    findings
}

/// Returns the reason why a file's content cannot be read, if it cannot.
fn unreadable_reason(root: &Path, inside: &[u8]) -> Option<String> {
    use std::os::unix::ffi::OsStrExt as _;
    let path = root.join(std::ffi::OsStr::from_bytes(inside));
    let flags = rustix::fs::AtFlags::EACCESS | rustix::fs::AtFlags::SYMLINK_NOFOLLOW;
    let asked = rustix::fs::accessat(rustix::fs::CWD, &path, rustix::fs::Access::READ_OK, flags);
    asked.err().map(|error| format!("{}: {error}", path.display()))
}
