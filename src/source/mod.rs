//! Where bytes come from. A source gives a stream; it knows nothing of packs, keys or stores.

pub mod database;
pub mod kubernetes;
pub mod volume;
