//! One receiver of a plan: its address, and the request that it gets at each moment of a run.

use std::fs::File;
use std::io::Read as _;
use std::path::{Path, PathBuf};

use http::Uri;
use zeroize::Zeroizing;

use super::sender::Outgoing;
use super::{RunEnd, Unsent, content};
use crate::plan::{NoticeTemplate, Notify, NotifyWhen, check_receiver_address};
use crate::report::outcome::Outcome;
use crate::report::text::opaque_debug;

/// The largest file of an address, in bytes.
const MAX_ADDRESS: u64 = 8 << 10;

/// The part of the path by which an address of Uptime Kuma is known. It takes its parameters after `?`.
const KUMA_PATH: &str = "/api/push/";

/// The part of the path of a Pushgateway's address that has a grouping key already.
const GROUPING_KEY: &str = "/metrics/job/";

/// The part of the path of a Pushgateway's address that names the cluster already.
const CLUSTER_KEY: &str = "/cluster/";

/// An address that cannot be used. It is not repeated.
#[derive(Debug, thiserror::Error)]
pub enum AddressError {
    /// The file cannot be read.
    #[error("{file}: the address cannot be read", file = file.display())]
    Unread {
        /// The file.
        file: PathBuf,
        /// The cause.
        source: std::io::Error,
    },
    /// The text is no address.
    #[error("{place}: {reason}")]
    Malformed {
        /// The file, or the field of the plan.
        place: String,
        /// The reason.
        reason: &'static str,
    },
}

/// A receiver. Its address is secret.
pub(super) struct Receiver {
    /// The place in the plan: `notify[1].webhook`.
    place: String,
    address: Result<Uri, AddressError>,
    work: Work,
}

opaque_debug!(Receiver: "Receiver");

/// The kinds of receivers.
enum Work {
    Ping,
    Webhook { template: Option<NoticeTemplate>, when: NotifyWhen },
    Metrics { cluster: Option<String> },
}

/// Reads the address of a receiver, from its file or from the plan.
///
/// # Errors
/// [`AddressError`]
pub fn read_address(receiver: &Notify) -> Result<Uri, AddressError> {
    let Some(file) = receiver.url_file() else {
        let place = "url".to_owned();
        let url = receiver.url().unwrap_or_default();
        return check_receiver_address(url).map_err(|reason| AddressError::Malformed { place, reason });
    };
    let text = read_file(file).map_err(|source| AddressError::Unread { file: file.clone(), source })?;
    let place = file.display().to_string();
    let malformed = |reason| AddressError::Malformed { place, reason };
    if text.len() as u64 > MAX_ADDRESS {
        return Err(malformed("it is too long for an address"));
    }
    let text = std::str::from_utf8(&text).map(str::trim).unwrap_or_default();
    check_receiver_address(text).map_err(malformed)
}

fn read_file(file: &Path) -> std::io::Result<Zeroizing<Vec<u8>>> {
    let mut text = Zeroizing::new(Vec::with_capacity(MAX_ADDRESS as usize + 1));
    File::open(file)?.take(MAX_ADDRESS + 1).read_to_end(&mut text)?;
    Ok(text)
}

impl Receiver {
    /// Creates the receiver with this number in the plan.
    pub(super) fn new(number: usize, notify: &Notify) -> Self {
        let work = match notify {
            Notify::Ping(_) => Work::Ping,
            Notify::Webhook(webhook) => Work::Webhook {
                // The plan's check has parsed it before.
                template: webhook.template.as_deref().and_then(|text| NoticeTemplate::parse(text).ok()),
                when: webhook.when.unwrap_or_default(),
            },
            Notify::Metrics(metrics) => Work::Metrics { cluster: metrics.cluster.clone() },
        };
        let place = format!("notify[{number}].{}", notify.kind());
        Self { place, address: read_address(notify), work }
    }

    /// Returns the request at the start of a run, if the receiver gets one.
    pub(super) fn start(&self) -> Option<Result<Outgoing, &AddressError>> {
        matches!(self.work, Work::Ping).then_some(())?;
        match &self.address {
            Ok(address) if is_kuma(address) => None,
            Ok(address) => Some(Ok(Outgoing::post(with_path(address, "start"), "text/plain", String::new()))),
            Err(error) => Some(Err(error)),
        }
    }

