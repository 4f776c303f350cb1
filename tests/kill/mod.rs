//! The process is killed at every named point; the next run succeeds.
