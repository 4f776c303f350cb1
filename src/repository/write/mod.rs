//! Writing into a repository: its beginning, and the commit of a snapshot.

pub mod commit;
pub mod init;
pub mod revoke;
