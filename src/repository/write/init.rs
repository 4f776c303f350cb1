//! `init`: creates a repository, its writer, its first epoch, and the files for the owners.
//!
//! Owners are proven and files written before the store is touched. If a later step fails, the
//! files and objects are removed again. A bucket that locks objects may keep a marker or an
//! epoch without references; both are harmless.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use zeroize::Zeroizing;

use crate::format::epoch::{Parameters, VerifiedEpoch};
use crate::format::ids::{NameId, to_hex};
use crate::format::marker::{self, MARKER};
use crate::format::{layout, signers::Signers, wrap::WrapError};
use crate::keys::epoch_file::{EpochFile, EpochFileState, EpochSecretStore, FileSecretStore, epoch_path};
use crate::keys::private_file::{self, FileError, NewFiles};
use crate::keys::recovery_sheet::{self, ProvenOwner, RecoverySheet, RepositoryLocation};
use crate::keys::writer_key::WriterKey;
use crate::keys::{Identity, Owner, Prompt};
use crate::report::event::Reporter;
use crate::repository::epoch::create::{self, EpochContext, EpochDurations, EpochSettings};
use crate::repository::epoch::stored::{Epochs, StoredEpoch};
use crate::repository::epoch::wraps::{self, KeyContext};
use crate::repository::records::Records;
use crate::repository::{error::InitError, fetched::Fetched, read::open::read_marker};
use crate::runtime::Runtime;
use crate::store::{PutOutcome, Store, StoreErrorKind};

/// The settings of a new repository.
pub struct Init {
    /// The owners who can decrypt: two or more, unless `single_owner` is set.
    pub owners: Vec<Owner>,
    /// The owners' identities, if available here: each must open its challenge.
    pub identities: Vec<Arc<Identity>>,
    /// Allow a single owner.
    pub single_owner: bool,
    /// Add a writer to the repository that the bucket already holds.
    pub join: bool,
    /// The name of the first plan.
    pub plan: String,
    /// The durations of its epochs.
    pub life: EpochDurations,
    /// The sizes of packs, segments and chunks.
    pub parameters: Parameters,
    /// Asks the user, if a plugin needs it.
    pub prompt: Arc<dyn Prompt>,
    /// The location of the bucket, for the recovery sheet.
    pub place: RepositoryLocation,
    /// The folder for the files. It is created if it does not exist.
    pub folder: PathBuf,
    /// The namespace for Kubernetes Secrets, if they should be written as files.
    pub secrets: Option<String>,
}

/// The result of `init`.
#[derive(Debug)]
pub struct Initialised {
    /// The key of the writer.
    pub key: WriterKey,
    /// The first epoch.
    pub epoch: VerifiedEpoch,
    /// The owners, each with the result of the challenge.
    pub owners: Vec<ProvenOwner>,
    /// The pin: the keys whose signatures count.
    pub signers: Signers,
    /// The written files, in order.
    pub files: Vec<PathBuf>,
}

/// Creates a repository. The caller must have probed `store`.
pub async fn init(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    init: &Init,
    reporter: &Reporter,
) -> Result<Initialised, InitError> {
    let owners = prepare(runtime, init).await?;
    make(store, runtime, init, owners, reporter).await
}

/// Makes the checks that need no store: the number of owners, existing files, and the owners' challenges.
pub async fn prepare(runtime: &Runtime, init: &Init) -> Result<Vec<ProvenOwner>, InitError> {
    check_owners(init)?;
    Paths::new(&init.folder, &init.plan).check()?;
    prove(runtime, &init.owners, &init.identities, &init.prompt).await
}

