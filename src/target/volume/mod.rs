//! Restores a stream of tar members as files beneath a folder.
//!
//! [`parse::Parser`] turns bytes into events and refuses input that kbak would not have written;
//! [`Target`] turns events into files. Neither trusts the other: by the kernel's own rules the target
//! keeps every path beneath its root, whatever the events say.
//!
//! A restore has four phases: directories (mode 0700) and files, in stream order, files by several
//! threads; hard links; deletion of names that the stream does not hold, if requested; owner, mode
//! and times of directories, deepest first, because each could lock the restore out or be changed by
//! it.

mod attributes;
mod delete_extra;
mod destination;
mod directory;
mod file;
mod journal;
mod links;
mod place;
mod pool;
mod preflight;
pub mod report;
mod target;

pub use crate::target::volume::delete_extra::Keep;
pub use crate::target::volume::destination::Destination;
pub use crate::target::volume::preflight::check_target;
pub use crate::target::volume::report::{EntryFailure, FailureKind, Loss, Reason, Report};
pub use crate::target::volume::target::{ExistingFiles, Target, TargetError, TargetOptions};
