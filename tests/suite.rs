//! Every test that needs the library or the program: one binary, because each one links
//! everything. One folder per kind of test; `support` starts the real servers.

mod command;
mod conformance;
mod damage;
mod end_to_end;
mod golden;
mod hostile;
mod kill;
mod property;
mod support;
