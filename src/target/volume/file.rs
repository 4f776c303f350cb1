//! Creates files, links, pipes and devices: under a temporary name, with content and attributes, then
//! renamed.

use std::os::fd::{AsFd, OwnedFd};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use rustix::fs::{AtFlags, FileType as RawType, Mode, OFlags};
use rustix::io::Errno;

use crate::format::tar::Device;
use crate::format::tar::{Entry, Extent, Kind, order};
use crate::runtime::kill_point;
use crate::runtime::lock;
use crate::target::volume::attributes;
use crate::target::volume::attributes::{Manner, Subject};
use crate::target::volume::directory::Directory;
use crate::target::volume::journal::write_all;
use crate::target::volume::report::Reason;
use crate::target::volume::target::Shared;

/// Most temporary names that are tried: they are random and counted.
const NAMES: usize = 16;

/// A file that is being written, by any number of threads. The thread that finishes the last part
/// sets its attributes and its name; if it is dropped before, the temporary file is removed.
#[derive(Debug)]
pub(crate) struct OpenFile {
    shared: Arc<Shared>,
    directory: Arc<Directory>,
    entry: Entry,
    temporary: Vec<u8>,
    fd: OwnedFd,
    /// Parts not yet written, and one for the thread that announces them.
    pending: AtomicUsize,
    failed: Mutex<Option<Reason>>,
    placed: AtomicBool,
}

impl OpenFile {
    /// Creates the file; `None` if it is there already.
    pub(crate) fn create(
        shared: &Arc<Shared>,
        directory: &Arc<Directory>,
        entry: Entry,
    ) -> Result<Option<Self>, Reason> {
        let name = name(&entry)?;
        if shared.is_present(directory, name, &entry)? {
            return Ok(None);
        }
        let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        let (temporary, fd) = shared.new_name("make the file", |temporary| {
            rustix::fs::openat(directory, temporary, flags, Mode::RUSR | Mode::WUSR)
        })?;
        let file = Self {
            shared: shared.clone(),
            directory: directory.clone(),
            entry,
            temporary,
            fd,
            pending: AtomicUsize::new(1),
            failed: Mutex::new(None),
            placed: AtomicBool::new(false),
        };
        if let Kind::Sparse { size, .. } = &file.entry.kind {
            // Everything is a hole until something is written.
            rustix::fs::ftruncate(&file.fd, *size).map_err(Reason::system("set its length"))?;
        }
        kill_point("restore.file.created");
        Ok(Some(file))
    }

    /// Announces a part that [`OpenFile::write`] will write.
    pub(crate) fn expect(&self) {
        self.pending.fetch_add(1, Ordering::AcqRel);
    }

    /// Writes an announced part.
    pub(crate) fn write(&self, at: u64, bytes: &[u8]) {
        match write_all(&self.fd, bytes, at) {
            Ok(()) => {
                self.shared.report().bytes += bytes.len() as u64;
                kill_point("restore.file.part.written");
            }
            Err(errno) => self.fail(Reason::system("write the file")(errno)),
        }
        self.done();
    }

    /// Declares that all parts are announced.
    pub(crate) fn complete(&self) {
        self.done();
    }

    fn fail(&self, reason: Reason) {
        let mut failed = lock(&self.failed);
        failed.get_or_insert(reason);
    }

    fn done(&self) {
        if self.pending.fetch_sub(1, Ordering::AcqRel) != 1 {
            return;
        }
        let failed = lock(&self.failed).take();
        let placed = match failed {
            Some(reason) => Err(reason),
            None => self.place(),
        };
        match placed {
            Ok(()) => self.shared.report().files += 1,
            Err(reason) => self.shared.fail(&self.entry.path, reason),
        }
    }

    fn place(&self) -> Result<(), Reason> {
        let name = name(&self.entry)?;
        self.shared.set_attributes(Subject::Open(self.fd.as_fd()), &self.directory, &self.entry)?;
        kill_point("restore.file.complete");
        self.shared.place(&self.directory, &self.temporary, name)?;
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

impl Shared {
    /// Writes a small file; `data` holds its extents one after the other.
    pub(crate) fn write_whole(self: &Arc<Self>, directory: &Arc<Directory>, entry: Entry, data: &[u8]) {
        let path = entry.path.clone();
        let extents = match &entry.kind {
            Kind::Sparse { extents, .. } => extents.clone(),
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
                file.complete();
            }
        }
    }

    /// Creates a symbolic link, pipe or device.
    pub(crate) fn make_special(&self, directory: &Directory, entry: &Entry) {
        if let Err(reason) = self.try_special(directory, entry) {
            self.fail(&entry.path, reason);
        }
    }

    fn try_special(&self, directory: &Directory, entry: &Entry) -> Result<(), Reason> {
        let devices = matches!(entry.kind, Kind::CharDevice(_) | Kind::BlockDevice(_));
        if devices && !self.options.allow_devices {
            return Err(Reason::DeviceNotAllowed);
        }
        let name = name(entry)?;
        if self.is_present(directory, name, entry)? {
            return Ok(());
        }
        let (temporary, ()) = self.new_name("make it", |temporary| match &entry.kind {
            Kind::Symlink { target } => rustix::fs::symlinkat(target.as_slice(), directory, temporary),
            Kind::Fifo => node(directory, temporary, RawType::Fifo, Device { major: 0, minor: 0 }),
            Kind::CharDevice(device) => node(directory, temporary, RawType::CharacterDevice, *device),
            Kind::BlockDevice(device) => node(directory, temporary, RawType::BlockDevice, *device),
            Kind::File { .. } | Kind::Sparse { .. } | Kind::Directory | Kind::HardLink { .. } => {
                Err(Errno::INVAL)
            }
        })?;
        let link = matches!(entry.kind, Kind::Symlink { .. });
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
        entry: &Entry,
    ) -> Result<(), Reason> {
        let manner = Manner {
            other_xattrs: self.options.allow_other_xattrs,
            inherited_acl: directory.inherited_acl,
            existed: false,
        };
        let lost = attributes::apply(subject, entry, manner).map_err(Reason::system("set its attributes"))?;
        self.lose(&entry.path, lost);
        Ok(())
    }

    /// Creates an entry under an unused temporary name. Returns the name and the result of `make`.
    pub(crate) fn new_name<T>(
        &self,
        doing: &'static str,
        mut make: impl FnMut(&[u8]) -> Result<T, Errno>,
    ) -> Result<(Vec<u8>, T), Reason> {
        for _ in 0..NAMES {
            let temporary = self.temporary_name();
            match make(&temporary) {
                Err(Errno::EXIST) => {}
                Err(errno) => return Err(Reason::system(doing)(errno)),
                Ok(made) => return Ok((temporary, made)),
            }
        }
        Err(Reason::System { doing, errno: Errno::EXIST })
    }
}

fn node(directory: &Directory, name: &[u8], kind: RawType, device: Device) -> Result<(), Errno> {
    let number = rustix::fs::makedev(device.major, device.minor);
    rustix::fs::mknodat(directory, name, kind, Mode::RUSR | Mode::WUSR, number)
}

/// Returns the last component of the path.
fn name(entry: &Entry) -> Result<&[u8], Reason> {
    order::split(&entry.path).map(|(_, name)| name).ok_or(Reason::NoDirectory)
}
