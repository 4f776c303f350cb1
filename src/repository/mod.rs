//! Creates, opens, writes and reads repositories.

pub mod birth;
pub mod chain;
pub mod commit;
pub mod damage;
pub mod dedup;
pub mod epochs;
pub mod hand_over;
pub mod init;
pub mod keys;
pub mod named;
pub mod open;
pub mod private_file;
pub mod records;
pub mod reports;
pub mod sheet;
pub mod snapshot;
pub mod writer_key;
