//! Opens a repository and a snapshot for verbs that read.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::key_files::{read_identities, read_required_pin};
use super::{ReadArgs, ReaderArgs, store};
use crate::cli::failure::Failure;
use crate::cli::shell::console::Console;
use crate::cli::shell::signals::until_signalled;
use crate::format::body::{Item, Stream};
use crate::format::name::Name;
use crate::keys::Identity;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Reporter;
use crate::repository::chain::Snapshot;
use crate::repository::read::reader::{RepositoryReader, SnapshotSelector, StoredPlan};
use crate::repository::read::snapshot::OpenSnapshot;
use crate::restore::streams::member;
use crate::runtime::Runtime;

/// The default limit for decrypted packs that readers hold in memory, in bytes.
pub(crate) const READER_MEMORY: u64 = 64 << 20;

/// Opens the repository. Only objects that pinned signers signed count.
pub(crate) async fn open_repository(
    from: &ReadArgs,
    reporter: &Reporter,
) -> Result<RepositoryReader, Failure> {
    let signers = read_required_pin(from.reader.signer.as_deref())?.signers;
    let runtime = Runtime::real();
    let repository = store::repository_argument(&from.store)?;
    let store = store::open_store(&repository, None, false, &runtime, reporter).await?;
    Ok(RepositoryReader { store, signers: Arc::new(signers), runtime, reporter: reporter.clone() })
}

/// Returns the selector of a snapshot, with the filters by writer and plan.
pub(crate) fn snapshot_selector(reader: &ReaderArgs, snapshot: &str) -> SnapshotSelector {
    SnapshotSelector {
        snapshot: snapshot.to_owned(),
        writer: reader.writer.clone(),
        plan: reader.plan_id.clone(),
    }
}

/// A snapshot that the identities opened, with its repository.
#[derive(Debug)]
pub(crate) struct OpenedSnapshot {
    /// The repository.
    pub(crate) view: RepositoryReader,
    /// The decrypted snapshot.
    pub(crate) snapshot: OpenSnapshot,
}

/// Reads the identities: before the store is opened, so that the prompt does not wait for the network.
pub(crate) fn required_identities(reader: &ReaderArgs) -> Result<Vec<Arc<Identity>>, Failure> {
    if reader.identity.is_empty() {
        return Err(Failure::usage("no identity is given: names and contents are encrypted")
            .remedy("give an owner's private key with --identity owner.key"));
    }
    Ok(read_identities(&reader.identity, reader.passphrase_file.as_deref())?.0)
}

/// Selects and opens a snapshot.
pub(crate) async fn open_snapshot(
    from: &ReadArgs,
    snapshot: &str,
    identities: &[Arc<Identity>],
    memory: u64,
    reporter: &Reporter,
) -> Result<OpenedSnapshot, Failure> {
    let view = open_repository(from, reporter).await?;
    let (plan, snapshot): (StoredPlan, Snapshot) =
        view.select(&snapshot_selector(&from.reader, snapshot)).await?;
    let snapshot = view.open(&plan, &snapshot, identities, memory).await?;
    Ok(OpenedSnapshot { view, snapshot })
}

/// Opens a snapshot and runs `work` with it, for verbs that show no progress.
pub(crate) fn with_snapshot<T, F: Future<Output = Result<T, Failure>>>(
    from: &ReadArgs,
    snapshot: &str,
    console: &Console,
    work: impl FnOnce(OpenedSnapshot) -> F,
) -> Result<T, Failure> {
    let identities = required_identities(&from.reader)?;
    let reporter = console.reporter();
    until_signalled(async {
        work(open_snapshot(from, snapshot, &identities, READER_MEMORY, &reporter).await?).await
    })
}

/// Returns the items that `names` select; all if there is no name.
pub(crate) fn chosen_items<'a>(
    snapshot: &'a OpenSnapshot,
    names: &[String],
) -> Result<Vec<&'a Item>, Failure> {
    for name in names {
        find_item(snapshot, name)?;
    }
    let items = snapshot.body().items.iter();
    Ok(items.filter(|item| names.is_empty() || names.contains(&item.name)).collect())
}

