//! Errors of repositories as failures.

use super::{Exit, Failure};
use crate::format::ids::{NameId, RecipientId};
use crate::format::wrap::WrapError;
use crate::report::text::plural;
use crate::repository::epoch::error::CreateEpochError;
use crate::repository::epoch::wraps::KeysError;
use crate::repository::error::{InitError, RepositoryError};
use crate::repository::read::snapshot::SnapshotError;
use crate::repository::write::commit::CommitError;

/// The most objects that one failure lists.
const MAX_LISTED: usize = 5;
/// The most candidates of an ambiguous selector that a failure lists.
const MAX_CANDIDATES: usize = 20;

impl From<CommitError> for Failure {
    fn from(error: CommitError) -> Self {
        use CommitError as Error;
        let (exit, remedy) = match error {
            Error::Store(error) => return error.into(),
            Error::Body(_) | Error::State(_) | Error::Manifest(_) => (Exit::Bug, ""),
            Error::NotReadBack { .. } => (
                Exit::Damaged,
                "if it was damaged before (kbak verify names it), move it away and run again; if not, this \
                 store loses what it acknowledges: do not trust it with backups",
            ),
            Error::Lost(_) => (
                Exit::Damaged,
                "this store loses what it acknowledges: do not trust it with backups; run again to store anew",
            ),
            Error::TooLate { .. } => (Exit::Partial, "run again; raise epoch.maxRun if runs take this long"),
        };
        Self::new(exit, "the snapshot was not committed").because(error).remedy_if(remedy)
    }
}

impl From<CreateEpochError> for Failure {
    fn from(error: CreateEpochError) -> Self {
        let (exit, remedy) = match error {
            CreateEpochError::Store(error) => return error.into(),
            CreateEpochError::Writer(error) => return error.into(),
            CreateEpochError::SecretLost { epoch, ref signer, stored, .. } => {
                let remedy = format!(
                    "if you made it (another machine, an older file): bring its file back, or open a new epoch with \
                     --new-epoch (everything is read and stored anew); if nobody made it, the key was stolen: an \
                     owner runs kbak keys cut-off --key {signer}, and the writer gets a new key (docs/keys.md)"
                );
                return Self::new(Exit::Usage, "no epoch to write into")
                    .fact(format!("epoch {epoch}"), format!("the store received it at {stored}"))
                    .fact("signed by", format!("{signer}, this writer's key"))
                    .because(error)
                    .remedy(remedy);
            }
            CreateEpochError::Damaged { .. } => (
                Exit::Damaged,
                "bring back its older version, if the bucket keeps versions: without it no snapshot of this \
                 epoch can be read; --new-epoch goes on without it",
            ),
            CreateEpochError::Newer(..) => {
                (Exit::Usage, "use the version of kbak that wrote it, or a later one")
            }
            CreateEpochError::Owners(_) => (
                Exit::Usage,
                "name the owners of before as well; --change-owners begins an epoch for these alone",
            ),
            CreateEpochError::NoOwners => (Exit::Usage, "give --recipient, or recipients: in the plan"),
            CreateEpochError::Owner { .. } => (Exit::Usage, "check the recipient; a plugin must be on PATH"),
            CreateEpochError::HandOver(_) => (Exit::Usage, "make it anew: kbak epoch new --outside"),
            CreateEpochError::ReadBack(_) | CreateEpochError::Epoch(_) => (Exit::Damaged, ""),
            CreateEpochError::SelfTest(_) => (Exit::Bug, ""),
        };
        Self::new(exit, "no epoch to write into").because(error).remedy_if(remedy)
    }
}

impl From<KeysError> for Failure {
    fn from(error: KeysError) -> Self {
        let (epoch, owners, tried, source) = match error {
            KeysError::Store(error) => return error.into(),
            KeysError::Closed { epoch, owners, tried, source } => (epoch, owners, tried, source),
        };
        let exit = match source {
            WrapError::Damaged(_)
            | WrapError::Armor
            | WrapError::Content
            | WrapError::BelongsElsewhere(_) => Exit::Damaged,
            WrapError::WrongIdentity | WrapError::Identity(_) | WrapError::Seal(_) => Exit::Usage,
        };
        let names: Vec<String> = owners.iter().map(RecipientId::short).collect();
        let owners = format!("{}: {}", plural(owners.len() as u64, "owner", "owners"), names.join(", "));
        let remedy = match exit {
            Exit::Usage => "an owner can add a key: kbak keys add --owner RECIPIENT --identity OWNER-KEY",
            _ => "",
        };
        Self::new(exit, format!("cannot open epoch {epoch}"))
            .fact("it is encrypted to", owners)
            .facts(tried.into_iter().map(|identity| ("tried".to_owned(), identity)))
            .remedy_if(remedy)
            .because(source)
    }
}

impl From<SnapshotError> for Failure {
    fn from(error: SnapshotError) -> Self {
        match error {
            SnapshotError::Store(error) => error.into(),
            other => Self::new(Exit::Damaged, "the snapshot cannot be read").because(other),
        }
    }
}

