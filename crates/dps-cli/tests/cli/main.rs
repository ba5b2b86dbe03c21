//! The command as people and scripts meet it: the real binary, against `dps emulate` and against peers that
//! misbehave, over real sockets.
#![cfg(unix)]
#![expect(
    clippy::expect_used,
    clippy::indexing_slicing,
    clippy::panic,
    clippy::unwrap_used,
    reason = "a test may fail"
)]

mod agent;
mod auto;
mod bad_input;
#[path = "../../../../tests/src/canary.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is part of a library elsewhere")]
mod canary;
mod cert;
mod config;
mod connect;
mod doctor;
mod emulate;
mod failures;
mod fixed;
mod generated;
mod handover;
mod interrupts;
mod kept;
mod keys;
#[cfg(target_os = "linux")]
mod memory;
mod offline;
mod pkcs11;
mod register;
mod renew;
mod request_certificate;
mod secrets;
#[path = "../../../../tests/src/softhsm.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is part of a library elsewhere")]
mod softhsm;
mod state;
mod state_file;
mod status;
mod support;
#[path = "../../../../tests/src/swtpm.rs"]
#[expect(dead_code, unreachable_pub, reason = "it is part of a library elsewhere")]
mod swtpm;
mod terminal;
mod tpm;
mod variables;
