//! The folder that a stream is restored into.

use std::os::fd::AsFd;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard};

use rustix::fs::FlockOperation;
use rustix::io::Errno;

use crate::format::tar;
use crate::format::tar::parse::Event;
use crate::format::tar::{Entry, Kind, ROOT, order};
use crate::fs::beneath::Root;
use crate::runtime::kill_point;
use crate::runtime::lock;
use crate::target::volume::attributes;
use crate::target::volume::attributes::{Manner, Subject};
use crate::target::volume::delete_extra::{Keep, Seen};
use crate::target::volume::destination::Destination;
use crate::target::volume::directory::{Directory, Made, TEMPORARY, is_empty};
use crate::target::volume::file::OpenFile;
use crate::target::volume::journal::Journal;
use crate::target::volume::pool::{Job, Pool};
use crate::target::volume::report::{Loss, Reason, Report};

/// Files of at most this many bytes of content are gathered and written at once.
const SMALL: u64 = 256 << 10;
/// Bytes of each part in which larger files are written.
const PART: usize = 1 << 20;
/// Size in bytes from which on a file is compared with the free space before it is written.
const ASK_FOR_ROOM: u64 = 1 << 20;
/// Most directories on the way to the current one that are held open.
const HELD_OPEN: usize = 32;
/// Flags of a directory in the journal.
const EXISTED: u8 = 1;
const INHERITED_ACL: u8 = 2;

/// The policy for files that exist already.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ExistingFiles {
    /// The target must be empty.
    #[default]
    Refuse,
    /// Existing files stay; one that differs in size or time is reported. This resumes a restore.
    Skip,
    /// Existing files are replaced.
    Overwrite,
    /// Existing files are replaced. At the end, everything below [`TargetOptions::delete_within`]
    /// that the stream does not hold is deleted.
    DeleteExtra,
}

/// Options of a restore into a folder.
#[derive(Debug, Clone)]
pub struct TargetOptions {
    /// The policy for files that exist already.
    pub existing: ExistingFiles,
    /// Paths below which [`ExistingFiles::DeleteExtra`] deletes: the selected ones, or [`ROOT`] if
    /// the stream is the whole volume. Only the caller knows them: the default is empty and is
    /// refused.
    pub delete_within: Vec<Vec<u8>>,
    /// Entries that it never deletes.
    pub keep: Keep,
    /// True if devices are made.
    pub allow_devices: bool,
    /// True if attributes other than `user.*`, POSIX ACLs and `security.capability` are set.
    pub allow_other_xattrs: bool,
    /// Threads that write files; 0 does everything on the caller's thread.
    pub threads: usize,
    /// Most bytes of content that wait for the threads.
    pub buffer: usize,
}

impl Default for TargetOptions {
    fn default() -> Self {
        Self {
            existing: ExistingFiles::Refuse,
            delete_within: Vec::new(),
            keep: Keep::default(),
            allow_devices: false,
            allow_other_xattrs: false,
            threads: std::thread::available_parallelism().map_or(2, usize::from).clamp(2, 8),
            buffer: 8 << 20,
        }
    }
}

/// The reason why a restore stops.
#[derive(Debug, Clone, thiserror::Error)]
#[non_exhaustive]
pub enum TargetError {
    /// The target cannot be opened or created.
    #[error("{}: cannot open the target", path.display())]
    Open {
        /// The target's path.
        path: PathBuf,
        /// The kernel's error.
        #[source]
        source: Errno,
    },
    /// The target holds files, and no policy for them was given.
    #[error("{}: the target is not empty", .0.display())]
    NotEmpty(PathBuf),
    /// Extra files are to be deleted, but no paths were given.
    #[error("extra files are to be deleted, and it is not said below which paths")]
    NoScope,
    /// Another restore writes into the target.
    #[error("{}: another restore is writing into the target", .0.display())]
    Busy(PathBuf),
    /// A file is larger than the free space.
    #[error("{}: needs {needs} bytes, and the target has {free} left", String::from_utf8_lossy(path))]
    NoRoom {
        /// The file's path.
        path: Vec<u8>,
        /// Bytes of its content, holes not counted.
        needs: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The target is full, over quota, or read-only.
    #[error("{}: the target takes no more", String::from_utf8_lossy(path))]
    Stopped {
        /// The entry that failed.
        path: Vec<u8>,
        /// The kernel's error.
        #[source]
        source: Errno,
    },
    /// The list of directories and links cannot be written or read.
    #[error("cannot keep the list of directories and links")]
    Journal(#[source] Errno),
    /// The events are in an order that no parser gives: a bug in kbak.
    #[error("the events of the stream are out of order")]
    Events,
}

/// The state that all threads of a restore share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) root: Root,
    pub(crate) options: TargetOptions,
    pub(crate) euid: u32,
    run: String,
    counter: AtomicU64,
    report: Mutex<Report>,
    stopped: AtomicBool,
    error: Mutex<Option<TargetError>>,
}

impl Shared {
    pub(crate) fn report(&self) -> MutexGuard<'_, Report> {
        lock(&self.report)
    }

