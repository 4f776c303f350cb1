//! The main job on real parts.
