//! Real servers and trees for the tests.

pub mod plane;
pub mod postgres;
pub mod owners;
