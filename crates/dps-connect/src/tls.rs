//! The one rustls configuration.

use std::sync::{Arc, Mutex, PoisonError};

use dps_attestation::Attestation;
use dps_state_machine::{ConfigurationError, Error};
use rustls::{
    ClientConfig, SignatureScheme,
    client::{ResolvesClientCert, Resumption},
    sign::CertifiedKey,
};

use crate::config::Config;

/// TLS as every transport speaks it: versions 1.2 and 1.3, ring underneath, the configured roots, for X.509 the
/// device's certificate with its whole chain, no ALPN. Sessions are resumed from memory if [`resumes_sessions`] says
/// so. No I/O; at each handshake the files of an [`Attestation::X509Files`] are read, which blocks for well under a
/// millisecond.
///
/// # Errors
/// [`Error::Configuration`] when there is no root at all.
pub fn tls_config(config: &Config) -> Result<ClientConfig, Error> {
    let wrong = |field, reason: String| Error::from(ConfigurationError::new(field, "", &reason));
    if config.roots.is_empty() {
        return Err(wrong("roots", "there is none, so no server could be trusted".to_owned()));
    }
    // The provider is named: no process-wide default is needed, and another one does no harm.
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let builder = ClientConfig::builder_with_provider(provider)
        .with_protocol_versions(&[&rustls::version::TLS13, &rustls::version::TLS12])
        .map_err(|error| wrong("TLS", error.to_string()))?
        .with_root_certificates(config.roots.store());
    let mut tls = match &config.attestation {
        attestation @ (Attestation::X509(_) | Attestation::X509Files(_)) => builder
            .with_client_cert_resolver(Arc::new(Presents {
                attestation: attestation.clone(),
                asked: config.asked.clone(),
            })),
        _ => builder.with_no_client_auth(),
    };
    tls.resumption = if resumes_sessions(&config.attestation) {
        // The library would make room for 32 servers; there is one.
        Resumption::in_memory_sessions(1)
    } else {
        Resumption::disabled()
    };
    Ok(tls)
}

/// Whether a TLS session may be resumed: not with a certificate that may have been replaced since. No certificate is
/// sent then, and the server takes the device for who it was.
/// See <https://www.rfc-editor.org/rfc/rfc8446#section-2.2>.
#[must_use]
pub fn resumes_sessions(attestation: &Attestation) -> bool {
    !matches!(attestation, Attestation::X509Files(_))
}

/// Whether the peer has asked for the device's certificate, and by which signatures it would take it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Asked(Arc<Mutex<Option<CertificateRequest>>>);

#[derive(Clone, Debug)]
pub(crate) struct CertificateRequest {
    pub(crate) schemes: Vec<SignatureScheme>,
    /// Whether the device's key can make one of these signatures; no certificate is sent otherwise.
    pub(crate) is_met: bool,
}

impl CertificateRequest {
    /// Why no certificate was sent, where the device's key can make none of the signatures.
    pub(crate) fn not_sent(&self) -> Option<String> {
        const SHOWN: usize = 8;
        let mut schemes: Vec<_> = self.schemes.iter().map(|scheme| format!("{scheme:?}")).collect();
        if schemes.len() > SHOWN {
            schemes.truncate(SHOWN);
            schemes.push("others".to_owned());
        }
        let not_sent = || {
            format!(
                "the device's certificate was not sent: its key can make none of the signatures that were asked for ({}); use a key of another kind",
                schemes.join(", ")
            )
        };
        (!self.is_met).then(not_sent)
    }
}

impl Asked {
    /// The last request in a handshake; `None` when there was none.
    pub(crate) fn last(&self) -> Option<CertificateRequest> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    pub(crate) fn note(&self, request: CertificateRequest) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(request);
    }
}

/// Shows the whole chain, whatever authorities the server names: it is the service that judges it.
#[derive(Debug)]
struct Presents {
    attestation: Attestation,
    asked: Asked,
}

impl ResolvesClientCert for Presents {
    fn resolve(&self, _: &[&[u8]], schemes: &[SignatureScheme]) -> Option<Arc<CertifiedKey>> {
        let certified = self.attestation.x509().map(|identity| identity.certified_key());
        let is_met = certified.as_ref().is_some_and(|c| c.key.choose_scheme(schemes).is_some());
        self.asked.note(CertificateRequest { schemes: schemes.to_vec(), is_met });
        certified
    }

    fn has_certs(&self) -> bool {
        true
    }
}
