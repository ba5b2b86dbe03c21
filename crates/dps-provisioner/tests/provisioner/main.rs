//! A device's life around its registrations, with a fake transport and with the emulator.
#![expect(clippy::indexing_slicing, clippy::unwrap_used, reason = "a test may fail")]

mod agent;
mod emulator;
mod stored;
mod support;
