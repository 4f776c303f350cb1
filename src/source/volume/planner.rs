//! Plans the entries of a walk in order: a depth-first descent that reads directories ahead.
//!
//! The planner holds the sorted names of the directories on the current path, and of at most
//! `AHEAD` directories (of at most `AHEAD_NAMES` bytes of names each) that come next. It inspects
//! no files: workers do that in batches, in parallel.

use std::collections::VecDeque;
use std::ffi::OsStr;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use rustix::io::Errno;

use super::VolumeReader;
use super::gap::{GapKind, LeftOut, SkipReason};
use super::inspect::{EntryLocation, name_of};
use crate::format::tar::{DeviceNumber, MAX_PATH, ROOT};
use crate::fs::FileType;
use crate::fs::beneath::{self, Mounts};
use crate::fs::listing::{Listing, MAX_NAMES};

/// The most entries in a batch.
const BATCH: usize = 64;
/// The most directories that a batch adds to the stack.
const BATCH_DIRECTORIES: usize = 8;
/// The most directories whose names are read before their turn.
const AHEAD: usize = 32;
/// The most of them below one directory, so that some are left for those further down.
const AHEAD_BELOW_ONE: usize = 4;
/// The most bytes of names of a directory that is read before its turn.
const AHEAD_NAMES: usize = 64 << 10;
/// The most directories on the current path that are held open; those above are reopened when needed.
const HELD_OPEN: usize = 64;

/// One step of the walk, in order.
#[derive(Debug)]
pub(super) struct WalkStep {
    pub(super) path: Vec<u8>,
    pub(super) kind: StepKind,
}

/// The action of a step.
#[derive(Debug)]
pub(super) enum StepKind {
    /// An entry to inspect.
    Inspect {
        place: EntryLocation,
        directory: bool,
    },
    Skipped(SkipReason),
    Gap(GapKind),
    LeftOut(LeftOut),
}

/// A request to open and list a directory before its turn.
pub(super) struct ListRequest {
    path: Vec<u8>,
    reply: SyncSender<Result<OpenDirectory, OpenDirectoryError>>,
}

impl ListRequest {
    /// Opens and lists the directory.
    pub(super) fn serve(self, volume: &VolumeReader) {
        // The receiver is gone if the walk was abandoned.
        let _ = self.reply.send(open(volume, &self.path, AHEAD_NAMES));
    }
}

/// An open directory and its names.
pub(super) struct OpenDirectory {
    fd: Arc<OwnedFd>,
    identity: (DeviceNumber, u64),
    listing: Listing,
}

/// The reason why a directory's content is not walked.
pub(super) enum OpenDirectoryError {
    Skip(SkipReason),
    Gap(GapKind),
    Vanished,
    TooManyNames,
}

/// A directory on the current path.
struct DirectoryFrame {
    directory: Option<Arc<OwnedFd>>,
    identity: (DeviceNumber, u64),
    listing: Listing,
    next: usize,
    /// The index from which to look for directories to read ahead.
    scan: usize,
    ahead: VecDeque<(usize, Receiver<Result<OpenDirectory, OpenDirectoryError>>)>,
    /// The length of this directory's path in the planner's path.
    path_len: usize,
}

/// The depth-first descent through a volume.
pub(super) struct Planner {
    volume: VolumeReader,
    frames: Vec<DirectoryFrame>,
    /// The path of the directory at the top of the stack, or of an entry in it.
    path: Vec<u8>,
    started: bool,
    ahead: usize,
    requests: Option<Box<dyn Fn(ListRequest) + Send>>,
}

impl Planner {
    /// Creates a planner at the root. `requests` takes directories to be read ahead; none are without it.
    pub(super) fn new(volume: VolumeReader, requests: Option<Box<dyn Fn(ListRequest) + Send>>) -> Self {
        Self { volume, frames: Vec::new(), path: Vec::new(), started: false, ahead: 0, requests }
    }

