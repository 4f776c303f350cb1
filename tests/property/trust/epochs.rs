//! Epochs from creation to closing, on the store's clock, with crashes and forgeries.

use std::sync::Arc;

use bytes::Bytes;
use jiff::Timestamp;
use kbak::cli::failure::{Exit, Failure};
use kbak::format::epoch::{EpochError, VerifiedEpoch};
use kbak::format::layout::{EpochPath, ObjectKey};
use kbak::format::timestamp;
use kbak::format::wrap::WrapError;
use kbak::keys::epoch_file::{EpochFileState, EpochSecretStore, StateChange};
use kbak::keys::open_wrap;
use kbak::keys::writer_key::{WriterFileError, WriterKey};
use kbak::report::event::Reporter;
use kbak::repository::epoch::create;
use kbak::repository::epoch::create::{EpochSettings, NewEpoch};
use kbak::repository::epoch::current;
use kbak::repository::epoch::current::{CurrentEpoch, Reason};
use kbak::repository::epoch::error::CreateEpochError;
use kbak::repository::epoch::stored;
use kbak::repository::epoch::stored::{Epochs, MissingCopy};
use kbak::repository::epoch::wraps;
use kbak::repository::records::Records;
use kbak::runtime::lock;
use kbak::store::fault::{FaultRule, FaultStore, StoreFault};
use kbak::store::operation::Operation;

use crate::support::owners::{DAY, MemoryKeeper, no_prompt, owner, wanted};
use crate::support::test_repo::TestRepo;

impl TestRepo {
    async fn epochs(&self) -> Epochs {
        let (plan, signers) = (self.key.plan("default"), self.key.own_signers());
        let (store, silent) = (&self.store, Reporter::silent());
        stored::list(store, self.key.writer, plan, Some(self.key.repository), &signers, &silent)
            .await
            .expect("listed")
    }

    async fn ready(&self, wanted: &EpochSettings) -> Result<CurrentEpoch, CreateEpochError> {
        current::find_or_create(
            self.epoch_context(&self.keeper),
            wanted,
            &self.epochs().await,
            &Records::default(),
        )
        .await
    }

    /// Returns the key of an epoch's second copy.
    fn epoch_copy(&self, epoch: &VerifiedEpoch) -> ObjectKey {
        epoch.copies(&self.key.signing).expect("sealed")[0].key().clone()
    }

    fn path(&self, epoch: &VerifiedEpoch) -> EpochPath {
        EpochPath { writer: self.key.writer, plan: self.key.plan("default"), epoch: epoch.epoch }
    }

    fn now(&self) -> Timestamp {
        use kbak::runtime::Clock;
        self.clock.now()
    }
}

#[tokio::test]
async fn epoch_is_reused_until_it_is_over() {
    let repo = TestRepo::seeded(1);
    let (ada, _) = owner(&repo.runtime, "ada");
    let (bob, _) = owner(&repo.runtime, "bob");
    let both = wanted(&[&ada, &bob]);
    let first = repo.ready(&both).await.expect("an epoch");
    assert_eq!(first.born, Some(Reason::First));
    assert!(first.previous.is_none() && first.epoch.previous_epochs.is_empty());
    assert_eq!(repo.memory.objects().len(), 2);

    repo.days_later(29);
    let again = repo.ready(&both).await.expect("the same");
    assert_eq!(
        (again.born, again.epoch.epoch, again.secret),
        (None, first.epoch.epoch, first.secret.clone())
    );

    repo.days_later(1);
    let second = repo.ready(&both).await.expect("the next");
    assert_eq!(second.born, Some(Reason::Expired));
    assert_eq!(second.epoch.previous_epochs, [first.epoch.epoch]);
    let (before, secret) = second.previous.expect("the old secret, for the state");
    assert_eq!((before.epoch, &secret), (first.epoch.epoch, &first.secret));
    assert_ne!(second.secret, first.secret);

    current::delete_closed_secrets(&repo.keeper, second.epoch.epoch, &repo.epochs().await)
        .await
        .expect("settled");
    assert_eq!(repo.keeper.load().await.expect("loaded").expect("held").secrets.len(), 1);
    let third = repo.ready(&both).await.expect("still there");
    assert!(third.born.is_none() && third.previous.is_none());
}

