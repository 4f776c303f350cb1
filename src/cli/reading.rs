//! Opening a repository and a snapshot for a verb that reads.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt as _;
use std::sync::Arc;

use super::keyring::{identities, required_pin};
use super::options::{ReadArgs, ReaderArgs};
use super::place;
use super::terminal::Talk;
use crate::format::body::{Item, Stream};
use crate::format::name::Name;
use crate::pipeline::owner::Identity;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Reporter;
use crate::report::failure::{Exit, Failure};
use crate::repository::chain::Snapshot;
use crate::repository::open::{PlanView, View, Which};
use crate::repository::snapshot::OpenSnapshot;
use crate::restore::streams::member;
use crate::world::World;

/// What readers may hold of decrypted packs, where no budget is given.
pub(super) const MEMORY: u64 = 64 << 20;

/// Opens the repository as the pinned signers show it.
pub(super) async fn view(from: &ReadArgs, reporter: &Reporter) -> Result<View, Failure> {
    let signers = required_pin(from.reader.signer.as_deref())?.signers;
    let world = World::real();
    let options = place::options(&place::without_plan(&from.store)?, None, false);
    let store = place::store(&options, &world, reporter).await?;
    Ok(View { store, signers: Arc::new(signers), world, reporter: reporter.clone() })
}

/// Which snapshot is meant.
pub(super) fn which(reader: &ReaderArgs, snapshot: &str) -> Which {
    Which { snapshot: snapshot.to_owned(), writer: reader.writer.clone(), plan: reader.plan_id.clone() }
}

/// A snapshot that the identities opened, and where it stands.
#[derive(Debug)]
pub(super) struct Opened {
    /// The repository.
    pub(super) view: View,
    /// The snapshot.
    pub(super) snapshot: OpenSnapshot,
}

/// Reads the identities before anything is asked of a store: a person waits for the passphrase
/// prompt, not for a network.
pub(super) fn keys(reader: &ReaderArgs) -> Result<Vec<Arc<Identity>>, Failure> {
    if reader.identity.is_empty() {
        return Err(Failure::new(Exit::Usage, "no identity is given: names and contents are encrypted")
            .remedy("give an owner's private key with --identity owner.key"));
    }
    Ok(identities(reader)?.0)
}

/// Selects and opens a snapshot.
pub(super) async fn open(
    from: &ReadArgs,
    snapshot: &str,
    identities: &[Arc<Identity>],
    memory: u64,
    reporter: &Reporter,
) -> Result<Opened, Failure> {
    let view = view(from, reporter).await?;
    let (plan, snapshot): (PlanView, Snapshot) = view.select(&which(&from.reader, snapshot)).await?;
    let snapshot = view.open(&plan, &snapshot, identities, memory).await?;
    Ok(Opened { view, snapshot })
}

/// The same for verbs that show no progress: runs `work` with the opened snapshot.
pub(super) fn with_snapshot<T, F: Future<Output = Result<T, Failure>>>(
    from: &ReadArgs,
    snapshot: &str,
    talk: &Talk,
    work: impl FnOnce(Opened) -> F,
) -> Result<T, Failure> {
    let identities = keys(&from.reader)?;
    let reporter = talk.reporter();
    super::signals::until_signalled(async {
        work(open(from, snapshot, &identities, MEMORY, &reporter).await?).await
    })
}

/// An item of a snapshot by its name, with what there is instead where it is not there.
pub(super) fn item<'a>(snapshot: &'a OpenSnapshot, name: &str) -> Result<&'a Item, Failure> {
    let items = &snapshot.body().items;
    items.iter().find(|item| item.name == name).ok_or_else(|| {
        let names: Vec<&str> = items.iter().map(|item| item.name.as_str()).collect();
        let seq = snapshot.snapshot().envelope().seq;
        let remedy = match crate::plan::suggest(name, names.iter().copied()) {
            Some(near) => format!("did you mean {near}?"),
            None => format!("there are: {}", names.join(", ")),
        };
        Failure::new(Exit::Usage, format!("snapshot {seq:06} has no item {name}")).remedy(remedy)
    })
}

/// What `ITEM[:REST]` names: an item, and a stream or a path in it. Items' names hold no colon but
/// those of folders, so the longest name that fits counts. A folder's item may be called by the
/// folder alone, as a shell completes it.
pub(super) fn split<'a>(
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
            Ok((item(snapshot, &String::from_utf8_lossy(name))?, &b""[..]))
        }
    }
}

/// A stream of an item by the beginning of `rest`, and what follows it: `apps/v1/deployments/ns/x`
/// is the stream `apps/v1/deployments` and the member `ns/x`. A folder has one stream, so all of
/// `rest` is the path.
pub(super) fn stream<'a>(item: &'a Item, rest: &'a [u8]) -> Result<(&'a Stream, &'a [u8]), Failure> {
    if let [only] = item.streams.as_slice()
        && only.format == "tar"
    {
        return Ok((only, within(rest)));
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
            None => format!("say which, as in {}:{}", item.name, names.first().unwrap_or(&"…")),
        };
        return Err(Failure::new(Exit::Usage, what).remedy(remedy));
    };
    Ok((stream, within(&rest[stream.name.len()..])))
}

/// A path as members have it: without slashes at its ends.
fn within(mut path: &[u8]) -> &[u8] {
    while let Some(rest) = path.strip_prefix(b"/").or_else(|| path.strip_suffix(b"/")) {
        path = rest;
    }
    path
}

/// The path that a person means: what kbak shows in that way, with its escapes, or, where nothing is
/// called so, the bytes as they are.
pub(super) async fn spelled(reader: &StreamReader, path: &[u8]) -> Result<Name, Failure> {
    let path = Name::from(within(path));
    match path.unescaped() {
        Some(meant) if member(reader, &meant).await?.is_some() => Ok(meant),
        Some(meant) if member(reader, &path).await?.is_none() => Ok(meant),
        _ => Ok(path),
    }
}
