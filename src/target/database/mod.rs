//! Restores dumps and roles into a database server.

pub mod postgres;

pub use crate::target::database::postgres::{
    GlobalsReport, NotApplied, RestoreDatabase, RestoredDatabase, Target, restore_database, restore_globals,
};
