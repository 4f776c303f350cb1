//! Where authenticated bytes go: clusters, databases, folders. A target trusts nothing in a stream,
//! though every chunk of it was proven.

pub mod database;
pub mod kubernetes;
pub mod volume;
