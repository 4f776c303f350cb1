//! Restores a stream of tar members as files beneath a folder.
//!
//! [`TarParser`](crate::format::tar::parse::TarParser) turns bytes into events and refuses input that kbak would not have written;
//! [`VolumeTarget`] turns events into files. Neither trusts the other: by the kernel's own rules the target
//! keeps every path beneath its root, whatever the events say.
//!
//! A restore has four phases: directories (mode 0700) and files, in stream order, files by several
//! threads; hard links; deletion of names that the stream does not hold, if requested; owner, mode
//! and times of directories, deepest first, because each could lock the restore out or be changed by
//! it.

mod attributes;
mod deferred;
mod delete_extra;
mod destination;
mod directory;
mod error;
mod file;
mod foreseen;
mod options;
mod place;
mod pool;
pub mod report;
mod state;
mod target;

pub use destination::{Destination, check_target};
pub use error::TargetError;
pub use foreseen::TargetPreview;
pub use options::{DeletionExceptions, ExistingFiles, TargetOptions};
pub use report::{EntryFailure, FailureKind, FailureReason, LostAttribute, VolumeReport};
pub use target::VolumeTarget;