#[tokio::test]
async fn removed_owner_forces_a_new_epoch_and_added_owner_waits() {
    let repo = TestRepo::seeded(2);
    let runtime = &repo.runtime;
    let ((ada, _), (bob, _), (eve, _)) =
        (owner(runtime, "ada"), owner(runtime, "bob"), owner(runtime, "eve"));
    let first = repo.ready(&wanted(&[&ada, &bob])).await.expect("an epoch");
    let more = repo.ready(&wanted(&[&ada, &bob, &eve])).await.expect("the same");
    assert_eq!((more.born, more.epoch.epoch), (None, first.epoch.epoch));
    assert_eq!(more.waiting, std::slice::from_ref(&eve));
    let less = repo.ready(&wanted(&[&ada, &eve])).await.expect("another");
    assert_eq!(less.born, Some(Reason::OwnerRemoved));
    assert!(less.epoch.wrap(bob.recipient.id()).is_none() && less.epoch.wrap(eve.recipient.id()).is_some());
    assert!(matches!(repo.ready(&wanted(&[])).await, Err(CreateEpochError::NoOwners)));
}

#[tokio::test]
async fn lost_secret_stops_the_run_unless_a_new_epoch_is_requested() {
    let repo = TestRepo::seeded(3);
    let (ada, _) = owner(&repo.runtime, "ada");
    let first = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
    *lock(&repo.keeper.0) = None;
    let error = repo.ready(&wanted(&[&ada])).await.unwrap_err();
    assert!(matches!(error, CreateEpochError::SecretLost { .. }));
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::Usage);
    assert!(failure.remedy.expect("a remedy").contains("--new-epoch"));
    let asked = EpochSettings { new_epoch: true, ..wanted(&[&ada]) };
    let second = repo.ready(&asked).await.expect("a new one");
    assert_eq!((second.born, second.previous.is_none()), (Some(Reason::Requested), true));
    assert_eq!(second.epoch.previous_epochs, [first.epoch.epoch]);
}

#[tokio::test]
async fn epoch_limits_for_start_commit_and_close_follow_the_plan() {
    let repo = TestRepo::seeded(4);
    let (ada, _) = owner(&repo.runtime, "ada");
    let locked = |mut wanted: EpochSettings| {
        wanted.life.keep = Some(35 * DAY);
        wanted
    };
    let start = repo.now();
    let first = repo.ready(&locked(wanted(&[&ada]))).await.expect("an epoch");
    let until = first.epoch.retain_until.expect("a lock");
    assert_eq!(until, timestamp::round_up_to_day(timestamp::add_seconds(start, (30 + 1 + 35) * DAY)));
    let epochs = repo.epochs().await;
    let stored = epochs.get(first.epoch.epoch).expect("listed");
    assert_eq!(epochs.starts_until(stored), timestamp::add_seconds(start, 30 * DAY));
    assert_eq!(epochs.commits_until(stored), timestamp::add_seconds(start, 31 * DAY));
    assert_eq!(epochs.closed_from(stored), timestamp::add_seconds(start, 32 * DAY));
    assert!(epochs.may_start(stored, timestamp::add_seconds(start, 30 * DAY - 1)));
    assert!(!epochs.may_start(stored, timestamp::add_seconds(start, 30 * DAY)));

    // A successor ends it at once, and its closing time counts from the successor's creation.
    repo.days_later(3);
    let asked = EpochSettings { new_epoch: true, ..wanted(&[&ada]) };
    let second = repo.ready(&asked).await.expect("a successor");
    let epochs = repo.epochs().await;
    let stored = epochs.get(first.epoch.epoch).expect("listed");
    assert!(!epochs.may_start(stored, repo.now()));
    assert_eq!(epochs.commits_until(stored), timestamp::add_seconds(start, 4 * DAY));
    assert_eq!(epochs.closed_from(stored), timestamp::add_seconds(start, 5 * DAY));
    let own = repo.key.signing.public();
    assert_eq!(epochs.open_own(repo.now(), own).next().map(|e| e.epoch.epoch), Some(second.epoch.epoch));
    let stranger = WriterKey::generate(&repo.runtime).signing.public();
    assert!(epochs.open_own(repo.now(), stranger).next().is_none(), "never an epoch that one has not signed");
}

