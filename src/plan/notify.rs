//! The receivers of notices about runs, as a plan declares them.

use std::path::PathBuf;

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A receiver of notices about runs. Put an address that is a secret into a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Notify {
    /// A monitor of regular jobs, such as Healthchecks or Uptime Kuma: it gets start, success and failure.
    Ping(NotifyTarget),
    /// A webhook: it gets JSON at the end of a run.
    Webhook(WebhookTarget),
    /// A Pushgateway of Prometheus: it gets the metrics of a run at its end.
    Metrics(MetricsTarget),
}

/// The receiver's address: `url` or `urlFile`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Address")]
pub struct NotifyTarget {
    /// The address, if it is not a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The verbs whose runs it gets: `backup`, `verify`. Default: both; for `ping` only `backup`, because a
    /// verification that succeeds must not stand for a backup that did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<NotifyVerb>,
}

/// A Pushgateway: its address, and the label that tells clusters apart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Metrics")]
pub struct MetricsTarget {
    /// The address, if it is not a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The verbs whose runs it gets: `backup`, `verify`. Default: both.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<NotifyVerb>,
    /// The label `cluster` of the metrics. Without it, plans of one name in two clusters replace each other's
    /// metrics. The chart sets it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(max = 128), regex(pattern = r"^[a-zA-Z0-9]([-._a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub cluster: Option<String>,
}

/// A webhook: its address, its body, and the runs that it gets.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(rename = "Webhook")]
pub struct WebhookTarget {
    /// The address, if it is not a secret.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url: Option<String>,
    /// A file that holds the address.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub url_file: Option<PathBuf>,
    /// The verbs whose runs it gets: `backup`, `verify`. Default: both; for `ping` only `backup`, because a
    /// verification that succeeds must not stand for a backup that did not run.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub verbs: Vec<NotifyVerb>,
    /// The body: JSON with fields as `{{summary}}`. Default: all fields that name nothing of the backup.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub template: Option<String>,
    /// `always` (every run), or `failure` (runs that do not end with 0). Default: `always`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub when: Option<NotifyWhen>,
}

/// A verb that sends notices.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyVerb {
    /// `kbak backup`.
    Backup,
    /// `kbak verify --plan`.
    Verify,
}

/// The runs of which a webhook gets a notice.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum NotifyWhen {
    /// Every run.
    #[default]
    Always,
    /// Runs that do not end with 0.
    Failure,
}

impl Notify {
    /// Returns the name of the kind of receiver, as the plan writes it.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Ping(_) => "ping",
            Self::Webhook(_) => "webhook",
            Self::Metrics(_) => "metrics",
        }
    }

    /// Returns the address in the plan.
    #[must_use]
    pub fn url(&self) -> Option<&str> {
        self.address().0.as_deref()
    }

    /// Returns the file that holds the address.
    #[must_use]
    pub fn url_file(&self) -> Option<&PathBuf> {
        self.address().1.as_ref()
    }

    /// True if the receiver gets notices of this verb.
    #[must_use]
    pub fn is_for(&self, verb: NotifyVerb) -> bool {
        let verbs = self.address().2;
        match self {
            Self::Ping(_) if verbs.is_empty() => verb == NotifyVerb::Backup,
            _ => verbs.is_empty() || verbs.contains(&verb),
        }
    }

    /// Returns what every receiver has: the address, its file, and the verbs.
    fn address(&self) -> (&Option<String>, &Option<PathBuf>, &[NotifyVerb]) {
        match self {
            Self::Ping(NotifyTarget { url, url_file, verbs })
            | Self::Metrics(MetricsTarget { url, url_file, verbs, .. })
            | Self::Webhook(WebhookTarget { url, url_file, verbs, .. }) => (url, url_file, verbs),
        }
    }

    /// Returns the file that holds the address, to change its name.
    pub(super) fn url_file_mut(&mut self) -> Option<&mut PathBuf> {
        match self {
            Self::Ping(NotifyTarget { url_file, .. })
            | Self::Metrics(MetricsTarget { url_file, .. })
            | Self::Webhook(WebhookTarget { url_file, .. }) => url_file.as_mut(),
        }
    }
}