    /// Returns the next steps; none when the walk is over.
    pub(super) fn next_batch(&mut self) -> Vec<WalkStep> {
        let mut batch = Vec::with_capacity(BATCH);
        let mut directories = 0;
        if !self.started {
            self.started = true;
            let opened = open(&self.volume, ROOT, MAX_NAMES);
            self.enter(opened, ROOT, None, &mut batch);
        }
        while batch.len() < BATCH && directories < BATCH_DIRECTORIES {
            let Some(frame) = self.frames.last_mut() else { break };
            self.path.truncate(frame.path_len);
            let index = frame.next;
            frame.next += 1;
            let Some((name, file_type)) = frame.listing.get(index) else {
                self.ahead -= frame.ahead.len();
                self.frames.pop();
                continue;
            };
            append_name(&mut self.path, name);
            let depth = self.frames.len();
            self.visit(index, file_type, &mut batch);
            directories += usize::from(self.frames.len() > depth);
        }
        batch
    }

    /// Plans one name in the directory at the top of the stack; descends if it is a directory.
    fn visit(&mut self, index: usize, file_type: FileType, batch: &mut Vec<WalkStep>) {
        let path = self.path.clone();
        if path.len() > MAX_PATH {
            return batch.push(WalkStep { path, kind: StepKind::Gap(GapKind::PathTooLong) });
        }
        let Some(parent) = self.parent() else {
            return batch.push(WalkStep { path, kind: StepKind::Gap(GapKind::Replaced) });
        };
        let is_directory = match file_type {
            FileType::Unknown => {
                let stat = beneath::stat_at(&parent, name_of(&path));
                stat.is_ok_and(|stat| stat.file_type == FileType::Directory)
            }
            known => known == FileType::Directory,
        };
        if let Some(kind) = self.excluded(&path, is_directory) {
            return batch.push(WalkStep { path, kind });
        }
        let place = EntryLocation::In(parent);
        if !is_directory {
            return batch.push(WalkStep { path, kind: StepKind::Inspect { place, directory: false } });
        }
        let opened = self.take_ahead(index).unwrap_or_else(|| open(&self.volume, &path, MAX_NAMES));
        self.read_ahead();
        self.enter(opened, &path, Some(place), batch);
        self.read_ahead();
    }

    /// Adds the directory's own member to the batch, and pushes its content on the stack. The
    /// member of a directory that cannot be entered is made from its name.
    fn enter(
        &mut self,
        opened: Result<OpenDirectory, OpenDirectoryError>,
        path: &[u8],
        named: Option<EntryLocation>,
        batch: &mut Vec<WalkStep>,
    ) {
        let step = |kind| WalkStep { path: path.to_vec(), kind };
        let why = match opened {
            Ok(OpenDirectory { fd, identity, listing }) => {
                batch.push(step(StepKind::Inspect {
                    place: EntryLocation::Itself(fd.clone()),
                    directory: true,
                }));
                if let Some(above) = self.frames.len().checked_sub(HELD_OPEN) {
                    self.frames[above].directory = None;
                }
                self.frames.push(DirectoryFrame {
                    directory: Some(fd),
                    identity,
                    listing,
                    next: 0,
                    scan: 0,
                    ahead: VecDeque::new(),
                    path_len: self.path.len(),
                });
                return;
            }
            Err(OpenDirectoryError::Vanished) => {
                return batch.push(step(StepKind::LeftOut(LeftOut::Vanished)));
            }
            Err(OpenDirectoryError::Skip(skip)) => StepKind::Skipped(skip),
            Err(OpenDirectoryError::Gap(gap)) => StepKind::Gap(gap),
            Err(OpenDirectoryError::TooManyNames) => StepKind::Gap(GapKind::TooManyNames),
        };
        if let Some(place) = named {
            batch.push(step(StepKind::Inspect { place, directory: true }));
        }
        batch.push(step(why));
    }

