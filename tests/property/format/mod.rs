//! Properties of the repository format.

mod container;
mod layout;
mod list;
mod pack;
