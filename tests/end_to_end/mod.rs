//! The main job on real parts.

mod cluster;
mod cluster_restore;
mod cluster_restore_bad;
mod cluster_restore_copy;
mod cluster_restore_load;
mod cluster_restore_meets;
mod cluster_restore_plan;
mod cluster_restore_program;
mod folder;
mod memory;
mod mounts;
mod postgres;
mod volume;
