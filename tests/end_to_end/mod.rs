//! The main job on real parts.

mod cluster;
mod cluster_faults;
mod cluster_many;
mod cluster_moment;
mod cluster_restore;
mod cluster_selection;
mod folder;
mod memory;
mod mounts;
mod postgres;
mod volume;
