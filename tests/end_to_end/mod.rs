//! The main job on real parts.

mod check;
mod cluster;
mod cluster_faults;
mod cluster_many;
mod cluster_moment;
mod cluster_restore;
mod cluster_selection;
mod coverage;
mod folder;
mod live_diff;
mod memory;
mod mounts;
mod plan_init;
mod postgres;
mod volume;
