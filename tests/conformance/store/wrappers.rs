//! The wrappers, under a paused clock.

use std::num::NonZeroU64;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use kbak::report::event::{Event, Observer, Reporter};
use kbak::runtime::{Runtime, lock};
use kbak::store::deadline::{DeadlineStore, StoreDeadlines};
use kbak::store::fault::{FaultRule, FaultStore, StoreFault};
use kbak::store::limit::{LimitStore, Rates};
use kbak::store::memory::MemoryStore;
use kbak::store::open::wrap;
use kbak::store::operation::Operation;
use kbak::store::recording::RecordingStore;
use kbak::store::retry::{RetryPolicy, RetryStore};
use kbak::store::{PutOutcome, Store, StoreErrorKind};
use tokio::time::Instant;

use super::contract::check_contract;
use super::{TestObjects, all};

fn runtime() -> Runtime {
    Runtime::seeded(7, "2026-11-23T00:00:00Z".parse().expect("a time"))
}

fn memory() -> Arc<MemoryStore> {
    Arc::new(MemoryStore::new(runtime().clock))
}

#[derive(Default)]
struct Retries(Mutex<Vec<(String, u32, String)>>);

impl Observer for Retries {
    fn event(&self, event: &Event) {
        if let Event::Retry { operation, attempt, reason } = event {
            lock(&self.0).push((operation.clone(), *attempt, reason.clone()));
        }
    }
}

/// Returns a memory store behind a fault script, a record of the calls that reach it, and all wrappers.
fn hardened(rules: Vec<FaultRule>) -> (Arc<RecordingStore>, Arc<dyn Store>, Arc<Retries>) {
    let record = Arc::new(RecordingStore::new(Arc::new(FaultStore::new(memory(), rules))));
    let retries = Arc::new(Retries::default());
    let store = wrap(record.clone(), Rates::default(), &runtime(), &Reporter::new(retries.clone()));
    (record, store, retries)
}

#[tokio::test(start_paused = true)]
async fn wrapped_store_meets_the_contract() {
    let rates = Rates { upload: NonZeroU64::new(1 << 20), download: NonZeroU64::new(1 << 20) };
    check_contract(wrap(Arc::new(RecordingStore::new(memory())), rates, &runtime(), &Reporter::silent()))
        .await;
}

#[tokio::test(start_paused = true)]
async fn every_operation_survives_every_transient_fault() {
    let passing = || {
        [
            StoreFault::unavailable(),
            StoreFault::Cut(10),
            StoreFault::AppliedButError,
            StoreFault::Slow(Duration::from_secs(30)),
            StoreFault::Hang,
        ]
    };
    for operation in [
        Operation::Put,
        Operation::Get,
        Operation::GetRange,
        Operation::List,
        Operation::Delete,
        Operation::Now,
    ] {
        for fault in passing() {
            let (record, store, _) = hardened(vec![FaultRule::once(operation, "*", 1, fault.clone())]);
            let object = TestObjects::new().needs(1, 10);
            store.put(&object).await.expect("a put");
            assert_eq!(store.get(object.key(), 1000).await.expect("a get"), *object.bytes());
            assert_eq!(
                store.get_range(object.key(), 0..8).await.expect("a range"),
                object.bytes().slice(..8)
            );
            assert_eq!(all(&store, "").await.expect("a list").len(), 1, "{operation} {fault:?}");
            store.delete(object.key()).await.expect("a delete");
            store.now().await.expect("the time");
            let tries = record.count(operation).0;
            let expected =
                if matches!(fault, StoreFault::Slow(_) | StoreFault::Cut(_)) { 1..=2 } else { 2..=2 };
            // A deadline drops the try before it is recorded.
            let expected = if fault == StoreFault::Hang { 1..=1 } else { expected };
            assert!(expected.contains(&tries), "{operation} {fault:?}: {tries} tries");
        }
    }
}