    /// Returns the directory at the top of the stack, reopened if it was closed; `None` if that
    /// fails or another one has taken its place.
    fn parent(&mut self) -> Option<Arc<OwnedFd>> {
        let frame = self.frames.last_mut()?;
        if frame.directory.is_none() {
            let path = if frame.path_len == 0 { ROOT } else { &self.path[..frame.path_len] };
            let fd = self.volume.inner.root.open_directory(path, true, Mounts::Stop).ok()?;
            let stat = beneath::stat_fd(&fd).ok()?;
            if (stat.dev, stat.ino) != frame.identity {
                return None;
            }
            frame.directory = Some(Arc::new(fd));
        }
        frame.directory.clone()
    }

    fn excluded(&self, path: &[u8], is_directory: bool) -> Option<StepKind> {
        let inner = &self.volume.inner;
        if path == b"lost+found" && is_directory && inner.is_fs_root && !inner.options.lost_and_found {
            return Some(StepKind::Skipped(SkipReason::LostAndFound));
        }
        let path = Path::new(OsStr::from_bytes(path));
        let ignored = !inner.exclude.is_empty() && inner.exclude.matched(path, is_directory).is_ignore();
        ignored.then_some(StepKind::LeftOut(LeftOut::Excluded))
    }

    /// Takes the answer to the request for this directory, if there was one.
    fn take_ahead(&mut self, index: usize) -> Option<Result<OpenDirectory, OpenDirectoryError>> {
        let frame = self.frames.last_mut()?;
        while frame.ahead.front().is_some_and(|(at, _)| *at <= index) {
            let (at, reply) = frame.ahead.pop_front()?;
            self.ahead -= 1;
            if at == index {
                // Too many names to hold ahead, or no worker left: the caller reads it now.
                let reply = reply.recv().ok();
                return reply.filter(|opened| !matches!(opened, Err(OpenDirectoryError::TooManyNames)));
            }
        }
        None
    }

    /// Requests the next directories below the one at the top of the stack.
    fn read_ahead(&mut self) {
        let Some(requests) = &self.requests else { return };
        let Some(depth) = self.frames.len().checked_sub(1) else { return };
        loop {
            let frame = &mut self.frames[depth];
            frame.scan = frame.scan.max(frame.next);
            if self.ahead >= AHEAD || frame.ahead.len() >= AHEAD_BELOW_ONE {
                return;
            }
            let index = frame.scan;
            let Some((name, file_type)) = frame.listing.get(index) else { return };
            let path = join(&self.path[..frame.path_len], name);
            frame.scan += 1;
            if file_type != FileType::Directory || path.len() > MAX_PATH {
                continue;
            }
            if self.excluded(&path, true).is_some() {
                continue;
            }
            let (reply, answer) = sync_channel(1);
            requests(ListRequest { path, reply });
            self.frames[depth].ahead.push_back((index, answer));
            self.ahead += 1;
        }
    }
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    append_name(&mut path, name);
    path
}

fn append_name(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Opens and lists a directory, unless its names take more than `max_bytes`.
fn open(volume: &VolumeReader, path: &[u8], max_bytes: usize) -> Result<OpenDirectory, OpenDirectoryError> {
    let inner = &volume.inner;
    let fd = match inner.root.open_directory(path, true, Mounts::Stop) {
        Ok(fd) => fd,
        Err(Errno::XDEV) => return Err(OpenDirectoryError::Skip(SkipReason::MountPoint)),
        // Removed, or replaced by something else, since its parent was listed.
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP) => return Err(OpenDirectoryError::Vanished),
        Err(error) => return Err(OpenDirectoryError::Gap(GapKind::OpenDirectory(error))),
    };
    let stat = beneath::stat_fd(&fd).map_err(|error| OpenDirectoryError::Gap(GapKind::Stat(error)))?;
    if stat.dev != inner.stat.dev {
        return Err(OpenDirectoryError::Skip(SkipReason::OtherFileSystem));
    }
    match Listing::read(&fd, max_bytes) {
        Ok(Some(listing)) => Ok(OpenDirectory { fd: Arc::new(fd), identity: (stat.dev, stat.ino), listing }),
        Ok(None) => Err(OpenDirectoryError::TooManyNames),
        Err(error) => Err(OpenDirectoryError::Gap(GapKind::ReadDirectory(error))),
    }
}