    pub(crate) fn is_stopped(&self) -> bool {
        self.stopped.load(Ordering::Acquire)
    }

    /// Records that an entry is not restored. Some errors (no space, quota, read-only) end the restore.
    pub(crate) fn fail(&self, path: &[u8], reason: Reason) {
        if let Reason::System { errno: errno @ (Errno::NOSPC | Errno::DQUOT | Errno::ROFS), .. } = reason {
            self.stop(TargetError::Stopped { path: path.to_vec(), source: errno });
        }
        self.report().fail(path, reason);
    }

    fn stop(&self, error: TargetError) {
        lock(&self.error).get_or_insert(error);
        self.stopped.store(true, Ordering::Release);
    }

    fn check(&self) -> Result<(), TargetError> {
        if !self.is_stopped() {
            return Ok(());
        }
        let error = lock(&self.error).clone();
        Err(error.unwrap_or(TargetError::Events))
    }

    pub(crate) fn lose(&self, path: &[u8], lost: Vec<Loss>) {
        if !lost.is_empty() {
            let mut report = self.report();
            lost.into_iter().for_each(|loss| report.lost.add(loss, path));
        }
    }

    pub(crate) fn temporary_name(&self) -> Vec<u8> {
        let number = self.counter.fetch_add(1, Ordering::Relaxed);
        [TEMPORARY, format!("{}-{number:x}", self.run).as_bytes()].concat()
    }

    pub(crate) fn is_own_temporary(&self, name: &[u8]) -> bool {
        name.strip_prefix(TEMPORARY).is_some_and(|rest| rest.starts_with(self.run.as_bytes()))
    }
}

/// The member whose content comes next.
#[derive(Debug)]
enum Current {
    None,
    /// A member that is not restored, or has no content.
    Ignored,
    Small {
        directory: Arc<Directory>,
        entry: Box<Entry>,
        data: Vec<u8>,
    },
    Large(Arc<OpenFile>),
}

/// A folder that a stream is restored into. If it is dropped before [`Target::finish`], complete
/// files stay, partial ones are removed, and directories keep mode 0700. The next run, with
/// [`ExistingFiles::Skip`], goes on from there.
#[derive(Debug)]
pub struct Target {
    shared: Arc<Shared>,
    pool: Pool,
    current: Current,
    /// Open directories on the way to the current one, outermost first.
    way: Vec<(Vec<u8>, Arc<Directory>)>,
    /// A directory that could not be created; entries below it fail too.
    blocked: Option<Vec<u8>>,
    directories: Journal,
    links: Journal,
    seen: Option<Seen>,
}

impl Target {
    /// Opens the folder, or creates it (mode 0700) in an existing one. `random` names temporary files
    /// and keys hashes; it must not repeat.
    ///
    /// # Errors
    /// [`TargetError`] if the folder cannot be used.
    pub fn open(
        folder: impl Into<Destination>,
        options: TargetOptions,
        random: [u8; 32],
    ) -> Result<Self, TargetError> {
        let folder = folder.into();
        let path = &folder.path();
        let open = |source: Errno| TargetError::Open { path: path.to_owned(), source };
        if options.existing == ExistingFiles::DeleteExtra && options.delete_within.is_empty() {
            return Err(TargetError::NoScope);
        }
        let root = folder.make().map_err(open)?;
        root.probe().map_err(open)?;
        // Some file systems cannot lock folders: a second restore can run, with other temporary names.
        if rustix::fs::flock(&root, FlockOperation::NonBlockingLockExclusive) == Err(Errno::WOULDBLOCK) {
            return Err(TargetError::Busy(path.to_owned()));
        }
        let run = random.iter().take(8).map(|byte| format!("{byte:02x}")).collect();
        let seen = (options.existing == ExistingFiles::DeleteExtra).then(|| Seen::new(random));
        let shared = Arc::new(Shared {
            root,
            euid: rustix::process::geteuid().as_raw(),
            run,
            counter: AtomicU64::new(0),
            report: Mutex::default(),
            stopped: AtomicBool::new(false),
            error: Mutex::new(None),
            options,
        });
        if shared.options.existing == ExistingFiles::Refuse && !is_empty(&shared.root).map_err(open)? {
            return Err(TargetError::NotEmpty(path.to_owned()));
        }
        shared.clean(&shared.root).map_err(open)?;
        let pool = Pool::new(shared.clone(), shared.options.threads, shared.options.buffer);
        Ok(Self {
            shared,
            pool,
            current: Current::None,
            way: Vec::new(),
            blocked: None,
            directories: Journal::default(),
            links: Journal::default(),
            seen,
        })
    }

