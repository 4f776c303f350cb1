//! Restore targets. A target gets a stream that was authenticated chunk by chunk, and still trusts
//! nothing in it.

pub mod database;
pub mod kubernetes;
pub mod streams;
pub mod volume;
