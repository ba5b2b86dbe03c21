//! Fuzz targets: whatever comes in from a peer, a file or a person.
//!
//! Each module is one target, `run` its entry; `src/bin` has one binary for each. A target does more than wait for a
//! panic: it states what must hold for any input, and fails when it does not. `corpus/TARGET` holds its seeds, and
//! `dictionaries/TARGET.dict`, where there is one, the words of its language.

pub mod amqp_client;
pub mod amqp_server;
pub mod config;
pub mod http_codec;
pub mod http_server;
pub mod keys;
pub mod machine;
pub mod mqtt_client;
pub mod mqtt_server;
pub mod names;
pub mod retry_after;
pub mod sas;
pub mod tunnel;
pub mod websocket;
pub mod x509;

mod emulated;
mod input;
mod stream;
