//! Faulty servers, and the result of each fault.

use std::io::{Read as _, Write as _};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use kbak::format::layout::ObjectClass;
use kbak::report::event::Reporter;
use kbak::runtime::Runtime;
use kbak::store::listing::folders;
use kbak::store::open::open;
use kbak::store::probe::{ChecksumSupport, ConditionalPut, FeatureState, ProbeReport, Severity, probe};
use kbak::store::{PutOutcome, Store, StoreErrorKind};

use super::{TestObjects, all};
use crate::support::faulty_s3::{FaultyS3Server, S3Fault};

/// Starts a server with pages of `page` keys, and a store that uses it.
async fn faulty_store(page: usize) -> (FaultyS3Server, Arc<dyn Store>) {
    let server = FaultyS3Server::start(page).await;
    let options = server.server.options("faulty");
    let store = open(&options, &Runtime::real(), &Reporter::silent()).await.expect("a store");
    (server, store)
}

async fn probed(faults: impl IntoIterator<Item = S3Fault>) -> ProbeReport {
    let (server, store) = faulty_store(100).await;
    server.set_faults(faults);
    let objects = TestObjects::new();
    probe(&store, &objects.runtime, objects.path.writer).await.expect("a probe")
}

#[tokio::test]
async fn honest_server_passes_the_probe() {
    let probed = probed([]).await;
    assert_eq!(probed.features.conditional_put, ConditionalPut::Honoured);
    assert_eq!(probed.features.checksum, ChecksumSupport::Verified);
    assert_eq!(probed.features.versions, FeatureState::On);
    assert_eq!(probed.features.object_lock, FeatureState::Off);
    assert!(probed.features.content_etags && probed.features.ordered_lists, "{probed:?}");
    assert!(probed.findings.iter().all(|finding| finding.severity != Severity::Problem), "{probed:?}");
}

#[tokio::test]
async fn ignored_put_conditions_are_detected() {
    assert_eq!(probed([S3Fault::IgnoreIfNoneMatch]).await.features.conditional_put, ConditionalPut::Ignored);
    assert_eq!(probed([S3Fault::RaceIfNoneMatch]).await.features.conditional_put, ConditionalPut::Racy);
}

#[tokio::test]
async fn accepted_wrong_checksum_is_detected() {
    let probed = probed([S3Fault::AcceptWrongChecksum]).await;
    assert_eq!(probed.features.checksum, ChecksumSupport::Ignored);
    assert!(
        probed
            .findings
            .iter()
            .any(|finding| finding.severity == Severity::Warning && finding.what.contains("wrong checksum"))
    );
}

#[tokio::test]
async fn forgotten_object_is_detected() {
    let probed = probed([S3Fault::Forget]).await;
    assert!(!probed.features.read_after_write && !probed.features.list_after_write, "{probed:?}");
    assert!(probed.findings.iter().any(|finding| finding.severity == Severity::Problem));
}

#[tokio::test]
async fn stale_and_unordered_listings_are_detected() {
    assert!(!probed([S3Fault::StaleList]).await.features.list_after_write);
    let disordered = probed([S3Fault::ReorderList]).await;
    assert!(!disordered.features.ordered_lists);
    assert!(disordered.findings.iter().any(|finding| finding.severity == Severity::Problem));
}

