//! Transports and credentials: the columns of the matrix.

use std::fmt;

use dps_client::Transport;

use crate::{SharedTpm, SoftHsm};

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
    /// Such a certificate, whose private key is in a TPM.
    X509Swtpm,
    /// An individual enrollment's endorsement key.
    Tpm,
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
            Self::X509Swtpm => "x509_swtpm",
            Self::Tpm => "tpm",
        })
    }
}

impl Credential {
    const ALL: [Self; 8] = [
        Self::SymmetricKey,
        Self::GroupKey,
        Self::Signer,
        Self::X509,
        Self::X509SigningKey,
        Self::X509SoftHsm,
        Self::X509Swtpm,
        Self::Tpm,
    ];

    /// The Debian package that it takes, where that is not installed. In CI none is missing: a test fails instead.
    #[must_use]
    pub fn missing_package(self) -> Option<&'static str> {
        let missing = match self {
            Self::X509SoftHsm if SoftHsm::library().is_none() => Some("softhsm2"),
            Self::X509Swtpm | Self::Tpm if !SharedTpm::is_available() => Some("swtpm"),
            _ => None,
        };
        missing.filter(|_| std::env::var_os("CI").is_none())
    }

    /// Whether it is a certificate.
    #[must_use]
    pub fn is_x509(self) -> bool {
        matches!(self, Self::X509 | Self::X509SigningKey | Self::X509SoftHsm | Self::X509Swtpm)
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
        Transport::ALL.into_iter().flat_map(move |transport| {
            Credential::ALL.map(|credential| Self { transport, credential })
        })
    }

    /// Every cell whose transport is compiled in.
    pub fn all() -> impl Iterator<Item = Self> {
        Self::every().filter(|cell| cell.transport.is_built())
    }

    /// Whether the device signs tokens.
    #[must_use]
    pub fn has_key(self) -> bool {
        !self.credential.is_x509()
    }

    /// Whether the device has a symmetric key, in its memory or behind a signer.
    #[must_use]
    pub fn has_symmetric_key(self) -> bool {
        self.has_key() && self.credential != Credential::Tpm
    }

    /// Whether the device's key is in hardware, or in software that stands for it.
    #[must_use]
    pub fn has_hardware(self) -> bool {
        matches!(self.credential, Credential::X509SoftHsm | Credential::X509Swtpm | Credential::Tpm)
    }

    /// Whether the device's key is in hardware and signs the TLS handshake, nothing else.
    #[must_use]
    pub fn has_tls_hardware(self) -> bool {
        self.has_hardware() && !self.has_key()
    }

    /// Whether the service offers this: it has no TPM attestation over MQTT.
    #[must_use]
    pub fn is_offered(self) -> bool {
        !(self.is_mqtt() && self.credential == Credential::Tpm)
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
