//! Restores dumps and roles into a database server.

pub mod postgres;
mod run;

pub use postgres::{
    GlobalsReport, NotApplied, RestoreDatabase, RestoredDatabase, Target, restore_database, restore_globals,
};
