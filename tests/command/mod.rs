//! The command line as people meet it: help, tables, errors, exit codes.

mod report;
