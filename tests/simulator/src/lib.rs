//! One simulator for all tests of the state machine.
//!
//! - [`Driven`] is the pure machine and what whoever drives it knows; each step checks what must hold. The exhaustive walk
//!   and the fuzz target use it.
//! - [`Transport`] is a transport that does as a script says and keeps a record of its calls. The tests of the driver use it.
//! - [`play`] lets a seed decide a script and acts (register, drop, cancel, end the session, wait, in any order and at once),
//!   plays them on a paused clock, and checks what must hold. The properties and `cargo xtask faults` use it.
#![expect(clippy::expect_used, clippy::panic, reason = "what does not hold fails the test")]

pub mod answers;
mod driven;
mod interrupt;
mod play;
mod random;
mod schedule;
mod transport;

pub use driven::Driven;
pub use interrupt::{drop_after, poll_count};
pub use play::{Played, describe, play, play_schedule};
pub use schedule::{Act, Schedule};
pub use transport::{Call, Hook, Moment, Script, Transport, settings, settings_with};