#[tokio::test]
async fn listing_that_breaks_a_rule_is_an_error() {
    let (server, store) = faulty_store(3).await;
    let (objects, others) = (TestObjects::new(), TestObjects::new());
    for n in 0..8 {
        store.put(&objects.needs(1, n)).await.expect("a put");
    }
    store.put(&others.needs(1, 1)).await.expect("a put");
    let prefix = objects.path.class_prefix(kbak::format::ids::NameId([1; 8]), ObjectClass::PackRefs);
    assert_eq!(all(&store, &prefix).await.expect("a correct list").len(), 8);
    for fault in [S3Fault::ReorderList, S3Fault::RepeatPage, S3Fault::ForeignPrefix, S3Fault::LoseToken] {
        server.set_faults([fault.clone()]);
        let before = server.requests();
        let error = all(&store, &prefix).await.expect_err("a fault");
        assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{fault:?}: {error}");
        assert!(server.requests() - before <= 4, "{fault:?} ends at once");
    }
    server.set_faults([]);
    assert_eq!(folders(&store, "", 10).await.expect("a correct list").names.len(), 2);
    // A listing that skips from folder to folder sees little of a page and would miss misplaced keys.
    for fault in [S3Fault::ReorderList, S3Fault::EmptyPages] {
        server.set_faults([fault.clone()]);
        let before = server.requests();
        let error = folders(&store, "", 10).await.expect_err("a fault");
        assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{fault:?}: {error}");
        assert!(server.requests() - before <= 102, "{fault:?} ends soon");
    }
}

/// Starts a server that answers each request with this status and an endless body, at most 1 GiB.
/// Returns its address and the count of bytes sent.
fn start_endless_server(status: &'static str) -> (String, Arc<AtomicU64>) {
    let listener = std::net::TcpListener::bind(("127.0.0.1", 0)).expect("a port");
    let endpoint = format!("http://{}", listener.local_addr().expect("an address"));
    let said = Arc::new(AtomicU64::new(0));
    let count = said.clone();
    std::thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            let count = count.clone();
            std::thread::spawn(move || {
                let mut stream = stream;
                let mut asked = [0; 4096];
                let _ = stream.read(&mut asked);
                let head = format!(
                    "HTTP/1.1 {status}\r\nContent-Type: application/xml\r\nContent-Length: {}\r\n\r\n<a>",
                    1u64 << 30
                );
                let piece = vec![b'x'; 64 << 10];
                let mut sent = stream.write_all(head.as_bytes());
                while sent.is_ok() && count.load(Ordering::Relaxed) < 1 << 30 {
                    sent = stream.write_all(&piece);
                    count.fetch_add(piece.len() as u64, Ordering::Relaxed);
                }
            });
        }
    });
    (endpoint, said)
}

#[tokio::test]
async fn endless_response_is_cut_off() {
    let honest = FaultyS3Server::start(10).await;
    for status in ["500 Internal Server Error", "403 Forbidden", "200 OK"] {
        let (endpoint, said) = start_endless_server(status);
        let mut options = honest.server.options("faulty");
        options.endpoint = Some(endpoint);
        let store = open(&options, &Runtime::real(), &Reporter::silent()).await.expect("a store");
        let error = all(&store, "").await.expect_err("no listing");
        assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{status}: {error}");
        if !status.starts_with("200") {
            let error = store.get(TestObjects::new().needs(1, 1).key(), 100).await.expect_err("no object");
            assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{status}: {error}");
        }
        // Bytes in flight between the two count as sent.
        assert!(said.load(Ordering::Relaxed) < 64 << 20, "{status}: {said:?} bytes were sent");
    }
}

#[tokio::test]
async fn refused_header_is_left_out_of_later_requests() {
    for (faults, expected) in [
        (vec![], (true, true, false)),
        (vec![S3Fault::RefuseChecksum], (true, false, true)),
        (vec![S3Fault::RefuseIfNoneMatch], (false, true, false)),
        (vec![S3Fault::RefuseIfNoneMatch, S3Fault::RefuseChecksum], (false, false, true)),
    ] {
        let (server, store) = faulty_store(10).await;
        server.set_faults(faults.clone());
        let objects = TestObjects::new();
        assert_eq!(store.put(&objects.needs(1, 1)).await.expect("a put"), PutOutcome::Created, "{faults:?}");
        let before = server.requests();
        let object = objects.needs(1, 2);
        assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Created, "{faults:?}");
        assert_eq!(server.requests() - before, 1, "{faults:?}: the server was remembered as limited");
        assert_eq!(server.last_put(), Some(expected), "{faults:?}");
        assert_eq!(store.get(object.key(), 200).await.expect("a get"), *object.bytes());
    }
    let probed = probed([S3Fault::RefuseChecksum]).await;
    assert_eq!(probed.features.checksum, ChecksumSupport::Refused);
}

