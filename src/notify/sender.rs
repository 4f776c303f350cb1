//! Sends one request to a receiver: deadlines, bounded tries, no redirects, and no byte of the answer's body.

use std::io;
use std::path::Path;
use std::time::Duration;

use aws_smithy_http_client::Connector;
use aws_smithy_http_client::tls::TrustStore;
use aws_smithy_runtime_api::client::http::HttpConnector as _;
use aws_smithy_runtime_api::client::orchestrator::HttpRequest;
use aws_smithy_runtime_api::client::result::ConnectorError;
use aws_smithy_types::body::SdkBody;
use backon::{BackoffBuilder as _, ExponentialBuilder};
use http::{Method, header};
use tokio::time::{sleep, timeout};

use super::NoticeLimits;
use crate::report::error::find_cause;
use crate::report::text::opaque_debug;
use crate::store::https;

/// The time limit of a connection with its TLS handshake.
const CONNECT: Duration = Duration::from_secs(5);
/// The first wait between tries. It doubles, with jitter.
const FIRST_WAIT: Duration = Duration::from_millis(500);

/// A request. Its address is secret.
pub(super) struct Outgoing {
    method: Method,
    address: String,
    content_type: Option<&'static str>,
    body: String,
}

opaque_debug!(Outgoing: "Outgoing", HttpSender: "HttpSender");

impl Outgoing {
    pub(super) fn get(address: String) -> Self {
        Self { method: Method::GET, address, content_type: None, body: String::new() }
    }

    pub(super) fn post(address: String, content_type: &'static str, body: String) -> Self {
        Self { method: Method::POST, address, content_type: Some(content_type), body }
    }

    /// True if the address is one of https.
    pub(super) fn is_tls(&self) -> bool {
        self.address.starts_with("https:")
    }

    fn request(&self) -> Option<HttpRequest> {
        let mut request = http::Request::builder()
            .method(&self.method)
            .uri(&self.address)
            .header(header::USER_AGENT, concat!("kbak/", env!("CARGO_PKG_VERSION")));
        if let Some(content_type) = self.content_type {
            request = request.header(header::CONTENT_TYPE, content_type);
        }
        HttpRequest::try_from(request.body(SdkBody::from(self.body.as_str())).ok()?).ok()
    }
}

/// A notice that did not reach its receiver. The text repeats nothing of the address or the answer.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(super) enum SendError {
    /// The client cannot be made.
    #[error("{0}")]
    Client(String),
    /// The request cannot be made of the address.
    #[error("no request can be made of the address")]
    Request,
    /// There was no connection, or it broke.
    #[error("no connection ({0})")]
    Connection(String),
    /// The TLS handshake failed.
    #[error("its certificate is not accepted, or TLS failed")]
    Tls,
    /// No answer came in time.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The answer is a redirect.
    #[error("it redirects ({0}), which is not followed: give the final address")]
    Redirect(u16),
    /// The answer is an error.
    #[error("it answers with {0}")]
    Status(u16),
}

impl SendError {
    /// True if another try may succeed.
    fn is_transient(&self) -> bool {
        match self {
            Self::Client(_) | Self::Request | Self::Tls | Self::Redirect(_) => false,
            Self::Connection(_) | Self::Deadline(_) => true,
            Self::Status(code) => *code >= 500 || matches!(code, 408 | 429),
        }
    }
}

/// Sends requests over one client.
pub(super) struct HttpSender(Result<Connector, String>);

impl HttpSender {
    /// Creates a client that trusts the system's CAs and those of `ca_file`; none without TLS.
    pub(super) fn new(ca_file: Option<&Path>, is_tls: bool) -> Self {
        let trust = match ca_file {
            _ if !is_tls => Ok(TrustStore::empty()),
            Some(file) => https::read_ca(file).map(|ca| TrustStore::default().with_pem_certificate(ca.pem)),
            None => Ok(TrustStore::default()),
        };
        Self(trust.and_then(|trust| https::connector(trust, CONNECT)))
    }

    /// Sends a request until it succeeds, its tries are used, or the time is over.
    pub(super) async fn send(&self, outgoing: &Outgoing, limits: NoticeLimits) -> Result<(), SendError> {
        let waits = ExponentialBuilder::new()
            .with_min_delay(FIRST_WAIT)
            .with_max_times(limits.tries.saturating_sub(1) as usize)
            .with_jitter()
            .build();
        let mut last = SendError::Deadline(limits.total);
        let tries = async {
            let mut waits = waits;
            loop {
                match self.try_once(outgoing, limits.answer).await {
                    Err(error) if error.is_transient() => last = error,
                    ended => return ended,
                }
                match waits.next() {
                    Some(wait) => sleep(wait).await,
                    None => return Err(last.clone()),
                }
            }
        };
        match timeout(limits.total, tries).await {
            Ok(ended) => ended,
            Err(_) => Err(last),
        }
    }

    async fn try_once(&self, outgoing: &Outgoing, answer: Duration) -> Result<(), SendError> {
        let client = self.0.as_ref().map_err(|error| SendError::Client(error.clone()))?;
        let request = outgoing.request().ok_or(SendError::Request)?;
        let response = match timeout(answer, client.call(request)).await {
            Ok(Ok(response)) => response,
            Ok(Err(error)) => return Err(connection_error(&error)),
            Err(_) => return Err(SendError::Deadline(answer)),
        };
        // The body is dropped unread: a receiver may send gigabytes.
        match response.status().as_u16() {
            200..=299 => Ok(()),
            code @ 300..=399 => Err(SendError::Redirect(code)),
            code => Err(SendError::Status(code)),
        }
    }
}

/// Returns the kind of a failure. The errors themselves can name the host.
fn connection_error(error: &ConnectorError) -> SendError {
    if find_cause::<rustls::Error>(error).is_some() {
        return SendError::Tls;
    }
    if error.is_timeout() {
        return SendError::Deadline(CONNECT);
    }
    let kind = find_cause::<io::Error>(error).map(io::Error::kind);
    SendError::Connection(match kind {
        Some(io::ErrorKind::Other) | None => "is its name known, and the proxy right?".to_owned(),
        Some(kind) => kind.to_string(),
    })
}
