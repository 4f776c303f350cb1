//! A receiver of notices on loopback, with or without TLS, that records every request.

use std::convert::Infallible;
use std::sync::{Arc, Mutex};

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, StatusCode, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Empty, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kbak::runtime::lock;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle;

use super::tls::acceptor;

/// A request that came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Received {
    pub method: String,
    /// The path, with the query if there is one.
    pub path: String,
    pub content_type: String,
    pub body: String,
}

/// The receiver. It ends with the test's runtime. The first step of a path selects its behaviour:
/// - `/hang`: never answers
/// - `/held`: answers well after [`ReceiverServer::release`]
/// - `/reset`: closes the connection without an answer
/// - `/redirect`: sends to `/elsewhere`
/// - `/error`: answers with 500
/// - `/gone`: answers with 404
/// - `/late`: answers with 503 once, then well
/// - `/endless`: answers well, with a body without an end
/// - anything else: answers well
pub struct ReceiverServer {
    /// `http://127.0.0.1:port`, or https.
    pub url: String,
    shared: Arc<Shared>,
    accept: JoinHandle<()>,
}

struct Shared {
    received: Mutex<Vec<Received>>,
    count: watch::Sender<usize>,
    releases: Semaphore,
}

type Body = UnsyncBoxBody<Bytes, Infallible>;

impl ReceiverServer {
    pub async fn start() -> Self {
        Self::with("http").await
    }

    /// Starts one with the certificate of [`super::tls`].
    pub async fn start_tls() -> Self {
        Self::with("https").await
    }

    async fn with(scheme: &str) -> Self {
        let listener = TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let url = format!("{scheme}://{}", listener.local_addr().expect("an address"));
        let tls = (scheme == "https").then(acceptor);
        let (received, count) = (Mutex::default(), watch::Sender::new(0));
        let shared = Arc::new(Shared { received, count, releases: Semaphore::new(0) });
        let accepted = shared.clone();
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, shared) = (tls.clone(), accepted.clone());
                tokio::spawn(async move {
                    match tls {
                        None => serve(stream, shared).await,
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                serve(stream, shared).await;
                            }
                        }
                    }
                });
            }
        });
        Self { url, shared, accept }
    }

    /// Returns the requests so far.
    pub fn received(&self) -> Vec<Received> {
        lock(&self.shared.received).clone()
    }

    /// Returns method and path of the requests so far.
    pub fn lines(&self) -> Vec<String> {
        self.received().iter().map(|one| format!("{} {}", one.method, one.path)).collect()
    }

    /// Waits until this many requests came.
    pub async fn wait_for(&self, number: usize) {
        let mut count = self.shared.count.subscribe();
        count.wait_for(|count| *count >= number).await.expect("the receiver runs");
    }

    /// Answers one request to `/held`: one that waits, or the next one.
    pub fn release(&self) {
        self.shared.releases.add_permits(1);
    }
}

impl Drop for ReceiverServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn serve<S: AsyncRead + AsyncWrite + Unpin>(stream: S, shared: Arc<Shared>) {
    let service = hyper::service::service_fn(move |request| {
        let shared = shared.clone();
        async move { answer(request, &shared).await }
    });
    let http = hyper::server::conn::http1::Builder::new();
    drop(http.serve_connection(TokioIo::new(stream), service).await);
}

async fn answer(request: Request<Incoming>, shared: &Shared) -> Result<Response<Body>, std::io::Error> {
    let path = request.uri().to_string();
    let behaviour = path.trim_start_matches('/').split(['/', '?']).next().unwrap_or_default().to_owned();
    let content_type = request.headers().get(header::CONTENT_TYPE);
    let content_type = content_type.map_or("", |value| value.to_str().expect("text")).to_owned();
    let method = request.method().to_string();
    let body = request.into_body().collect().await.map_err(std::io::Error::other)?.to_bytes();
    let earlier = {
        let mut received = lock(&shared.received);
        let body = String::from_utf8(body.to_vec()).expect("text");
        received.push(Received { method, path, content_type, body });
        shared.count.send_replace(received.len());
        received.len() - 1
    };
    let mut response = Response::new(Empty::new().boxed_unsync());
    match behaviour.as_str() {
        "hang" => std::future::pending().await,
        "held" => shared.releases.acquire().await.expect("open").forget(),
        "reset" => return Err(std::io::Error::other("closed")),
        "redirect" => {
            *response.status_mut() = StatusCode::FOUND;
            response.headers_mut().insert(header::LOCATION, "/elsewhere".parse().expect("a value"));
        }
        "error" => *response.status_mut() = StatusCode::INTERNAL_SERVER_ERROR,
        "gone" => *response.status_mut() = StatusCode::NOT_FOUND,
        "late" if earlier == 0 => *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE,
        "endless" => {
            let piece = Bytes::from(vec![b'x'; 64 << 10]);
            let pieces = futures::stream::repeat_with(move || Ok(Frame::data(piece.clone())));
            *response.body_mut() = StreamBody::new(pieces.boxed()).boxed_unsync();
        }
        _ => {}
    }
    Ok(response)
}
