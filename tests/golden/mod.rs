//! Repositories and vectors of every released format.

mod keys;
mod repository;