    /// Takes the next event of a stream. Entries that cannot be restored are counted and named in the
    /// report, and the restore goes on.
    ///
    /// # Errors
    /// [`TargetError`] if the restore cannot go on: the target is full, or gone.
    pub fn event(&mut self, event: Event<'_>) -> Result<(), TargetError> {
        self.shared.check()?;
        match event {
            Event::Member(entry) => self.member(entry),
            Event::Data { at, bytes } => self.data(at, bytes),
            Event::MemberEnd => self.member_end(),
            Event::End => Ok(()),
        }
    }

    fn member(&mut self, entry: Box<Entry>) -> Result<(), TargetError> {
        if let Some(seen) = &mut self.seen {
            seen.add(&entry.path);
        }
        self.current = Current::Ignored;
        if let Err(error) = tar::check(&entry) {
            self.shared.fail(&entry.path, Reason::Invalid(error));
            return Ok(());
        }
        if self.blocked.as_deref().is_some_and(|blocked| order::is_below(&entry.path, blocked)) {
            self.shared.fail(&entry.path, Reason::NoDirectory);
            return Ok(());
        }
        self.blocked = None;
        match &entry.kind {
            Kind::HardLink { .. } => {
                return self.links.push(&self.shared.root, 0, &entry).map_err(TargetError::Journal);
            }
            Kind::Directory => return self.directory(&entry),
            _ => {}
        }
        let directory = match self.parent(&entry.path) {
            Ok(directory) => directory,
            Err(reason) => {
                self.shared.fail(&entry.path, reason);
                return Ok(());
            }
        };
        let content = match &entry.kind {
            Kind::File { size } => *size,
            Kind::Sparse { extents, .. } => extents.iter().map(|extent| extent.len).sum(),
            _ => {
                self.pool.run(Job::Special { directory, entry });
                return Ok(());
            }
        };
        self.check_room(&entry.path, content)?;
        if content <= SMALL {
            let data = Vec::with_capacity(usize::try_from(content).unwrap_or(0));
            self.current = Current::Small { directory, entry, data };
            return Ok(());
        }
        let path = entry.path.clone();
        match OpenFile::create(&self.shared, &directory, *entry) {
            Ok(Some(file)) => self.current = Current::Large(Arc::new(file)),
            Ok(None) => {}
            Err(reason) => self.shared.fail(&path, reason),
        }
        Ok(())
    }

    fn data(&mut self, at: u64, bytes: &[u8]) -> Result<(), TargetError> {
        match &mut self.current {
            Current::None => return Err(TargetError::Events),
            Current::Ignored => {}
            Current::Small { data, .. } => data.extend_from_slice(bytes),
            Current::Large(file) => {
                for (number, part) in bytes.chunks(PART).enumerate() {
                    file.expect();
                    let at = at + (number * PART) as u64;
                    self.pool.run(Job::Part { file: file.clone(), at, data: part.to_vec() });
                }
            }
        }
        Ok(())
    }

    fn member_end(&mut self) -> Result<(), TargetError> {
        match std::mem::replace(&mut self.current, Current::None) {
            Current::None => return Err(TargetError::Events),
            Current::Ignored => {}
            Current::Small { directory, entry, data } => {
                self.pool.run(Job::Whole { directory, entry, data });
            }
            Current::Large(file) => self.pool.run(Job::Complete { file }),
        }
        Ok(())
    }

