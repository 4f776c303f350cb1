//! One suite for every implementation of a trait.

mod store;
