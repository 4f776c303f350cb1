//! Real servers and trees for the tests.

pub mod account;
pub mod audit;
pub mod backup_builder;
pub mod cli_repo;
pub mod compare;
pub mod control_plane;
pub mod faulty_s3;
pub mod fuse;
pub mod hooked_store;
pub mod junk_store;
pub mod kinds;
pub mod memory_backup;
pub mod owners;
pub mod postgres;
pub mod postgres_repo;
pub mod program;
pub mod proxy;
pub mod receiver;
pub mod servers;
pub mod test_repo;
pub mod tls;
pub mod tree;
pub mod volume;
pub mod wait;
pub mod webhooks;
