//! The main job on real parts.

mod cluster;
mod postgres;
mod volume;
