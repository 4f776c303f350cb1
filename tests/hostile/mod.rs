//! Streams that want out of the target.
