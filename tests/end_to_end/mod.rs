//! The main job on real parts.

mod check;
mod cluster;
mod cluster_restore;
mod coverage;
mod folder;
mod live_diff;
mod memory;
mod mounts;
mod plan_init;
mod postgres;
mod volume;
