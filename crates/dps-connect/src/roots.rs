//! Who may vouch for the server.

use std::{fmt, sync::Arc};

use dps_attestation::parse_certificates;
use dps_state_machine::{ConfigurationError, Error};
use rustls::{RootCertStore, pki_types::CertificateDer};

/// The certificate authorities that are trusted to vouch for the server.
///
/// The default is Mozilla's list, compiled in: it costs no start-up time and works on a device without any
/// certificates of its own. [`Roots::platform`] reads the system's list instead; that takes tens of
/// milliseconds. The caller's own authorities are added to either. None of them is ever pinned: the service's
/// own authority has changed before.
/// See <https://learn.microsoft.com/azure/iot-dps/tls-support#certificate-pinning>.
#[derive(Clone)]
pub struct Roots(Arc<RootCertStore>);

impl Roots {
    /// No authority at all, to add the caller's own to.
    #[must_use]
    pub fn empty() -> Self {
        Self(Arc::new(RootCertStore::empty()))
    }

    /// The authorities that the system trusts. Reads files (`SSL_CERT_FILE` and `SSL_CERT_DIR` are honored).
    ///
    /// # Errors
    /// [`Error::Configuration`] when the system has none that can be read.
    pub fn platform() -> Result<Self, Error> {
        let found = rustls_native_certs::load_native_certs();
        let mut store = RootCertStore::empty();
        // Systems ship authorities that don't parse by today's rules; the others are still good.
        store.add_parsable_certificates(found.certs);
        if store.is_empty() {
            let reason = match found.errors.first() {
                Some(error) => format!("the system's roots can't be read: {error}"),
                None => "the system has no roots; install ca-certificates or give your own".into(),
            };
            return Err(ConfigurationError::new("roots", "", &reason).into());
        }
        Ok(Self(Arc::new(store)))
    }

    /// Adds every certificate of a file, in whatever state its PEM text is; see [`parse_certificates`].
    ///
    /// # Errors
    /// [`Error::Configuration`] when it holds no certificate (it says what it holds instead) or one that can't be read,
    /// whose place it says: none is left out in silence.
    pub fn with_pem(mut self, pem: &[u8]) -> Result<Self, Error> {
        let store = Arc::make_mut(&mut self.0);
        let certificates = parse_certificates(pem).map_err(|error| match error {
            Error::Configuration(error) => wrong(&error.reason),
            other => other,
        })?;
        for (certificate, number) in certificates.into_iter().zip(1..) {
            add(store, certificate.into(), number)?;
        }
        Ok(self)
    }

    /// Adds one certificate in DER.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it can't be read.
    pub fn with_der(mut self, der: &[u8]) -> Result<Self, Error> {
        add(Arc::make_mut(&mut self.0), der.to_vec().into(), 1)?;
        Ok(self)
    }

    /// How many authorities there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(crate) fn store(&self) -> Arc<RootCertStore> {
        Arc::clone(&self.0)
    }
}

impl Default for Roots {
    fn default() -> Self {
        Self(Arc::new(webpki_roots::TLS_SERVER_ROOTS.iter().cloned().collect()))
    }
}

impl fmt::Debug for Roots {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Roots({})", self.len())
    }
}

fn add(
    store: &mut RootCertStore,
    der: CertificateDer<'static>,
    number: usize,
) -> Result<(), Error> {
    store.add(der).map_err(|error| {
        wrong(&format!("certificate {number} can't be read as an authority: {error}"))
    })
}

fn wrong(reason: &str) -> Error {
    ConfigurationError::new("roots", "", reason).into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn certificate() -> rcgen::Certificate {
        let key = rcgen::KeyPair::generate().unwrap();
        rcgen::CertificateParams::new(vec!["ca.example".into()]).unwrap().self_signed(&key).unwrap()
    }

    #[test]
    fn own_authorities_are_added_to_the_others() {
        let two = certificate().pem() + &certificate().pem();
        let known = Roots::default().len();
        assert!(known > 50, "{known} compiled-in roots");
        assert_eq!(Roots::default().with_pem(two.as_bytes()).unwrap().len(), known + 2);
        assert_eq!(Roots::empty().with_der(certificate().der()).unwrap().len(), 1);
        assert_eq!(Roots::empty().with_pem(certificate().der()).unwrap().len(), 1);
    }

    #[test]
    fn the_platform_has_roots_or_it_is_said() {
        match Roots::platform() {
            Ok(roots) => assert!(!roots.is_empty() && !format!("{roots:?}").is_empty()),
            Err(error) => assert!(error.to_string().starts_with("roots: the system"), "{error}"),
        }
    }

    #[test]
    fn a_file_without_certificates_is_refused_with_what_it_holds() {
        let key = rcgen::KeyPair::generate().unwrap().serialize_pem();
        let broken = "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n";
        let cut = &certificate().pem()[..80];
        let cases: [(&[u8], &str); 6] = [
            (b"", "empty"),
            (b"hello", "neither PEM text nor DER"),
            (key.as_bytes(), "only PRIVATE KEY"),
            (broken.as_bytes(), "block 1 (CERTIFICATE)"),
            (cut.as_bytes(), "cut off"),
            (b"-----BEGIN CERT", "cut off"),
        ];
        for (pem, says) in cases {
            let message = Roots::default().with_pem(pem).unwrap_err().to_string();
            assert!(message.contains(says) && message.starts_with("roots"), "{message}");
        }
    }
}
