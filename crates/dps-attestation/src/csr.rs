//! Certificates that the service issues: the device's own half of it.
//!
//! [`key`] has the key and asks; [`pkcs10`] writes the request; [`issued`] checks what comes back, by the [`path`] that
//! the signatures of the certificates ([`signed`]) make.

mod issued;
mod key;
mod path;
mod pkcs10;
mod signed;

pub use issued::IssuedChain;
pub use key::RequestKey;
