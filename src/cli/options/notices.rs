//! Notices about a run to the receivers of its plan. They never change the outcome of the run.

use crate::cli::failure::Exit;
use crate::cli::shell::metrics::prometheus_text;
use crate::cli::shell::signals;
use crate::notify::{CronJobEvents, NoticeLimits, Notifier, RunEnd};
use crate::plan::{BackupSpec, NotifyVerb};
use crate::report::event::{Event, Reporter};
use crate::report::run::RunReport;
use crate::runtime::Runtime;

/// The environment variable that names the CronJob of a pod, for Events. The chart sets it.
const CRON_JOB: &str = "KBAK_CRONJOB";

/// Returns the CronJob that the environment names, which gets an Event at the end of a backup.
pub(crate) fn events_of(spec: &BackupSpec, host: &str, runtime: &Runtime) -> Option<CronJobEvents> {
    let name = std::env::var(CRON_JOB).ok().filter(|name| !name.is_empty());
    name.map(|name| CronJobEvents {
        name,
        cluster: spec.cluster.clone(),
        host: host.to_owned(),
        id: format!("{:016x}", u64::from_be_bytes(runtime.random())),
    })
}

/// The receivers of notices about one run.
#[derive(Debug, Default)]
pub(crate) struct Notices(Notifier);

impl Notices {
    /// Returns the receivers of a verification.
    pub(crate) fn of_verify(spec: &BackupSpec) -> Self {
        Self(Notifier::new(&spec.notify, NotifyVerb::Verify, spec.repository.ca_file.clone(), None))
    }

    /// Returns the receivers of a backup, and the CronJob that the environment names. A verification has no
    /// access to the cluster.
    pub(crate) fn of_backup(spec: &BackupSpec, host: &str, runtime: &Runtime) -> Self {
        let events = events_of(spec, host, runtime);
        Self(Notifier::new(&spec.notify, NotifyVerb::Backup, spec.repository.ca_file.clone(), events))
    }

    /// True if nobody gets notices.
    pub(crate) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Sends that the run begins.
    pub(crate) async fn send_start(&self, reporter: &Reporter) {
        self.0.send_start(reporter).await;
    }

    /// Sends how the run ended, until the next signal.
    pub(crate) fn send_end(&self, report: &RunReport, reporter: &Reporter) {
        if self.is_empty() {
            return;
        }
        reporter.event(Event::Phase { name: "notices" });
        let metrics = prometheus_text(report);
        let end = RunEnd { report, code: report.exit.code(), metrics: &metrics };
        let limits = match report.exit {
            Exit::Interrupted => NoticeLimits::INTERRUPTED,
            _ => NoticeLimits::END,
        };
        if !signals::until_next_signal(self.0.send_end(end, limits, reporter)) {
            let message = "a signal ended the sending of notices".to_owned();
            reporter.event(Event::Warning { object: "notify".to_owned(), message, remedy: None });
        }
    }
}