#[tokio::test]
async fn one_good_epoch_copy_is_enough_and_the_bad_one_is_reported() {
    let repo = TestRepo::seeded(5);
    let (ada, _) = owner(&repo.runtime, "ada");
    let first = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
    let path = repo.path(&first.epoch);
    let copy = repo.epoch_copy(&first.epoch);
    let good = repo.memory.objects()[&copy].clone();
    for key in [path.epoch_json(), copy.clone()] {
        let mut bad = good.to_vec();
        bad[20] ^= 1;
        repo.memory.overwrite(key.clone(), bad.into());
        let epochs = repo.epochs().await;
        assert_eq!(epochs.all.len(), 1, "the other copy counts");
        assert_eq!(epochs.rejected.iter().map(|(key, _)| key).collect::<Vec<_>>(), [&key]);
        repo.memory.overwrite(key, good.clone());
    }
    repo.store.delete(&path.epoch_json()).await.expect("deleted");
    let epochs = repo.epochs().await;
    let missing = MissingCopy { epoch: path.epoch, place: path.epoch_json().to_string() };
    assert_eq!((epochs.all.len(), epochs.missing.as_slice()), (1, [missing].as_slice()));
    // The folder is enough, too: the signed key of the copy is lost.
    repo.memory.overwrite(path.epoch_json(), good);
    repo.store.delete(&copy).await.expect("deleted");
    let epochs = repo.epochs().await;
    assert_eq!((epochs.all.len(), epochs.missing.len(), epochs.unsigned.count), (1, 1, 0));
    assert!(copy.as_str().starts_with(&epochs.missing[0].place));
}

#[tokio::test]
async fn moved_forged_and_newer_epochs_are_rejected() {
    let repo = TestRepo::seeded(6);
    let (ada, _) = owner(&repo.runtime, "ada");
    let first = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
    let path = repo.path(&first.epoch);
    let bytes = repo.memory.objects()[&path.epoch_json()].clone();
    let signers = repo.key.own_signers();
    let open = |path: &EpochPath| kbak::format::epoch::Epoch::open(bytes.clone(), path, None, &signers);
    assert!(open(&path).is_ok());
    let other_plan = EpochPath { plan: repo.key.plan("other"), ..path };
    assert!(matches!(open(&other_plan), Err(EpochError::WrongPath { field: "plan", .. })));
    let other_epoch = EpochPath { epoch: kbak::format::ids::EpochId([0; 16]), ..path };
    assert!(matches!(open(&other_epoch), Err(EpochError::WrongPath { field: "epoch", .. })));

    // The same epoch, signed by another key: its own copy is nobody's, and the other one counts.
    let thief = WriterKey { signing: WriterKey::generate(&repo.runtime).signing, ..repo.key.clone() };
    for sealed in first.epoch.seal(&thief.signing).expect("sealed") {
        repo.memory.overwrite(sealed.key().clone(), sealed.bytes().clone());
    }
    let epochs = repo.epochs().await;
    assert_eq!((epochs.all.len(), epochs.rejected.len()), (1, 1));

    // A newer format with a valid signature: the writer must not continue beside it.
    let line = String::from_utf8_lossy(&bytes)
        .lines()
        .next()
        .expect("a line")
        .replace("\"format\":1", "\"format\":2");
    let line = line + "\n";
    let signature =
        repo.key.signing.sign(kbak::format::sign::Namespace::Epoch, line.as_bytes()).expect("signed");
    let newer = Bytes::from(line + &signature);
    for key in [path.epoch_json(), repo.epoch_copy(&first.epoch)] {
        repo.memory.overwrite(key, newer.clone());
    }
    let error = repo.ready(&wanted(&[&ada])).await.unwrap_err();
    assert!(matches!(error, CreateEpochError::Newer(..)));
    assert_eq!(Failure::from(error).exit, Exit::Usage);
}

