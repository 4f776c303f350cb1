//! Where authenticated bytes go. A target gets a stream that was proven chunk by chunk; it
//! trusts nothing in it all the same.

pub mod database;
pub mod kubernetes;
pub mod streams;
pub mod volume;
