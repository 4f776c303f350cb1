//! The command line as people meet it: help, tables, errors, exit codes.

mod diff_docs;
mod help;
mod life;
mod plan_docs;
mod program;
mod report;
