//! Transports and credentials: the columns of the matrix.

use std::fmt;

use dps_client::Transport;

/// How the device of a cell proves who it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Credential {
    /// An individual enrollment's symmetric key.
    SymmetricKey,
    /// A key derived from a group's.
    GroupKey,
    /// An individual enrollment's symmetric key that a signer outside of the process has.
    Signer,
    /// A certificate that a group's CA vouches for, through an intermediate.
    X509,
    /// Such a certificate, whose private key is outside of the process.
    X509SigningKey,
    /// Such a certificate, whose private key is in a PKCS#11 token.
    X509SoftHsm,
}

impl fmt::Display for Credential {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::SymmetricKey => "symmetric_key",
            Self::GroupKey => "group_key",
            Self::Signer => "signer",
            Self::X509 => "x509",
            Self::X509SigningKey => "x509_signing_key",
            Self::X509SoftHsm => "x509_softhsm",
        })
    }
}

/// One transport with one credential.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Cell {
    /// The transport.
    pub transport: Transport,
    /// The credential.
    pub credential: Credential,
}

impl Cell {
    /// Every transport with every credential.
    pub fn every() -> impl Iterator<Item = Self> {
        let credentials = [
            Credential::SymmetricKey,
            Credential::GroupKey,
            Credential::Signer,
            Credential::X509,
            Credential::X509SigningKey,
            Credential::X509SoftHsm,
        ];
        Transport::ALL
            .into_iter()
            .flat_map(move |transport| credentials.map(|credential| Self { transport, credential }))
    }

    /// Every cell whose transport is compiled in.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::every().filter(|cell| cell.transport.is_built())
    }

    /// Whether the device signs tokens.
    #[must_use]
    pub fn has_key(self) -> bool {
        matches!(
            self.credential,
            Credential::SymmetricKey | Credential::GroupKey | Credential::Signer
        )
    }

    /// Whether the transport is one of MQTT's.
    #[must_use]
    pub fn is_mqtt(self) -> bool {
        matches!(self.transport, Transport::Mqtt | Transport::MqttWs)
    }
}

impl fmt::Display for Cell {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}::{}", self.transport.as_str().replace('-', "_"), self.credential)
    }
}
