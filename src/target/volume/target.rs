//! The folder that a stream is restored into.

use std::sync::Arc;

use bytes::Bytes;
use rustix::fs::FlockOperation;
use rustix::io::Errno;

use super::deferred::{DeferredEntries, EXISTED, INHERITED_ACL, finish_directories, make_links};
use super::directory::{Directory, DirectoryOrigin, is_empty};
use super::options::{ExistingFiles, TargetOptions};
use super::pool::{BATCH, WorkerPool, WriteJob};
use super::report::{EntryResult, FailureReason, VolumeReport};
use super::state::TargetState;
use super::{delete_extra::StreamPaths, destination::Destination, error::TargetError, file::OpenFile};
use crate::format::tar::parse::TarEvent;
use crate::format::tar::{self, EntryKind, ROOT, TarEntry, order};
use crate::runtime::kill_point;

/// Files of at most this many bytes of content are gathered and written at once.
const SMALL: u64 = 256 << 10;
/// Bytes of each part in which larger files are written.
const PART: usize = 1 << 20;
/// Size in bytes from which on a part of a larger file is not copied.
const SHARED: usize = 128 << 10;
/// A small file that is not copied counts one n-th of the piece that it came in, with this n: half of the piece for
/// each batch of files.
const SHARING: usize = 2 * BATCH;
/// Size in bytes from which on a file is compared with the free space before it is written.
const CHECK_SPACE_FROM: u64 = 1 << 20;
/// Most directories on the way to the current one that are held open.
const HELD_OPEN: usize = 32;

/// The member whose content comes next.
#[derive(Debug)]
enum CurrentMember {
    None,
    /// A member that is not restored, or has no content.
    Ignored,
    Small {
        directory: Arc<Directory>,
        entry: Box<TarEntry>,
        content: SmallContent,
    },
    Large(Arc<OpenFile>),
}

/// The content of a small file so far.
#[derive(Debug)]
enum SmallContent {
    /// Nothing yet of this many bytes.
    Missing(usize),
    /// All of it, in the memory of the piece that it came in.
    Shared(Bytes, usize),
    /// Parts of several pieces, one after the other.
    Copied(Vec<u8>),
}

impl SmallContent {
    fn add(&mut self, bytes: &[u8], source: &Bytes) {
        match self {
            Self::Missing(length) if *length == bytes.len() && !source.is_empty() => {
                // Files of one piece are neighbours in the queue, so that a part of its memory counts for each.
                let held = bytes.len() + source.len() / SHARING;
                *self = Self::Shared(source.slice_ref(bytes), held);
            }
            Self::Missing(length) => {
                let mut copy = Vec::with_capacity(*length);
                copy.extend_from_slice(bytes);
                *self = Self::Copied(copy);
            }
            Self::Copied(copy) => copy.extend_from_slice(bytes),
            // The parser gives no more bytes than the entry has.
            Self::Shared(..) => {}
        }
    }

    /// Returns the content, and how much memory it counts.
    fn finish(self) -> (Bytes, usize) {
        match self {
            Self::Missing(_) => (Bytes::new(), 0),
            Self::Shared(bytes, held) => (bytes, held),
            Self::Copied(copy) => {
                let held = copy.capacity();
                (copy.into(), held)
            }
        }
    }
}

/// A folder that a stream is restored into. If it is dropped before [`VolumeTarget::finish`], complete
/// files stay, partial ones are removed, and directories keep mode 0700. The next run, with
/// [`ExistingFiles::Skip`], goes on from there.
#[derive(Debug)]
pub struct VolumeTarget {
    state: Arc<TargetState>,
    pool: WorkerPool,
    current: CurrentMember,
    /// Open directories on the way to the current one, outermost first.
    open_parents: Vec<(Vec<u8>, Arc<Directory>)>,
    /// A directory that could not be created; entries below it fail too.
    blocked: Option<Vec<u8>>,
    directories: DeferredEntries,
    links: DeferredEntries,
    stream_paths: Option<StreamPaths>,
}