    fn directory(&mut self, entry: &Entry) -> Result<(), TargetError> {
        let made = match order::split(&entry.path) {
            None => Ok((Made::Existing, false)),
            Some((_, name)) => self.parent(&entry.path).and_then(|parent| {
                let made = self.shared.make_directory(&parent, name)?;
                Ok((made, parent.inherited_acl))
            }),
        };
        let cleaned = made.and_then(|(made, inherited_acl)| {
            if made == Made::Existing && entry.path != ROOT {
                let there = self.shared.open_directory(&entry.path);
                there.and_then(|there| self.shared.clean(&there)).map_err(Reason::system("open it"))?;
            }
            Ok((made, inherited_acl))
        });
        match cleaned {
            Ok((made, inherited_acl)) => {
                self.shared.report().directories += 1;
                let existed = if made == Made::Existing { EXISTED } else { 0 };
                let mark = existed | if inherited_acl { INHERITED_ACL } else { 0 };
                self.directories.push(&self.shared.root, mark, entry).map_err(TargetError::Journal)
            }
            Err(reason) => {
                self.blocked = Some(entry.path.clone());
                self.shared.fail(&entry.path, reason);
                Ok(())
            }
        }
    }

    /// Returns the directory that holds `path`: still open, or opened beneath the root.
    fn parent(&mut self, path: &[u8]) -> Result<Arc<Directory>, Reason> {
        let (parent, _) = order::split(path).ok_or(Reason::NoDirectory)?;
        self.way.retain(|(open, _)| open == parent || order::is_below(parent, open));
        if let Some((open, directory)) = self.way.last()
            && open == parent
        {
            return Ok(directory.clone());
        }
        let directory = Arc::new(self.shared.parent_of(path)?);
        if self.way.len() == HELD_OPEN {
            self.way.remove(0);
        }
        self.way.push((parent.to_vec(), directory.clone()));
        Ok(directory)
    }

    fn check_room(&self, path: &[u8], needs: u64) -> Result<(), TargetError> {
        if needs < ASK_FOR_ROOM {
            return Ok(());
        }
        let room = rustix::fs::fstatvfs(&self.shared.root)
            .map_err(|source| TargetError::Stopped { path: path.to_vec(), source })?;
        let free = room.f_bavail.saturating_mul(room.f_frsize);
        if needs > free {
            return Err(TargetError::NoRoom { path: path.to_vec(), needs, free });
        }
        Ok(())
    }

    /// Ends the restore: waits for all files, makes hard links, deletes extra files if requested,
    /// sets the attributes of directories, and writes everything to disk. Called only if the stream
    /// was complete.
    ///
    /// # Errors
    /// [`TargetError`]; complete files stay.
    pub fn finish(self) -> Result<Report, TargetError> {
        if !matches!(self.current, Current::None) {
            return Err(TargetError::Events);
        }
        let Self { shared, pool, way, directories, links, seen, .. } = self;
        drop(way);
        pool.finish();
        shared.check()?;
        kill_point("restore.files.placed");
        make_links(&shared, &links)?;
        shared.check()?;
        kill_point("restore.links.made");
        if let Some(mut seen) = seen {
            if shared.report().failed.is_empty() && shared.options.keep.all_named {
                shared.delete_extra(&mut seen, &shared.options.delete_within);
            } else {
                shared.report().deletion_held_back = true;
            }
        }
        finish_directories(&shared, &directories)?;
        shared.check()?;
        rustix::fs::syncfs(&shared.root)
            .map_err(|source| TargetError::Stopped { path: ROOT.to_vec(), source })?;
        kill_point("restore.synced");
        Ok(std::mem::take(&mut *shared.report()))
    }
}

fn make_links(shared: &Shared, links: &Journal) -> Result<(), TargetError> {
    let mut at = 0;
    while let Some((_, entry, next)) = links.forward(at).map_err(TargetError::Journal)? {
        at = next;
        if let Kind::HardLink { carrier } = &entry.kind
            && let Err(reason) = shared.link(&entry.path, carrier)
        {
            shared.fail(&entry.path, reason);
        }
    }
    Ok(())
}

/// Goes from the last to the first: the content of a directory came after it.
fn finish_directories(shared: &Shared, directories: &Journal) -> Result<(), TargetError> {
    let mut at = directories.end();
    while let Some((mark, entry, next)) = directories.backward(at).map_err(TargetError::Journal)? {
        at = next;
        let manner = Manner {
            other_xattrs: shared.options.allow_other_xattrs,
            inherited_acl: mark & INHERITED_ACL != 0,
            existed: mark & EXISTED != 0,
        };
        let finished = shared
            .open_directory(&entry.path)
            .and_then(|directory| attributes::apply(Subject::Open(directory.as_fd()), &entry, manner));
        match finished {
            Ok(lost) => shared.lose(&entry.path, lost),
            Err(errno) => shared.fail(&entry.path, Reason::system("set its attributes")(errno)),
        }
        kill_point("restore.directory.finished");
    }
    Ok(())
}
