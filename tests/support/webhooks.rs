//! A webhook server over TLS on loopback: converts Tanks, and admits or refuses objects.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::sync::watch;
use tokio::task::JoinHandle;

use kbak::runtime::lock;

use super::tls::{CA, acceptor};

/// The server. It ends with the test's runtime. The path of a request selects its behaviour:
/// - `/convert`: converts Tanks
/// - `/admit/NAME`: admits everything
/// - `/deny/NAME`: refuses everything
/// - `/label/NAME`: replaces all labels of an object by `team: shop`
/// - `/after/OTHER`: refuses until `/admit/OTHER` was asked
/// - `/late/COUNT/NAME`: first answers 503 this many times, like a webhook whose pods are not up
/// - `/together/COUNT/NAME`: answers only once this many requests are open at the same time
pub struct WebhookServer {
    address: String,
    state: Arc<State>,
    accept: JoinHandle<()>,
}

#[derive(Default)]
struct State {
    requests: Mutex<BTreeMap<String, u64>>,
    /// By path.
    barriers: Mutex<BTreeMap<String, Arc<Barrier>>>,
}

impl WebhookServer {
    /// Starts one in the caller's runtime.
    pub async fn start() -> Self {
        let tls = acceptor();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address").to_string();
        let state = Arc::new(State::default());
        let shared = state.clone();
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (tls, state) = (tls.clone(), shared.clone());
                tokio::spawn(async move {
                    let Ok(stream) = tls.accept(stream).await else { return };
                    let service = hyper::service::service_fn(move |request| answer(state.clone(), request));
                    let http = hyper::server::conn::http1::Builder::new();
                    drop(http.serve_connection(TokioIo::new(stream), service).await);
                });
            }
        });
        Self { address, state, accept }
    }

    /// Returns the `clientConfig` of a webhook at `path`.
    pub fn client(&self, path: &str) -> Value {
        json!({"url": format!("https://{}{path}", self.address), "caBundle": BASE64.encode(CA)})
    }

    /// Returns the number of requests for `path`, refusals counted.
    pub fn requests(&self, path: &str) -> u64 {
        self.state.requests(path)
    }
}

impl State {
    /// Counts a request and returns the new count.
    fn count_request(&self, path: &str) -> u64 {
        let mut requests = lock(&self.requests);
        let count = requests.entry(path.to_owned()).or_default();
        *count += 1;
        *count
    }

    fn requests(&self, path: &str) -> u64 {
        lock(&self.requests).get(path).copied().unwrap_or_default()
    }

    /// Returns once `count` requests wait together; later requests do not wait.
    async fn wait_for_group(&self, path: &str, count: usize) {
        let barrier = lock(&self.barriers).entry(path.to_owned()).or_default().clone();
        // A client that gives up closes its connection, which ends its wait.
        let guard = BarrierGuard(barrier.clone());
        if barrier.inside.fetch_add(1, Ordering::SeqCst) + 1 >= count {
            barrier.open.send_replace(true);
        }
        let mut open = barrier.open.subscribe();
        let _ = open.wait_for(|open| *open).await;
        drop(guard);
    }
}

/// A place where requests wait for each other.
#[derive(Default)]
struct Barrier {
    inside: AtomicUsize,
    open: watch::Sender<bool>,
}

struct BarrierGuard(Arc<Barrier>);

impl Drop for BarrierGuard {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::SeqCst);
    }
}

impl Drop for WebhookServer {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

async fn answer(
    state: Arc<State>,
    request: Request<hyper::body::Incoming>,
) -> Result<Response<Full<Bytes>>, Infallible> {
    let path = request.uri().path().to_owned();
    let requests = state.count_request(&path);
    let body = request.into_body().collect().await.map(|body| body.to_bytes()).unwrap_or_default();
    let review: Value = serde_json::from_slice(&body).unwrap_or_default();
    let uid = &review["request"]["uid"];
    let allowed = json!({"uid": uid, "allowed": true});
    let refused = json!({"uid": uid, "allowed": false, "status": {"code": 403, "message": "not here"}});
    let mut steps = path.trim_start_matches('/').split('/');
    let (verb, first) = (steps.next().unwrap_or_default(), steps.next().unwrap_or_default());
    let count: u64 = first.parse().unwrap_or_default();
    let mut response = Response::new(Full::default());
    let said = match verb {
        "convert" => {
            json!({"uid": uid, "result": {"status": "Success"}, "convertedObjects": converted(&review)})
        }
        "deny" => refused,
        "label" => {
            let patch = json!([{"op": "add", "path": "/metadata/labels", "value": {"team": "shop"}}]);
            let patch = BASE64.encode(patch.to_string());
            json!({"uid": uid, "allowed": true, "patchType": "JSONPatch", "patch": patch})
        }
        "after" if state.requests(&format!("/admit/{first}")) == 0 => refused,
        "late" if requests <= count => {
            *response.status_mut() = StatusCode::SERVICE_UNAVAILABLE;
            return Ok(response);
        }
        "together" => {
            state.wait_for_group(&path, count as usize).await;
            allowed
        }
        _ => allowed,
    };
    let answer = json!({"apiVersion": review["apiVersion"], "kind": review["kind"], "response": said});
    *response.body_mut() = Full::new(Bytes::from(answer.to_string()));
    Ok(response)
}

/// Returns the objects of a review at the requested version.
fn converted(review: &Value) -> Vec<Value> {
    let wanted = review["request"]["desiredAPIVersion"].as_str().unwrap_or_default();
    let objects = review["request"]["objects"].as_array().cloned().unwrap_or_default();
    objects.into_iter().map(|object| tank(object, wanted)).collect()
}

/// Converts a Tank between `litres: 5` in v1 and `volume: {amount: 5, unit: l}` in v2.
fn tank(mut object: Value, wanted: &str) -> Value {
    if object["apiVersion"] != wanted {
        let litres = object.pointer("/spec/litres").cloned();
        let amount = object.pointer("/spec/volume/amount").cloned();
        if let Some(spec) = object.get_mut("spec").and_then(Value::as_object_mut) {
            spec.remove("litres");
            spec.remove("volume");
            match (litres, amount) {
                (Some(litres), _) => spec.insert("volume".into(), json!({"amount": litres, "unit": "l"})),
                (None, Some(amount)) => spec.insert("litres".into(), amount),
                (None, None) => None,
            };
        }
        object["apiVersion"] = json!(wanted);
    }
    object
}