#[tokio::test(start_paused = true)]
async fn store_that_never_answered_is_given_up_soon() {
    let (record, store, retries) =
        hardened(vec![FaultRule::from(Operation::Put, "*", 1, StoreFault::unavailable())]);
    let object = TestObjects::new().probe();
    let error = store.put(&object).await.expect_err("it never answers");
    assert!(matches!(error.kind, StoreErrorKind::RetriesExhausted { tries: 5, .. }), "{error}");
    assert!(error.to_string().contains(object.key().as_str()), "{error}");
    assert_eq!(record.count(Operation::Put).0, 5);
    let told = lock(&retries.0);
    assert_eq!(told.iter().map(|(_, attempt, _)| *attempt).collect::<Vec<_>>(), [2, 3, 4, 5]);
    assert!(told.iter().all(|(operation, _, why)| operation.starts_with("put ") && why.contains("503")));
}

#[tokio::test(start_paused = true)]
async fn store_that_once_answered_is_retried_up_to_ten_minutes() {
    let (record, store, _) =
        hardened(vec![FaultRule::from(Operation::Put, "*", 2, StoreFault::unavailable())]);
    let objects = TestObjects::new();
    store.put(&objects.probe()).await.expect("the first");
    let begun = Instant::now();
    let error = store.put(&objects.probe()).await.expect_err("then never again");
    let StoreErrorKind::RetriesExhausted { tries, after, .. } = error.kind else { panic!("{error}") };
    assert_eq!(u64::from(tries), record.count(Operation::Put).0 - 1);
    assert!(tries > 20, "{tries} tries");
    assert_eq!(after, begun.elapsed());
    assert!(after <= RetryPolicy::default().budget, "{after:?}");
}

#[tokio::test(start_paused = true)]
async fn pauses_are_jittered_within_their_ceiling_and_repeat_with_the_seed() {
    async fn pauses(seed: u64) -> Vec<Duration> {
        #[derive(Default)]
        struct Times(Mutex<Vec<Instant>>);
        impl Observer for Times {
            fn event(&self, _: &Event) {
                lock(&self.0).push(Instant::now());
            }
        }
        let times = Arc::new(Times::default());
        let fault = FaultStore::new(
            memory(),
            vec![FaultRule::from(Operation::Now, "", 1, StoreFault::unavailable())],
        );
        let patience = RetryPolicy { initial_tries: 12, ..RetryPolicy::default() };
        let runtime = Runtime::seeded(seed, "2026-11-23T00:00:00Z".parse().expect("a time"));
        let store = RetryStore::new(Arc::new(fault), patience, runtime, Reporter::new(times.clone()));
        store.now().await.expect_err("never");
        let end = Instant::now();
        let mut times = lock(&times.0).clone();
        times.push(end);
        times.windows(2).map(|pair| pair[1] - pair[0]).collect()
    }
    let first = pauses(1).await;
    assert_eq!(first.len(), 11);
    assert_eq!(first, pauses(1).await);
    assert_ne!(first, pauses(2).await);
    let mut ceiling = RetryPolicy::default().first_pause;
    for pause in first {
        // Timers have a resolution of milliseconds.
        assert!(pause <= ceiling + Duration::from_millis(2), "{pause:?} over {ceiling:?}");
        ceiling = (ceiling * 2).min(RetryPolicy::default().max_pause);
    }
}

