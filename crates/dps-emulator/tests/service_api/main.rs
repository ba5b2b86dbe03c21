//! The service API as an operator's tools meet it: real sockets, real TLS.

#[cfg(test)]
mod bulk;
#[cfg(test)]
mod devices;
#[cfg(test)]
#[path = "../emulator/misplaced.rs"]
mod misplaced;
#[cfg(test)]
mod queries;
#[cfg(test)]
mod records;
#[cfg(test)]
mod secrets;
#[cfg(test)]
#[path = "../emulator/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;
#[cfg(test)]
mod tokens;
#[cfg(test)]
mod tool;
#[cfg(test)]
mod webhook;
