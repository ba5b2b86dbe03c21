//! A device's life around its registrations, with a fake transport and with the emulator.
#![expect(
    clippy::unwrap_used,
    clippy::indexing_slicing,
    clippy::panic,
    reason = "a failed test may say so by a panic"
)]

mod emulator;
mod stored;
mod support;
