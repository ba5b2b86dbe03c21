//! A handshake that is looked at rather than used: what the server presented is known also when it is refused.

use std::sync::{Arc, Mutex, PoisonError};

use dps_state_machine::{Error, Progress};
use rustls::{
    CertificateError, DigitallySignedStruct, PeerIncompatible, RootCertStore, SignatureScheme,
    client::{
        Resumption, WebPkiServerVerifier,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    pki_types::{CertificateDer, ServerName, UnixTime},
};

use crate::{
    config::Config,
    connector::Connector,
    failure::{find, is_not_tls},
    roots::Roots,
};

/// What a handshake showed.
#[derive(Debug, Default)]
pub struct Handshake {
    /// Why there is no session.
    pub error: Option<Error>,
    /// Whether it is another protocol than TLS that came.
    pub is_another_protocol: bool,
    /// Whether peer and client have no version of TLS in common.
    pub has_no_version: bool,
    /// The certificates that the server presented, in DER, its own first.
    pub chain: Vec<Vec<u8>>,
    /// Why its certificate was refused.
    pub refused: Option<CertificateError>,
    /// Whether one of Mozilla's authorities vouches for it, whoever is trusted here.
    pub is_public: bool,
    /// The version of TLS and the cipher suite, once the session stands.
    pub session: Option<String>,
    /// Whether the device's X.509 certificate was asked for.
    pub asks_certificate: bool,
    /// Why it was not sent, although it was asked for.
    pub not_sent: Option<String>,
}

/// Makes a connection as a transport does, and closes it. `default_port` counts for an endpoint that names none. Nothing
/// is trusted that a transport would not trust.
///
/// # Cancel safety
/// Dropping the future closes what was open.
pub async fn handshake(config: &Config, default_port: u16, progress: &Progress) -> Handshake {
    let mut seen = Handshake::default();
    let (connector, verifier) = match prepare(config) {
        Ok(prepared) => prepared,
        Err(error) => return Handshake { error: Some(error), ..seen },
    };
    match connector.connect(default_port, progress).await {
        Ok(stream) => {
            let (_, session) = stream.get_ref();
            let version = session.protocol_version().and_then(|v| v.as_str()).unwrap_or("TLS");
            let suite = session.negotiated_cipher_suite().map(|suite| suite.suite());
            let suite = suite.and_then(|suite| suite.as_str()).unwrap_or("a cipher without a name");
            seen.session = Some(format!("{} with {suite}", version.replace("TLSv1_", "TLS 1.")));
        }
        Err(Error::Connection(error)) => {
            seen.is_another_protocol = is_not_tls(&error);
            seen.has_no_version = find::<rustls::Error>(&*error).is_some_and(is_about_version);
            seen.error = Some(Error::Connection(error));
        }
        Err(error) => seen.error = Some(error),
    }
    let presented = verifier.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
    let asked = connector.config().asked.last();
    Handshake {
        chain: presented.chain,
        refused: presented.refused,
        is_public: presented.is_public,
        not_sent: asked.as_ref().and_then(|request| request.not_sent()),
        asks_certificate: asked.is_some(),
        ..seen
    }
}

fn is_about_version(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::AlertReceived(rustls::AlertDescription::ProtocolVersion)
            | rustls::Error::PeerIncompatible(
                PeerIncompatible::ServerDoesNotSupportTls12Or13
                    | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig
                    | PeerIncompatible::Tls12NotOfferedOrEnabled
            )
    )
}

/// A connector for one handshake, and the verifier in it that keeps what it sees.
fn prepare(config: &Config) -> Result<(Connector, Arc<Verifier>), Error> {
    let verifier = Arc::new(Verifier {
        trusted: by_roots(config.roots.store())?,
        public: by_roots(Roots::default().store())?,
        seen: Mutex::default(),
    });
    let connector = Connector::new(config.clone())?.changed(|tls| {
        tls.resumption = Resumption::disabled();
        let verifier = Arc::clone(&verifier) as Arc<dyn ServerCertVerifier>;
        tls.dangerous().set_certificate_verifier(verifier);
    });
    Ok((connector, verifier))
}

fn by_roots(roots: Arc<RootCertStore>) -> Result<Arc<WebPkiServerVerifier>, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    WebPkiServerVerifier::builder_with_provider(roots, provider).build().map_err(|error| {
        dps_state_machine::ConfigurationError::new("roots", "", &error.to_string()).into()
    })
}

/// The library's own verifier, whose verdict stands; what it judges is kept.
#[derive(Debug)]
struct Verifier {
    trusted: Arc<WebPkiServerVerifier>,
    public: Arc<WebPkiServerVerifier>,
    seen: Mutex<Presented>,
}

#[derive(Clone, Debug, Default)]
struct Presented {
    chain: Vec<Vec<u8>>,
    refused: Option<CertificateError>,
    is_public: bool,
}

impl ServerCertVerifier for Verifier {
    fn verify_server_cert(
        &self,
        own: &CertificateDer<'_>,
        issuers: &[CertificateDer<'_>],
        name: &ServerName<'_>,
        ocsp: &[u8],
        now: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verdict = self.trusted.verify_server_cert(own, issuers, name, ocsp, now);
        let refused = match &verdict {
            Err(rustls::Error::InvalidCertificate(reason)) => Some(reason.clone()),
            _ => None,
        };
        let chain = std::iter::once(own).chain(issuers).map(|der| der.to_vec()).collect();
        let is_public = self.public.verify_server_cert(own, issuers, name, ocsp, now).is_ok();
        *self.seen.lock().unwrap_or_else(PoisonError::into_inner) =
            Presented { chain, refused, is_public };
        verdict
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls12_signature(message, certificate, signed)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signed: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        self.trusted.verify_tls13_signature(message, certificate, signed)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.trusted.supported_verify_schemes()
    }
}
