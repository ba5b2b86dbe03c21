//! A certificate that was never sent: something in between ends TLS, or asks for signatures that the device can't make.

use std::sync::Arc;

use dps_client::{Endpoint, Error, ErrorKind, Roots};
use dps_conformance::{Bench, Cell, adjusted};
use dps_connect::{Connector, internal::Stream};
use dps_emulator::{Behavior, Outcome};
use dps_state_machine::Progress;
use rcgen::{CertificateParams, KeyPair};
use rustls::{
    DigitallySignedStruct, DistinguishedName, ServerConfig, SignatureScheme,
    SupportedProtocolVersion,
    client::danger::HandshakeSignatureValid,
    crypto::ring,
    pki_types::{CertificateDer, PrivatePkcs8KeyDer, UnixTime},
    server::danger::{ClientCertVerified, ClientCertVerifier},
    version::{TLS12, TLS13},
};
use tokio::{io::copy_bidirectional, net::TcpListener, task::JoinSet};
use tokio_rustls::TlsAcceptor;

use crate::{Case, case};

pub(crate) fn cases() -> Vec<Case> {
    let with_key: fn(Cell) -> bool = Cell::has_key;
    vec![
        case!(nobody_asked_for_the_certificate).skip("a key needs no certificate", with_key),
        case!(no_signature_that_was_asked_for_fits).skip("a key needs no certificate", with_key),
        case!(a_registration_that_fails_for_its_credential_says_as_much_as_a_401),
    ]
}

/// Between the device and the service: it ends TLS with the device, and begins its own.
struct Between {
    port: u16,
    certificate: CertificateDer<'static>,
    _accepting: JoinSet<()>,
}

impl Between {
    async fn start(
        bench: &Bench,
        version: &'static SupportedProtocolVersion,
        asks: Option<Asks>,
    ) -> Self {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(["localhost".to_owned()]).unwrap();
        let certificate = params.self_signed(&key).unwrap().der().clone();
        let tls = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_protocol_versions(&[version])
            .unwrap();
        let tls = match asks {
            Some(asks) => tls.with_client_cert_verifier(Arc::new(asks)),
            None => tls.with_no_client_auth(),
        };
        let key = PrivatePkcs8KeyDer::from(key.serialize_der()).into();
        let acceptor = TlsAcceptor::from(Arc::new(
            tls.with_single_cert(vec![certificate.clone()], key).unwrap(),
        ));
        let key: dps_client::SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
        let own = adjusted(bench.config.clone(), |config| config.attestation = key.into());
        let connector = Connector::new(own).unwrap();
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let mut accepting = JoinSet::new();
        accepting.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((tcp, _)) = listener.accept().await {
                let (acceptor, connector) = (acceptor.clone(), connector.clone());
                connections.spawn(async move {
                    let Ok(mut device) = acceptor.accept(tcp).await else { return };
                    let mut service: Stream =
                        connector.connect(443, &Progress::default()).await.unwrap();
                    let _gone = copy_bidirectional(&mut device, &mut service).await;
                });
            }
        });
        Self { port, certificate, _accepting: accepting }
    }

    async fn failure(&self, bench: &Bench) -> Error {
        let config = adjusted(bench.config.clone(), |config| {
            config.endpoint = format!("localhost:{}", self.port).parse::<Endpoint>().unwrap();
            config.roots = Roots::empty().with_der(&self.certificate).unwrap();
        });
        bench.register_with(config).await.unwrap_err()
    }

    async fn refusal(&self, bench: &Bench) -> Error {
        let error = self.failure(bench).await;
        assert_eq!((error.kind(), error.status()), (ErrorKind::Rejected, Some(401)), "{error}");
        error
    }
}

/// Asks for a certificate and takes one signature only.
#[derive(Debug)]
struct Asks {
    scheme: SignatureScheme,
    /// Whether it breaks off without a certificate.
    mandatory: bool,
}

impl ClientCertVerifier for Asks {
    fn client_auth_mandatory(&self) -> bool {
        self.mandatory
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        &[]
    }

    fn verify_client_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: UnixTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        vec![self.scheme]
    }
}

async fn nobody_asked_for_the_certificate(cell: Cell) {
    for version in [&TLS12, &TLS13] {
        let bench = Bench::healthy(cell).await;
        let error = Between::start(&bench, version, None).await.refusal(&bench).await;
        let hint = error.hint().unwrap();
        assert!(hint.contains("nobody asked this device for its certificate"), "{hint}");
        // What the service asks for on its own port is remembered by another client.
        bench.register().await.unwrap();
    }
}

async fn no_signature_that_was_asked_for_fits(cell: Cell) {
    for version in [&TLS12, &TLS13] {
        let bench = Bench::healthy(cell).await;
        let start =
            |scheme, mandatory| Between::start(&bench, version, Some(Asks { scheme, mandatory }));
        let error = start(SignatureScheme::RSA_PSS_SHA512, false).await.refusal(&bench).await;
        let breaks_off = start(SignatureScheme::RSA_PSS_SHA512, true).await.failure(&bench).await;
        assert_eq!(breaks_off.kind(), ErrorKind::Connection, "{breaks_off}");
        assert!(breaks_off.to_string().contains("it wants one, and got none"), "{breaks_off}");
        for error in [error, breaks_off] {
            let hint = error.hint().unwrap();
            assert!(hint.contains("none of the signatures"), "{hint}");
            assert!(hint.contains("RSA_PSS_SHA512"), "{hint}");
        }

        let fits = start(SignatureScheme::ECDSA_NISTP256_SHA256, false).await;
        let hint = fits.refusal(&bench).await.hint().unwrap();
        assert!(hint.contains("the chain that was sent"), "{hint}");
    }
}

async fn a_registration_that_fails_for_its_credential_says_as_much_as_a_401(cell: Cell) {
    let nested = r#"{"errorCode":401002,"trackingId":"t-1","message":"no such key"}"#;
    for (code, message, polls) in [
        (401_002, "no such key".to_owned(), 0),
        (401_002, nested.to_owned(), 0),
        (401_002, format!("Allocation: {nested}"), 1),
        (400_209, nested.to_owned(), 0),
    ] {
        let outcome = Outcome::failed(code, message);
        let bench = Bench::new(cell, Behavior::new().polls(polls).outcome(outcome)).await;
        let error = bench.register().await.unwrap_err();
        assert_eq!(error.error_code(), Some(code), "{error}");
        assert!(error.to_string().contains("error code 401002"), "{error}");
        assert!(error.to_string().contains("no such key"), "{error}");
        assert!(!error.to_string().contains('{'), "{error}");
        let hint = error.hint().unwrap();
        assert!(hint.contains("check the ID scope"), "{hint}");
        let own =
            if cell.has_key() { "this machine's clock says" } else { "the chain that was sent" };
        assert!(hint.contains(own), "{hint}");
    }
}
