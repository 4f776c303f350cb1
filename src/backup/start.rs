//! The start of a run: checks the clock, opens the epoch and the chain, reads the writer's state.

use std::collections::HashSet;
use std::sync::Arc;

use jiff::Timestamp;
use zeroize::Zeroizing;

use crate::format::derive::EpochSecret;
use crate::format::epoch::VerifiedEpoch;
use crate::format::layout::{self, ObjectKey};
use crate::format::manifest::{MAX_SEQUENCE, ManifestError};
use crate::format::marker;
use crate::format::sign::{Operation, SigningKey};
use crate::format::state::{self, WriterState};
use crate::keys::epoch_file::LastCommit;
use crate::report::event::{Event, Reporter};
use crate::repository::chain::{self, Chain, SAME_NUMBER, SnapshotName};
use crate::repository::epoch::create::EpochContext;
use crate::repository::epoch::current;
use crate::repository::epoch::current::CurrentEpoch;
use crate::repository::epoch::stored::Epochs;
use crate::repository::fetched;
use crate::repository::fetched::Fetched;
use crate::repository::read::open::{check_marker, read_marker, validate_marker};
use crate::repository::records::{self, Records};
use crate::runtime::{Runtime, kill_point};
use crate::store::Store;

use super::error::{BackupError, CLOCK_REFUSE, CLOCK_WARN};
use super::job::{BackupContext, BackupJob};
use super::lineage::{Lineage, NewRun};

/// The state of the repository before a source is read.
pub(super) struct Start {
    pub ready: CurrentEpoch,
    pub epochs: Epochs,
    pub records: Records,
    pub chain: Chain,
    pub state: WriterState,
    pub began: Timestamp,
    /// The key of this run, which nothing but its memory holds.
    pub run: Arc<SigningKey>,
    /// The past that the run believes.
    pub lineage: Lineage,
}

/// Opens the repository for a run of `job`.
pub(super) async fn begin(job: &BackupJob, context: BackupContext<'_>) -> Result<Start, BackupError> {
    let BackupContext { store, key, keeper, signers, runtime, reporter } = context;
    reporter.event(Event::Phase { name: "open repository" });
    check_repository(job, context).await?;
    check_clock(store, runtime, reporter).await?;
    kill_point("backup.started");
    let plan = key.plan(&job.plan);
    let records = records::list(store, key.writer, Some(key.repository), signers, reporter).await?;
    if let Some(trust) = records.cut_offs(key.signing.public()).next() {
        return Err(BackupError::WriterCutOff { why: trust.why.clone() });
    }
    let epoch_context = EpochContext { store, runtime, key, plan, keeper };
    let (epochs, ready) =
        current::prepare_run(epoch_context, &job.epoch, signers, &records, reporter).await?;
    kill_point("backup.epoch.ready");
    let ids = epochs.all.iter().map(|stored| stored.epoch.epoch);
    let mut chain = chain::read(store, key.writer, plan, ids, signers, reporter).await?;
    chain.cut_off(&records);
    let past = keeper.load().await?.unwrap_or_default().heads;
    chain.set_aside_late(store, |epoch| epochs.deadline(epoch), &past).await?;
    warn_of_late(&chain, reporter);
    require_known_features(&epochs, &chain)?;
    if let Some(newest) = chain.latest().filter(|_| chain.next_seq() > MAX_SEQUENCE) {
        return Err(BackupError::NumbersExhausted { newest: newest.key.to_string() });
    }
    for broken in chain.breaks(&HashSet::new()) {
        reporter.warn("chain", broken.to_string());
    }
    // A writer that starts over, in another store or in this one, has no earlier head there.
    let starts_over = ready.born.is_some() && epochs.all.len() == 1;
    if !starts_over && records.cut_offs(key.signing.public()).next().is_none() {
        expect_heads(&mut chain, &past, reporter);
    }
    warn_of_rejected(&chain, reporter);
    warn_of_several_heads(&chain, reporter);
    kill_point("backup.chain.read");
    let began = runtime.clock.now();
    let run = Arc::new(SigningKey::from_seed(&Zeroizing::new(runtime.random())));
    let writer = key.signing.public();
    let new_run = NewRun { keeper, epoch: &ready, key: &run, writer, began, records: &records, reporter };
    let lineage = Lineage::begin(new_run, &chain).await?;
    kill_point("backup.run.noted");
    let state = read_state(&lineage, &ready, context).await;
    kill_point("backup.state.read");
    Ok(Start { ready, epochs, records, chain, state, began, run, lineage })
}

/// Refuses a folder that is not mounted, or where this writer has never written: kbak init stores its
/// first epoch. Writes the marker again if it was lost while objects remain.
async fn check_repository(job: &BackupJob, context: BackupContext<'_>) -> Result<(), BackupError> {
    let BackupContext { store, key, reporter, .. } = context;
    let known = !store.list(&format!("{}/", key.writer), None).await?.entries.is_empty();
    let found = read_marker(store).await?;
    if known && found == Fetched::Missing {
        reporter.warn(layout::marker().to_string(), "it was gone, and is put back");
        store.put(&marker::marker()).await?;
        check_marker(store).await?;
    } else {
        validate_marker(store, &found)?;
    }
    if known || job.epoch.new_epoch {
        return Ok(());
    }
    Err(BackupError::NotThisWriters { store: store.describe(), writer: key.writer })
}

