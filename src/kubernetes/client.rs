//! Requests to an API server, with deadlines, bounded retries and bounded bodies of its own.
//!
//! Only [`kube::Client::send`] is used. `Client::request` and all calls above it log the whole body when it
//! does not decode; for a list of Secrets, that is the Secrets. Their retries last for minutes, longer than a
//! revision lasts. This file logs and quotes no body except the `Status` of an error.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use backon::{BackoffBuilder as _, ExponentialBuilder};
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use http::{Method, Request, header};
use http_body_util::{BodyExt as _, LengthLimitError, Limited};
use kube::client::Body;

use super::access::{AccessSource, AnyError, Token, read_access};
use super::api_error::{ApiError, ApiErrorKind, read_status};
use crate::plan::ClusterSpec;
use crate::report::event::{Event, Reporter};

/// The largest part of an error's body that is read, in bytes.
const MAX_ERROR_BODY: usize = 64 << 10;
/// The longest wait that a server may request with Retry-After.
const MAX_WAIT: Duration = Duration::from_secs(30);
/// The time during which answers of 429 with a Retry-After do not count as tries.
const BUSY_PERIOD: Duration = Duration::from_secs(60);

/// The time limits and the number of tries of requests.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RequestLimits {
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

impl Default for RequestLimits {
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
    namespace: Arc<str>,
    context: Option<Arc<str>>,
    token: Option<Token>,
    limits: RequestLimits,
    reporter: Reporter,
    /// True if the server has answered before.
    has_answered: Arc<AtomicBool>,
}

impl std::fmt::Debug for Cluster {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Cluster").field("server", &self.server).finish_non_exhaustive()
    }
}

/// A successful answer.
#[derive(Debug, Clone)]
pub struct ApiResponse {
    /// The HTTP status, 2xx.
    pub code: u16,
    /// The body.
    pub body: Bytes,
    /// The server's `Warning` headers.
    pub warnings: Vec<String>,
    /// True if an earlier try of the same request may have reached the server without an answer.
    pub repeated: bool,
}

/// One request, with the parts that its failures name.
struct ApiRequest<'a> {
    method: Method,
    path: &'a str,
    query: &'a str,
    content_type: Option<&'static str>,
    accept: &'static str,
    body: Bytes,
    limit: usize,
}

impl Cluster {
    /// Prepares a client for the cluster that a plan or the arguments name; by default, the pod's own or that
    /// of the kubeconfig. Makes no request yet.
    /// Fails with [`ApiErrorKind::Access`] when there is no usable kubeconfig, context or ServiceAccount.
    pub async fn connect(
        spec: Option<&ClusterSpec>,
        limits: RequestLimits,
        reporter: &Reporter,
    ) -> Result<Self, ApiError> {
        let spec = spec.cloned().unwrap_or_default();
        let refused = |place: &str, source: AnyError| {
            let kind = ApiErrorKind::Access(source.to_string());
            ApiError::new("connect".to_owned(), place, kind).with_source(source)
        };
        let source = AccessSource::find(&spec).map_err(|error| refused("a cluster", error.into()))?;
        let place = source.describe();
        let access = read_access(&source, &spec).await.map_err(|error| refused(&place, error))?;
        let mut config = access.config;
        config.default_retry = false;
        config.connect_timeout = Some(limits.connect);
        let server: Arc<str> = without_password(&config.cluster_url).into();
        let namespace: Arc<str> = config.default_namespace.as_str().into();
        let client = kube::Client::try_from(config).map_err(|error| refused(&place, Box::new(error)))?;
        let (reporter, has_answered) = (reporter.clone(), Arc::default());
        let (context, token) = (access.context.map(Arc::from), access.token);
        Ok(Self { client, server, namespace, context, token, limits, reporter, has_answered })
    }

    /// Returns a client with other limits, that of connections apart, over the same connections and
    /// credentials.
    #[must_use]
    pub fn with_limits(&self, limits: RequestLimits) -> Self {
        Self { limits, has_answered: Arc::default(), ..self.clone() }
    }

    /// Returns the server's address.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// Returns the server's address and the kubeconfig's context, for people.
    #[must_use]
    pub fn describe(&self) -> String {
        match &self.context {
            Some(context) => format!("{} (context {context})", self.server),
            None => format!("{} (the pod's own)", self.server),
        }
    }

    /// Returns the namespace of the pod, or of the context.
    #[must_use]
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// Reads `path?query`; an answer of more than `limit` bytes is an error.
    /// Fails for transient causes only after the bounded tries.
    pub async fn get(&self, path: &str, query: &str, limit: usize) -> Result<ApiResponse, ApiError> {
        self.get_as(path, query, "application/json", limit).await
    }

    /// Like [`Self::get`], with another media type of the answer.
    pub(crate) async fn get_as(
        &self,
        path: &str,
        query: &str,
        accept: &'static str,
        limit: usize,
    ) -> Result<ApiResponse, ApiError> {
        let body = Bytes::new();
        self.retry(&ApiRequest { method: Method::GET, path, query, content_type: None, accept, body, limit })
            .await
    }

    /// Sends an object. A request whose answer was lost is repeated, so a create may return
    /// `AlreadyExists` for the object that it created itself; then `repeated` is set.
    /// Fails for transient causes only after the bounded tries.
    pub async fn send(
        &self,
        method: Method,
        path: &str,
        query: &str,
        content_type: &'static str,
        body: Bytes,
    ) -> Result<ApiResponse, ApiError> {
        let limit = 16 << 20;
        let accept = "application/json";
        self.retry(&ApiRequest { method, path, query, content_type: Some(content_type), accept, body, limit })
            .await
    }

