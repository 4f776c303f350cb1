//! Rubbish in every place that is listed, at a store with latency: `KBAK_TEST_SIZE=full` puts 100,000 objects of
//! 1 MiB claimed size into each (scripts/soak). No verb reads one of them, except an epoch.json or a wrap.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kbak::cli::failure::Exit;
use kbak::format::ids::{NameId, ObjectHash};
use kbak::format::layout::{self, EpochPath, ObjectClass};
use kbak::format::sign::SigningKey;
use kbak::report::memory::resident;
use kbak::store::Store;
use kbak::verify::Depth;
use zeroize::Zeroizing;

use crate::support::junk_store::{JunkPlace, JunkStore, Requests};
use crate::support::program::{at_full_size, print_figure};
use crate::support::test_repo::TestRepo;
use crate::support::tree::write_seeded;

use super::forged_past::{latest, verdict};

/// The most resident memory of the process, in bytes.
const MAX_MEMORY: u64 = 128 << 20;
/// The most time that rubbish may cost a verb.
const MAX_DELAY: Duration = Duration::from_secs(60);
/// Folders of epochs and of plans that are looked into, and later wraps that are tried.
const MAX_READS: u64 = 256 + 2 * 40;
/// Listings of a place beside the pages that its rubbish fills: folders that are looked into, and objects that are
/// looked up.
const MAX_LOOKS: u64 = 10;
/// Listings of the folders that are looked into: beside the pages each twice.
const MAX_FOLDER_LISTS: u64 = 2 * 40 + 1;

fn hash(number: u32) -> ObjectHash {
    let mut hash = [0; 32];
    hash[..4].copy_from_slice(&number.to_be_bytes());
    ObjectHash(hash)
}

/// Returns every place that readers and writers list, with well-formed keys and a signature by a key that nobody
/// pins.
fn places(path: EpochPath, domain: NameId) -> Vec<JunkPlace> {
    let (writer, plan) = (path.writer, path.plan);
    let stranger = SigningKey::from_seed(&Zeroizing::new([55; 32]));
    let signed = stranger.sign_key(path.snapshot(1, hash(0))).expect("signed");
    let signature = signed.as_str().rsplit('-').next().expect("a signature").to_owned();
    let zeros = "0".repeat(56);
    let place = |name, key: Box<dyn Fn(u32) -> String + Send + Sync>| JunkPlace { name, key };
    // The keys differ in eight digits. All else of them is put together once.
    let hashed = |name, of: &dyn Fn(ObjectHash) -> String| {
        let sample = of(hash(0x00fe_dcba));
        let (start, end) = sample.split_once("00fedcba").expect("a hash");
        let (start, end) = (start.to_owned(), end.to_owned());
        place(name, Box::new(move |n| format!("{start}{n:08x}{end}")))
    };
    let record = |name, folder: &'static str| {
        hashed(name, &|hash| format!("{}-{signature}", layout::record(writer, folder, hash).as_str()))
    };
    let in_domain = |name, class| hashed(name, &|hash| path.in_domain(domain, class, hash).to_string());
    let snapshots = {
        let (start, end) = (path.snapshots_prefix(), format!("{zeros}-{signature}"));
        place("snapshots", Box::new(move |n| format!("{start}{:012}-{n:08x}{end}", n + 1)))
    };
    let epochs = {
        let (start, end) =
            (format!("{}{plan}-", layout::epochs_prefix(writer)), format!("{zeros}-{signature}"));
        place("epochs", Box::new(move |n| format!("{start}{n:032x}-{n:08x}{end}")))
    };
    let folders =
        |name, start: String, end: String| place(name, Box::new(move |n| format!("{start}{n:016x}{end}")));
    let zero_epoch = format!("{}/epoch.json", "0".repeat(32));
    vec![
        snapshots,
        epochs,
        record("trust", "trust"),
        record("distrust", "distrust"),
        record("reports", layout::REPORTS),
        hashed("records", &|hash| format!("{}{hash}", layout::records_prefix(writer))),
        hashed("bodies", &|hash| path.body(hash).to_string()),
        hashed("keys", &|hash| path.wrap(hash).to_string()),
        hashed("index", &|hash| path.index(domain, hash, [7; 16]).to_string()),
        in_domain("packs", ObjectClass::Pack),
        in_domain("needs", ObjectClass::PackRefs),
        in_domain("cache", ObjectClass::Cache),
        in_domain("state", ObjectClass::State),
        folders("epoch folders", format!("{writer}/{plan}/{}", "0".repeat(16)), "/epoch.json".to_owned()),
        folders("plan folders", format!("{writer}/"), format!("/{zero_epoch}")),
        folders("writer folders", "0".repeat(16), format!("/{plan}/{zero_epoch}")),
    ]
}

