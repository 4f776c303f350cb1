//! Restores the streams of an opened snapshot into targets: folders, archives, resources.

use std::collections::HashMap;
use std::error::Error;
use std::ops::Range;
use std::sync::Arc;

use async_trait::async_trait;
use bytes::Bytes;
use futures::StreamExt;
use futures::stream::BoxStream;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt};
use tokio::sync::mpsc;

use crate::cli::failure::{Exit, Failure, beneath, meaning};
use crate::format::body::{Item, Stream};
use crate::format::catalog::{Line, Type};
use crate::format::list::Part;
use crate::format::name::Name;
use crate::format::tar::{Entry, Kind, ROOT, order};
use crate::kubernetes::KindInfo;
use crate::pipeline::fetch::ReadError;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Meter;
use crate::repository::read::snapshot::OpenSnapshot;
use crate::runtime::{Runtime, kill_point};
use crate::source::kubernetes::KindReport;

use crate::format::tar::parse::{Event, Expect, ParseError, Parser};
use crate::target::kubernetes::{ResourceStreams, StreamError};
use crate::target::volume::{Destination, ExistingFiles, Report, Target, TargetOptions};

/// Most messages that wait for a target.
const QUEUE: usize = 4;

/// The selected paths of a folder.
#[derive(Debug, Clone, Default)]
pub struct Paths(pub Vec<Name>);

impl Paths {
    /// True if an event at `object` of the backup concerns a selected path: it is one, is below one
    /// or leads to one. An event without an object may concern any.
    #[must_use]
    pub fn concern(&self, object: &Name) -> bool {
        let path = object.bytes();
        path.is_empty() || self.takes(path) || self.leads(path)
    }

    fn takes(&self, path: &[u8]) -> bool {
        self.0.iter().any(|wanted| wanted.bytes() == path || order::is_below(path, wanted.bytes()))
    }

    /// True if `path` leads to a selected one: its parent folders are restored too.
    fn leads(&self, path: &[u8]) -> bool {
        self.0.iter().any(|wanted| order::is_below(wanted.bytes(), path))
    }
}

/// The parts of a stream to read, in the order of reading.
#[derive(Debug, Default)]
struct Selection {
    members: u64,
    runs: Vec<Run>,
    /// Files restored under the name of a link to them, because their own name is not selected: old
    /// name to new. Further links to such a file point to the new name.
    moved: HashMap<Vec<u8>, Vec<u8>>,
    /// Selected paths that the snapshot does not hold.
    absent: Vec<Name>,
}

impl Selection {
    fn bytes(&self) -> u64 {
        self.runs.iter().map(|run| run.range.end - run.range.start).sum()
    }
}

/// Neighbouring members, or one file that gets another name.
#[derive(Debug, Clone)]
struct Run {
    range: Range<u64>,
    name: Option<Vec<u8>>,
}

/// A message to the target.
#[derive(Debug)]
enum Feed {
    /// A run begins; with the new name of its file, if it gets one.
    Run(Option<Vec<u8>>),
    /// Bytes of the run.
    Bytes(Bytes),
    /// Everything was sent. Without it the target is not finished.
    End,
}

/// The amount that a restore of a folder would read.
#[derive(Debug)]
pub struct Look {
    /// Number of members.
    pub members: u64,
    /// Number of bytes.
    pub bytes: u64,
    /// Selected paths that the snapshot does not hold.
    pub absent: Vec<Name>,
}

/// Measures how much [`into_folder`] would read and, if a target is named, checks that it would take
/// the restore. Changes nothing.
pub async fn look_at_folder(
    reader: &StreamReader,
    paths: Option<&Paths>,
    target: Option<&Destination>,
    existing: ExistingFiles,
) -> Result<Look, Failure> {
    let look = match paths {
        None => Look { members: reader.body().members, bytes: reader.body().length, absent: Vec::new() },
        Some(paths) => {
            let selection = select(reader, paths).await?;
            Look { members: selection.members, bytes: selection.bytes(), absent: selection.absent }
        }
    };
    if let Some(target) = target {
        crate::target::volume::check_target(target, existing).map_err(target_failure)?;
    }
    Ok(look)
}

