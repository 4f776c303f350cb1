//! The command line as users see it: help, tables, errors, exit codes.

mod births;
mod diff;
mod diff_docs;
mod docs;
mod dry_run;
mod gaps;
mod help;
mod keys;
mod life;
mod meddled;
mod mistakes;
mod nested;
mod output;
mod paths;
mod plan_docs;
mod program;
mod report;
mod sheet;
mod terminal;
mod words;
