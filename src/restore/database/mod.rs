//! Dumps put back into a database, or handed on as they are.

pub mod postgres;
mod run;

pub use postgres::{
    GlobalsReport, NotApplied, RestoreDatabase, RestoredDatabase, Target, restore_database, restore_globals,
};
