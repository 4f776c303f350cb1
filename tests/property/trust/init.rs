//! `init` and its keys: two proven owners, no partial results, no secret outside the key files.

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::sync::Arc;

use bytes::Bytes;
use kbak::cli::failure::{Exit, Failure};
use kbak::format::epoch::Parameters;
use kbak::format::ids::{ObjectHash, to_hex};
use kbak::format::layout;
use kbak::format::signers::Signers;
use kbak::keys::epoch_file::{EpochFile, FileSecretStore, epoch_path};
use kbak::keys::private_file;
use kbak::keys::recovery_sheet::{RepositoryLocation, owners_in_pin};
use kbak::keys::writer_key::WriterKey;
use kbak::keys::{Identity, Owner};
use kbak::report::event::Reporter;
use kbak::repository::epoch::create::{EpochContext, EpochDurations};
use kbak::repository::epoch::current;
use kbak::repository::epoch::stored;
use kbak::repository::epoch::stored::Epochs;
use kbak::repository::epoch::wraps;
use kbak::repository::epoch::wraps::KeyContext;
use kbak::repository::records::{self, Records};
use kbak::repository::write::init::{Init, Initialised, init};
use kbak::runtime::lock;
use kbak::store::fault::{FaultRule, FaultStore, StoreFault};
use kbak::store::operation::Operation;

use crate::support::owners::{DAY, collect_warnings, no_prompt, owner, wanted};
use crate::support::test_repo::TestRepo;

fn request(folder: &Path, owners: &[&Owner], identities: &[&Arc<Identity>]) -> Init {
    Init {
        owners: owners.iter().map(|owner| (*owner).clone()).collect(),
        identities: identities.iter().map(|identity| (*identity).clone()).collect(),
        single_owner: false,
        join: false,
        plan: "default".into(),
        life: EpochDurations { max_age: 30 * DAY, max_run: DAY, keep: None },
        parameters: Parameters::default(),
        prompt: no_prompt(),
        place: RepositoryLocation {
            url: "s3://backups/prod".into(),
            endpoint: Some("https://s3.example.eu".into()),
            region: None,
            path_style: true,
        },
        folder: folder.to_owned(),
        secrets: Some("kbak".into()),
    }
}

async fn state(repo: &TestRepo, made: &Initialised) -> (Epochs, Records) {
    let (store, silent) = (&repo.store, Reporter::silent());
    let (key, signers) = (&made.key, &made.signers);
    let epochs =
        stored::list(store, key.writer, key.plan("default"), None, signers, &silent).await.expect("listed");
    let records = records::list(store, key.writer, None, signers, &silent).await.expect("listed");
    (epochs, records)
}

