//! The server's side of WebSocket, by which devices reach the other transports through the HTTPS port.
//! See <https://www.rfc-editor.org/rfc/rfc6455>.
//!
//! Frame headers are read and written by the library `tungstenite`, so that client and emulator share no codec. Only its
//! headers are used: its sockets log the content of each frame, and SAS tokens go through them.

mod bytes;
mod upgrade;

pub(super) use bytes::WebSocket;
pub(super) use upgrade::Upgrade;
