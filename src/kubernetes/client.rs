//! Requests to an API server, with own deadlines, own bounded retries and limited bodies.
//!
//! Only [`kube::Client::send`] is used. `Client::request` and all calls above it log the whole body
//! when it does not decode; for a list of Secrets, that is the Secrets. Their retries last for
//! minutes, longer than a revision lasts. This file logs and quotes no body except the `Status` of
//! an error.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::{Bytes, BytesMut};
use http::{Method, Request, StatusCode, header};
use http_body_util::BodyExt as _;
use kube::client::Body;
use kube::config::{KubeConfigOptions, Kubeconfig};
use serde::Deserialize;

use crate::report::event::{Event, Reporter};

/// The largest part of an error's body that is read, in bytes.
const STATUS_LIMIT: usize = 64 << 10;
/// The longest wait that a server may request with Retry-After.
const LONGEST_WAIT: Duration = Duration::from_secs(30);
/// The time during which answers of 429 with a Retry-After do not count as tries.
const BUSY: Duration = Duration::from_secs(60);

/// The access to a cluster.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ClusterAccess {
    /// A kubeconfig file. Without it, kbak uses the ServiceAccount in a pod, and elsewhere
    /// `KUBECONFIG` or `~/.kube/config`.
    pub kubeconfig: Option<PathBuf>,
    /// A context of the kubeconfig; by default its current context.
    pub context: Option<String>,
}

/// The time limits and the number of tries of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Deadlines {
    /// The time limit for a connection.
    pub connect: Duration,
    /// The time limit for a complete answer. The server itself cuts requests at 60 s by default.
    pub answer: Duration,
    /// The most tries of a request. A server that has answered before gets two more: it may be
    /// restarting, which takes half a minute.
    pub tries: u32,
    /// The first wait between tries; it doubles, with jitter, unless the server sends Retry-After.
    pub wait: Duration,
}

impl Default for Deadlines {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            answer: Duration::from_secs(65),
            tries: 6,
            wait: Duration::from_millis(250),
        }
    }
}

/// A client of a cluster's API server. Cheap to clone.
#[derive(Clone)]
pub struct Cluster {
    client: kube::Client,
    server: Arc<str>,
    deadlines: Deadlines,
    reporter: Reporter,
    /// True if the server has answered before.
    met: Arc<AtomicBool>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A successful answer.
#[derive(Debug, Clone)]
pub struct Answer {
    /// The HTTP status, 2xx.
    pub code: u16,
    /// The body.
    pub body: Bytes,
    /// The server's `Warning` headers.
    pub warnings: Vec<String>,
    /// True if an earlier try of the same request may have reached the server without an answer.
    pub repeated: bool,
}

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
    /// The server's status, if it answered.
    #[must_use]
    pub fn status(&self) -> Option<&ApiStatus> {
        match &self.kind {
            ApiErrorKind::Status(status) => Some(status.as_ref()),
            _ => None,
        }
    }

    /// The HTTP status, if the server answered.
    #[must_use]
    pub fn code(&self) -> Option<u16> {
        self.status().map(|status| status.code)
    }

    /// Returns the status of a refused request: a missing right, a taken name, a fault of the server.
    ///
    /// # Errors
    /// The failure itself if further requests would fail, too: there was no answer, or the server
    /// does not accept the identity (401).
    pub fn refusal(self) -> Result<Box<ApiStatus>, Self> {
        match self.kind {
            ApiErrorKind::Status(status) if status.code != 401 => Ok(status),
            kind => Err(Self { kind, ..self }),
        }
    }

    /// Returns true if the same request may succeed later.
    #[must_use]
    pub fn is_transient(&self) -> bool {
        match &self.kind {
            ApiErrorKind::Unreachable | ApiErrorKind::Cut | ApiErrorKind::Deadline(_) => true,
            ApiErrorKind::Status(status) => matches!(status.code, 429 | 502 | 503 | 504),
            _ => false,
        }
    }
}

/// One request, with the parts that its failures name.
struct Call<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    content_type: Option<&'static str>,
    accept: &'static str,
    body: Bytes,
    limit: usize,
}