#[tokio::test(start_paused = true)]
async fn permanent_errors_are_not_retried() {
    for kind in [
        StoreErrorKind::NotFound,
        StoreErrorKind::Denied("x".into()),
        StoreErrorKind::Credentials("x".into()),
        StoreErrorKind::Full,
        StoreErrorKind::Protocol("x".into()),
    ] {
        let (record, store, _) =
            hardened(vec![FaultRule::from(Operation::Get, "*", 1, StoreFault::Fail(kind.clone()))]);
        let error = store.get(TestObjects::new().probe().key(), 1).await.expect_err("a fault");
        assert_eq!(error.kind, kind);
        assert_eq!(record.count(Operation::Get).0, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn try_ends_at_its_deadline() {
    let fault = FaultStore::new(memory(), vec![FaultRule::from(Operation::Put, "*", 1, StoreFault::Hang)]);
    let deadlines = StoreDeadlines { base: Duration::from_secs(10), slowest: 100 };
    let store = DeadlineStore::new(Arc::new(fault), deadlines);
    let begun = Instant::now();
    let object = TestObjects::new().needs(1, 5);
    let error = store.put(&object).await.expect_err("it hangs");
    assert!(error.kind.is_transient(), "{error}");
    assert_eq!(begun.elapsed(), Duration::from_secs(10 + 3), "296 bytes at 100 a second");
}

#[tokio::test(start_paused = true)]
async fn rate_limit_is_kept_on_average() {
    let rates = Rates { upload: NonZeroU64::new(1000), download: NonZeroU64::new(500) };
    let store = Arc::new(LimitStore::new(memory(), rates));
    let objects = TestObjects::new();
    let put: Vec<_> = (0..10).map(|n| objects.needs(n, 18)).collect();
    let begun = Instant::now();
    // All concurrent requests share one rate limit in each direction.
    futures::future::join_all(put.iter().map(|object| store.put(object))).await;
    let seconds = |from: Instant| from.elapsed().as_secs_f64();
    assert!((seconds(begun) - 9.0 * 1.024).abs() < 0.1, "9 of 10 times 1024 bytes: {}", seconds(begun));
    let begun = Instant::now();
    for object in &put {
        store.get(object.key(), 2000).await.expect("a get");
    }
    assert!((seconds(begun) - 9.0 * 2.048).abs() < 0.1, "{}", seconds(begun));
    tokio::time::sleep(Duration::from_secs(100)).await;
    let begun = Instant::now();
    store.get_range(put[0].key(), 0..500).await.expect("a range");
    store.get_range(put[0].key(), 0..500).await.expect("a range");
    assert!((seconds(begun) - 1.0).abs() < 0.1, "time unused is not saved up: {}", seconds(begun));
}

#[tokio::test]
async fn injected_read_faults_show_in_the_results() {
    let (memory, objects) = (memory(), TestObjects::new());
    let (a, b, c) = (objects.needs(1, 3), objects.needs(2, 3), objects.needs(3, 3));
    let fault = FaultStore::new(memory, vec![]);
    for object in [&a, &b, &c] {
        assert_eq!(fault.put(object).await.expect("a put"), PutOutcome::Created);
    }
    fault.set(vec![
        FaultRule::once(Operation::Get, a.key().as_str(), 1, StoreFault::Truncate(5)),
        FaultRule::once(Operation::Get, a.key().as_str(), 2, StoreFault::FlipBit(17)),
        FaultRule::once(Operation::Get, "*/needs/*", 3, StoreFault::Missing),
        FaultRule::once(Operation::List, "*", 1, StoreFault::Stale(1)),
        FaultRule::once(Operation::List, "*", 2, StoreFault::DropPage),
        FaultRule::once(Operation::List, "*", 3, StoreFault::ReorderPage),
        FaultRule::once(Operation::List, "*", 4, StoreFault::RepeatPage),
        FaultRule::once(Operation::Put, "*", 1, StoreFault::Forget),
    ]);
    assert_eq!(fault.get(a.key(), 1000).await.expect("a get"), a.bytes().slice(..5));
    let flipped = fault.get(a.key(), 1000).await.expect("a get");
    assert_eq!(flipped[2] ^ a.bytes()[2], 2);
    assert_eq!(fault.get(b.key(), 1000).await.expect_err("missing").kind, StoreErrorKind::NotFound);
    let fault = Arc::new(fault);
    let store: Arc<dyn Store> = fault.clone();
    assert_eq!(all(&store, "").await.expect("a list").len(), 2, "without the newest");
    assert_eq!(all(&store, "").await.expect("a list").len(), 0, "a page is dropped");
    for fault in ["reordered", "repeated"] {
        let error = all(&store, "").await.expect_err(fault);
        assert!(matches!(error.kind, StoreErrorKind::Protocol(_)), "{fault}: {error}");
    }
    assert_eq!(all(&store, "").await.expect("a list").len(), 3);
    assert_eq!(store.put(&objects.probe()).await.expect("a put"), PutOutcome::Created);
    assert_eq!(all(&store, "").await.expect("a list").len(), 3, "it was forgotten");
    assert_eq!(fault.fired(), 8);
}
