//! Real servers and trees for the tests.

pub mod bench;
pub mod compare;
pub mod cycle;
pub mod desk;
pub mod hooks;
pub mod keyed;
pub mod kinds;
pub mod liar;
pub mod meddling;
pub mod owners;
pub mod plane;
pub mod postgres;
pub mod program;
pub mod proxy;
pub mod resources;
pub mod servers;
pub mod stored;
pub mod tls;
pub mod tree;
pub mod volume;
pub mod wait;