/// Creates a repository with owners from [`prepare`].
pub async fn make(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    init: &Init,
    owners: Vec<ProvenOwner>,
    reporter: &Reporter,
) -> Result<Initialised, InitError> {
    for owner in owners.iter().filter(|owner| !owner.proven) {
        reporter.warn(
            format!("owner {}", owner.owner.name()),
            "not proven: no given identity opens their challenge; ask them to run kbak keys check",
        );
    }
    let has_marker = has_marker(store, init.join).await?;
    let key = WriterKey::generate(runtime);
    let signers = recovery_sheet::signers_of(&key, &init.owners);
    let mut files = NewFiles::default();
    let paths = Paths::new(&init.folder, &init.plan);
    files.create_folder(&init.folder)?;
    write_files(&mut files, &paths, store, &key, init, &owners, &signers).await?;

    let plan = key.plan(&init.plan);
    let keeper = FileSecretStore::new(paths.epoch.clone(), &key, plan, runtime);
    files.create(&paths.epoch, 0o600, empty_epoch_file(&key, plan).as_bytes())?;
    let mut stored = Stored { store, marker: !has_marker, epoch: None };
    let made = create_first_epoch(&mut stored, runtime, init, &key, &keeper).await;
    let epoch = match made {
        Ok(epoch) => epoch,
        Err(failure) => {
            stored.remove(reporter).await;
            return Err(failure);
        }
    };
    // The repository exists now: later failures must not delete its keys.
    let mut files = files.keep();
    if let Some(namespace) = &init.secrets {
        files.extend(write_secrets(&paths, namespace, &key, &keeper, plan, reporter).await);
    }
    receipts(store, runtime, &epoch, init, &signers, reporter).await;
    Ok(Initialised { key, epoch, owners, signers, files })
}

/// True if the store holds the marker. Fails if its content is wrong, if it exists but `join`
/// is not set, or if it is missing but `join` is set.
pub async fn has_marker(store: &Arc<dyn Store>, join: bool) -> Result<bool, InitError> {
    match read_marker(store).await? {
        Fetched::Missing if join => Err(InitError::NothingToJoin(store.describe())),
        Fetched::Missing => Ok(false),
        Fetched::Valid(_) if join => Ok(true),
        Fetched::Valid(_) => Err(InitError::Exists(store.describe())),
        Fetched::Corrupt => {
            Err(InitError::NotARepository { store: store.describe(), source: marker::WrongMarker })
        }
    }
}

struct Paths {
    writer: PathBuf,
    epoch: PathBuf,
    pin: PathBuf,
    html: PathBuf,
    text: PathBuf,
    writer_secret: PathBuf,
    epoch_secret: PathBuf,
}

impl Paths {
    fn new(folder: &Path, plan: &str) -> Self {
        let writer = folder.join("writer.key");
        Self {
            epoch: epoch_path(&writer, plan),
            writer,
            pin: folder.join("kbak.pub"),
            html: folder.join("recovery.html"),
            text: folder.join("recovery.txt"),
            writer_secret: folder.join("kbak-writer.secret.yaml"),
            epoch_secret: folder.join("kbak-epoch.secret.yaml"),
        }
    }

    /// Checks that the files can be created: the folder exists or can be created, and the files do not exist.
    fn check(&self) -> Result<(), FileError> {
        let all = [&self.writer, &self.epoch, &self.pin, &self.html, &self.text];
        all.into_iter().try_for_each(|path| private_file::check_free(path))
    }
}

/// Returns the text of an epoch file without secrets. It reserves the path, so that creating
/// the epoch cannot fail on an existing file.
fn empty_epoch_file(key: &WriterKey, plan: NameId) -> Zeroizing<String> {
    let state = EpochFileState::default();
    EpochFile { repository: key.repository, writer: key.writer, plan, state }.to_text()
}

async fn write_files(
    files: &mut NewFiles,
    paths: &Paths,
    store: &Arc<dyn Store>,
    key: &WriterKey,
    init: &Init,
    owners: &[ProvenOwner],
    signers: &Signers,
) -> Result<(), InitError> {
    let plans = [init.plan.clone()];
    let created = store.now().await?;
    let sheet = RecoverySheet { created, place: &init.place, key, plans: &plans, owners, signers };
    files.create(&paths.writer, 0o600, key.to_text().as_bytes())?;
    files.create(&paths.pin, 0o644, recovery_sheet::pin_text(key, signers, &init.owners).as_bytes())?;
    files.create(&paths.html, 0o644, sheet.to_html()?.as_bytes())?;
    files.create(&paths.text, 0o644, sheet.to_text()?.as_bytes())?;
    Ok(())
}

