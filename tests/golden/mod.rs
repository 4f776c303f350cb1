//! Repositories and test vectors of every released format.

mod keys;
mod reader;
mod repository;
mod vectors;
