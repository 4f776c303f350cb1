//! Every test that needs the library or the program: one binary, because each one links
//! everything. One folder per kind of test; `support` starts the real servers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test that unwraps fails where it should")]

mod canary;
mod cluster_full;
mod command;
mod conformance;
mod damage;
mod end_to_end;
mod golden;
mod hostile;
mod kill;
mod property;
mod support;
mod velero;