/// Restores a folder, or some paths of it, into `target`, which is created once something is known to
/// go there. Also returns the selected paths that the snapshot does not hold.
pub async fn into_folder(
    reader: &StreamReader,
    paths: Option<&Paths>,
    target: impl Into<Destination>,
    options: TargetOptions,
    runtime: &Runtime,
    meter: &Arc<Meter>,
) -> Result<(Report, Vec<Name>), Failure> {
    let (selection, expect) = match paths {
        None => {
            let run = Run { range: 0..reader.body().length, name: None };
            (Selection { runs: vec![run], ..Selection::default() }, Expect::Stream)
        }
        Some(paths) => (select(reader, paths).await?, Expect::Members),
    };
    meter.add_bytes_total(selection.bytes());
    let Selection { runs, moved, absent, .. } = selection;
    // Deletion stays within the selected paths that the snapshot holds.
    let held = |path: &&Name| !absent.contains(path);
    let delete_within = paths.map_or(vec![ROOT.to_vec()], |paths| {
        paths.0.iter().filter(held).map(|path| path.bytes().to_vec()).collect()
    });
    let options = TargetOptions { delete_within, ..options };
    let target = target.into();
    std::fs::create_dir_all(&target.to).map_err(|error| {
        let what = format!("{}: the target cannot be made", target.to.display());
        Failure::new(Exit::Usage, what).because(error)
    })?;
    let target = Target::open(target, options, runtime.random()).map_err(target_failure)?;
    kill_point("restore.target.opened");
    let (sender, receiver) = mpsc::channel::<Feed>(QUEUE);
    let meter = meter.clone();
    let write = runtime.workers.run(move || write_events(target, receiver, expect, &moved, &meter));
    // This future owns the sender: the channel closes when it ends, for whatever reason.
    let read = async move {
        for run in runs {
            // A target that has stopped reports the reason itself.
            if sender.send(Feed::Run(run.name)).await.is_err() {
                return Ok(());
            }
            let mut bytes = reader.range(run.range);
            while let Some(piece) = bytes.next().await {
                if sender.send(Feed::Bytes(piece?)).await.is_err() {
                    return Ok(());
                }
            }
        }
        let _ = sender.send(Feed::End).await;
        Ok::<_, ReadError>(())
    };
    // A read error closes the channel without `Feed::End`, so the target is not finished: complete
    // files stay, partial ones are removed, and nothing is deleted.
    let (written, read) = futures::join!(write, read);
    read?;
    Ok((written?, absent))
}

fn write_events(
    mut target: Target,
    mut feed: mpsc::Receiver<Feed>,
    expect: Expect,
    moved: &HashMap<Vec<u8>, Vec<u8>>,
    meter: &Meter,
) -> Result<Report, Failure> {
    let mut parser = Parser::new(expect);
    let (mut begun, mut name) = (false, None);
    let parse_failure = |error: ParseError| {
        Failure::new(Exit::Damaged, "the stream is not one that kbak writes").because(error)
    };
    loop {
        let Some(next) = feed.blocking_recv() else {
            return Err(Failure::new(Exit::Damaged, "the stream stopped before its end"));
        };
        let piece = match next {
            Feed::End => break,
            Feed::Bytes(piece) => piece,
            Feed::Run(other) => {
                // A renamed file is out of stream order: a new parser begins before and after it.
                if begun && (name.is_some() || other.is_some()) {
                    parser.finish().map_err(parse_failure)?;
                    parser = Parser::new(expect);
                }
                (begun, name) = (true, other);
                continue;
            }
        };
        let mut rest: &[u8] = &piece;
        while let Some(mut event) = parser.next(&mut rest).map_err(parse_failure)? {
            match &mut event {
                Event::MemberEnd => meter.add_done(1),
                Event::Member(entry) => rename(entry, name.as_deref(), moved)?,
                _ => {}
            }
            target.event(event).map_err(target_failure)?;
        }
        meter.add_bytes(piece.len() as u64);
    }
    parser.finish().map_err(parse_failure)?;
    target.finish().map_err(target_failure)
}

/// Gives a file the name of the selected link to it, and points other links to that name.
fn rename(entry: &mut Entry, name: Option<&[u8]>, moved: &HashMap<Vec<u8>, Vec<u8>>) -> Result<(), Failure> {
    match (&mut entry.kind, name) {
        (Kind::HardLink { carrier }, None) => {
            if let Some(name) = moved.get(carrier) {
                carrier.clone_from(name);
            }
            Ok(())
        }
        (_, None) => Ok(()),
        (Kind::Directory | Kind::HardLink { .. }, Some(name)) => {
            let name = Name::from(name).display();
            Err(Failure::new(Exit::Damaged, format!("{name} is a further name of something that is no file")))
        }
        (_, Some(name)) => {
            entry.path = name.to_vec();
            Ok(())
        }
    }
}

