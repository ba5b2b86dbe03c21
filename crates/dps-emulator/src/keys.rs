//! What an enrollment knows a certificate by. Symmetric keys are those of [`dps_attestation`].

use std::{fmt, str::FromStr};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_attestation::parse_certificates;
use dps_state_machine::Error;
use ring::digest;
use rustls_pki_types::CertificateDer;
use x509_parser::prelude::{FromDer as _, X509Certificate, X509Version};

use crate::config_error::ConfigError;

/// The SHA-256 thumbprint of a certificate: what an individual X.509 enrollment knows its device by.
///
/// Read from 64 hex digits in any case, with or without colons.
#[must_use]
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct Thumbprint([u8; 32]);

impl Thumbprint {
    /// The thumbprint of a certificate in DER.
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
        DeviceCertificate::from_pem(pem).map(|certificate| certificate.thumbprint)
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

/// The certificate of an individual X.509 enrollment's device: the whole of it where it was given, or its thumbprint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceCertificate {
    thumbprint: Thumbprint,
    der: Option<CertificateDer<'static>>,
}

impl DeviceCertificate {
    /// The first certificate in a file's contents, as [`parse_certificates`] reads them.
    ///
    /// # Errors
    /// [`ConfigError`] when there is no certificate in it, or one that can't be read.
    pub fn from_pem(pem: &(impl AsRef<[u8]> + ?Sized)) -> Result<Self, ConfigError> {
        let first = certificates("certificate", pem.as_ref())?.into_iter().next();
        let der = first
            .ok_or_else(|| ConfigError::new("certificate", "there is no certificate in the PEM"))?;
        Ok(Self { thumbprint: Thumbprint::of_der(&der), der: Some(der) })
    }

    /// What the device's certificate is compared by.
    pub fn thumbprint(&self) -> Thumbprint {
        self.thumbprint
    }

    pub(crate) fn der(&self) -> Option<&CertificateDer<'static>> {
        self.der.as_ref()
    }

    /// The certificate, unless its thumbprint alone was given.
    #[must_use]
    pub fn to_pem(&self) -> Option<String> {
        self.der.as_deref().map(pem)
    }
}

impl From<Thumbprint> for DeviceCertificate {
    fn from(thumbprint: Thumbprint) -> Self {
        Self { thumbprint, der: None }
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
            let parsed = X509Certificate::from_der(der).ok();
            if let Some(reason) = parsed.and_then(|(_, parsed)| why_no_authority(&parsed)) {
                return Err(ConfigError::new("ca", &format!("certificate {number}: {reason}")));
            }
        }
        Ok(Self(certificates))
    }

    /// All of them, in PEM.
    #[must_use]
    pub fn to_pem(&self) -> String {
        self.0.iter().map(|der| pem(der)).collect()
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

/// Why a certificate can't issue any other. One of version 1 has no place to say so.
/// See <https://www.rfc-editor.org/rfc/rfc5280#section-4.2.1.9>.
pub(crate) fn why_no_authority(certificate: &X509Certificate<'_>) -> Option<&'static str> {
    let usage = certificate.key_usage().ok().flatten();
    if certificate.version() == X509Version::V3 && !certificate.is_ca() {
        Some("it is no authority, since it lacks CA:TRUE; give the CA that issued it")
    } else if usage.is_some_and(|usage| !usage.value.key_cert_sign()) {
        Some("it is no authority, since its key usage lacks keyCertSign; give one that may issue")
    } else {
        None
    }
}

/// A certificate as PEM has it, in lines of 64 characters.
pub(crate) fn pem(der: &[u8]) -> String {
    let mut lines = vec!["-----BEGIN CERTIFICATE-----".to_owned()];
    lines.extend(der.chunks(48).map(|line| STANDARD.encode(line)));
    lines.push("-----END CERTIFICATE-----\n".to_owned());
    lines.join("\n")
}

/// Every certificate in the text; an error names the block that can't be read.
pub(crate) fn certificates(
    field: &str,
    pem: &[u8],
) -> Result<Vec<CertificateDer<'static>>, ConfigError> {
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
