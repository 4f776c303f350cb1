//! Dumps put back into a database, or handed on as they are.

pub mod postgres;

pub use postgres::{
    GlobalsReport, RestoreDatabase, RestoredDatabase, Target, restore_database, restore_globals,
};
