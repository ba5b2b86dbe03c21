//! A private key in a token that signs TLS handshakes.

use std::{
    fmt,
    path::PathBuf,
    sync::{Arc, Mutex},
};

use cryptoki::{
    error::Error as Failure,
    mechanism::MechanismType,
    session::{Session, UserType},
};
use dps_attestation::internal::positive_numbers;
use dps_state_machine::{CredentialError, Error};
use rustls::{
    OtherError, SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{Signer, SigningKey},
};

use crate::{
    Pin, PinProblem, Pkcs11Error, Pkcs11Uri,
    error::is_lost,
    mechanism::Way,
    module::{Module, lock},
    object::{Kind, PrivateKey},
    token::Token,
    uri::PinSource,
};

/// What a URI may leave out.
#[derive(Clone, Debug, Default)]
#[non_exhaustive]
pub struct Pkcs11Options {
    /// The PKCS#11 library, for a URI without `module-path` and `module-name`.
    pub module: Option<PathBuf>,
    /// The PIN, for a URI without `pin-source` and `pin-value`.
    pub pin: Option<Pin>,
}

/// A private key that never leaves its token: RSA of 2048 to 4096 bits, or on the curve P-256 or P-384. Give it to
/// `X509Identity` with its certificate. Clones share one session with the token.
///
/// Signing blocks its thread for as long as the module takes, since rustls signs within the handshake: some milliseconds for
/// a key in software; a smart card takes up to a second, and a module that asks an HSM over the network waits for that. In
/// a program that does much at once on one thread, give the client a thread of its own.
///
/// A token that was pulled out and plugged in again is opened anew, once for each signature, with the PIN that it took
/// before. A PIN that it refused is not tried again in this process, by whatever key: correct it and start again.
///
/// RSA needs a token with PSS for TLS 1.3. A key with `CKA_ALWAYS_AUTHENTICATE` gives the PIN for each signature; it needs
/// a token that hashes too (`CKM_ECDSA_SHA256`, `CKM_SHA256_RSA_PKCS_PSS`).
#[derive(Clone)]
pub struct Pkcs11Key(Arc<Inner>);

struct Inner {
    place: Place,
    kind: Kind,
    public: Option<SubjectPublicKeyInfoDer<'static>>,
    /// That can be made, in the order in which they are preferred.
    schemes: Vec<SignatureScheme>,
    open: Mutex<Option<Open>>,
}

/// Where the key is, and what opens it.
struct Place {
    module: Module,
    uri: Pkcs11Uri,
    pin: Option<Pin>,
}

/// The key in a session.
struct Open {
    session: Session,
    token: Token,
    key: PrivateKey,
    /// Of the token.
    mechanisms: Vec<MechanismType>,
}

impl Pkcs11Key {
    /// Loads the module, lets itself in to the token and finds the key and its public half. It blocks for as long as the
    /// module takes; with a PIN pad, until the user has typed.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the file with the PIN can't be read or is empty. Else [`Error::Credential`] with a
    /// [`Pkcs11Error`] as its source: no module, token or key is what the URI wants, or more than one, which are listed; the
    /// PIN is refused; the key is of a kind that TLS or the service does not take.
    pub fn open(uri: &Pkcs11Uri, options: &Pkcs11Options) -> Result<Self, Error> {
        let pin = match uri.pin_source()? {
            Some(PinSource::Value(pin)) => Some(pin),
            Some(PinSource::File(path)) => Some(Pin::from_file(path)?),
            None => options.pin.clone(),
        };
        let mut modules = uri.modules();
        if modules.is_empty() {
            modules.extend(options.module.clone());
        }
        let module = Module::load(&modules)?;
        let place = Place { module, uri: uri.clone(), pin };
        let open = place.open()?;
        let kind = open.key.kind;
        let can = |scheme: &SignatureScheme| open.way(*scheme).is_some();
        let schemes: Vec<_> = kind.schemes().iter().copied().filter(can).collect();
        if schemes.is_empty() {
            return Err(open.unusable(open.without_a_way()).into());
        }
        if kind == Kind::Rsa && !schemes.contains(&SignatureScheme::RSA_PSS_SHA256) {
            tracing::warn!(token = %open.token.label, "the token does not sign with RSA-PSS, which TLS 1.3 needs");
        }
        let public = open.key.public.clone();
        let open = Mutex::new(Some(open));
        Ok(Self(Arc::new(Inner { place, kind, public, schemes, open })))
    }

    fn sign(&self, scheme: SignatureScheme, message: &[u8]) -> Result<Vec<u8>, Pkcs11Error> {
        let mut open = lock(&self.0.open);
        let mut lost = None;
        if let Some(current) = open.take() {
            match current.sign(scheme, message, self.0.place.pin.as_ref()) {
                Ok(signature) => {
                    *open = Some(current);
                    return Ok(signature);
                }
                Err(Failed::Lost(failure)) => {
                    let error = current.token.failed(&failure);
                    tracing::debug!(%error, "opening the token anew");
                    lost = Some(error);
                }
                Err(Failed::ForGood(error)) => {
                    *open = Some(current);
                    return Err(error);
                }
            }
        }
        let again = self.0.place.open().map_err(|error| match (error, lost) {
            // That it is not there says less than how it went.
            (Pkcs11Error::NoToken { .. }, Some(lost)) => lost,
            (error, _) => error,
        })?;
        if again.key.public != self.0.public {
            return Err(again.unusable("another key took its place in the token".to_owned()));
        }
        match again.sign(scheme, message, self.0.place.pin.as_ref()) {
            Ok(signature) => {
                *open = Some(again);
                Ok(signature)
            }
            Err(Failed::Lost(failure)) => Err(again.token.failed(&failure)),
            Err(Failed::ForGood(error)) => Err(error),
        }
    }
}

