//! The main job on real parts.

mod cluster;
mod folder;
mod cluster_restore;
mod postgres;
mod volume;
