//! What an enrollment knows a device by: symmetric keys and certificates.

use std::{fmt, str::FromStr};

use base64::{
    Engine as _, alphabet,
    engine::{DecodePaddingMode, GeneralPurpose, GeneralPurposeConfig, general_purpose::STANDARD},
};
use dps_attestation::parse_certificates;
use dps_state_machine::{Error, RegistrationId};
use ring::{digest, hmac, rand::SecureRandom};
use rustls_pki_types::CertificateDer;
use zeroize::Zeroizing;

use crate::config_error::ConfigError;

/// Base64 as the service reads it: with or without its padding, whatever the unused bits of the last character are.
pub(crate) const LENIENT_BASE64: GeneralPurpose = GeneralPurpose::new(
    &alphabet::STANDARD,
    GeneralPurposeConfig::new()
        .with_decode_padding_mode(DecodePaddingMode::Indifferent)
        .with_decode_allow_trailing_bits(true),
);

/// A symmetric key: of a device, or of a group from which its devices' keys are derived.
///
/// Written and read as base64. It prints as `***` and is wiped from memory when dropped.
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation>.
#[derive(Clone, PartialEq, Eq)]
pub struct SymmetricKey(Zeroizing<Vec<u8>>);

impl SymmetricKey {
    /// A fresh key of 64 random bytes, as the service makes them.
    ///
    /// # Errors
    /// [`ConfigError`] when the system has no randomness to give.
    pub fn random() -> Result<Self, ConfigError> {
        let mut bytes = Zeroizing::new(vec![0; 64]);
        ring::rand::SystemRandom::new()
            .fill(&mut bytes)
            .map_err(|_| ConfigError::new("symmetric key", "the system's random source failed"))?;
        Ok(Self(bytes))
    }

    /// The key in base64, as device clients take it. It is a secret.
    #[must_use]
    pub fn to_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(STANDARD.encode(&*self.0))
    }

    /// The key of one device of the group that this is the key of.
    #[must_use]
    pub fn derive(&self, registration_id: &RegistrationId) -> Self {
        self.derive_for(registration_id.as_str())
    }

    pub(crate) fn derive_for(&self, registration_id: &str) -> Self {
        let derived = hmac::sign(&self.hmac(), registration_id.as_bytes());
        Self(Zeroizing::new(derived.as_ref().to_vec()))
    }

    /// Whether the signature over the message was made with this key; takes the same time either way.
    pub(crate) fn verifies(&self, message: &[u8], signature: &[u8]) -> bool {
        hmac::verify(&self.hmac(), message, signature).is_ok()
    }

    #[cfg(test)]
    pub(crate) fn sign(&self, message: &[u8]) -> String {
        STANDARD.encode(hmac::sign(&self.hmac(), message))
    }

    fn hmac(&self) -> hmac::Key {
        hmac::Key::new(hmac::HMAC_SHA256, &self.0)
    }
}

impl FromStr for SymmetricKey {
    type Err = ConfigError;

    /// # Errors
    /// [`ConfigError`] when the text is not base64 or says nothing; the text itself is never repeated.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| ConfigError::new("symmetric key", reason);
        let bytes = LENIENT_BASE64
            .decode(text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}'))
            .map_err(|_| wrong("it is not base64; copy it whole, as the service shows it"))?;
        if bytes.is_empty() {
            return Err(wrong("it is empty"));
        }
        Ok(Self(Zeroizing::new(bytes)))
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(***)")
    }
}

/// The SHA-256 thumbprint of a certificate: what an individual X.509 enrollment knows its device by.
///
/// Read from 64 hex digits in any case, with or without colons.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The thumbprint of a certificate in DER.
    #[must_use]
    pub fn of_der(certificate: &[u8]) -> Self {
        let digest = digest::digest(&digest::SHA256, certificate);
        let mut bytes = [0; 32];
        bytes.iter_mut().zip(digest.as_ref()).for_each(|(to, from)| *to = *from);
        Self(bytes)
    }

    /// The thumbprint of the first certificate in a file's contents, as [`parse_certificates`] reads them.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no certificate in it, or one that can't be read.
    pub fn of_pem(pem: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, ConfigError> {
        certificates("certificate", pem.as_ref())?
            .first()
            .map(|der| Self::of_der(der))
            .ok_or_else(|| ConfigError::new("certificate", "there is no certificate in the PEM"))
    }
}

impl FromStr for Thumbprint {
    type Err = ConfigError;

