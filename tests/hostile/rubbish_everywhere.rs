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
const MAX_READS: u64 = 256 + 2 * 101;

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
    let place = |name, key: Box<dyn Fn(u32) -> String + Send + Sync>| JunkPlace { name, key };
    let with = |name, unsigned: Box<dyn Fn(u32) -> String + Send + Sync>| {
        let signature = signature.clone();
        place(name, Box::new(move |number| format!("{}-{signature}", unsigned(number))))
    };
    let in_domain = |name, class| {
        place(name, Box::new(move |number| path.in_domain(domain, class, hash(number)).to_string()))
    };
    vec![
        with("snapshots", Box::new(move |n| path.snapshot(u64::from(n) + 1, hash(n)).as_str().to_owned())),
        with(
            "epochs",
            Box::new(move |n| format!("{}{plan}-{n:032x}-{}", layout::epochs_prefix(writer), hash(n))),
        ),
        with("trust", Box::new(move |n| layout::record(writer, "trust", hash(n)).as_str().to_owned())),
        with("distrust", Box::new(move |n| layout::record(writer, "distrust", hash(n)).as_str().to_owned())),
        with(
            "reports",
            Box::new(move |n| layout::record(writer, layout::REPORTS, hash(n)).as_str().to_owned()),
        ),
        place("records", Box::new(move |n| format!("{}{}", layout::records_prefix(writer), hash(n)))),
        place("bodies", Box::new(move |n| path.body(hash(n)).to_string())),
        place("keys", Box::new(move |n| path.wrap(hash(n)).to_string())),
        place("index", Box::new(move |n| path.index(domain, hash(n), [7; 16]).to_string())),
        in_domain("packs", ObjectClass::Pack),
        in_domain("needs", ObjectClass::PackRefs),
        in_domain("cache", ObjectClass::Cache),
        in_domain("state", ObjectClass::State),
        place("epoch folders", Box::new(move |n| format!("{writer}/{plan}/{n:032x}/epoch.json"))),
        place("plan folders", Box::new(move |n| format!("{writer}/{n:016x}/{n:032x}/epoch.json"))),
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

    // A place is listed once by a reader of signed keys, and once with its epoch's folder or at a commit. Of folders
    // 101 are looked into, a page each.
    let most = (u64::from(count).div_ceil(1_000) + 10).max(110);
    for (verb, (time, requests)) in &costs {
        let (pages, gets) = (&requests.pages, &requests.gets);
        let delay = time.saturating_sub(usual[verb].0);
        print_figure(&format!(
            "rubbish: {verb}: {:.1} s more, at most {} pages a place, {} reads; pages {pages:?}, reads {gets:?}",
            delay.as_secs_f64(),
            pages.values().max().unwrap_or(&0),
            gets.values().sum::<u64>(),
        ));
        let allowed = |place: &str| ["epoch folders", "plan folders", "keys"].contains(&place);
        assert!(gets.keys().all(|place| allowed(place)), "{verb}: {gets:?}");
        assert!(gets.values().sum::<u64>() <= MAX_READS, "{verb}: {gets:?}");
        for (place, pages) in pages {
            let passes = if *place == "snapshots" && *verb != "snapshots" { 3 } else { 2 };
            assert!(*pages <= most * passes, "{verb}: {pages} pages of {place}");
        }
        assert!(!at_full_size() || delay < MAX_DELAY, "{verb}: {delay:?}");
    }
    print_figure(&format!("rubbish: {count} objects a place, {} MiB resident at most", peak >> 20));
    assert!(!at_full_size() || peak < MAX_MEMORY, "{peak} bytes resident");
}
