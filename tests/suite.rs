//! Every test that needs the library or the program, in one binary, because each binary links
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
mod in_cluster;
mod kill;
mod property;
mod support;
mod velero;