#[tokio::test]
async fn request_with_a_lost_answer_is_retried() {
    let (server, store) = faulty_store(10).await;
    let objects = TestObjects::new();
    server.set_faults([S3Fault::Unavailable(2)]);
    let object = objects.needs(1, 10);
    assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Created);
    server.set_faults([S3Fault::Unavailable(2)]);
    assert_eq!(store.get(object.key(), 1000).await.expect("a get"), *object.bytes());
    server.set_faults([S3Fault::AppliedButError(1)]);
    let object = objects.needs(1, 11);
    // It was stored by the first request: the second reports that.
    assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Existed);
    assert_eq!(server.versions(), 2, "each object once");
}

#[tokio::test]
async fn truncated_body_is_a_transient_error() {
    let (server, store) = faulty_store(10).await;
    let object = TestObjects::new().needs(1, 1000);
    store.put(&object).await.expect("a put");
    server.set_faults([S3Fault::CutGet]);
    // Without retries each request fails, and none returns half an object.
    let open_unwrapped = open_unwrapped(&server).await;
    let error = open_unwrapped.get(object.key(), 100_000).await.expect_err("half an object");
    assert!(error.kind.is_transient(), "{error}");
    let error = open_unwrapped.get_range(object.key(), 100..900).await.expect_err("half a range");
    assert!(error.kind.is_transient(), "{error}");
}

#[tokio::test]
async fn wrong_range_is_refused() {
    let (server, store) = faulty_store(10).await;
    let object = TestObjects::new().needs(1, 1000);
    store.put(&object).await.expect("a put");
    for fault in [S3Fault::IgnoreRange, S3Fault::ShiftRange] {
        server.set_faults([fault.clone()]);
        let error = store.get_range(object.key(), 100..900).await.expect_err("other bytes");
        assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{fault:?}: {error}");
    }
}

#[tokio::test]
async fn slow_answer_is_awaited_without_a_retry() {
    let (server, store) = faulty_store(10).await;
    let object = TestObjects::new().needs(1, 1);
    server.set_faults([S3Fault::Slow(1, Duration::from_secs(2))]);
    assert_eq!(store.put(&object).await.expect("a put"), PutOutcome::Created);
    assert_eq!(server.requests(), 1);
}

#[tokio::test]
async fn refused_connection_is_retried_a_few_times_then_given_up() {
    let mut options = kbak::store::options::StoreOptions::new("s3://bucket");
    let (server, _) = faulty_store(10).await;
    options.credentials_file = server.server.options("faulty").credentials_file;
    // Bound but not listening: connections are refused.
    let socket = tokio::net::TcpSocket::new_v4().expect("a socket");
    socket.bind("127.0.0.1:0".parse().expect("an address")).expect("a port");
    options.endpoint = Some(format!("http://{}", socket.local_addr().expect("an address")));
    let store = open(&options, &Runtime::real(), &Reporter::silent()).await.expect("no request is sent yet");
    let error = store.get(TestObjects::new().probe().key(), 10).await.expect_err("no server");
    match &error.kind {
        StoreErrorKind::RetriesExhausted { tries, last, .. } => {
            assert_eq!(*tries, 5);
            assert!(last.to_lowercase().contains("refused"), "{last}");
        }
        other => panic!("{other:?}"),
    }
}

/// Returns the store without its wrappers.
async fn open_unwrapped(server: &FaultyS3Server) -> impl Store + use<> {
    let bucket = kbak::store::options::Bucket { name: "faulty".into(), prefix: "some/prefix/".into() };
    let options = server.server.options("faulty");
    kbak::store::s3::S3Store::open(&options, bucket).await.expect("a store")
}
