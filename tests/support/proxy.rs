//! A proxy before an API server, on loopback, for faults that a real one does not make on demand.
//! Other requests pass through unchanged.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use futures::StreamExt as _;
use http::{Request, Response, header};
use http_body_util::combinators::UnsyncBoxBody;
use http_body_util::{BodyExt as _, Full, StreamBody};
use hyper::body::{Frame, Incoming};
use hyper_util::rt::TokioIo;
use kube::config::{KubeConfigOptions, Kubeconfig};
use tokio::task::JoinHandle;

use kbak::runtime::lock;

/// A request on its way.
#[derive(Debug, Clone)]
pub struct ProxiedRequest {
    pub method: http::Method,
    pub path: String,
    pub query: String,
    /// The number of earlier requests for this path.
    pub earlier: u32,
}

impl ProxiedRequest {
    /// True if it is the first page of a list at a revision.
    pub fn is_exact(&self) -> bool {
        self.query.contains("resourceVersionMatch=Exact")
    }
}

/// A fault of an answer.
pub enum ProxyFault {
    /// Answers with this status instead, with a Retry-After in seconds.
    Status(u16, Option<u32>),
    /// Announces the whole length and sends this many bytes.
    Cut(usize),
    /// Ends the connection without an answer.
    Drop,
    /// Delays the answer.
    Late(Duration),
    /// Changes the body.
    Body(fn(Vec<u8>) -> Vec<u8>),
    /// Takes the answer from another API server.
    OtherServer(kube::Client),
}

type Rule = dyn Fn(&ProxiedRequest) -> Option<ProxyFault> + Send + Sync;
type Body = UnsyncBoxBody<Bytes, std::io::Error>;

/// The proxy; it ends when dropped.
pub struct Proxy {
    kubeconfig: tempfile::TempPath,
    requests: Arc<Mutex<HashMap<String, u32>>>,
    accept: JoinHandle<()>,
}

impl Proxy {
    /// Starts a proxy before the API server that `kubeconfig` names, with its credentials.
    pub async fn in_front_of<R>(kubeconfig: &Path, rule: R) -> Self
    where
        R: Fn(&ProxiedRequest) -> Option<ProxyFault> + Send + Sync + 'static,
    {
        let upstream = upstream(kubeconfig).await;
        let rule: Arc<Rule> = Arc::new(rule);
        let requests = Arc::new(Mutex::new(HashMap::new()));
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let counts = requests.clone();
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (upstream, rule, counts) = (upstream.clone(), rule.clone(), counts.clone());
                tokio::spawn(async move {
                    let service = hyper::service::service_fn(move |request: Request<Incoming>| {
                        let (upstream, rule) = (upstream.clone(), rule.clone());
                        let path = request.uri().path().to_owned();
                        let query = request.uri().query().unwrap_or_default().to_owned();
                        let earlier = {
                            let mut counts = lock(&counts);
                            let count = counts.entry(path.clone()).or_insert(0);
                            *count += 1;
                            *count - 1
                        };
                        let fault =
                            rule(&ProxiedRequest { method: request.method().clone(), path, query, earlier });
                        answer(upstream, request, fault)
                    });
                    let http = hyper::server::conn::http1::Builder::new();
                    // A connection that ends badly is part of some faults.
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        let text = serde_json::json!({
            "apiVersion": "v1", "kind": "Config", "current-context": "proxy",
            "clusters": [{"name": "proxy", "cluster": {"server": format!("http://{address}")}}],
            "users": [{"name": "proxy", "user": {}}],
            "contexts": [{"name": "proxy", "context": {"cluster": "proxy", "user": "proxy"}}],
        });
        let file = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        std::fs::write(&file, text.to_string()).expect("a kubeconfig");
        Self { kubeconfig: file, requests, accept }
    }

    /// Returns the kubeconfig of the proxy.
    pub fn kubeconfig(&self) -> PathBuf {
        self.kubeconfig.to_path_buf()
    }

    /// Returns the number of all requests.
    pub fn total(&self) -> u64 {
        lock(&self.requests).values().map(|count| u64::from(*count)).sum()
    }

    /// Returns the number of requests for a path.
    pub fn count(&self, path: &str) -> u32 {
        lock(&self.requests).get(path).copied().unwrap_or(0)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

/// Returns a client for the server behind a proxy.
pub async fn upstream(kubeconfig: &Path) -> kube::Client {
    let kubeconfig = Kubeconfig::read_from(kubeconfig).expect("a kubeconfig");
    let options = KubeConfigOptions::default();
    let mut config =
        kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.expect("a configuration");
    config.default_retry = false;
    kube::Client::try_from(config).expect("a client")
}

async fn answer(
    upstream: kube::Client,
    request: Request<Incoming>,
    fault: Option<ProxyFault>,
) -> Result<Response<Body>, std::io::Error> {
    let upstream = match &fault {
        Some(ProxyFault::Drop) => return Err(std::io::Error::other("dropped")),
        Some(ProxyFault::Status(code, wait)) => return Ok(status(*code, *wait)),
        Some(ProxyFault::OtherServer(other)) => other.clone(),
        _ => upstream,
    };
    if let Some(ProxyFault::Late(wait)) = &fault {
        tokio::time::sleep(*wait).await;
    }
    let (parts, body) = request.into_parts();
    let body = body.collect().await.map_err(std::io::Error::other)?.to_bytes();
    let mut onward =
        Request::builder().method(parts.method).uri(parts.uri.path_and_query().expect("a path").as_str());
    for name in [header::ACCEPT, header::CONTENT_TYPE] {
        if let Some(value) = parts.headers.get(&name) {
            onward = onward.header(name, value);
        }
    }
    let onward = onward.body(kube::client::Body::from(body.to_vec())).expect("a request");
    let answer = upstream.send(onward).await.map_err(std::io::Error::other)?;
    let (mut parts, body) = answer.into_parts();
    let mut body = body.collect().await.map_err(std::io::Error::other)?.to_bytes().to_vec();
    parts.headers.remove(header::TRANSFER_ENCODING);
    if let Some(ProxyFault::Body(change)) = fault {
        body = change(body);
    }
    parts.headers.insert(header::CONTENT_LENGTH, body.len().into());
    let body = match fault {
        Some(ProxyFault::Cut(at)) => {
            let some = Bytes::from(body[..at.min(body.len())].to_vec());
            let pieces = [Ok(Frame::data(some)), Err(std::io::Error::other("cut"))];
            StreamBody::new(futures::stream::iter(pieces).boxed()).boxed_unsync()
        }
        _ => Full::new(Bytes::from(body)).map_err(|never| match never {}).boxed_unsync(),
    };
    Ok(Response::from_parts(parts, body))
}

fn status(code: u16, wait: Option<u32>) -> Response<Body> {
    let text = serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "status": "Failure", "code": code, "message": "made by a test",
    });
    let body = Full::new(Bytes::from(text.to_string())).map_err(|never| match never {}).boxed_unsync();
    let mut response = Response::builder().status(code);
    if let Some(wait) = wait {
        response = response.header(header::RETRY_AFTER, wait);
    }
    response.body(body).expect("a response")
}