impl Cluster {
    /// Prepares a client for the access; makes no request yet.
    ///
    /// # Errors
    /// [`ApiErrorKind::Access`] when there is no usable kubeconfig, context or ServiceAccount.
    pub async fn connect(
        access: &ClusterAccess,
        deadlines: Deadlines,
        reporter: Reporter,
    ) -> Result<Self, ApiError> {
        let refused = |source: Box<dyn std::error::Error + Send + Sync>| ApiError {
            operation: "connect".to_owned(),
            server: access.kubeconfig.as_ref().map_or_else(String::new, |path| path.display().to_string()),
            kind: ApiErrorKind::Access(source.to_string()),
            repeated: false,
            source: Some(source),
        };
        let mut config = configure(access).await.map_err(refused)?;
        config.default_retry = false;
        config.connect_timeout = Some(deadlines.connect);
        let server: Arc<str> = config.cluster_url.to_string().into();
        let client = kube::Client::try_from(config).map_err(|error| refused(Box::new(error)))?;
        Ok(Self { client, server, deadlines, reporter, met: Arc::default() })
    }

    /// Returns the server's address.
    #[must_use]
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Reads `path?query`; an answer of more than `limit` bytes is an error.
    ///
    /// # Errors
    /// [`ApiError`]; transient failures only after the bounded tries.
    pub async fn get(&self, path: &str, query: &str, limit: usize) -> Result<Answer, ApiError> {
        self.get_as(path, query, "application/json", limit).await
    }

    /// Like [`Self::get`], with another media type of the answer.
    pub(crate) async fn get_as(
        &self,
        path: &str,
        query: &str,
        accept: &'static str,
        limit: usize,
    ) -> Result<Answer, ApiError> {
        let body = Bytes::new();
        self.retry(&Call { method: Method::GET, path, query, content_type: None, accept, body, limit }).await
    }

    /// Sends an object. A request whose answer was lost is repeated, so a create may return
    /// `AlreadyExists` for the object that it created itself; then `repeated` is set.
    ///
    /// # Errors
    /// [`ApiError`]; transient failures only after the bounded tries.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<Answer, ApiError> {
        let limit = 16 << 20;
        let accept = "application/json";
        self.retry(&Call { method, path, query, content_type: Some(content_type), accept, body, limit }).await
    }

    async fn retry(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let began = tokio::time::Instant::now();
        let (mut attempt, mut repeated) = (1u32, false);
        let tries = self.deadlines.tries + if self.met.load(Ordering::Relaxed) { 2 } else { 0 };
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(self.deadlines.wait)
            .with_max_delay(LONGEST_WAIT)
            .with_max_times(tries.saturating_sub(1) as usize)
            .with_jitter()
            .build();
        loop {
            let error = match self.once(call).await {
                Ok(answer) => return Ok(Answer { repeated, ..answer }),
                Err(error) => error,
            };
            let status = error.status();
            let asked = status.and_then(|status| status.retry_after);
            // An answer of 429 with a Retry-After is no failure: the request is repeated for up to `BUSY`.
            let busy = status.is_some_and(|status| status.code == 429) && began.elapsed() < BUSY;
            let wait = match asked {
                Some(asked) if busy => Some(asked.max(self.deadlines.wait)),
                _ if error.is_transient() => waits.next().map(|wait| asked.unwrap_or(wait)),
                _ => None,
            };
            let Some(wait) = wait else { return Err(ApiError { repeated, ..error }) };
            attempt += 1;
            // Only 429 (too many requests) guarantees that the request was not executed.
            repeated |= error.code() != Some(429);
            self.reporter.event(Event::Retry {
                operation: error.operation.clone(),
                attempt,
                reason: error.kind.to_string(),
            });
            tokio::time::sleep(wait.min(LONGEST_WAIT)).await;
        }
    }

    /// Makes one request, completely, within its deadline.
    async fn once(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let limit = self.deadlines.answer;
        match tokio::time::timeout(limit, self.exchange(call)).await {
            Ok(result) => result,
            Err(_) => Err(self.error(call, ApiErrorKind::Deadline(limit))),
        }
    }

    async fn exchange(&self, call: &Call<'_>) -> Result<Answer, ApiError> {
        let uri = if call.query.is_empty() {
            call.path.to_owned()
        } else {
            format!("{}?{}", call.path, call.query)
        };
        let mut request =
            Request::builder().method(&call.method).uri(uri).header(header::ACCEPT, call.accept);
        if let Some(content_type) = call.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        let request = request.body(Body::from(call.body.to_vec())).map_err(|error| {
            self.error(call, ApiErrorKind::Malformed("its path".to_owned())).because(error)
        })?;
        let response = self
            .client
            .send(request)
            .await
            .map_err(|error| self.error(call, ApiErrorKind::Unreachable).because(error))?;
        self.met.store(true, Ordering::Relaxed);
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            let body = self.body(call, body, call.limit).await?;
            let warnings = parts.headers.get_all(header::WARNING).iter();
            let warnings = warnings.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
            return Ok(Answer { code: parts.status.as_u16(), body, warnings, repeated: false });
        }
        let text = self.body(call, body, STATUS_LIMIT).await.unwrap_or_default();
        let status = status(parts.status, &parts.headers, &text);
        Err(self.error(call, ApiErrorKind::Status(Box::new(status))))
    }

    async fn body(&self, call: &Call<'_>, mut body: Body, limit: usize) -> Result<Bytes, ApiError> {
        let mut whole = BytesMut::new();
        while let Some(frame) = body.frame().await {
            let frame = frame.map_err(|error| self.error(call, ApiErrorKind::Cut).because(error))?;
            let Ok(data) = frame.into_data() else { continue };
            if whole.len() + data.len() > limit {
                return Err(self.error(call, ApiErrorKind::TooLarge { limit }));
            }
            whole.extend_from_slice(&data);
        }
        Ok(whole.freeze())
    }

    /// Returns the error for a malformed answer at `path`: `what` is wrong.
    pub(crate) fn malformed(&self, path: &str, what: impl Into<String>) -> ApiError {
        ApiError {
            operation: format!("GET {path}"),
            server: self.server.to_string(),
            kind: ApiErrorKind::Malformed(what.into()),
            repeated: false,
            source: None,
        }
    }

    fn error(&self, call: &Call<'_>, kind: ApiErrorKind) -> ApiError {
        ApiError {
            operation: format!("{} {}", call.method, call.path),
            server: self.server.to_string(),
            kind,
            repeated: false,
            source: None,
        }
    }
}

