//! Errors of a restore as failures.

use std::io::ErrorKind;

use super::{Exit, Failure};
use crate::report::text::plural;
use crate::restore::error::{DatabaseStep, ItemError, RestoreStreamError};
use crate::source::database::DatabaseError;
use crate::target::kubernetes::{DirectoryError, RestoreConfigError, RestoreError};
use crate::target::volume::TargetError;

impl From<RestoreConfigError> for Failure {
    fn from(error: RestoreConfigError) -> Self {
        use RestoreConfigError as Error;
        let usage = |what: &str| Self::new(Exit::Usage, what);
        match error {
            Error::Pattern(error) => error.into(),
            Error::Object(error) => usage("--object does not name an object").because(error),
            Error::Selector(error) => usage("--selector is not a label selector").because(error),
            Error::Modifier(error) => usage("a modifier is invalid").because(error),
        }
    }
}

impl From<ItemError> for Failure {
    fn from(error: ItemError) -> Self {
        use ItemError as Error;
        let failure = Self::new(error.outcome(), error.to_string());
        match error {
            Error::Stream(error) => error.into(),
            Error::Access(error) => error.into(),
            Error::Archive(error) => failure.because(error),
            Error::Excluded { source, .. } => failure.because(source),
            Error::Database { step, source } => database_failure(failure, &step, source),
            Error::Cluster { created, source } => cluster_failure(failure, created, source),
            Error::PlanChanged { expected, actual } => failure
                .fact("asked for", expected)
                .fact("would be done", actual)
                .remedy("the cluster, the snapshot or the arguments have changed: look at it again with --dry-run"),
            Error::Files(error) => {
                let remedy = match &error {
                    DirectoryError::Io(_, source) => Some(match source.kind() {
                        ErrorKind::StorageFull | ErrorKind::QuotaExceeded => {
                            "make room, and write into a new folder"
                        }
                        _ => folder_remedy(source.kind()),
                    }),
                    DirectoryError::Exists(_) => Some("write into a new folder"),
                    _ => None,
                };
                Self { remedy: remedy.map(str::to_owned), ..failure.because(error) }
            }
            Error::NoTarget(_) => failure.remedy("give the target, or choose items with --item"),
            Error::UnknownKind { .. } => {
                failure.remedy("this version does not restore it; kbak export gives its bytes")
            }
        }
    }
}

fn database_failure(failure: Failure, step: &DatabaseStep, error: DatabaseError) -> Failure {
    let fixed = match &error {
        _ if failure.exit == Exit::Damaged && *step == DatabaseStep::Globals => {
            Some("nothing was changed; kbak verify --read-all lists the intact snapshots")
        }
        _ if *step == DatabaseStep::Connect && error.is_unreachable() => {
            Some("check the host and port of --database, and that the server runs; then run it again")
        }
        DatabaseError::ToolFailed { .. } if *step == DatabaseStep::Connect => Some(
            "check the user and the database of --database, and --database-password-file or PGPASSWORD: the \
             server refused them",
        ),
        DatabaseError::MissingTool { .. } => {
            Some("install the client tools of the server's version or newer")
        }
        DatabaseError::NoRight { .. } => Some("restore as a role with this right"),
        _ if !matches!(step, DatabaseStep::Dump(_)) => None,
        DatabaseError::NotEmpty { .. } => {
            Some("an existing database is replaced only with --replace-databases")
        }
        _ if failure.exit == Exit::Damaged => {
            Some("drop the incomplete database; kbak verify --read-all lists the intact snapshots")
        }
        DatabaseError::Refused { .. } => {
            Some("let an administrator do it: an empty database of this name is filled as it is")
        }
        _ => None,
    };
    let incomplete = match &error {
        DatabaseError::PartlyRestored { database, .. } if failure.exit != Exit::Damaged => Some(format!(
            "remove the cause, drop the incomplete database {database} and run it again \
             (--replace-databases drops all databases of these names)"
        )),
        _ => None,
    };
    let remedy = fixed.map(str::to_owned).or(incomplete);
    Failure { remedy, ..failure.because(error) }
}

fn cluster_failure(mut failure: Failure, created: Option<u64>, error: RestoreError) -> Failure {
    let so_far = created.map_or("nothing was changed".to_owned(), |created| {
        format!("{} that were created stay", plural(created, "object", "objects"))
    });
    failure.what = format!("{}; {so_far}", failure.what);
    let remedy = match &error {
        _ if failure.exit == Exit::Damaged => "kbak verify says what is damaged",
        RestoreError::Api(error) if error.code() == Some(401) => {
            "the API server does not take these credentials (any more); get new ones and run it again"
        }
        RestoreError::Api(error) if error.code() == Some(403) => {
            "the API server refuses this user even the list of its kinds: check the user of the context \
             (kubectl auth whoami), and grant it what kbak rbac prints"
        }
        _ => "run it again: what is there is left alone",
    };
    failure.remedy(remedy).because(error)
}

impl From<RestoreStreamError> for Failure {
    fn from(error: RestoreStreamError) -> Self {
        use RestoreStreamError as Error;
        let failure = Self::new(error.outcome(), error.to_string());
        match error {
            Error::Read(error) => error.into(),
            Error::Snapshot(error) => error.into(),
            Error::Target(error) => target_failure(failure, error),
            Error::Malformed(error) => failure.because(error),
            Error::Kinds(error) => failure.because(error),
            Error::Truncated | Error::LinkToNoFile(_) | Error::KindMissing { .. } => failure,
            Error::CreateTarget { source, .. } => {
                failure.remedy(folder_remedy(source.kind())).because(source)
            }
            Error::Output(error) => failure.because(error),
            Error::NothingAt(_) => failure.remedy("kbak ls or kbak find show what it holds"),
            Error::NoResources { why, .. } => {
                failure.fact("why", why).remedy("choose an earlier snapshot: kbak snapshots lists them")
            }
            Error::NoData { state, .. } => failure.fact("state", state.to_string()),
            Error::SeveralStreams { .. } => failure.remedy("say which: ITEM:STREAM, as kbak show lists them"),
        }
    }
}

/// Returns the remedy for a target folder that cannot be created or opened.
fn folder_remedy(kind: ErrorKind) -> &'static str {
    match kind {
        ErrorKind::ReadOnlyFilesystem => "choose a folder on a file system that is not mounted read-only",
        ErrorKind::NotADirectory | ErrorKind::AlreadyExists => {
            "a file is in the place of the target or of a folder above it: choose another target, or move it away"
        }
        ErrorKind::PermissionDenied => {
            "choose a folder that this user may write, or run kbak as another user"
        }
        _ => "choose a target that is a folder and can be written",
    }
}

fn target_failure(failure: Failure, error: TargetError) -> Failure {
    use TargetError as Error;
    let remedy = match &error {
        Error::NotEmpty(_) => "choose another --to, or say --existing-files skip, overwrite or delete-extra",
        Error::Busy(_) => "wait until it ends, or choose another --to",
        Error::Open { source: rustix::io::Errno::LOOP, .. } => {
            "a link stands on the way to where this item goes, and none is followed there: restore it alone, \
             with --item, to where it shall go"
        }
        Error::Open { source, .. } => folder_remedy(std::io::Error::from(*source).kind()),
        Error::NoRoom { .. } | Error::Stopped { .. } | Error::DeferredEntries(_) => {
            "make room in the target, then run it again with --existing-files skip: what is there already stays"
        }
        Error::NoDeletionScope | Error::EventOrder => "please report it",
    };
    failure.remedy(remedy).because(error)
}
