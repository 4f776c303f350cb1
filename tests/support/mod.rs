//! Real servers and trees for the tests.

pub mod owners;
pub mod plane;
pub mod postgres;
pub mod resources;
