//! The errors that end a restore into a folder.

use std::path::PathBuf;

use rustix::io::Errno;

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
    #[error("extra files are to be deleted, but no paths to delete below were given")]
    NoDeletionScope,
    /// Another restore writes into the target.
    #[error("{}: another restore is writing into the target", .0.display())]
    Busy(PathBuf),
    /// A file is larger than the free space.
    #[error(
        "{}: the file needs {needs} bytes, and the target has {free} bytes free",
        String::from_utf8_lossy(path)
    )]
    NoRoom {
        /// The file's path.
        path: Vec<u8>,
        /// Bytes of its content, holes not counted.
        needs: u64,
        /// Bytes that are free.
        free: u64,
    },
    /// The target is full, over quota, or read-only. Holds the path of the entry that failed.
    #[error("{}: the target is full or read-only", String::from_utf8_lossy(.0))]
    Stopped(Vec<u8>, #[source] Errno),
    /// The list of directories and links cannot be written or read.
    #[error("cannot store the list of directories and hard links")]
    DeferredEntries(#[source] Errno),
    /// The events are in an order that no parser gives: a bug in kbak.
    #[error("the events of the stream are out of order: this is a bug in kbak")]
    EventOrder,
}