#[tokio::test]
async fn new_repository_is_proven_by_both_owners_and_holds_no_secret() {
    let repo = TestRepo::seeded(1);
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, ada_key) = owner(&repo.runtime, "ada");
    let (bob, bob_key) = owner(&repo.runtime, "bob");
    let (heard, reporter) = collect_warnings();
    let wish = request(folder.path(), &[&ada, &bob], &[&ada_key, &bob_key]);
    let made = init(&repo.store, &repo.runtime, &wish, &reporter).await.expect("a repository");
    assert!(made.owners.iter().all(|owner| owner.proven));
    assert!(lock(&heard.0).is_empty(), "no warning is due");
    let (epochs, records) = state(&repo, &made).await;
    let rows = wraps::list(&epochs, &records);
    assert_eq!(rows.len(), 1);
    assert!(rows[0].proven && rows[0].holders.iter().all(|holder| holder.opened.is_some() && !holder.later));

    // Secret files are 0600 and readable again, the others hold no secret.
    let read = |name: &str| std::fs::read_to_string(folder.path().join(name)).expect("a file");
    let (key, warning) = WriterKey::read(&folder.path().join("writer.key")).expect("writer.key");
    assert_eq!((key.writer, warning), (made.key.writer, None));
    let held =
        EpochFile::parse("epoch", read("writer.key.epoch").as_bytes()).expect("an epoch file").state.secrets;
    assert!(held.len() == 1 && held[0].matches(&made.epoch));
    for secret in ["writer.key", "writer.key.epoch", "kbak-writer.secret.yaml", "kbak-epoch.secret.yaml"] {
        let mode = std::fs::metadata(folder.path().join(secret)).expect("a file").permissions().mode();
        assert_eq!(mode & 0o777, 0o600, "{secret}");
    }
    let pem = key.signing.to_openssh();
    let secrets = [
        "AGE-SECRET-KEY".to_owned(),
        to_hex(key.names.0.expose()),
        to_hex(held[0].secret.0.expose()),
        pem.lines().nth(3).expect("the private part").to_owned(),
    ];
    let public =
        ["kbak.pub", "recovery.html", "recovery.txt"].map(|name| (name.to_owned(), read(name).into_bytes()));
    let stored = repo.memory.objects().into_iter().map(|(key, bytes)| (key.to_string(), bytes.to_vec()));
    for (name, bytes) in public.into_iter().chain(stored) {
        for secret in &secrets {
            assert!(memchr::memmem::find(&bytes, secret.as_bytes()).is_none(), "{name} holds a secret");
        }
    }
    // The pin and the sheets hold all that a restore needs.
    let pin = read("kbak.pub");
    assert_eq!(Signers::parse(&pin).expect("a pin"), made.signers);
    assert_eq!(owners_in_pin(&pin).len(), 2);
    for sheet in [read("recovery.txt"), read("recovery.html")] {
        for fact in ["s3://backups/prod", "https://s3.example.eu", "--path-style", "ada", "bob"] {
            assert!(sheet.contains(fact), "{fact} is missing");
        }
        assert!(sheet.contains(&made.key.writer.to_string()) && sheet.contains(&ada.recipient.to_string()));
        assert!(sheet.contains(made.key.signing.public().to_openssh().split(' ').nth(1).expect("base64")));
    }
}

#[tokio::test]
async fn failed_init_step_leaves_no_remains() {
    for (operation, nth) in [
        (Operation::Put, 1),
        (Operation::Put, 2),
        (Operation::Put, 3),
        (Operation::Get, 1),
        (Operation::Get, 2),
        (Operation::Get, 3),
        (Operation::Get, 4),
        (Operation::Now, 1),
        (Operation::Now, 2),
    ] {
        let repo = TestRepo::seeded(2);
        let folder = tempfile::tempdir().expect("a folder");
        let (ada, ada_key) = owner(&repo.runtime, "ada");
        let (bob, _) = owner(&repo.runtime, "bob");
        let rules = vec![FaultRule::once(operation, "*", nth, StoreFault::unavailable())];
        let faulty = Arc::new(FaultStore::new(repo.store.clone(), rules));
        let store: Arc<dyn kbak::store::Store> = faulty.clone();
        let wish = request(folder.path(), &[&ada, &bob], &[&ada_key]);
        let error = init(&store, &repo.runtime, &wish, &Reporter::silent()).await.unwrap_err();
        let failure = Failure::from(error);
        assert_eq!((failure.exit, faulty.fired()), (Exit::Unreachable, 1), "{operation:?} {nth}");
        assert!(repo.memory.objects().is_empty(), "{operation:?} {nth}: objects stay");
        let left = std::fs::read_dir(folder.path()).expect("a folder").count();
        assert_eq!(left, 0, "{operation:?} {nth}: files stay");
        // The same again, without the fault.
        init(&store, &repo.runtime, &wish, &Reporter::silent()).await.expect("a repository");
    }
}