/// Warns if the chain has several ends.
fn warn_of_several_heads(chain: &Chain, reporter: &Reporter) {
    let heads = chain.heads();
    if heads.len() < 2 {
        return;
    }
    let names: Vec<String> = heads
        .iter()
        .map(|head| SnapshotName(head.envelope().seq, head.manifest.hash()).to_string())
        .collect();
    reporter.event(Event::Warning {
        object: "chain".into(),
        message: format!(
            "{} are the ends of the chain, and none follows another: runs of this plan at the same time make \
             several ends, and so does the removal of a snapshot that followed them. This run's snapshot follows \
             all of them",
            names.join(" and ")
        ),
        remedy: Some(SAME_NUMBER.into()),
    });
}

/// Warns of objects in the place of a snapshot that are none. One with a higher number than this
/// run's stays the newest there, and readers do not skip it.
fn warn_of_rejected(chain: &Chain, reporter: &Reporter) {
    let next = chain.next_seq();
    let revoked = |error: &ManifestError| matches!(error, ManifestError::Revoked);
    for (object, error) in chain.rejected.iter().filter(|(_, error)| !revoked(error)) {
        let mut what = format!("this is no snapshot of this writer: {error}");
        if layout::parse_snapshot_name(object.name()).is_some_and(|(seq, _)| seq > next) {
            what += "; as long as it lies there, restores of latest are refused, because its number is \
                     above this run's: find out who put it there and remove it, or name a snapshot by \
                     its number";
        }
        reporter.warn(object.to_string(), what);
    }
}

/// Warns of snapshots that were stored after the end of their epoch. The next snapshot does not follow them.
fn warn_of_late(chain: &Chain, reporter: &Reporter) {
    for late in &chain.late {
        let name = SnapshotName(late.envelope().seq, late.manifest.hash());
        reporter.warn(
            late.key.to_string(),
            format!(
                "{name} was stored at {}, when no run of its epoch could go on: this run does not follow it; \
                 find out who stored it",
                late.stored
            ),
        );
    }
}

/// Fails if an epoch or a snapshot of the plan requires features of writers that this program lacks.
fn require_known_features(epochs: &Epochs, chain: &Chain) -> Result<(), BackupError> {
    let epochs =
        epochs.all.iter().map(|stored| (stored.epoch.path().epoch_json(), stored.epoch.missing_features()));
    let snapshots = chain.iter().map(|snapshot| (snapshot.key.clone(), snapshot.manifest.missing_features()));
    for (object, missing) in epochs.chain(snapshots) {
        if let Some(feature) = missing.of(Operation::Write).next() {
            return Err(BackupError::Newer { object: object.to_string(), feature: feature.to_owned() });
        }
    }
    Ok(())
}

/// Warns if a snapshot that this writer committed last is missing. The next snapshot names it as a
/// parent, so that verify reports its removal, and gets a higher number.
fn expect_heads(chain: &mut Chain, past: &[LastCommit], reporter: &Reporter) {
    for head in past.iter().copied() {
        let cut_off = |(key, error): &(ObjectKey, ManifestError)| {
            let named = layout::parse_snapshot_name(key.name()).is_some_and(|(_, name)| name == head.hash);
            named && matches!(error, ManifestError::Revoked)
        };
        if chain.rejected.iter().any(cut_off) || chain.expect(head) {
            continue;
        }
        reporter.warn(
            "chain",
            format!(
                "the newest snapshot that this writer knows, {:06} (sha256:{}), is not in the store any more: \
                 somebody has removed it, or it does not count; look into the store's log and its versions",
                head.seq, head.hash
            ),
        );
    }
}

async fn check_clock(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    reporter: &Reporter,
) -> Result<(), BackupError> {
    let (theirs, ours) = (store.now().await?, runtime.clock.now());
    let apart = (theirs.as_second() - ours.as_second()).abs();
    if apart > CLOCK_REFUSE {
        return Err(BackupError::Clock { store: theirs, machine: ours });
    }
    if apart > CLOCK_WARN {
        reporter.warn("clock", format!("the store's clock and this machine's are {apart} s apart"));
    }
    Ok(())
}

/// Returns the writer's state at its own newest snapshot, or an empty state if it cannot be read, which
/// costs one full read of the sources.
async fn read_state(lineage: &Lineage, ready: &CurrentEpoch, context: BackupContext<'_>) -> WriterState {
    let domain = context.key.names.id("domain", state::DOMAIN);
    let secrets: Vec<(&VerifiedEpoch, &EpochSecret)> = [Some((&ready.epoch, &ready.secret))]
        .into_iter()
        .chain([ready.previous.as_ref().map(|(epoch, secret)| (epoch, secret))])
        .flatten()
        .collect();
    for (epoch, objects) in lineage.states() {
        let held = secrets.iter().find(|(held, _)| held.epoch == epoch);
        let (Some((epoch, secret)), Some(hash)) = (held, objects.objects.first()) else { continue };
        let key = epoch.path().in_domain(domain, crate::format::layout::ObjectClass::State, *hash);
        let opened = match fetched::get(context.store, &key, *hash, state::MAX_STATE + (1 << 20)).await {
            Ok(Fetched::Valid(sealed)) => {
                WriterState::open(&sealed, &secret.domain(state::DOMAIN)).map_err(|error| error.to_string())
            }
            Ok(Fetched::Missing) => Err("it is gone".into()),
            Ok(Fetched::Corrupt) => Err("it is damaged".into()),
            Err(error) => Err(error.to_string()),
        };
        match opened {
            Ok(state) => return state,
            Err(why) => context.reporter.warn(key.to_string(), format!("the writer's memory is lost: {why}")),
        }
    }
    WriterState::default()
}