/// Returns an item by its name. The error suggests a similar name, or lists the names that exist.
pub(crate) fn find_item<'a>(snapshot: &'a OpenSnapshot, name: &str) -> Result<&'a Item, Failure> {
    let items = &snapshot.body().items;
    items.iter().find(|item| item.name == name).ok_or_else(|| {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let seq = snapshot.snapshot().envelope().seq;
        let remedy = match crate::plan::suggest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("its items are: {}", names.join(", ")),
        };
        Failure::usage(format!("snapshot {seq:06} has no item {name}")).remedy(remedy)
    })
}

/// Parses `ITEM[:REST]` into an item, and a stream or a path in it. Only folders' names can contain a colon:
/// the longest match is taken. A folder's item may be named by its path alone, as shells complete it.
pub(crate) fn parse_place<'a>(
    snapshot: &'a OpenSnapshot,
    text: &'a OsStr,
) -> Result<(&'a Item, &'a [u8]), Failure> {
    let text = text.as_bytes();
    let mut best: Option<(&Item, &[u8])> = None;
    for item in &snapshot.body().items {
        let names =
            [Some(item.name.as_str()), item.name.strip_prefix("path").filter(|_| text.starts_with(b"/"))];
        let rest = names.into_iter().flatten().find_map(|name| match text.strip_prefix(name.as_bytes())? {
            b"" => Some(&b""[..]),
            rest => rest.strip_prefix(b":"),
        });
        if let Some(rest) = rest
            && best.is_none_or(|(other, _)| other.name.len() < item.name.len())
        {
            best = Some((item, rest));
        }
    }
    match best {
        Some(found) => Ok(found),
        None => {
            let name = text.split(|&byte| byte == b':').next().unwrap_or(text);
            Ok((find_item(snapshot, &String::from_utf8_lossy(name))?, &b""[..]))
        }
    }
}

/// Returns the stream that `rest` begins with, and the path after it: `apps/v1/deployments/ns/x` is the
/// stream `apps/v1/deployments` and the member `ns/x`. A folder has one stream: all of `rest` is path.
pub(crate) fn find_stream<'a>(item: &'a Item, rest: &'a [u8]) -> Result<(&'a Stream, &'a [u8]), Failure> {
    if let [only] = item.streams.as_slice()
        && only.format == "tar"
    {
        return Ok((only, trim_slashes(rest)));
    }
    let fits = |stream: &&Stream| {
        let after = rest.strip_prefix(stream.name.as_bytes());
        after.is_some_and(|after| after.is_empty() || after.starts_with(b"/"))
    };
    let found = item.streams.iter().filter(fits).max_by_key(|stream| stream.name.len());
    let Some(stream) = found else {
        let names: Vec<&str> = item.streams.iter().map(|stream| stream.name.as_str()).collect();
        let rest = Name::from(rest).display();
        let what = match rest.as_str() {
            "" => format!("{} has {} streams", item.name, names.len()),
            rest => format!("{} has no stream {rest}", item.name),
        };
        let remedy = match crate::plan::suggest(&rest, names.iter().copied()) {
            Some(near) => format!("did you mean {}:{near}?", item.name),
            None => format!("name one, as in {}:{}", item.name, names.first().unwrap_or(&"…")),
        };
        return Err(Failure::usage(what).remedy(remedy));
    };
    Ok((stream, trim_slashes(&rest[stream.name.len()..])))
}

/// Strips the slashes at both ends: paths of members have none.
fn trim_slashes(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/").or_else(|| path.strip_suffix(b"/")) {
        path = rest;
    }
    path
}

/// Resolves a path from the command line. Escapes are decoded, unless only the undecoded bytes name a member.
pub(crate) async fn resolve_path(reader: &StreamReader, path: &[u8]) -> Result<Name, Failure> {
    let path = Name::from(trim_slashes(path));
    match path.unescaped() {
        Some(meant) if member(reader, &meant).await?.is_some() => Ok(meant),
        Some(meant) if member(reader, &path).await?.is_none() => Ok(meant),
        _ => Ok(path),
    }
}