impl From<RepositoryError> for Failure {
    fn from(error: RepositoryError) -> Self {
        use RepositoryError as Error;
        let what = error.to_string();
        let usage = Self::usage(what.clone());
        let damaged = Self::new(Exit::Damaged, what);
        match error {
            Error::Store(error) => error.into(),
            Error::Read(error) => error.into(),
            Error::Keys(error) => error.into(),
            Error::Snapshot(error) => error.into(),
            Error::MarkerDamaged { source, .. } => damaged.because(source).remedy(
                "check --repo; if it is right, put the marker back, which holds {\"kbak\":1} and no more",
            ),
            Error::MarkerGone { .. } => damaged.fact("there", "a pinned writer's folder").remedy(
                "put it there again: it holds {\"kbak\":1}, without a newline, in every repository; the next \
                 backup does that too",
            ),
            Error::NoRepository { .. } => {
                usage.remedy("check --repo, and that it is mounted; a new repository is made by kbak init")
            }
            Error::OtherWriters { found, pinned, .. } => usage
                .fact("writers there", listed(&found))
                .fact("pinned", listed(&pinned))
                .remedy("is this the right kbak.pub, and the right repository?"),
            Error::NoSigner => usage.remedy(
                "give the writer's kbak.pub with --signer; without it anyone could have written this bucket",
            ),
            Error::NoPlan { writer, plan, .. } => usage
                .fact("writer", writer.unwrap_or_else(|| "any".to_owned()))
                .fact("plan", plan.unwrap_or_else(|| "any".to_owned()))
                .remedy("kbak snapshots lists the plans that there are"),
            Error::NotSigned { rejected, .. } => damaged
                .facts([rejected])
                .remedy("is this the right kbak.pub? kbak verify shows every object that is wrong"),
            Error::NotFound { count, rejected, .. } => {
                let failure = if rejected.is_some() { damaged } else { usage };
                failure
                    .fact("snapshots there", count.to_string())
                    .facts(rejected)
                    .remedy("kbak snapshots lists what there is; --signer says whose snapshots count")
            }
            Error::Ambiguous { found, by_hash, .. } => {
                usage.facts(found.into_iter().take(MAX_CANDIDATES)).remedy(ambiguous_remedy(by_hash))
            }
            Error::NewerDamaged { seq, finished, damaged: objects } => damaged
                .fact(format!("snapshot {seq:06}"), format!("finished {finished}"))
                .facts(objects.into_iter().take(MAX_LISTED))
                .remedy(format!(
                    "to use it all the same, say {seq} instead of latest; kbak verify shows everything that is wrong"
                )),
            Error::Unreadable { objects, readable, .. } => {
                damaged.facts(objects.into_iter().take(MAX_LISTED)).remedy(unreadable_remedy(readable))
            }
            Error::EpochGone { .. } => {
                damaged.remedy("older versions of the object may be there: kbak verify says what is missing")
            }
        }
    }
}

fn ambiguous_remedy(by_hash: Option<String>) -> String {
    match by_hash {
        Some(hash) => {
            format!("name one by the first digits of its hash, six or more, in place of the number: {hash}")
        }
        None => "say which: --plan-id with the first digits of the plan, --writer, or the first six digits of the \
                 hash or more"
            .to_owned(),
    }
}

fn unreadable_remedy(readable: Option<NameId>) -> String {
    match readable {
        Some(plan) => format!(
            "to use the one plan that can be read, say --plan-id {plan}; kbak verify shows everything that is wrong"
        ),
        None => "bring back what kbak verify names, from older versions in the bucket or from a copy of it; \
                 epochs/<plan>-<epoch>-… and <plan>/<epoch>/epoch.json are identical, and one of them is enough"
            .to_owned(),
    }
}

fn listed<T: ToString>(all: &[T]) -> String {
    all.iter().take(MAX_LISTED).map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

impl From<InitError> for Failure {
    fn from(error: InitError) -> Self {
        use InitError as Error;
        let what = error.to_string();
        let usage = Self::usage(what.clone());
        match error {
            Error::Store(error) => error.into(),
            Error::File(error) => error.into(),
            Error::Epoch(error) => error.into(),
            Error::Encrypt { source, .. } | Error::Challenge { source, .. } => usage.because(source),
            Error::NotAnOwner { recipients, .. } => usage
                .fact("it is the key of", recipients.join(", "))
                .remedy("give the recipient that belongs to it, or leave it out"),
            Error::SameOwnerTwice => usage,
            Error::NoOwners => usage.remedy("kbak keygen -o owner.key, then --recipient with its public key"),
            Error::OneOwner => usage.remedy("give a second --recipient, or --single-owner"),
            Error::NothingToJoin { .. } => {
                usage.remedy("check --repo; leave --join out to make a repository")
            }
            Error::Exists { .. } => {
                usage.remedy("use its writer.key, choose another prefix, or add a writer with --join")
            }
            Error::NotARepository { source, .. } => Self::new(Exit::Damaged, what)
                .because(source)
                .remedy("choose another place for a new repository"),
            Error::MarkerReadBack(source) => Self::new(Exit::Damaged, what).because(source),
            Error::Sheet(source) => Self::new(Exit::Bug, what).because(source),
        }
    }
}
