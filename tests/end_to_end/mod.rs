//! The main job on real parts.

mod cluster;
mod mounts;
mod postgres;
mod volume;