#[tokio::test]
async fn flipped_bit_in_a_stored_epoch_is_rejected() {
    let repo = TestRepo::seeded(7);
    let (ada, _) = owner(&repo.runtime, "ada");
    let first = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
    let path = repo.path(&first.epoch);
    let good = repo.memory.objects()[&path.epoch_json()].clone();
    let signers = repo.key.own_signers();
    for bit in 0..good.len() * 8 {
        let mut bad = good.to_vec();
        bad[bit / 8] ^= 1 << (bit % 8);
        assert!(kbak::format::epoch::Epoch::open(bad.into(), &path, None, &signers).is_err(), "bit {bit}");
    }
}

#[tokio::test]
async fn interrupted_epoch_creation_is_finished_or_discarded() {
    let (ada, _) = owner(&TestRepo::seeded(99).runtime, "ada");
    for nth in 1..=2 {
        for fault in [StoreFault::unavailable(), StoreFault::AppliedButError] {
            let mut repo = TestRepo::seeded(10 + nth);
            let memory = repo.store.clone();
            let rules = vec![FaultRule::once(Operation::Put, "*", nth, fault.clone())];
            let faulty = Arc::new(FaultStore::new(memory.clone(), rules));
            repo.store = faulty.clone();
            assert!(repo.ready(&wanted(&[&ada])).await.is_err());
            assert_eq!(faulty.fired(), 1);
            repo.store = memory;
            let context = repo.epoch_context(&repo.keeper);
            let mended = create::restore_missing_copies(context, &repo.epochs().await).await.expect("mended");
            let was_born = repo.memory.objects().len() == 2;
            let after = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
            assert_eq!(after.born.is_none(), was_born, "put {nth} {fault:?}");
            assert_eq!(repo.memory.objects().len(), 2, "no second epoch beside the first");
            if let Some(id) = mended.first() {
                assert_eq!(after.epoch.epoch, *id);
            }
        }
    }
}

#[tokio::test]
async fn faulty_store_is_detected_at_epoch_creation() {
    let (ada, _) = owner(&TestRepo::seeded(99).runtime, "ada");
    for rule in [
        FaultRule::once(Operation::Put, "*epoch.json", 1, StoreFault::Forget),
        FaultRule::once(Operation::Put, "*/epochs/*", 1, StoreFault::Forget),
        FaultRule::once(Operation::Get, "*epoch.json", 1, StoreFault::FlipBit(100)),
    ] {
        let mut repo = TestRepo::seeded(20);
        let faulty = Arc::new(FaultStore::new(repo.store.clone(), vec![rule.clone()]));
        repo.store = faulty.clone();
        assert!(repo.ready(&wanted(&[&ada])).await.is_err(), "{rule:?}");
        assert_eq!(faulty.fired(), 1);
    }
}

