//! The bench of the conformance suite: one device, one emulated service, real sockets between them.
//!
//! A [`Cell`] is a transport and a credential. A case takes a cell, sets a [`Bench`] up for it, and says what must hold;
//! `conformance/main.rs` runs every case in every cell.
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    reason = "a bench that can't be set up fails the test that wants it"
)]

mod bench;
mod canary;
mod cell;
mod hardware;
mod identity;
mod outside_key;
mod proxy;
mod shared_tpm;
mod signer;
mod softhsm;
mod swtpm;
mod trials;

pub use bench::{Bench, DEVICE, adjusted, config_for, fast, settle};
pub use canary::Canaries;
pub use cell::{Cell, Credential};
pub use dps_simulator::{drop_after, poll_count};
pub use hardware::with_hardware;
pub use identity::{Authority, Device};
pub use outside_key::OutsideKey;
pub use proxy::{ProxyScript, TestProxy};
pub use shared_tpm::SharedTpm;
pub use signer::{OutsideSigner, SignerConduct};
pub use softhsm::SoftHsm;
pub use swtpm::Swtpm;
pub use trials::{TransportCase, run_on_every_transport};
