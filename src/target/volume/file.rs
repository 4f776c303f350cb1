//! Creates files, links, pipes and devices: under a temporary name, with content and attributes, then
//! renamed.

use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::fs::FileExt as _;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType as RawType, Mode, OFlags};
use rustix::io::Errno;

use super::attributes::{self, AttributeOptions, Subject};
use super::report::{EntryResult, FailureReason};
use super::{deferred::errno_of, directory::Directory, state::TargetState};
use crate::format::tar::{DeviceNumber, EntryKind, Extent, TarEntry, order};
use crate::runtime::{kill_point, lock};

/// Most temporary names that are tried: they are random and counted.
const NAMES: usize = 16;

/// A file that is being written, by any number of threads. The thread that finishes the last part
/// sets its attributes and its name; if it is dropped before, the temporary file is removed.
#[derive(Debug)]
pub(crate) struct OpenFile {
    state: Arc<TargetState>,
    directory: Arc<Directory>,
    entry: TarEntry,
    temporary: Vec<u8>,
    file: File,
    /// Parts not yet written, and one for the thread that announces them.
    pending: AtomicUsize,
    failed: Mutex<Option<FailureReason>>,
    placed: AtomicBool,
}

impl OpenFile {
    /// Creates the file; `None` if it exists already.
    pub(crate) fn create(
        state: &Arc<TargetState>,
        directory: &Arc<Directory>,
        entry: TarEntry,
    ) -> EntryResult<Option<Self>> {
        let name = last_component(&entry)?;
        if state.is_present(directory, name, &entry)? {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temporary, fd) = state.new_name("create the file", |temporary| {
            rustix::fs::openat(directory, temporary, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let file = Self {
            state: state.clone(),
            directory: directory.clone(),
            entry,
            temporary,
            file: fd.into(),
            pending: AtomicUsize::new(1),
            failed: Mutex::new(None),
            placed: AtomicBool::new(false),
        };
        if let EntryKind::Sparse { size, .. } = &file.entry.kind {
            // Everything is a hole until something is written.
            rustix::fs::ftruncate(&file.file, *size).map_err(FailureReason::system("set its length"))?;
        }
        kill_point("restore.file.created");
        Ok(Some(file))
    }

    /// Announces a part that [`OpenFile::write`] will write.
    pub(crate) fn expect(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        match self.file.write_all_at(bytes, at).map_err(errno_of) {
            Ok(()) => {
                self.state.report().bytes += bytes.len() as u64;
                kill_point("restore.file.part.written");
            }
            Err(errno) => self.fail(FailureReason::system("write the file")(errno)),
        }
        self.complete_part();
    }

    fn fail(&self, reason: FailureReason) {
        lock(&self.failed).get_or_insert(reason);
    }

    /// Completes a part, or the announcing of parts. After the last, the file gets its name.
    pub(crate) fn complete_part(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let failed = lock(&self.failed).take();
        match failed.map_or_else(|| self.place(), Err) {
            Ok(()) => self.state.report().files += 1,
            Err(reason) => self.state.fail(&self.entry.path, reason),
        }
    }

    fn place(&self) -> EntryResult<()> {
        let name = last_component(&self.entry)?;
        self.state.set_attributes(Subject::Open(self.file.as_fd()), &self.directory, &self.entry)?;
        kill_point("restore.file.complete");
        self.state.place(&self.directory, &self.temporary, name)?;
        self.placed.store(true, Ordering::Release);
        kill_point("restore.file.placed");
        Ok(())
    }
}

impl Drop for OpenFile {
    fn drop(&mut self) {
        if !self.placed.load(Ordering::Acquire) {
            // A file that cannot be removed now is removed by the next run, by its name.
            let _ = rustix::fs::unlinkat(&self.directory, &self.temporary, AtFlags::empty());
        }
    }
}

impl TargetState {
    /// Writes a small file; `data` holds its extents one after the other.
    pub(crate) fn write_whole(self: &Arc<Self>, directory: &Arc<Directory>, entry: TarEntry, data: &[u8]) {
        let path = entry.path.clone();
        let extents = match &entry.kind {
            EntryKind::Sparse { extents, .. } => extents.clone(),
            _ => vec![Extent { offset: 0, len: data.len() as u64 }],
        };
        match OpenFile::create(self, directory, entry) {
            Ok(None) => {}
            Err(reason) => self.fail(&path, reason),
            Ok(Some(file)) => {
                let mut rest = data;
                for extent in extents.iter().filter(|extent| extent.len > 0) {
                    let len = usize::try_from(extent.len).unwrap_or(usize::MAX).min(rest.len());
                    let (part, after) = rest.split_at(len);
                    rest = after;
                    file.expect();
                    file.write(extent.offset, part);
                }
                file.complete_part();
            }
        }
    }

    pub(crate) fn make_special(&self, directory: &Directory, entry: &TarEntry) {
        if let Err(reason) = self.try_special(directory, entry) {
            self.fail(&entry.path, reason);
        }
    }

    fn try_special(&self, directory: &Directory, entry: &TarEntry) -> EntryResult<()> {
        let devices = matches!(entry.kind, EntryKind::CharDevice(_) | EntryKind::BlockDevice(_));
        if devices && !self.options.allow_devices {
            return Err(FailureReason::DeviceNotAllowed);
        }
        let name = last_component(entry)?;
        if self.is_present(directory, name, entry)? {
            return Ok(());
        }
        let (temporary, ()) = self.new_name("create it", |temporary| match &entry.kind {
            EntryKind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), directory, temporary),
            EntryKind::Fifo => {
                make_node(directory, temporary, RawType::Fifo, DeviceNumber { major: 0, minor: 0 })
            }
            EntryKind::CharDevice(device) => {
                make_node(directory, temporary, RawType::CharacterDevice, *device)
            }
            EntryKind::BlockDevice(device) => make_node(directory, temporary, RawType::BlockDevice, *device),
            EntryKind::File { .. }
            | EntryKind::Sparse { .. }
            | EntryKind::Directory
            | EntryKind::HardLink { .. } => Err(Errno::INVAL),
        })?;
        let link = matches!(entry.kind, EntryKind::Symlink { .. });
        let subject = if link {
            Subject::Link(directory.as_fd(), &temporary)
        } else {
            Subject::Named(directory.as_fd(), &temporary)
        };
        let placed = self
            .set_attributes(subject, directory, entry)
            .and_then(|()| self.place(directory, &temporary, name));
        if placed.is_err() {
            let _ = rustix::fs::unlinkat(directory, &temporary, AtFlags::empty());
            return placed;
        }
        let mut report = self.report();
        if link {
            report.symlinks += 1
        } else {
            report.special += 1
        }
        Ok(())
    }

    fn set_attributes(
        &self,
        subject: Subject<'_>,
        directory: &Directory,
        entry: &TarEntry,
    ) -> EntryResult<()> {
        let options = AttributeOptions {
            other_xattrs: self.options.allow_other_xattrs,
            inherited_acl: directory.inherited_acl,
            existed: false,
        };
        let lost = attributes::apply(subject, entry, options)
            .map_err(FailureReason::system("set its attributes"))?;
        self.record_lost_attributes(&entry.path, lost);
        Ok(())
    }

    /// Creates an entry under an unused temporary name. Returns the name and the result of `make`.
    pub(crate) fn new_name<T>(
        &self,
        operation: &'static str,
        mut make: impl FnMut(&[u8]) -> Result<T, Errno>,
    ) -> EntryResult<(Vec<u8>, T)> {
        for _ in 0..NAMES {
            let temporary = self.temporary_name();
            match make(&temporary) {
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(FailureReason::system(operation)(errno)),
                Ok(made) => return Ok((temporary, made)),
            }
        }
        Err(FailureReason::System { operation, errno: Errno::EXIST })
    }
}

fn make_node(directory: &Directory, name: &[u8], kind: RawType, device: DeviceNumber) -> Result<(), Errno> {
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, number)
}

fn last_component(entry: &TarEntry) -> EntryResult<&[u8]> {
    order::split(&entry.path).map(|(_, name)| name).ok_or(FailureReason::NoDirectory)
}
