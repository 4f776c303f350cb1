//! Failures of requests to an API server.

use std::time::Duration;

use http::{HeaderMap, StatusCode, header};
use serde::Deserialize;

/// A failed request.
#[derive(Debug, thiserror::Error)]
#[error("cannot {operation} at {server}: {kind}")]
pub struct ApiError {
    /// The method and path, without the query.
    pub operation: String,
    /// The server's address.
    pub server: String,
    /// The kind of failure.
    pub kind: ApiErrorKind,
    /// True if an earlier try of the same request may have reached the server without an answer.
    pub repeated: bool,
    /// The underlying error.
    #[source]
    pub source: Option<Box<dyn std::error::Error + Send + Sync>>,
}

/// The kind of a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ApiErrorKind {
    /// There is no usable kubeconfig, context, ServiceAccount or certificate.
    #[error("no usable access to a cluster ({0})")]
    Access(String),
    /// There was no connection, or it broke before an answer came.
    #[error("the server cannot be reached")]
    Unreachable,
    /// The answer was cut off.
    #[error("the answer was cut off")]
    Cut,
    /// No complete answer came in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The answer is larger than the caller accepts.
    #[error("the answer is larger than {limit} bytes")]
    TooLarge {
        /// The largest accepted answer in bytes.
        limit: usize,
    },
    /// The server answered with an error status.
    #[error("{0}")]
    Status(Box<ApiStatus>),
    /// The answer is not one that this API gives.
    #[error("the answer cannot be understood ({0})")]
    Malformed(String),
}

/// The server's description of a failure.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{code} {reason}: {message}")]
pub struct ApiStatus {
    /// The HTTP status.
    pub code: u16,
    /// The machine-readable reason: `Forbidden`, `Expired`, `AlreadyExists`.
    pub reason: String,
    /// The message for people. It may quote values of an object that was sent: do not show it for Secrets.
    pub message: String,
    /// The causes, by field.
    pub causes: Vec<StatusCause>,
    /// The wait that the server requests.
    pub retry_after: Option<Duration>,
}

/// One cause within a status.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct StatusCause {
    /// The machine-readable reason.
    #[serde(default)]
    pub reason: String,
    /// The field it concerns.
    #[serde(default)]
    pub field: String,
}

impl ApiError {
    pub(super) fn new(operation: String, server: &str, kind: ApiErrorKind) -> Self {
        Self { operation, server: server.to_owned(), kind, repeated: false, source: None }
    }

    /// The server's status, if it answered.
    pub fn status(&self) -> Option<&ApiStatus> {
        match &self.kind {
            ApiErrorKind::Status(status) => Some(status.as_ref()),
            _ => None,
        }
    }

    /// The HTTP status, if the server answered.
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// Returns the status of a refused request: a missing right, a taken name, a fault of the server.
    /// Fails with itself if further requests would fail, too: there was no answer, or the server
    /// does not accept the identity (401).
    pub fn refusal(self) -> Result<Box<ApiStatus>, Self> {
        match self.kind {
            ApiErrorKind::Status(status) if status.code != 401 => Ok(status),
            kind => Err(Self { kind, ..self }),
        }
    }

    /// Returns true if the same request may succeed later.
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            ApiErrorKind::Unreachable | ApiErrorKind::Cut | ApiErrorKind::Deadline(_) => true,
            ApiErrorKind::Status(status) => matches!(status.code, 429 | 502 | 503 | 504),
            _ => false,
        }
    }

    pub(super) fn with_source(mut self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> Self {
        self.source = Some(source.into());
        self
    }
}

/// Parses an error's body and headers. A body that is no `Status` (a proxy's page) is left out.
pub(super) fn read_status(code: StatusCode, headers: &HeaderMap, body: &[u8]) -> ApiStatus {
    #[derive(Deserialize, Default)]
    #[serde(default)]
    struct Status {
        reason: String,
        message: String,
        details: Option<Details>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase", default)]
    struct Details {
        causes: Vec<StatusCause>,
        retry_after_seconds: u64,
    }
    let text: Status = serde_json::from_slice(body).unwrap_or_default();
    let details = text.details.unwrap_or_default();
    let seconds = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .or((details.retry_after_seconds > 0).then_some(details.retry_after_seconds));
    let reason = match text.reason.as_str() {
        "" => code.canonical_reason().unwrap_or("unknown").to_owned(),
        _ => text.reason,
    };
    ApiStatus {
        code: code.as_u16(),
        reason,
        message: text.message.chars().filter(|c| !c.is_control()).take(2048).collect(),
        causes: details.causes.into_iter().take(64).collect(),
        retry_after: seconds.map(Duration::from_secs),
    }
}
