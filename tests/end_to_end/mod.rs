//! The main job on real parts.

mod cluster;
mod folder;
mod postgres;
mod volume;
