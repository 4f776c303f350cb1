//! The verbs, one file each: arguments in, a use case called, its result shown. `gaps` is shared.

pub(super) mod backup;
pub(super) mod cat;
pub(super) mod check;
pub(super) mod completion;
mod cut_off;
pub(super) mod diff;
pub(super) mod epoch;
pub(super) mod export;
mod gaps;
pub(super) mod init;
pub(super) mod keygen;
pub(super) mod keys;
pub(super) mod ls;
pub(super) mod man;
pub(super) mod plan;
pub(super) mod rbac;
pub(super) mod restore;
pub(super) mod show;
pub(super) mod snapshots;
pub(super) mod verify;