impl VolumeTarget {
    /// Opens the folder, or creates it (mode 0700) in an existing one. `random` names temporary files and
    /// keys hashes; it must not repeat. Fails with [`TargetError`] if the folder cannot be used.
    pub fn open(
        folder: impl Into<Destination>,
        options: TargetOptions,
        random: [u8; 32],
    ) -> Result<Self, TargetError> {
        let folder = folder.into();
        let path = &folder.path();
        let open = |source: Errno| TargetError::Open { path: path.to_owned(), source };
        if options.existing == ExistingFiles::DeleteExtra && options.deletion_scope.is_empty() {
            return Err(TargetError::NoDeletionScope);
        }
        let root = folder.create().map_err(open)?;
        root.probe().map_err(open)?;
        let access = rustix::fs::Access::WRITE_OK | rustix::fs::Access::EXEC_OK;
        rustix::fs::accessat(&root, ".", access, rustix::fs::AtFlags::empty()).map_err(open)?;
        // Some file systems cannot lock folders: a second restore can run, with other temporary names.
        if rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(TargetError::Busy(path.to_owned()));
        }
        let stream_paths = (options.existing == ExistingFiles::DeleteExtra).then(|| StreamPaths::new(random));
        let state = Arc::new(TargetState::new(root, options, random));
        if state.options.existing == ExistingFiles::Refuse && !is_empty(&state.root).map_err(open)? {
            return Err(TargetError::NotEmpty(path.to_owned()));
        }
        state.remove_temporary_files(&state.root).map_err(open)?;
        let pool = WorkerPool::new(state.clone(), state.options.threads, state.options.buffer);
        Ok(Self {
            state,
            pool,
            current: CurrentMember::None,
            open_parents: Vec::new(),
            blocked: None,
            directories: DeferredEntries::default(),
            links: DeferredEntries::default(),
            stream_paths,
        })
    }

    /// Takes the next event of a stream. Entries that cannot be restored are counted and named in the report,
    /// and the restore goes on. Fails with [`TargetError`] if the restore cannot go on: the target is full,
    /// or gone.
    pub fn apply(&mut self, event: TarEvent<'_>) -> Result<(), TargetError> {
        self.apply_from(event, &Bytes::new())
    }

    /// Takes the next event of a stream as [`Self::apply`] does. `source` holds the content of the event, which
    /// need not be copied then; otherwise it is empty.
    pub fn apply_from(&mut self, event: TarEvent<'_>, source: &Bytes) -> Result<(), TargetError> {
        self.state.check()?;
        match event {
            TarEvent::Member(entry) => self.begin_member(entry),
            TarEvent::Data { at, bytes } => self.write_data(at, bytes, source),
            TarEvent::MemberEnd => self.end_member(),
            TarEvent::End => Ok(()),
        }
    }

    fn begin_member(&mut self, entry: Box<TarEntry>) -> Result<(), TargetError> {
        if let Some(stream_paths) = &mut self.stream_paths {
            stream_paths.add(&entry.path);
        }
        self.current = CurrentMember::Ignored;
        if let Err(error) = tar::check_entry(&entry) {
            self.state.fail(&entry.path, FailureReason::Invalid(error));
            return Ok(());
        }
        if self.blocked.as_deref().is_some_and(|blocked| order::is_below(&entry.path, blocked)) {
            self.state.fail(&entry.path, FailureReason::NoDirectory);
            return Ok(());
        }
        self.blocked = None;
        match &entry.kind {
            EntryKind::HardLink { .. } => {
                return self.links.push(&self.state.root, 0, &entry).map_err(TargetError::DeferredEntries);
            }
            EntryKind::Directory => return self.add_directory(&entry),
            _ => {}
        }
        let directory = match self.open_parent(&entry.path) {
            Ok(directory) => directory,
            Err(reason) => {
                self.state.fail(&entry.path, reason);
                return Ok(());
            }
        };
        let content = match &entry.kind {
            EntryKind::File { size } => *size,
            EntryKind::Sparse { extents, .. } => extents.iter().map(|extent| extent.len).sum(),
            _ => {
                self.pool.run(WriteJob::Special { directory, entry });
                return Ok(());
            }
        };
        self.check_space(&entry.path, content)?;
        if content <= SMALL {
            let content = SmallContent::Missing(usize::try_from(content).unwrap_or(0));
            self.current = CurrentMember::Small { directory, entry, content };
            return Ok(());
        }
        let path = entry.path.clone();
        match OpenFile::create(&self.state, &directory, *entry) {
            Ok(Some(file)) => self.current = CurrentMember::Large(Arc::new(file)),
            Ok(None) => {}
            Err(reason) => self.state.fail(&path, reason),
        }
        Ok(())
    }

    fn write_data(&mut self, at: u64, bytes: &[u8], source: &Bytes) -> Result<(), TargetError> {
        match &mut self.current {
            CurrentMember::None => return Err(TargetError::EventOrder),
            CurrentMember::Ignored => {}
            CurrentMember::Small { content, .. } => content.add(bytes, source),
            CurrentMember::Large(file) => {
                for (number, part) in bytes.chunks(PART).enumerate() {
                    file.expect();
                    let at = at + (number * PART) as u64;
                    let (data, held) = share(part, source);
                    self.pool.run(WriteJob::Part { file: file.clone(), at, data, held });
                }
            }
        }
        Ok(())
    }

    fn end_member(&mut self) -> Result<(), TargetError> {
        match std::mem::replace(&mut self.current, CurrentMember::None) {
            CurrentMember::None => return Err(TargetError::EventOrder),
            CurrentMember::Ignored => {}
            CurrentMember::Small { directory, entry, content } => {
                let (data, held) = content.finish();
                self.pool.run(WriteJob::Whole { directory, entry, data, held });
            }
            CurrentMember::Large(file) => self.pool.run(WriteJob::Complete { file }),
        }
        Ok(())
    }

    fn add_directory(&mut self, entry: &TarEntry) -> Result<(), TargetError> {
        let made = match order::split(&entry.path) {
            None => Ok((DirectoryOrigin::Existing, false)),
            Some((_, name)) => self.open_parent(&entry.path).and_then(|parent| {
                let made = self.state.make_directory(&parent, name)?;
                Ok((made, parent.inherited_acl))
            }),
        };
        let cleaned = made.and_then(|(made, inherited_acl)| {
            if made == DirectoryOrigin::Existing && entry.path != ROOT {
                let existing = self.state.open_directory(&entry.path);
                existing
                    .and_then(|existing| self.state.remove_temporary_files(&existing))
                    .map_err(FailureReason::system("open it"))?;
            }
            Ok((made, inherited_acl))
        });
        match cleaned {
            Ok((made, inherited_acl)) => {
                self.state.report().directories += 1;
                let existed = if made == DirectoryOrigin::Existing { EXISTED } else { 0 };
                let flags = existed | if inherited_acl { INHERITED_ACL } else { 0 };
                self.directories.push(&self.state.root, flags, entry).map_err(TargetError::DeferredEntries)
            }
            Err(reason) => {
                self.blocked = Some(entry.path.clone());
                self.state.fail(&entry.path, reason);
                Ok(())
            }
        }
    }

    /// Returns the directory that holds `path`: still open, or opened beneath the root.
    fn open_parent(&mut self, path: &[u8]) -> EntryResult<Arc<Directory>> {
        let (parent, _) = order::split(path).ok_or(FailureReason::NoDirectory)?;
        self.open_parents.retain(|(open, _)| open == parent || order::is_below(parent, open));
        if let Some((open, directory)) = self.open_parents.last()
            && open == parent
        {
            return Ok(directory.clone());
        }
        let directory = Arc::new(self.state.parent_of(path)?);
        if self.open_parents.len() == HELD_OPEN {
            self.open_parents.remove(0);
        }
        self.open_parents.push((parent.to_vec(), directory.clone()));
        Ok(directory)
    }

    fn check_space(&self, path: &[u8], needs: u64) -> Result<(), TargetError> {
        if needs < CHECK_SPACE_FROM {
            return Ok(());
        }
        let room = rustix::fs::fstatvfs(&self.state.root)
            .map_err(|source| TargetError::Stopped(path.to_vec(), source))?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if needs > free {
            return Err(TargetError::NoRoom { path: path.to_vec(), needs, free });
        }
        Ok(())
    }

    /// Ends a restore whose stream is not complete: complete files stay, partial ones are removed. Fails if the disk
    /// has reported an error meanwhile: it does so once, and the next run would not learn of it.
    pub fn abandon(self) -> Result<(), TargetError> {
        let Self { state, pool, current, .. } = self;
        pool.finish();
        drop(current);
        state.check()
    }

    /// Ends the restore: waits for all files, makes hard links, deletes extra files if requested, sets the
    /// attributes of directories, and writes everything to disk. Called only if the stream was complete.
    /// Fails with [`TargetError`]; complete files stay.
    pub fn finish(self) -> Result<VolumeReport, TargetError> {
        if !matches!(self.current, CurrentMember::None) {
            return Err(TargetError::EventOrder);
        }
        let Self { state, pool, open_parents, directories, links, stream_paths, .. } = self;
        drop(open_parents);
        pool.finish();
        state.check()?;
        kill_point("restore.files.placed");
        make_links(&state, &links)?;
        state.check()?;
        kill_point("restore.links.made");
        if let Some(mut stream_paths) = stream_paths {
            if state.report().failed.is_empty() && state.options.deletion_exceptions.all_named {
                state.delete_extra(&mut stream_paths, &state.options.deletion_scope);
            } else {
                state.report().deletion_held_back = true;
            }
        }
        finish_directories(&state, &directories)?;
        state.check()?;
        state.sync();
        state.check()?;
        kill_point("restore.synced");
        Ok(std::mem::take(&mut *state.report()))
    }
}

/// Returns `part` as bytes of their own, and how much memory they count. A part of `source` that is long enough
/// is not copied; all of `source` stays in memory for it, so it counts at least a quarter of that.
fn share(part: &[u8], source: &Bytes) -> (Bytes, usize) {
    if source.is_empty() || part.len() < SHARED {
        return (Bytes::copy_from_slice(part), part.len());
    }
    (source.slice_ref(part), part.len().max(source.len() / 4))
}