impl Place {
    fn open(&self) -> Result<Open, Pkcs11Error> {
        self.module.check(&self.uri)?;
        let token = Token::find(&self.module, &self.uri)?;
        let session = token.session(&self.module, self.pin.as_ref())?;
        let key = PrivateKey::find(&session, &token, &self.uri)?;
        let mechanisms = self.module.context.get_mechanism_list(token.slot);
        let mechanisms = mechanisms.map_err(|failure| token.failed(&failure))?;
        Ok(Open { session, token, key, mechanisms })
    }
}

/// What came of a signature.
enum Failed {
    /// Another session may make it.
    Lost(Failure),
    ForGood(Pkcs11Error),
}

impl Open {
    /// How a scheme's signature is made, if it can be.
    fn way(&self, scheme: SignatureScheme) -> Option<Way> {
        let of_key = &self.key.mechanisms;
        let allowed = |mechanism| {
            self.mechanisms.contains(&mechanism)
                && (of_key.is_empty() || of_key.contains(&mechanism))
        };
        Way::find(scheme, allowed, self.key.always_authenticate)
    }

    fn unusable(&self, reason: String) -> Pkcs11Error {
        Pkcs11Error::UnusableKey {
            token: self.token.label.clone(),
            key: self.key.name.clone(),
            reason,
        }
    }

    fn without_a_way(&self) -> String {
        let why = match self.key.always_authenticate {
            true => {
                "it wants the PIN for each signature (CKA_ALWAYS_AUTHENTICATE), and the token or the key has no mechanism that takes it in between, which are those that hash too"
            }
            false => "neither the token nor the key allows a mechanism that signs TLS handshakes",
        };
        why.to_owned()
    }

    fn sign(
        &self,
        scheme: SignatureScheme,
        message: &[u8],
        pin: Option<&Pin>,
    ) -> Result<Vec<u8>, Failed> {
        let way = self.way(scheme);
        let way = way.ok_or_else(|| Failed::ForGood(self.unusable(self.without_a_way())))?;
        let input = way.input(message);
        let failed = |failure| match is_lost(&failure) {
            true => Failed::Lost(failure),
            false => Failed::ForGood(self.token.failed(&failure)),
        };
        let signature = if self.key.always_authenticate {
            self.session.sign_init(&way.mechanism, self.key.handle).map_err(failed)?;
            self.give_pin_again(pin).map_err(Failed::ForGood)?;
            self.session.sign_update(&input).and_then(|()| self.session.sign_final())
        } else {
            self.session.sign(&way.mechanism, self.key.handle, &input)
        };
        let signature = signature.map_err(failed)?;
        let length = match self.key.kind {
            Kind::Rsa => return Ok(signature),
            Kind::P256 => 32,
            Kind::P384 => 48,
        };
        // r and s, each at its full length; TLS has them as DER.
        let numbers = signature.split_at_checked(length).filter(|(_, s)| s.len() == length);
        numbers.map(|(r, s)| positive_numbers([r, s])).ok_or_else(|| {
            let bytes = signature.len();
            Failed::ForGood(
                self.unusable(format!("its signature has {bytes} bytes, and not {}", 2 * length)),
            )
        })
    }

    fn give_pin_again(&self, pin: Option<&Pin>) -> Result<(), Pkcs11Error> {
        let missing =
            || Pkcs11Error::Pin { token: self.token.label.clone(), problem: PinProblem::Missing };
        self.token.present(&self.session, UserType::ContextSpecific, pin.ok_or_else(missing)?)
    }
}

impl SigningKey for Pkcs11Key {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let scheme = *self.0.schemes.iter().find(|scheme| offered.contains(scheme))?;
        Some(Box::new(HandshakeSigner { key: self.clone(), scheme }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.public.clone()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        match self.0.kind {
            Kind::Rsa => SignatureAlgorithm::RSA,
            Kind::P256 | Kind::P384 => SignatureAlgorithm::ECDSA,
        }
    }
}

impl fmt::Debug for Pkcs11Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Pkcs11Key")
            .field("uri", &self.0.place.uri)
            .field("algorithm", &self.algorithm())
            .finish_non_exhaustive()
    }
}

#[derive(Debug)]
struct HandshakeSigner {
    key: Pkcs11Key,
    scheme: SignatureScheme,
}

impl Signer for HandshakeSigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.sign(self.scheme, message).map_err(|error| {
            // The transport takes it out again, with its hint and whether to try again.
            rustls::Error::Other(OtherError(Arc::new(CredentialError::from(error))))
        })
    }

    fn scheme(&self) -> SignatureScheme {
        self.scheme
    }
}
