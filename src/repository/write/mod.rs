//! Writing into a repository: its beginning, and the commit of a snapshot.

pub mod commit;
mod concurrent;
pub mod init;
pub mod revoke;
