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
mod decode;
mod directory;
mod extra;
mod file;
mod journal;
mod links;
mod look;
pub mod parse;
mod place;
mod pool;
pub mod report;
mod target;
mod whither;

pub use extra::Keep;
pub use look::look;
pub use report::{EntryFailure, FailureKind, Loss, Reason, Report};
pub use target::{ExistingFiles, Target, TargetError, TargetOptions};
pub use whither::Whither;
