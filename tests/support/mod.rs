//! Real servers and trees for the tests.

pub mod bench;
pub mod compare;
pub mod keyed;
pub mod liar;
pub mod meddling;
pub mod owners;
pub mod plane;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod resources;
pub mod servers;
pub mod tree;
pub mod volume;