#[tokio::test]
async fn init_mistakes_are_refused_before_any_file_is_created() {
    let repo = TestRepo::seeded(3);
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, ada_key) = owner(&repo.runtime, "ada");
    let (bob, _) = owner(&repo.runtime, "bob");
    let (_, stranger) = owner(&repo.runtime, "stranger");
    let refuse = async |wish: Init, exit: Exit, word: &str| {
        let error = init(&repo.store, &repo.runtime, &wish, &Reporter::silent()).await.unwrap_err();
        let failure = Failure::from(error);
        assert_eq!(failure.exit, exit, "{failure}");
        assert!(format!("{failure} {:?}", failure.remedy).contains(word), "{failure}");
        assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 0);
    };
    refuse(request(folder.path(), &[], &[]), Exit::Usage, "keygen").await;
    refuse(request(folder.path(), &[&ada], &[]), Exit::Usage, "--single-owner").await;
    refuse(request(folder.path(), &[&ada, &ada], &[]), Exit::Usage, "twice").await;
    refuse(request(folder.path(), &[&ada, &bob], &[&stranger]), Exit::Usage, "stranger").await;
    assert!(repo.memory.objects().is_empty());

    repo.memory.overwrite(layout::marker(), Bytes::from_static(br#"{"kbak":1}"#));
    refuse(request(folder.path(), &[&ada, &bob], &[]), Exit::Usage, "--join").await;
    for other in [&br#"{"kbak":2}"#[..], b"{\"kbak\":1}\n", b"", &[0; 5000]] {
        repo.memory.overwrite(layout::marker(), Bytes::copy_from_slice(other));
        refuse(request(folder.path(), &[&ada, &bob], &[]), Exit::Damaged, "not a repository").await;
    }
    repo.memory.overwrite(layout::marker(), Bytes::from_static(br#"{"kbak":1}"#));

    let wish = Init { single_owner: true, join: true, ..request(folder.path(), &[&ada], &[&ada_key]) };
    init(&repo.store, &repo.runtime, &wish, &Reporter::silent()).await.expect("one more writer");
    let again = init(&repo.store, &repo.runtime, &wish, &Reporter::silent()).await.unwrap_err();
    assert!(again.to_string().contains("writer.key exists"), "{again}");
    assert!(folder.path().join("writer.key").exists(), "existing files stay");
}

#[tokio::test]
async fn owner_is_added_to_every_epoch_by_another_owner() {
    let repo = TestRepo::seeded(4);
    let folder = tempfile::tempdir().expect("a folder");
    let (ada, ada_key) = owner(&repo.runtime, "ada");
    let (bob, _) = owner(&repo.runtime, "bob");
    let (eve, eve_key) = owner(&repo.runtime, "eve");
    let wish = request(folder.path(), &[&ada, &bob], &[]);
    let (warned, reporter) = collect_warnings();
    let made = init(&repo.store, &repo.runtime, &wish, &reporter).await.expect("a repository");
    assert_eq!(lock(&warned.0).len(), 2, "both unproven owners are reported");
    let (epochs, records) = state(&repo, &made).await;
    assert!(!wraps::list(&epochs, &records)[0].proven);

    let context = KeyContext {
        store: &repo.store,
        runtime: &repo.runtime,
        signers: &made.signers,
        reporter: &reporter,
    };
    let ada_only = [ada_key.clone()];
    let added = wraps::add(context, &epochs, &records, &ada_only, &eve, &no_prompt()).await.expect("added");
    assert!(added.len() == 1 && added[0].wrap.is_ok() && added[0].receipt.is_some());
    let (epochs, records) = state(&repo, &made).await;
    let again =
        wraps::add(context, &epochs, &records, &ada_only, &eve, &no_prompt()).await.expect("no wrap is due");
    assert!(again.is_empty());

    // A wrap that somebody removed is missed, and added again.
    let wrap = epochs.all[0].epoch.path().wrap(*added[0].wrap.as_ref().expect("a wrap"));
    repo.store.delete(&wrap).await.expect("removed");
    let again =
        wraps::add(context, &epochs, &records, &ada_only, &eve, &no_prompt()).await.expect("added again");
    assert!(again.len() == 1 && again[0].wrap.is_ok());
    let (epochs, records) = state(&repo, &made).await;

    // Eve opens it; her signing key is not pinned, which is reported, and no receipt is written.
    let rows =
        wraps::check(context, &epochs, &records, std::slice::from_ref(&eve_key)).await.expect("checked");
    assert!(rows[0].opened.is_ok() && matches!(rows[0].receipt, Ok(None)));
    assert!(lock(&warned.0).iter().any(|w| w.contains("not pinned")));
    let mut signers = made.signers.clone();
    signers.extend(kbak::keys::recovery_sheet::signers_of(&made.key, std::slice::from_ref(&eve)));
    let context = KeyContext { signers: &signers, ..context };
    // Rubbish whose names sort first does not lock her out: her wrap stands in a receipt.
    for number in 0..300u32 {
        let mut hash = [0; 32];
        hash[28..].copy_from_slice(&number.to_be_bytes());
        repo.memory.overwrite(epochs.all[0].epoch.path().wrap(ObjectHash(hash)), "rubbish".into());
    }
    let rows = wraps::check(context, &epochs, &records, &[eve_key]).await.expect("checked");
    assert!(matches!(rows[0].receipt, Ok(Some(_))));
    let records =
        records::list(&repo.store, made.key.writer, None, &signers, &reporter).await.expect("listed");
    let rows = wraps::list(&epochs, &records);
    let holder = rows[0].holders.iter().find(|holder| holder.recipient == eve.recipient.id()).expect("eve");
    assert!(holder.later && holder.opened.is_some(), "her receipt names her through the wrap");

    // A plan that now names Eve forces no epoch; one that omits her does.
    let plan = made.key.plan("default");
    let keeper = FileSecretStore::new(folder.path().join("writer.key.epoch"), &made.key, plan, &repo.runtime);
    let context =
        EpochContext { store: &repo.store, runtime: &repo.runtime, key: &made.key, plan, keeper: &keeper };
    let with = current::find_or_create(context, &wanted(&[&ada, &bob, &eve]), &epochs, &records)
        .await
        .expect("ready");
    assert!(with.born.is_none() && with.waiting.is_empty());
    let without =
        current::find_or_create(context, &wanted(&[&ada, &bob]), &epochs, &records).await.expect("ready");
    assert_eq!(without.born, Some(current::Reason::OwnerRemoved));
}

#[test]
fn secret_files_readable_by_others_are_refused_unless_mounted_by_the_kubelet() {
    let folder = tempfile::tempdir().expect("a folder");
    let path = folder.path().join("writer.key");
    private_file::create(&path, 0o600, b"secret").expect("created");
    assert_eq!(private_file::read(&path).expect("read").bytes.as_slice(), b"secret");
    assert!(matches!(private_file::create(&path, 0o600, b"x"), Err(private_file::FileError::Exists(_))));
    private_file::replace(&path, [1; 8], b"newer").expect("replaced");
    assert_eq!(std::fs::read_dir(folder.path()).expect("a folder").count(), 1, "no temporary file stays");
    let set = |mode| std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).expect("chmod");
    for mode in [0o640, 0o604, 0o644, 0o660] {
        set(mode);
        let error = private_file::read(&path).unwrap_err();
        assert!(matches!(error, private_file::FileError::Exposed { .. }), "{mode:o}");
        assert!(Failure::from(error).remedy.expect("a remedy").starts_with("chmod 600"));
    }
    std::os::unix::fs::symlink(".", folder.path().join("..data")).expect("a link");
    set(0o440);
    assert!(private_file::read(&path).expect("a mounted Secret").warning.is_none());
    set(0o644);
    assert!(private_file::read(&path).expect("a mounted Secret").warning.is_some());
    assert!(matches!(private_file::read(folder.path()), Err(private_file::FileError::NotAFile(_))));
    assert!(private_file::read(&folder.path().join("none")).unwrap_err().is_missing());
}

#[test]
fn epoch_files_are_beside_their_key_one_per_plan() {
    let key = Path::new("/k/writer.key");
    assert_eq!(epoch_path(key, "default"), Path::new("/k/writer.key.epoch"));
    assert_eq!(epoch_path(key, "hourly"), Path::new("/k/writer.key.hourly.epoch"));
    assert_eq!(epoch_path(key, "../x/y"), Path::new("/k/writer.key..._x_y.epoch"));
    let repo = TestRepo::seeded(5);
    let key = WriterKey::generate(&repo.runtime);
    let text = key.to_text();
    let again = WriterKey::parse("writer.key", text.as_bytes()).expect("our own file");
    assert_eq!((again.writer, again.signing.public()), (key.writer, key.signing.public()));
    for bad in ["", "{}", &text.replace("writer key", "epoch secret"), &text[..text.len() / 2]] {
        let error = WriterKey::parse("writer.key", bad.as_bytes()).unwrap_err();
        let secret = to_hex(key.names.0.expose());
        assert!(!format!("{error:?}").contains(&secret[..16]), "{error:?}");
    }
    let shown = format!("{key:?}");
    assert!(!shown.contains(&to_hex(key.names.0.expose())[..8]), "{shown}");
}
