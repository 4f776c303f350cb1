//! The main job on real parts.

mod check;
mod cluster;
mod cluster_faults;
mod cluster_many;
mod cluster_moment;
mod cluster_restore;
mod cluster_restore_absent;
mod cluster_restore_again;
mod cluster_restore_bad;
mod cluster_restore_copy;
mod cluster_restore_denied;
mod cluster_restore_load;
mod cluster_restore_lost;
mod cluster_restore_meets;
mod cluster_restore_plan;
mod cluster_restore_program;
mod cluster_restore_twice;
mod cluster_selection;
mod coverage;
mod folder;
mod live_diff;
mod memory;
mod mounts;
mod plan_init;
mod postgres;
mod volume;
