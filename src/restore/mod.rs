//! Restore targets. A target gets a stream that was authenticated chunk by chunk, and still trusts
//! nothing in it.

pub mod streams;