    /// Returns the request at the end of a run, if the receiver gets one.
    pub(super) fn end(&self, end: RunEnd<'_>) -> Option<Result<Outgoing, &AddressError>> {
        let is_success = end.report.exit == Outcome::Safe;
        if matches!(self.work, Work::Webhook { when: NotifyWhen::Failure, .. }) && is_success {
            return None;
        }
        let address = match &self.address {
            Ok(address) => address,
            Err(error) => return Some(Err(error)),
        };
        Some(Ok(match &self.work {
            Work::Ping if is_kuma(address) => Outgoing::get(kuma(address, end)),
            Work::Ping => {
                let address = match is_success {
                    true => address.to_string(),
                    false => with_path(address, &end.code.to_string()),
                };
                Outgoing::post(address, "text/plain; charset=utf-8", content::summary(end))
            }
            Work::Webhook { template, .. } => {
                let body = content::body(end, template.as_ref());
                Outgoing::post(address.to_string(), "application/json", body)
            }
            // A POST replaces the metrics of the same names alone: a run that failed does not know the last
            // success, and must not remove it.
            Work::Metrics { cluster } => Outgoing::post(
                with_path(address, &grouping_key(address, cluster.as_deref(), end)),
                "text/plain; version=0.0.4; charset=utf-8",
                end.metrics.to_owned(),
            ),
        }))
    }

    /// Returns the failure of a notice to this receiver.
    pub(super) fn unsent(&self, message: String) -> Unsent {
        Unsent { receiver: self.place.clone(), message, remedy: None }
    }
}

fn is_kuma(address: &Uri) -> bool {
    address.path().contains(KUMA_PATH)
}

/// Returns an address with one more step at the end of its path.
fn with_path(address: &Uri, step: &str) -> String {
    let (text, query) = split_query(address);
    format!(
        "{}/{step}{}",
        text.trim_end_matches('/'),
        query.map(|query| format!("?{query}")).unwrap_or_default()
    )
}

/// Returns an address of Uptime Kuma with the state, the message and the duration in milliseconds. It replaces
/// the parameters that are copied with the address.
fn kuma(address: &Uri, end: RunEnd<'_>) -> String {
    let status = if end.report.exit == Outcome::Safe { "up" } else { "down" };
    let (text, query) = split_query(address);
    let mut made = form_urlencoded::Serializer::new(String::new());
    let query = query.unwrap_or_default();
    let kept = form_urlencoded::parse(query.as_bytes());
    made.extend_pairs(kept.filter(|(name, _)| !["status", "msg", "ping"].contains(&&**name)));
    made.append_pair("status", status);
    made.append_pair("msg", &content::summary(end));
    made.append_pair("ping", &end.report.duration().as_millis().to_string());
    format!("{text}?{}", made.finish())
}

/// Returns the path after the address of a Pushgateway. Without the plan and the verb, a verification would
/// replace the metrics of a backup; without the cluster, another cluster's backup would. It depends on no answer
/// of a server: a run that fails must replace the metrics of the one before.
fn grouping_key(address: &Uri, cluster: Option<&str>, end: RunEnd<'_>) -> String {
    let job = if address.path().contains(GROUPING_KEY) { "" } else { "metrics/job/kbak/" };
    let plan = end.report.plan.as_ref().map(|plan| format!("plan/{plan}/")).unwrap_or_default();
    let cluster = cluster.filter(|_| !address.path().contains(CLUSTER_KEY));
    let cluster = cluster.map(|cluster| format!("cluster/{cluster}/")).unwrap_or_default();
    format!("{job}{cluster}{plan}verb/{}", end.report.verb)
}

/// Returns an address up to its query, and the query.
fn split_query(address: &Uri) -> (String, Option<String>) {
    let text = address.to_string();
    match text.split_once('?') {
        Some((text, query)) => (text.to_owned(), Some(query.to_owned())),
        None => (text, None),
    }
}