#[tokio::test]
async fn epoch_made_outside_is_signed_by_the_writer_and_opened_by_the_owner() {
    let repo = TestRepo::seeded(8);
    let (ada, ada_identity) = owner(&repo.runtime, "ada");
    let (eve, eve_identity) = owner(&repo.runtime, "eve");
    let made =
        create::generate_keys(&repo.runtime, std::slice::from_ref(&ada), &no_prompt()).await.expect("made");
    let file = made.to_hand_over();
    assert!(!file.contains("AGE-SECRET-KEY"), "the private half stays outside");
    let made = NewEpoch::from_hand_over(file.as_bytes()).expect("read back");
    let context = repo.epoch_context(&repo.keeper);
    let (epoch, secret) =
        create::create_epoch(context, &wanted(&[&ada]), Vec::new(), made, (repo.now(), &[]))
            .await
            .expect("born");
    let runtime = &repo.runtime;
    let silent = Reporter::silent();
    let (keys, _) =
        wraps::open(&repo.store, runtime, &epoch, &[ada_identity], &[], &silent).await.expect("opened");
    assert_eq!(keys.secret, secret);
    let error = wraps::open(&repo.store, runtime, &epoch, &[eve_identity], &[], &silent).await.unwrap_err();
    let failure = Failure::from(error);
    assert_eq!(failure.exit, Exit::Usage);
    let facts = format!("{:?}", failure.facts);
    assert!(
        facts.contains(&ada.recipient.id().short()) && facts.contains(&eve.recipient.id().short()),
        "{facts}"
    );
    assert!(NewEpoch::from_hand_over(b"{}").is_err());
}

#[tokio::test]
async fn wrap_of_another_epoch_is_detected() {
    let repo = TestRepo::seeded(9);
    let (ada, identity) = owner(&repo.runtime, "ada");
    let first = repo.ready(&wanted(&[&ada])).await.expect("an epoch");
    let second = repo.ready(&EpochSettings { new_epoch: true, ..wanted(&[&ada]) }).await.expect("another");
    // A later wrap under the second epoch with the first one's keys.
    let (keys, _) = open_wrap(&first.epoch, &[], std::slice::from_ref(&identity)).expect("opened");
    let foreign = ada.recipient.wrap_object(&keys, &repo.path(&second.epoch), &no_prompt()).expect("wrapped");
    let (eve, eve_identity) = owner(&repo.runtime, "eve");
    let for_eve = eve.recipient.wrap_object(&keys, &repo.path(&second.epoch), &no_prompt()).expect("wrapped");
    repo.store.put(&foreign).await.expect("stored");
    repo.store.put(&for_eve).await.expect("stored");
    let (runtime, silent) = (&repo.runtime, Reporter::silent());
    let open = |identity| {
        let identities = [identity];
        let (store, epoch) = (&repo.store, &second.epoch);
        let silent = &silent;
        async move { wraps::open(store, runtime, epoch, &identities, &[], silent).await }
    };
    assert!(open(identity).await.is_ok(), "the good wrap still opens");
    let error = open(eve_identity).await.unwrap_err();
    assert!(
        matches!(error, wraps::KeysError::Closed { source: WrapError::BelongsElsewhere(_), .. }),
        "{error:?}"
    );
    assert_eq!(Failure::from(error).exit, Exit::Damaged);
}

#[tokio::test]
async fn concurrent_coordinators_leave_two_epochs_and_one_is_continued() {
    let repo = TestRepo::seeded(30);
    let (ada, _) = owner(&repo.runtime, "ada");
    let asked = EpochSettings { new_epoch: true, ..wanted(&[&ada]) };
    let none = Epochs::default();
    // Neither has seen the other's epoch; the second one's file replaces the first one's.
    let context_with = |keeper| repo.epoch_context(keeper);
    let lost = MemoryKeeper::default();
    let first = current::find_or_create(context_with(&repo.keeper), &asked, &none, &Records::default())
        .await
        .expect("one");
    let second = current::find_or_create(context_with(&lost), &asked, &none, &Records::default())
        .await
        .expect("another");
    let epochs = repo.epochs().await;
    assert_eq!(epochs.open_own(repo.now(), repo.key.signing.public()).count(), 2);
    let next = repo.ready(&wanted(&[&ada])).await.expect("the one whose secret is kept");
    assert_eq!((next.born, next.epoch.epoch), (None, first.epoch.epoch));
    let third = repo.ready(&asked).await.expect("a successor of both");
    let mut closed = third.epoch.previous_epochs.clone();
    closed.sort_unstable();
    let mut both = [first.epoch.epoch, second.epoch.epoch];
    both.sort_unstable();
    assert_eq!(closed, both);
}