fn target_failure(error: crate::target::volume::TargetError) -> Failure {
    use crate::target::volume::TargetError as Error;
    let again = "then run it again with --existing-files skip: what is there already stays";
    let (exit, remedy) = match &error {
        Error::NotEmpty(_) => (
            Exit::Usage,
            "choose another --to, or say --existing-files skip, overwrite or delete-extra".to_owned(),
        ),
        Error::Busy(_) => (Exit::Usage, "wait until it ends, or choose another --to".to_owned()),
        Error::Open { source: rustix::io::Errno::LOOP, .. } => (
            Exit::Usage,
            "a link stands on the way to where this item goes, and none is followed there: restore it alone, \
             with --item, to where it shall go"
                .to_owned(),
        ),
        Error::Open { .. } => (Exit::Usage, "check --to: it must be a folder that can be written".to_owned()),
        Error::NoRoom { .. } | Error::Stopped { .. } | Error::Journal(_) => {
            (Exit::Partial, format!("make room in the target, {again}"))
        }
        Error::NoScope | Error::Events => (Exit::Bug, "please report it".to_owned()),
    };
    Failure::new(exit, "cannot restore into the folder").remedy(remedy).because(error)
}

/// Returns the members that `paths` select, neighbours joined. A link to a file that is not selected
/// brings the file under the link's name.
async fn select(reader: &StreamReader, paths: &Paths) -> Result<Selection, Failure> {
    let mut selection = Selection::default();
    let mut lines = reader.catalog();
    let mut absent = paths.0.clone();
    while let Some(line) = lines.next().await {
        let (at, line) = line?;
        let wanted = paths.takes(line.path.bytes());
        if wanted {
            let found = line.path.bytes();
            absent.retain(|path| path.bytes() != found && !order::is_below(found, path.bytes()));
        }
        if !wanted && !paths.leads(line.path.bytes()) {
            continue;
        }
        selection.members += 1;
        let carrier = line.link.as_ref().filter(|carrier| {
            let there = paths.takes(carrier.bytes()) || selection.moved.contains_key(carrier.bytes());
            line.kind == Type::Hardlink && !there
        });
        if let Some(carrier) = carrier {
            let (at, first) = member(reader, carrier).await?.ok_or_else(|| ReadError::Malformed {
                what: "catalog has a link to something that it does not name".into(),
            })?;
            let name = Some(line.path.bytes().to_vec());
            selection.runs.push(Run { range: place(reader, at, &first)?, name });
            selection.moved.insert(carrier.bytes().to_vec(), line.path.bytes().to_vec());
            continue;
        }
        let range = place(reader, at, &line)?;
        match selection.runs.last_mut() {
            Some(last) if last.name.is_none() && last.range.end == range.start => last.range.end = range.end,
            _ => selection.runs.push(Run { range, name: None }),
        }
    }
    if absent.len() < paths.0.len() {
        selection.absent = absent;
        return Ok(selection);
    }
    let names: Vec<String> = paths.0.iter().map(Name::display).collect();
    Err(Failure::new(Exit::Partial, format!("the snapshot holds nothing at {}", names.join(", ")))
        .remedy("kbak ls or kbak find show what it holds"))
}

/// Returns the byte range of a member.
fn place(reader: &StreamReader, at: u64, line: &Line) -> Result<Range<u64>, ReadError> {
    let end = at.checked_add(line.len).filter(|end| *end <= reader.body().length);
    let end =
        end.ok_or_else(|| ReadError::Malformed { what: "catalog names bytes past the stream".into() })?;
    Ok(at..end)
}

/// Returns the offset of a member in its stream, and its catalog line.
pub async fn member(reader: &StreamReader, path: &Name) -> Result<Option<(u64, Line)>, ReadError> {
    let stream = reader.body();
    let mut lines = reader.catalog_from(catalog_start(stream, path.bytes()));
    while let Some(line) = lines.next().await {
        let (at, line) = line?;
        if line.path == *path {
            return Ok(Some((at, line)));
        }
        if stream.format == "tar" && order::compare(line.path.bytes(), path.bytes()).is_gt() {
            break;
        }
    }
    Ok(None)
}

/// Returns the number of the catalog chunk that holds `path`, if any does: the last that begins at or
/// before it. Only folders have a known order; the objects of a kind are in the server's.
pub fn catalog_start(stream: &Stream, path: &[u8]) -> usize {
    if path.is_empty() || stream.format != "tar" {
        return 0;
    }
    let before =
        |part: &Part| part.first.as_ref().is_none_or(|first| order::compare(first.bytes(), path).is_le());
    stream.catalog.partition_point(before).saturating_sub(1)
}

/// Writes a stream's bytes to `out`.
pub async fn into_writer(
    reader: &StreamReader,
    out: &mut (impl AsyncWrite + Unpin),
    meter: &Meter,
) -> Result<(), Failure> {
    meter.add_bytes_total(reader.body().length);
    let mut bytes = reader.bytes();
    let failed = |error: std::io::Error| Failure::new(Exit::Usage, "cannot write the output").because(error);
    while let Some(piece) = bytes.next().await {
        let piece = piece?;
        out.write_all(&piece).await.map_err(failed)?;
        meter.add_bytes(piece.len() as u64);
    }
    out.flush().await.map_err(failed)
}