/// Writes the Kubernetes Secrets as files. They repeat the contents of the key files, so a
/// failure is only a warning.
async fn write_secrets(
    paths: &Paths,
    namespace: &str,
    key: &WriterKey,
    keeper: &FileSecretStore,
    plan: NameId,
    reporter: &Reporter,
) -> Vec<PathBuf> {
    let held = match keeper.load().await {
        Ok(held) => held.unwrap_or_default(),
        Err(error) => {
            reporter.warn(keeper.describe(), format!("no Kubernetes Secrets written: {error}"));
            return Vec::new();
        }
    };
    let epoch = EpochFile { repository: key.repository, writer: key.writer, plan, state: held };
    // A run of this plan looks for this file name next to the writer's key.
    let held_as = paths.epoch.file_name().unwrap_or_default().to_string_lossy();
    let secret = |name, file: &str, text: &str| recovery_sheet::secret_yaml(name, namespace, file, text);
    let mut written = Vec::new();
    for (path, text) in [
        (&paths.writer_secret, secret("kbak-writer", "writer.key", &key.to_text())),
        (&paths.epoch_secret, secret("kbak-epoch", &held_as, &epoch.to_text())),
    ] {
        match private_file::create(path, 0o600, text.as_bytes()) {
            Ok(()) => written.push(path.clone()),
            Err(error) => reporter.warn(path.display().to_string(), format!("not written: {error}")),
        }
    }
    written
}

/// The objects put into the store so far.
struct Stored<'a> {
    store: &'a Arc<dyn Store>,
    marker: bool,
    epoch: Option<layout::EpochPath>,
}

impl Stored<'_> {
    /// Removes the objects as far as the store allows: nothing refers to them yet.
    async fn remove(&self, reporter: &Reporter) {
        let mut keys = Vec::new();
        if let Some(path) = self.epoch {
            let copies = self.store.list(&layout::epochs_prefix(path.writer), None).await;
            let copies = copies.map(|page| page.entries).unwrap_or_default().into_iter();
            let own = |key: &layout::ObjectKey| layout::parse_epoch(key) == Some((path.plan, path.epoch));
            keys.extend(copies.map(|entry| entry.key).filter(own));
            keys.push(path.epoch_json());
        }
        if self.marker {
            keys.push(layout::marker());
        }
        for key in keys {
            if let Err(error) = self.store.delete(&key).await
                && error.kind != StoreErrorKind::NotFound
            {
                reporter.warn(key.to_string(), format!("left behind, and harmless: {error}"));
            }
        }
    }
}

/// Stores the marker and creates the first epoch.
async fn create_first_epoch(
    stored: &mut Stored<'_>,
    runtime: &Runtime,
    init: &Init,
    key: &WriterKey,
    keeper: &dyn EpochSecretStore,
) -> Result<VerifiedEpoch, InitError> {
    let store = stored.store;
    if stored.marker {
        // If another process created the marker meanwhile, this one must not remove it.
        stored.marker = store.put(&marker::marker()).await? == PutOutcome::Created;
        let back = store.get(&layout::marker(), MARKER.len() as u64).await?;
        marker::check(&back).map_err(InitError::MarkerReadBack)?;
    }
    let wanted = EpochSettings {
        owners: init.owners.clone(),
        life: init.life,
        parameters: init.parameters.clone(),
        new_epoch: true,
        change_owners: true,
        prompt: init.prompt.clone(),
    };
    let plan = key.plan(&init.plan);
    let context = EpochContext { store, runtime, key, plan, keeper };
    let made = create::generate_keys(runtime, &init.owners, &init.prompt).await?;
    stored.epoch = Some(layout::EpochPath { writer: key.writer, plan, epoch: made.id() });
    let now = store.now().await?;
    let (epoch, _) = create::create_epoch(context, &wanted, Vec::new(), made, (now, &[])).await?;
    Ok(epoch)
}