impl ApiError {
    fn because(mut self, source: impl std::error::Error + Send + Sync + 'static) -> Self {
        self.source = Some(Box::new(source));
        self
    }
}

/// Reads the client configuration by kube's own rules.
async fn configure(access: &ClusterAccess) -> Result<kube::Config, Box<dyn std::error::Error + Send + Sync>> {
    let options = KubeConfigOptions { context: access.context.clone(), cluster: None, user: None };
    if let Some(path) = &access.kubeconfig {
        let kubeconfig = Kubeconfig::read_from(path)?;
        return Ok(kube::Config::from_custom_kubeconfig(kubeconfig, &options).await?);
    }
    let in_pod = std::env::var_os("KUBERNETES_SERVICE_HOST").is_some();
    if in_pod && access.context.is_none() && std::env::var_os("KUBECONFIG").is_none() {
        return Ok(kube::Config::incluster()?);
    }
    Ok(kube::Config::from_kubeconfig(&options).await?)
}

/// Parses an error's body and headers. A body that is no `Status` (a proxy's page) is left out.
fn status(code: StatusCode, headers: &http::HeaderMap, body: &[u8]) -> ApiStatus {
    #[derive(Deserialize, Default)]
    struct Text {
        #[serde(default)]
        reason: String,
        #[serde(default)]
        message: String,
        #[serde(default)]
        details: Option<Details>,
    }
    #[derive(Deserialize, Default)]
    #[serde(rename_all = "camelCase")]
    struct Details {
        #[serde(default)]
        causes: Vec<StatusCause>,
        #[serde(default)]
        retry_after_seconds: u64,
    }
    let text: Text = serde_json::from_slice(body).unwrap_or_default();
    let details = text.details.unwrap_or_default();
    let asked = headers
        .get(header::RETRY_AFTER)
        .and_then(|value| value.to_str().ok()?.parse::<u64>().ok())
        .or((details.retry_after_seconds > 0).then_some(details.retry_after_seconds));
    let reason = if text.reason.is_empty() {
        code.canonical_reason().unwrap_or("unknown").to_owned()
    } else {
        text.reason
    };
    ApiStatus {
        code: code.as_u16(),
        reason,
        message: text.message.chars().filter(|c| !c.is_control()).take(2048).collect(),
        causes: details.causes.into_iter().take(64).collect(),
        retry_after: asked.map(Duration::from_secs),
    }
}
