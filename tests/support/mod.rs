//! Real servers and trees for the tests.
pub mod owners;
