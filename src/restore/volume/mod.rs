//! A stream of tar members as files beneath a folder.
//!
//! [`parse::Parser`] turns bytes into events and refuses what kbak would not have written;
//! [`Target`] turns events into files. Neither trusts the other: the target keeps every path
//! beneath its root by the kernel's own rules, whatever the events say.
//!
//! A restore goes in four phases: directories (mode 0700) and files, as the stream brings them,
//! files by several threads; hard links; names that the stream does not hold are deleted, if that
//! was asked for; then owner, mode and times of directories, deepest first, because each of them
//! could lock the restore out or be changed by it.

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
