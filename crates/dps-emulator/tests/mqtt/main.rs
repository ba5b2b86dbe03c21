//! The emulator as MQTT devices meet it: real sockets, real TLS.

#[cfg(test)]
mod client;
#[cfg(test)]
mod device;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod hub;
#[cfg(test)]
#[path = "../emulator/misplaced.rs"]
mod misplaced;
#[cfg(test)]
#[path = "../emulator/one_device.rs"]
mod one_device;
#[cfg(test)]
mod peers;
#[cfg(test)]
mod refusals;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod sessions;
#[cfg(test)]
#[path = "../emulator/support.rs"]
#[expect(dead_code, reason = "the other tests use the rest")]
mod support;
#[cfg(test)]
mod websocket;
