//! The emulator as devices meet it: real sockets, real TLS.

#[cfg(test)]
mod admin;
#[cfg(test)]
mod device_api;
#[cfg(test)]
mod faults;
#[cfg(test)]
mod first_bytes;
#[cfg(test)]
mod https;
#[cfg(test)]
mod hub_certificates;
#[cfg(test)]
mod lifecycle;
#[cfg(test)]
mod misplaced;
#[cfg(test)]
mod secrets;
#[cfg(test)]
mod support;
