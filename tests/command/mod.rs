//! The command line as users see it: help, tables, errors, exit codes.

mod concurrent_epochs;
mod cut_off;
mod diff;
mod diff_docs;
mod docs;
mod dry_run;
mod gaps;
mod help;
mod inputs;
mod keys;
mod lifecycle;
mod log;
mod mistakes;
mod nested;
mod output;
mod paths;
mod plan_docs;
mod program;
mod recovery_sheet;
mod report;
mod tampering;
mod terminal;
mod warnings;
mod wording;
