//! An S3 server with faults on demand: real HTTP, checked signatures, versions, and a create-new
//! put that is atomic unless a fault is set.

mod bucket;

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use hyper_util::rt::TokioIo;
use s3s::S3ErrorCode;
use s3s::auth::SimpleAuth;
use s3s::service::S3ServiceBuilder;
use tokio::task::JoinHandle;
use tokio_rustls::TlsAcceptor;

use kbak::runtime::lock;

use self::bucket::Bucket;
use super::servers::{KEY, S3Server, SECRET};
use super::tls::{acceptor, self_signed_acceptor};

/// A fault of the server.
#[derive(Debug, Clone, PartialEq)]
pub enum S3Fault {
    /// Replaces an object although it was asked to create one.
    IgnoreIfNoneMatch,
    /// Checks that the key is free, and stores later: all racing puts succeed.
    RaceIfNoneMatch,
    /// Answers 501 to a create-new put.
    RefuseIfNoneMatch,
    /// Verifies no checksum.
    AcceptWrongChecksum,
    /// Answers 400 to an unknown checksum.
    RefuseChecksum,
    /// Acknowledges an object and does not store it.
    Forget,
    /// Returns a page of a listing in reverse.
    ReorderList,
    /// Returns the same page for ever.
    RepeatPage,
    /// Returns pages without keys for ever, each with another token.
    EmptyPages,
    /// Leaves the newest object out of listings.
    StaleList,
    /// Lists a key outside the requested prefix.
    ForeignPrefix,
    /// Ends a listing's page early without a token for the next.
    LoseToken,
    /// Announces a body's length and cuts the connection in the middle.
    CutGet,
    /// Returns the whole object for a range.
    IgnoreRange,
    /// Returns another range than the requested one.
    ShiftRange,
    /// Answers 503 this many times.
    Unavailable(u32),
    /// Stores the object and answers 500, this many times.
    AppliedButError(u32),
    /// Delays the answer this many times by this long.
    Slow(u32, Duration),
    /// Answers every request with this code.
    Always(S3ErrorCode),
}

#[derive(Clone)]
struct Version {
    bytes: Bytes,
    at: SystemTime,
}

#[derive(Default)]
struct State {
    /// All versions of each key, the newest last.
    objects: BTreeMap<String, Vec<Version>>,
    newest: String,
    faults: Vec<S3Fault>,
    requests: u64,
    last_put: Option<(bool, bool, bool)>,
}

/// The server. It stops when it is dropped.
pub struct FaultyS3Server {
    /// Its address and credentials.
    pub server: S3Server,
    state: Arc<Mutex<State>>,
    accept: JoinHandle<()>,
}

impl Drop for FaultyS3Server {
    fn drop(&mut self) {
        self.accept.abort();
    }
}

impl FaultyS3Server {
    /// Starts a server without faults, with the one bucket `faulty`, in the caller's runtime.
    pub async fn start(page: usize) -> Self {
        Self::serve(page, None).await
    }

    /// The same over TLS.
    pub async fn start_tls(page: usize) -> Self {
        Self::serve(page, Some(acceptor())).await
    }

    /// The same with a certificate that is its own authority.
    pub async fn start_self_signed(page: usize) -> Self {
        Self::serve(page, Some(self_signed_acceptor())).await
    }

    async fn serve(page: usize, tls: Option<TlsAcceptor>) -> Self {
        let state = Arc::new(Mutex::new(State::default()));
        let mut service = S3ServiceBuilder::new(Bucket { state: state.clone(), page });
        service.set_auth(SimpleAuth::from_single(KEY, SECRET));
        let service = service.build();
        let listener = tokio::net::TcpListener::bind(("127.0.0.1", 0)).await.expect("a free port");
        let address = listener.local_addr().expect("an address");
        let scheme = if tls.is_some() { "https" } else { "http" };
        let accept = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let (service, tls) = (service.clone(), tls.clone());
                // A connection that ends badly is part of many faults.
                tokio::spawn(async move {
                    let http = hyper::server::conn::http1::Builder::new();
                    match tls {
                        None => drop(http.serve_connection(TokioIo::new(stream), service).await),
                        Some(tls) => {
                            if let Ok(stream) = tls.accept(stream).await {
                                drop(http.serve_connection(TokioIo::new(stream), service).await);
                            }
                        }
                    }
                });
            }
        });
        Self { server: S3Server::own(format!("{scheme}://{address}")), state, accept }
    }

    /// Sets the faults from now on.
    pub fn set_faults(&self, faults: impl IntoIterator<Item = S3Fault>) {
        self.lock().faults = faults.into_iter().collect();
    }

    /// Returns the number of requests.
    pub fn requests(&self) -> u64 {
        self.lock().requests
    }

    /// Returns the number of versions of all objects.
    pub fn versions(&self) -> usize {
        self.lock().objects.values().map(Vec::len).sum()
    }

    /// Returns the headers of the last put: `true` for each of If-None-Match, SHA-256, Content-MD5.
    pub fn last_put(&self) -> Option<(bool, bool, bool)> {
        self.lock().last_put
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        lock(&self.state)
    }
}