/// Returns a stream's bytes as a reader, for a database's tool.
pub fn as_reader(reader: &StreamReader, meter: Arc<Meter>) -> impl AsyncRead + Unpin + Send + use<> {
    meter.add_bytes_total(reader.body().length);
    let bytes = reader.bytes().map(move |piece| {
        let piece = piece.map_err(std::io::Error::other)?;
        meter.add_bytes(piece.len() as u64);
        Ok::<_, std::io::Error>(piece)
    });
    tokio_util::io::StreamReader::new(bytes)
}

/// Reads a stream to its end, which proves that all of it is present and intact.
///
/// # Errors
/// [`ReadError`] if it is not, or cannot be read.
pub async fn prove(reader: &StreamReader, meter: &Meter) -> Result<(), ReadError> {
    meter.add_bytes_total(reader.body().length);
    let mut bytes = reader.bytes();
    while let Some(piece) = bytes.next().await {
        meter.add_bytes(piece?.len() as u64);
    }
    Ok(())
}

/// The resources of a snapshot, kind by kind.
#[derive(Debug)]
pub struct SnapshotResources {
    kinds: Vec<(KindInfo, StreamReader)>,
}

impl SnapshotResources {
    /// Returns the resources of `item`. Kinds without objects have no stream.
    pub fn new(snapshot: &OpenSnapshot, item: &Item) -> Result<Self, Failure> {
        let Some(kinds) = item.facts.get("kinds").cloned() else {
            let why = item.gaps.first().map_or_else(String::new, |gap| gap.reason.clone());
            let what = format!("this snapshot holds nothing of {}", item.name);
            return Err(Failure::new(Exit::Partial, what)
                .fact("why", why)
                .remedy("choose an earlier snapshot: kbak snapshots lists them"));
        };
        let kinds: Vec<KindReport> = serde_json::from_value(kinds).map_err(|error| {
            Failure::new(Exit::Damaged, "the snapshot does not say which kinds it holds").because(error)
        })?;
        let mut found = Vec::new();
        for KindReport { kind, objects, .. } in kinds {
            let name = kind.stream_name();
            match item.streams.iter().find(|stream| stream.name == name) {
                Some(stream) => found.push((kind, snapshot.read(stream)?)),
                None if objects > 0 && item.gaps.is_empty() => {
                    let what = format!("{}: it says that it holds {name}, and does not", item.name);
                    return Err(Failure::new(Exit::Damaged, what));
                }
                None => {}
            }
        }
        Ok(Self { kinds: found })
    }
}

#[async_trait]
impl ResourceStreams for SnapshotResources {
    fn kinds(&self) -> Vec<KindInfo> {
        self.kinds.iter().map(|(kind, _)| kind.clone()).collect()
    }

    async fn open(&self, kind: &KindInfo) -> Result<BoxStream<'_, Result<Bytes, StreamError>>, StreamError> {
        let (_, reader) =
            self.kinds.iter().find(|(have, _)| have == kind).ok_or("a kind that is not there")?;
        Ok(reader.bytes().map(|piece| piece.map_err(StreamError::from)).boxed())
    }
}

/// Returns the stream of an item that has exactly one.
pub fn only_stream(item: &Item) -> Result<&Stream, Failure> {
    match item.streams.as_slice() {
        [stream] => Ok(stream),
        [] => Err(Failure::new(Exit::Partial, format!("{} has no data in this snapshot", item.name))
            .fact("state", format!("{:?}", item.state).to_lowercase())),
        several => Err(Failure::new(Exit::Usage, format!("{} has {} streams", item.name, several.len()))
            .remedy("say which: ITEM:STREAM, as kbak show lists them")),
    }
}

/// Returns the exit code for the [`ReadError`] among the causes of `error`, if there is one.
#[must_use]
pub fn exit_of_reading(error: &(dyn Error + 'static)) -> Option<Exit> {
    let mut causes = std::iter::successors(Some(error), |cause| beneath(*cause));
    Some(match causes.find_map(|cause| cause.downcast_ref::<ReadError>())? {
        ReadError::Store(error) => meaning(error).0,
        ReadError::Ended => Exit::Interrupted,
        ReadError::Spill(_) => Exit::Unreachable,
        _ => Exit::Damaged,
    })
}

impl From<ReadError> for Failure {
    fn from(error: ReadError) -> Self {
        match error {
            ReadError::Store(error) => error.into(),
            ReadError::Ended => Self::new(Exit::Interrupted, "the restore was interrupted"),
            ReadError::Spill(error) => Self::new(Exit::Unreachable, error.to_string()).because(error),
            damaged => Self::new(Exit::Damaged, "the backup is damaged here")
                .because(damaged)
                .remedy("kbak verify --read-all says what else is, and which snapshots are whole"),
        }
    }
}