    async fn retry(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiError> {
        let began = tokio::time::Instant::now();
        let (mut attempt, mut repeated) = (1u32, false);
        let tries = self.limits.tries + if self.has_answered.load(Ordering::Relaxed) { 2 } else { 0 };
        let mut waits = ExponentialBuilder::new()
            .with_min_delay(self.limits.wait)
            .with_max_delay(MAX_WAIT)
            .with_max_times(tries.saturating_sub(1) as usize)
            .with_jitter()
            .build();
        loop {
            let error = match self.try_once(request).await {
                Ok(answer) => return Ok(ApiResponse { repeated, ..answer }),
                Err(error) => error,
            };
            let status = error.status();
            let retry_after = status.and_then(|status| status.retry_after);
            // An answer of 429 with a Retry-After is no failure: the request is repeated for up to `BUSY_PERIOD`.
            let busy = status.is_some_and(|status| status.code == 429) && began.elapsed() < BUSY_PERIOD;
            let wait = match retry_after {
                Some(least) if busy => Some(least.max(self.limits.wait)),
                _ if error.is_transient() => waits.next().map(|wait| retry_after.unwrap_or(wait)),
                _ => None,
            };
            let Some(wait) = wait else { return Err(ApiError { repeated, ..error }) };
            attempt += 1;
            // Only 429 (too many requests) guarantees that the request was not executed.
            repeated |= error.code() != Some(429);
            tracing::debug!(method = %request.method, path = request.path, attempt, code = error.code(), "API retry");
            self.reporter.event(Event::Retry {
                operation: error.operation.clone(),
                attempt,
                reason: error.kind.to_string(),
            });
            tokio::time::sleep(wait.min(MAX_WAIT)).await;
        }
    }

    /// Makes one request, completely, within its deadline.
    async fn try_once(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiError> {
        let deadline = self.limits.answer;
        tracing::debug!(method = %request.method, path = request.path, "API request");
        match tokio::time::timeout(deadline, self.exchange(request)).await {
            Ok(result) => result,
            Err(_) => Err(self.error(request, ApiErrorKind::Deadline(deadline))),
        }
    }

    async fn exchange(&self, request: &ApiRequest<'_>) -> Result<ApiResponse, ApiError> {
        let uri = if request.query.is_empty() {
            request.path.to_owned()
        } else {
            format!("{}?{}", request.path, request.query)
        };
        let mut http_request =
            Request::builder().method(&request.method).uri(uri).header(header::ACCEPT, request.accept);
        if let Some(content_type) = request.content_type {
            http_request = http_request.header(header::CONTENT_TYPE, content_type);
        }
        if let Some(token) = &self.token {
            let value = token.header().await;
            let value = value.map_err(|error| {
                self.error(request, ApiErrorKind::Access(error.to_string())).with_source(error)
            })?;
            http_request = http_request.header(header::AUTHORIZATION, value);
        }
        let http_request = http_request.body(Body::from(request.body.to_vec())).map_err(|error| {
            self.error(request, ApiErrorKind::Malformed("its path".to_owned())).with_source(error)
        })?;
        let sent = self.client.send(http_request).await;
        let response =
            sent.map_err(|error| self.error(request, ApiErrorKind::Unreachable).with_source(error))?;
        self.has_answered.store(true, Ordering::Relaxed);
        let (parts, body) = response.into_parts();
        if parts.status.is_success() {
            let body = self.read_body(request, body, request.limit).await?;
            let warnings = parts.headers.get_all(header::WARNING).iter();
            let warnings = warnings.filter_map(|value| value.to_str().ok().map(str::to_owned)).collect();
            return Ok(ApiResponse { code: parts.status.as_u16(), body, warnings, repeated: false });
        }
        let text = self.read_body(request, body, MAX_ERROR_BODY).await.unwrap_or_default();
        let status = read_status(parts.status, &parts.headers, &text);
        Err(self.error(request, ApiErrorKind::Status(Box::new(status))))
    }

    async fn read_body(&self, request: &ApiRequest<'_>, body: Body, limit: usize) -> Result<Bytes, ApiError> {
        match Limited::new(body, limit).collect().await {
            Ok(body) => {
                // Copied, so that a small page does not keep a connection's large read buffer.
                let body = body.aggregate();
                let mut copy = BytesMut::with_capacity(body.remaining());
                copy.put(body);
                Ok(copy.freeze())
            }
            Err(error) if error.is::<LengthLimitError>() => {
                Err(self.error(request, ApiErrorKind::TooLarge { limit }))
            }
            Err(error) => Err(self.error(request, ApiErrorKind::Cut).with_source(error)),
        }
    }

    /// Returns the error for a malformed answer at `path`: `what` is wrong.
    pub(crate) fn malformed(&self, path: &str, what: impl Into<String>) -> ApiError {
        ApiError::new(format!("GET {path}"), &self.server, ApiErrorKind::Malformed(what.into()))
    }

    fn error(&self, request: &ApiRequest<'_>, kind: ApiErrorKind) -> ApiError {
        ApiError::new(format!("{} {}", request.method, request.path), &self.server, kind)
    }
}

/// Returns an address without the user and the password that it may hold.
fn without_password(address: &http::Uri) -> String {
    let text = address.to_string();
    match text.split_once("://") {
        Some((scheme, rest)) => {
            let (host, path) = rest.split_at(rest.find('/').unwrap_or(rest.len()));
            format!("{scheme}://{}{path}", host.rsplit('@').next().unwrap_or(host))
        }
        None => text,
    }
}
