//! The main job on real parts.

mod cluster;
mod cluster_restore;
mod folder;
mod memory;
mod mounts;
mod postgres;
mod volume;
