//! Everything against a software TPM that none of us wrote: `swtpm` of the Debian package of that name.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod attestation;
mod connection;
mod handles;
mod registration;
mod support;
#[path = "../../../../tests/src/swtpm.rs"]
#[expect(unreachable_pub, reason = "it is part of a library elsewhere")]
mod swtpm;
mod tls;