    /// # Errors
    /// [`ConfigError`] when the text is not 64 hex digits; SHA-1 thumbprints are named as such.
    fn from_str(text: &str) -> Result<Self, ConfigError> {
        let wrong =
            |reason: &str| ConfigError::new("thumbprint", reason).value(text.chars().take(128));
        let digits: Option<Vec<u8>> = text
            .chars()
            .filter(|c| *c != ':' && !c.is_ascii_whitespace())
            .map(|c| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok()))
            .collect();
        let digits =
            digits.ok_or_else(|| wrong("it has characters other than hex digits and :"))?;
        if digits.len() == 40 {
            return Err(wrong("it is a SHA-1 thumbprint; give the SHA-256 one, of 64 hex digits"));
        }
        if digits.len() != 64 {
            return Err(wrong("it must have 64 hex digits"));
        }
        let mut bytes = [0; 32];
        for (byte, pair) in bytes.iter_mut().zip(digits.chunks_exact(2)) {
            *byte = pair.iter().fold(0, |sum, digit| sum << 4 | digit);
        }
        Ok(Self(bytes))
    }
}

impl fmt::Display for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02X}"))
    }
}

impl fmt::Debug for Thumbprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Thumbprint({self})")
    }
}

/// The CA certificates of an X.509 group: a device belongs to it when its chain leads to one of them.
///
/// Roots and intermediates alike: the chain need not go further up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CaCertificates(pub(crate) Vec<CertificateDer<'static>>);

impl CaCertificates {
    /// Reads one or more certificates from a file's contents, as [`parse_certificates`] does.
    ///
    /// # Errors
    /// [`ConfigError`] when there is none, or one that can't be read or used, whose place it says.
    pub fn from_pem(pem: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, ConfigError> {
        let certificates = certificates("ca", pem.as_ref())?;
        for (der, number) in certificates.iter().zip(1..) {
            rustls::RootCertStore::empty().add(der.clone()).map_err(|error| {
                ConfigError::new("ca", &format!("certificate {number} can't be used: {error}"))
            })?;
        }
        Ok(Self(certificates))
    }
}

impl FromStr for CaCertificates {
    type Err = ConfigError;

    /// # Errors
    /// As [`CaCertificates::from_pem`].
    fn from_str(pem: &str) -> Result<Self, ConfigError> {
        Self::from_pem(pem)
    }
}

/// Every certificate in the text; an error names the block that can't be read.
fn certificates(field: &str, pem: &[u8]) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
    match parse_certificates(pem) {
        Ok(certificates) => Ok(certificates.into_iter().map(CertificateDer::from).collect()),
        Err(Error::Configuration(error)) => Err(ConfigError::new(field, &error.reason)),
        Err(error) => Err(ConfigError::new(field, &error.to_string())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_device_key_is_derived_as_the_public_document_shows() {
        // The known answer of https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation.
        let group: SymmetricKey = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw=="
            .parse()
            .unwrap();
        let device = group.derive(&"sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6".parse().unwrap());
        assert_eq!(*device.to_base64(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    #[test]
    fn keys_are_read_with_and_without_padding_and_never_printed() {
        let key: SymmetricKey = "c2VjcmV0IQ==".parse().unwrap();
        assert_eq!("c2VjcmV0IQ".parse::<SymmetricKey>().unwrap(), key);
        // Editors put a byte-order mark in front.
        assert_eq!("\u{feff}c2VjcmV0IQ==\r\n".parse::<SymmetricKey>().unwrap(), key);
        // The last character before the padding has bits that mean nothing.
        assert_eq!("c2VjcmV0IR==".parse::<SymmetricKey>().unwrap(), key);
        assert_eq!(format!("{key:?}"), "SymmetricKey(***)");
        for bad in ["", "not base64!", "=="] {
            let message = bad.parse::<SymmetricKey>().unwrap_err().to_string();
            assert!(message.contains("symmetric key"), "{message}");
            assert!(bad.is_empty() || !message.contains(bad), "{message}");
        }
    }

    #[test]
    fn thumbprints_are_read_in_the_forms_that_tools_print() {
        let plain = "ab".repeat(32);
        let colons = vec!["AB"; 32].join(":");
        let read: Thumbprint = plain.parse().unwrap();
        assert_eq!(colons.parse::<Thumbprint>().unwrap(), read);
        assert_eq!(read.to_string(), "AB".repeat(32));
        let sha1 = "ab".repeat(20).parse::<Thumbprint>().unwrap_err().to_string();
        assert!(sha1.contains("SHA-1"), "{sha1}");
        assert!("xyz".parse::<Thumbprint>().is_err());
    }
}