#[tokio::test]
async fn run_begins_with_the_stored_epoch_and_warns_of_what_is_missing() {
    let repo = TestRepo::seeded(31);
    let runtime = &repo.runtime;
    let ((ada, _), (eve, _)) = (owner(runtime, "ada"), owner(runtime, "eve"));
    let (heard, reporter) = crate::support::owners::collect_warnings();
    let context = || repo.epoch_context(&repo.keeper);
    let (no_signers, records) = (kbak::format::signers::Signers::default(), Records::default());
    let begin = async |wanted: EpochSettings| {
        current::prepare_run(context(), &wanted, &no_signers, &records, &reporter).await
    };
    let (epochs, first) = begin(wanted(&[&ada])).await.expect("an epoch");
    assert_eq!(epochs.all.len(), 1);
    let warnings = std::mem::take(&mut *lock(&heard.0)).join("\n");
    assert!(warnings.contains("the first of this plan, and no owner has proved"), "{warnings}");
    // The copy is lost: listings would not find the epoch, but the writer knows that it was created.
    let copy = repo.epoch_copy(&first.epoch);
    repo.store.delete(&copy).await.expect("deleted");
    let (epochs, again) = begin(wanted(&[&ada, &eve])).await.expect("the same epoch");
    assert_eq!((epochs.all.len(), again.epoch.epoch), (1, first.epoch.epoch));
    assert!(repo.memory.objects().contains_key(&copy));
    let said = lock(&heard.0).join("\n");
    assert!(
        said.contains("was missing, and is put back") && said.contains("eve") && said.contains("keys add"),
        "{said}"
    );
}

/// Takes new secrets and refuses to remove any, as a Secret whose rights were changed in between.
#[derive(Debug)]
struct AddingKeeper<'a>(&'a MemoryKeeper);

#[async_trait::async_trait]
impl EpochSecretStore for AddingKeeper<'_> {
    fn describe(&self) -> String {
        "the keeper".into()
    }
    async fn load(&self) -> Result<Option<EpochFileState>, WriterFileError> {
        self.0.load().await
    }
    async fn update(&self, change: StateChange<'_>) -> Result<(), WriterFileError> {
        let held = self.load().await?.unwrap_or_default();
        if change(held.clone()).is_none_or(|changed| changed.secrets.len() < held.secrets.len()) {
            return Err(WriterFileError::SecretChanged { label: self.describe() });
        }
        self.0.update(change).await
    }
}

#[tokio::test]
async fn committed_run_succeeds_though_closed_secrets_cannot_be_removed() {
    let repo = TestRepo::new().await;
    let folder = tempfile::tempdir().expect("a folder");
    std::fs::write(folder.path().join("file"), "kept").expect("a file");
    repo.backup(folder.path()).await;
    let (heard, reporter) = crate::support::owners::collect_warnings();
    let report = repo.backup_with(folder.path(), &AddingKeeper(&repo.keeper), true, &reporter).await;
    let report = report.expect("a backup that is committed");
    assert_eq!((report.outcome(), report.committed.seq), (Exit::Safe, 2));
    let said = lock(&heard.0).join("\n");
    assert!(said.contains("closed epochs stay in it"), "{said}");
    assert_eq!(repo.keeper.load().await.expect("secrets").expect("some").secrets.len(), 2);
    // The next run removes them.
    repo.backup(folder.path()).await;
    assert_eq!(repo.keeper.load().await.expect("secrets").expect("some").secrets.len(), 1);
}
