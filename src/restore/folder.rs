//! Restores a folder's stream, or some paths of it.

use super::error::RestoreStreamError;
pub use super::selection::Paths;
use super::selection::{Run, Selection, catalog_lines, select};
use crate::format::catalog::MemberType;
use crate::format::name::Name;
use crate::format::tar::parse::{ExpectedInput, TarEvent, TarParser};
use crate::format::tar::{EntryKind, ROOT, TarEntry};
use crate::pipeline::ReadError;
use crate::pipeline::reader::StreamReader;
use crate::report::event::Meter;
use crate::runtime::{Runtime, kill_point};
use crate::target::volume::{
    Destination, TargetOptions, TargetPreview, VolumeReport, VolumeTarget, check_target,
};
use bytes::Bytes;
use futures::StreamExt;
use std::collections::HashMap;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Most messages that wait for a target.
const QUEUE: usize = 4;

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
    /// Number of members whose owner or group this user cannot set.
    pub foreign_owners: u64,
    /// Number of devices that are not allowed.
    pub refused_devices: u64,
    /// Number of members that existing entries of the target stop.
    pub stopped: u64,
    /// The first of them.
    pub stopped_example: Option<Name>,
}

/// Measures how much [`into_folder`] would read and, if a target is named, checks that it would take
/// the restore. Changes nothing.
pub async fn look_at_folder(
    reader: &StreamReader,
    paths: Option<&Paths>,
    target: Option<(&Destination, &TargetOptions)>,
) -> Result<Look, RestoreStreamError> {
    let (members, bytes, absent) = match paths {
        None => (reader.body().members, reader.body().length, Vec::new()),
        Some(paths) => {
            let selection = select(reader, paths).await?;
            (selection.members, selection.bytes(), selection.absent)
        }
    };
    let mut look = Look {
        members,
        bytes,
        absent,
        foreign_owners: 0,
        refused_devices: 0,
        stopped: 0,
        stopped_example: None,
    };
    if let Some((target, options)) = target {
        check_target(target, options.existing)?;
        let preview = TargetPreview::open(target, options.existing)?;
        count_refused(reader, paths, options, preview, &mut look).await?;
    }
    Ok(look)
}

/// Counts the members that the target would not take whole. Fails if it has not enough space.
async fn count_refused(
    reader: &StreamReader,
    paths: Option<&Paths>,
    options: &TargetOptions,
    mut preview: TargetPreview,
    look: &mut Look,
) -> Result<(), RestoreStreamError> {
    let user = rustix::process::geteuid();
    let is_root = user.is_root();
    let mut groups: Vec<u32> =
        rustix::process::getgroups().unwrap_or_default().iter().map(|group| group.as_raw()).collect();
    groups.push(rustix::process::getegid().as_raw());
    let mut lines = catalog_lines(reader, paths);
    while let Some(line) = lines.next().await {
        let (_, line) = line?;
        let path = line.path.bytes();
        if paths.is_some_and(|paths| !paths.takes(path) && !paths.leads(path)) {
            continue;
        }
        preview.add(&line)?;
        if preview.is_in_the_way(&line) {
            look.stopped += 1;
            look.stopped_example.get_or_insert_with(|| line.path.clone());
        }
        let is_device = matches!(line.kind, MemberType::Char | MemberType::Block);
        look.refused_devices += u64::from(is_device && !options.allow_devices);
        let is_own = |id: Option<u32>, is_held: &dyn Fn(u32) -> bool| id.is_none_or(is_held);
        let own =
            is_own(line.uid, &|uid| uid == user.as_raw()) && is_own(line.gid, &|gid| groups.contains(&gid));
        look.foreign_owners += u64::from(!is_root && !own);
    }
    Ok(())
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
) -> Result<(VolumeReport, Vec<Name>), RestoreStreamError> {
    let (selection, expect) = match paths {
        None => {
            let run = Run { range: 0..reader.body().length, name: None };
            (Selection { runs: vec![run], ..Selection::default() }, ExpectedInput::Stream)
        }
        Some(paths) => (select(reader, paths).await?, ExpectedInput::Members),
    };
    meter.add_bytes_total(selection.bytes());
    let Selection { runs, moved, absent, .. } = selection;
    // Deletion stays within the selected paths that the snapshot holds.
    let held = |path: &&Name| !absent.contains(path);
    let deletion_scope = paths.map_or(vec![ROOT.to_vec()], |paths| {
        paths.0.iter().filter(held).map(|path| path.bytes().to_vec()).collect()
    });
    let options = TargetOptions { deletion_scope, ..options };
    let target = target.into();
    // The same check as in a dry run, so that both give the same reason.
    check_target(&target, options.existing)?;
    std::fs::create_dir_all(&target.base)
        .map_err(|source| RestoreStreamError::CreateTarget { path: target.base.clone(), source })?;
    let target = VolumeTarget::open(target, options, runtime.random())?;
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
    match written {
        Err(error @ RestoreStreamError::Target(_)) => Err(error),
        written => read.map_err(Into::into).and(written).map(|report| (report, absent)),
    }
}

fn write_events(
    mut target: VolumeTarget,
    feed: mpsc::Receiver<Feed>,
    expect: ExpectedInput,
    moved: &HashMap<Vec<u8>, Vec<u8>>,
    meter: &Meter,
) -> Result<VolumeReport, RestoreStreamError> {
    match apply_events(&mut target, feed, expect, moved, meter) {
        Ok(()) => Ok(target.finish()?),
        Err(error) => {
            target.abandon()?;
            Err(error)
        }
    }
}

fn apply_events(
    target: &mut VolumeTarget,
    mut feed: mpsc::Receiver<Feed>,
    expect: ExpectedInput,
    moved: &HashMap<Vec<u8>, Vec<u8>>,
    meter: &Meter,
) -> Result<(), RestoreStreamError> {
    let mut parser = TarParser::new(expect);
    let (mut begun, mut name) = (false, None);
    loop {
        let Some(next) = feed.blocking_recv() else {
            return Err(RestoreStreamError::Truncated);
        };
        let piece = match next {
            Feed::End => break,
            Feed::Bytes(piece) => piece,
            Feed::Run(other) => {
                // A renamed file is out of stream order: a new parser begins before and after it.
                if begun && (name.is_some() || other.is_some()) {
                    parser.finish()?;
                    parser = TarParser::new(expect);
                }
                (begun, name) = (true, other);
                continue;
            }
        };
        let mut rest: &[u8] = &piece;
        while let Some(mut event) = parser.next(&mut rest)? {
            match &mut event {
                TarEvent::MemberEnd => meter.add_done(1),
                TarEvent::Member(entry) => rename(entry, name.as_deref(), moved)?,
                _ => {}
            }
            target.apply_from(event, &piece)?;
        }
        meter.add_bytes(piece.len() as u64);
    }
    Ok(parser.finish()?)
}

/// Gives a file the name of the selected link to it, and points other links to that name.
fn rename(
    entry: &mut TarEntry,
    name: Option<&[u8]>,
    moved: &HashMap<Vec<u8>, Vec<u8>>,
) -> Result<(), RestoreStreamError> {
    match (&mut entry.kind, name) {
        (EntryKind::HardLink { link_target }, None) => {
            if let Some(name) = moved.get(link_target) {
                link_target.clone_from(name);
            }
            Ok(())
        }
        (_, None) => Ok(()),
        (EntryKind::Directory | EntryKind::HardLink { .. }, Some(name)) => {
            Err(RestoreStreamError::LinkToNoFile(Name::from(name).display()))
        }
        (_, Some(name)) => {
            entry.path = name.to_vec();
            Ok(())
        }
    }
}
