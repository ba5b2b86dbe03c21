//! How far a registration had come.

use core::fmt;

/// How far a registration had come.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[non_exhaustive]
pub enum Stage {
    /// Waiting for a signer outside of the process, for example a TPM, to sign for the device.
    Sign,
    /// Looking up the address of the host.
    Resolve,
    /// Opening the TCP connection.
    Connect,
    /// Asking the proxy for a tunnel.
    Proxy,
    /// The TLS handshake.
    Tls,
    /// The WebSocket upgrade.
    Websocket,
    /// The service's check of the credential.
    Authenticate,
    /// Sending the registration and waiting for its answer.
    Register,
    /// Asking for the operation's status, and waiting between two polls.
    Query,
    /// Ending the session.
    EndSession,
}

impl Stage {
    /// The stage as the word used in JSON and logs.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Sign => "sign",
            Self::Resolve => "resolve",
            Self::Connect => "connect",
            Self::Proxy => "proxy",
            Self::Tls => "tls",
            Self::Websocket => "websocket",
            Self::Authenticate => "authenticate",
            Self::Register => "register",
            Self::Query => "query",
            Self::EndSession => "end-session",
        }
    }
}

impl fmt::Display for Stage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
