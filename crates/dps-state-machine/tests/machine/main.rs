//! The pure machine: every reachable state, and the table of what it does.
#![expect(clippy::unwrap_used, clippy::panic, reason = "a test may fail")]

mod pure;
mod samples;
mod table;
mod walk;
