//! Keys in SoftHSM. Each test runs in a process of its own: a module is initialized once in a process, and SoftHSM takes
//! its folder from the environment then.
#![expect(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    reason = "a test may fail"
)]

mod finding;
mod losses;
mod pins;
#[path = "../../../../tests/src/softhsm.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is part of a library elsewhere")]
mod softhsm;
mod support;
mod tls;
