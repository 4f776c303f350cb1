//! Notices about a run: pings, webhooks, pushes of metrics, and an Event on the CronJob.
//!
//! ```text
//! Notify (plan) ──> Receiver ──> Outgoing ──> HttpSender ──> warning, if it failed
//! ```
//!
//! Receivers are asked all at once, within a time that does not depend on them. A receiver that fails is a
//! warning. Its address is often a secret as a whole: it is named by its place in the plan, and nothing of the
//! address or of an answer is shown.

mod content;
mod cron_job;
mod receiver;
mod sender;

use std::path::PathBuf;
use std::time::Duration;

use futures::future::{join, join_all};

pub use content::summary;
pub use cron_job::{CronJobEvents, EventsRefused};
pub use receiver::{AddressError, read_address};

use crate::plan::{Notify, NotifyVerb};
use crate::report::error::causes;
use crate::report::event::{Event, Reporter};
use crate::report::run::RunReport;
use receiver::Receiver;
use sender::{HttpSender, Outgoing};

/// The time limits and the tries of notices at one moment of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NoticeLimits {
    /// The time for all notices together.
    pub total: Duration,
    /// The time limit of one request.
    pub answer: Duration,
    /// The most requests to one receiver.
    pub tries: u32,
}

impl NoticeLimits {
    /// Before a run, which waits for them.
    pub const START: Self = Self { total: Duration::from_secs(5), answer: Duration::from_secs(4), tries: 2 };
    /// After a run.
    pub const END: Self = Self { total: Duration::from_secs(30), answer: Duration::from_secs(10), tries: 3 };
    /// After an interruption, when little time is left.
    pub const INTERRUPTED: Self =
        Self { total: Duration::from_secs(5), answer: Duration::from_secs(4), tries: 2 };
}

/// The end of a run.
#[derive(Debug, Clone, Copy)]
pub struct RunEnd<'a> {
    /// The complete report.
    pub report: &'a RunReport,
    /// The exit code.
    pub code: u8,
    /// The metrics, in the text format of Prometheus.
    pub metrics: &'a str,
}

/// The receivers of a plan, and the CronJob that gets Events.
#[derive(Debug, Default)]
pub struct Notifier {
    receivers: Vec<Receiver>,
    ca_file: Option<PathBuf>,
    cron_job: Option<CronJobEvents>,
}

/// A notice that could not be sent.
struct Unsent {
    /// The receiver, by its place in the plan, or the CronJob.
    receiver: String,
    message: String,
    remedy: Option<String>,
}

impl Notifier {
    /// Reads the addresses of the receivers of a verb's runs. One that cannot be read is a warning when a notice is due. `ca_file` has
    /// CA certificates that are trusted in addition to the system's.
    #[must_use]
    pub fn new(
        receivers: &[Notify],
        verb: NotifyVerb,
        ca_file: Option<PathBuf>,
        cron_job: Option<CronJobEvents>,
    ) -> Self {
        let due = receivers.iter().enumerate().filter(|(_, notify)| notify.is_for(verb));
        let receivers = due.map(|(number, notify)| Receiver::new(number, notify)).collect();
        Self { receivers, ca_file, cron_job }
    }

    /// True if nobody gets notices.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.receivers.is_empty() && self.cron_job.is_none()
    }

    /// Sends that a run begins. Failures are warnings.
    pub async fn send_start(&self, reporter: &Reporter) {
        let due = self.receivers.iter().filter_map(|receiver| Some((receiver, receiver.start()?)));
        warn(self.send(due.collect(), NoticeLimits::START).await, reporter);
    }

    /// Sends how a run ended. Failures are warnings.
    pub async fn send_end(&self, end: RunEnd<'_>, limits: NoticeLimits, reporter: &Reporter) {
        let due = self.receivers.iter().filter_map(|receiver| Some((receiver, receiver.end(end)?)));
        let event = async {
            match &self.cron_job {
                Some(cron_job) => cron_job.send(end, limits).await.err(),
                None => None,
            }
        };
        let (mut unsent, event) = join(self.send(due.collect(), limits), event).await;
        unsent.extend(event);
        warn(unsent, reporter);
    }

    /// Sends all requests at once, and returns those that failed.
    async fn send(
        &self,
        due: Vec<(&Receiver, Result<Outgoing, &AddressError>)>,
        limits: NoticeLimits,
    ) -> Vec<Unsent> {
        let is_tls = due.iter().any(|(_, outgoing)| outgoing.as_ref().is_ok_and(Outgoing::is_tls));
        let sender = HttpSender::new(self.ca_file.as_deref(), is_tls);
        let sends = due.into_iter().map(|(receiver, outgoing)| {
            let sender = &sender;
            async move {
                let sent = match outgoing {
                    Ok(outgoing) => sender.send(&outgoing, limits).await.map_err(|error| causes(&error)),
                    Err(error) => Err(causes(error)),
                };
                sent.err().map(|message| receiver.unsent(message))
            }
        });
        join_all(sends).await.into_iter().flatten().collect()
    }
}

fn warn(unsent: Vec<Unsent>, reporter: &Reporter) {
    for Unsent { receiver, message, remedy } in unsent {
        let message = format!("the notice was not sent: {message}");
        reporter.event(Event::Warning { object: receiver, message, remedy });
    }
}