/// The seconds and the requests of each verb.
type Costs = BTreeMap<&'static str, (Duration, Requests)>;

/// Runs every verb on a repository, and returns what each costs.
async fn run_verbs(repo: &TestRepo, store: &JunkStore, folder: &std::path::Path) -> Costs {
    let mut costs = Costs::new();
    let mut note = |verb, began: Instant| {
        costs.insert(verb, (began.elapsed(), store.take_requests()));
    };
    store.take_requests();
    let began = Instant::now();
    let plans = repo.view().plans(&latest()).await.expect("plans");
    assert!(plans.iter().map(|plan| plan.chain.len()).sum::<usize>() > 0);
    note("snapshots", began);
    let began = Instant::now();
    let found = verdict(repo, Depth::Presence, false).await;
    assert_eq!(found.outcome(), Exit::Safe, "{found:?}");
    note("verify", began);
    let began = Instant::now();
    let found = verdict(repo, Depth::Presence, true).await;
    assert_eq!(found.outcome(), Exit::Safe, "{found:?}");
    note("verify --identity", began);
    let began = Instant::now();
    let target = tempfile::tempdir().expect("a folder");
    repo.restore("latest", None, &target.path().join("back")).await;
    note("restore", began);
    let began = Instant::now();
    repo.backup(folder).await;
    note("backup", began);
    costs
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rubbish_in_every_listed_place_costs_listings_only() {
    let (count, latency) = if at_full_size() { (100_000, 5) } else { (2_500, 0) };
    let latency = Duration::from_millis(latency);
    let folder = tempfile::tempdir().expect("a folder");
    write_seeded(&folder.path().join("file"), 1, 5_000);
    let mut repo = TestRepo::new().await;
    repo.backup(folder.path()).await;
    let (_, snapshot) = repo.view().select(&latest()).await.expect("a snapshot");
    let path = snapshot.envelope().path();
    let domain = snapshot.envelope().items[0].needs().expect("packs").domain;

    let bare = Arc::new(JunkStore::new(repo.memory.clone(), Vec::new(), 1, latency));
    repo.store = bare.clone();
    let usual = run_verbs(&repo, &bare, folder.path()).await;
    let inner: Arc<dyn Store> = repo.memory.clone();
    let store = Arc::new(JunkStore::new(inner, places(path, domain), count, latency));
    repo.store = store.clone();
    let costs = run_verbs(&repo, &store, folder.path()).await;
    let peak = resident().expect("the kernel's figures").peak;

    print_figure(&format!("rubbish: {count} objects a place, {} MiB resident at most", peak >> 20));
    let delay = |verb: &str| costs[verb].0.saturating_sub(usual[verb].0);
    for (verb, (_, Requests { lists, gets, all_lists })) in &costs {
        print_figure(&format!(
            "rubbish: {verb}: {:.1} s more, at most {} LISTs a place, {all_lists} in all, {} GETs; {lists:?}, {gets:?}",
            delay(verb).as_secs_f64(),
            lists.values().max().unwrap_or(&0),
            gets.values().sum::<u64>(),
        ));
    }
    // The rubbish of a place fills so many pages, and each verb lists a place once. Of folders it lists only some.
    let pages = u64::from(count).div_ceil(1_000);
    for (verb, (_, Requests { lists, gets, .. })) in &costs {
        let is_read = |place: &str| ["epoch folders", "plan folders", "keys"].contains(&place);
        assert!(gets.keys().all(|place| is_read(place)), "{verb}: {gets:?}");
        assert!(gets.values().sum::<u64>() <= MAX_READS, "{verb}: {gets:?}");
        for (place, lists) in lists {
            let most = if place.ends_with(" folders") { MAX_FOLDER_LISTS } else { pages + MAX_LOOKS };
            assert!(*lists <= most && most <= 110, "{verb}: {lists} LISTs of {place}");
        }
        assert!(!at_full_size() || delay(verb) < MAX_DELAY, "{verb}: {:?}", delay(verb));
    }
    assert!(!at_full_size() || peak < MAX_MEMORY, "{peak} bytes resident");
}