/// Opens the first epoch with the available identities and stores their receipts. Failures are
/// only warnings: the epoch then counts as unproven, which `status` reports.
async fn receipts(
    store: &Arc<dyn Store>,
    runtime: &Runtime,
    epoch: &VerifiedEpoch,
    init: &Init,
    signers: &Signers,
    reporter: &Reporter,
) {
    let epochs =
        Epochs { all: vec![StoredEpoch { epoch: epoch.clone(), born: epoch.created }], ..Epochs::default() };
    let context = KeyContext { store, runtime, signers, reporter };
    let warn = |label: &str, why: String| reporter.warn(label.to_owned(), why);
    let rows = match wraps::check(context, &epochs, &Records::default(), &init.identities).await {
        Ok(rows) => rows,
        Err(error) => return warn("first epoch", format!("not proven: {error}")),
    };
    for row in rows {
        let why = match (&row.opened, &row.receipt) {
            (Err(error), _) => format!("did not open the first epoch: {error}"),
            (Ok(_), Err(error)) => format!("opened the first epoch, but left no receipt: {error}"),
            (Ok(_), Ok(None)) => {
                "opened the first epoch, but has no pinned signing key to attest it: no receipt".to_owned()
            }
            (Ok(_), Ok(Some(_))) => continue,
        };
        warn(&row.identity, why);
    }
}

/// Proves owners: each identity must open a challenge encrypted to one of the recipients. An
/// identity that opens none is an error, because its holder believes to be an owner.
pub async fn prove(
    runtime: &Runtime,
    owners: &[Owner],
    identities: &[Arc<Identity>],
    prompt: &Arc<dyn Prompt>,
) -> Result<Vec<ProvenOwner>, InitError> {
    let mut used = vec![false; identities.len()];
    let mut proven = Vec::new();
    for owner in owners {
        let challenge = Zeroizing::new(to_hex(&runtime.random::<32>()));
        let (recipient, prompt, all) = (owner.recipient.clone(), prompt.clone(), identities.to_vec());
        let outcome = runtime
            .workers
            .run(move || {
                let sealed = recipient.encrypt(challenge.as_bytes(), &prompt)?;
                let answers = |identity: &Arc<Identity>| match identity.open_text(&sealed) {
                    Ok(text) => Ok(*text == *challenge),
                    Err(WrapError::WrongIdentity) => Ok(false),
                    Err(error) => Err((identity.label().to_owned(), error)),
                };
                Ok(all.iter().map(answers).collect::<Vec<_>>())
            })
            .await
            .map_err(|error: WrapError| InitError::Encrypt { owner: owner.name(), source: error })?;
        let mut opened = false;
        for (answer, used) in outcome.into_iter().zip(&mut used) {
            match answer {
                Ok(true) => (opened, *used) = (true, true),
                Ok(false) => {}
                Err((identity, source)) => return Err(InitError::Challenge { identity, source }),
            }
        }
        proven.push(ProvenOwner { owner: owner.clone(), proven: opened });
    }
    if let Some((identity, _)) = identities.iter().zip(&used).find(|(_, used)| !**used) {
        let recipients = identity.recipients().iter().map(ToString::to_string).collect();
        return Err(InitError::NotAnOwner { identity: identity.label().to_owned(), recipients });
    }
    Ok(proven)
}

fn check_owners(init: &Init) -> Result<(), InitError> {
    let mut ids: Vec<_> = init.owners.iter().map(|owner| owner.recipient.id()).collect();
    ids.sort_unstable();
    ids.dedup();
    if ids.len() != init.owners.len() {
        return Err(InitError::SameOwnerTwice);
    }
    match (ids.len(), init.single_owner) {
        (0, _) => Err(InitError::NoOwners),
        (1, false) => Err(InitError::OneOwner),
        _ => Ok(()),
    }
}
