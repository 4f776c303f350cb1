//! The main job on real parts.

mod cluster;
mod cluster_restore;
mod folder;
mod mounts;
mod postgres;
mod volume;
