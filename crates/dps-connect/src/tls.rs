//! The one rustls configuration.

use std::sync::Arc;

use dps_attestation::Attestation;
use dps_state_machine::{ConfigurationError, Error};
use rustls::{ClientConfig, sign::SingleCertAndKey};

use crate::config::Config;

/// TLS as every wire speaks it: versions 1.2 and 1.3, ring underneath, the configured roots, for X.509 the
/// device's certificate with its whole chain, sessions resumed from memory, no ALPN. No I/O.
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
    Ok(match &config.attestation {
        Attestation::X509(identity) => {
            let whole_chain = SingleCertAndKey::from(identity.certified_key());
            builder.with_client_cert_resolver(Arc::new(whole_chain))
        }
        _ => builder.with_no_client_auth(),
    })
}
