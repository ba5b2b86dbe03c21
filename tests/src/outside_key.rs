//! A private key outside of the process, as TLS sees it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use dps_client::X509Identity;
use rustls::{
    SignatureAlgorithm, SignatureScheme,
    pki_types::SubjectPublicKeyInfoDer,
    sign::{CertifiedKey, Signer, SigningKey},
};

/// The key of another identity behind a trait of rustls, which signs or fails as a test tells it. Clones are the same key.
#[derive(Clone, Debug)]
pub struct OutsideKey(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    certified: Arc<CertifiedKey>,
    failure: Mutex<Option<rustls::Error>>,
    asked: AtomicUsize,
}

impl OutsideKey {
    /// One that signs.
    #[must_use]
    pub fn new(identity: &X509Identity) -> Self {
        let (failure, asked) = (Mutex::default(), AtomicUsize::new(0));
        Self(Arc::new(Inner { certified: identity.certified_key(), failure, asked }))
    }

    /// What it answers from here on in place of a signature.
    pub fn fail(&self, failure: Option<rustls::Error>) {
        *self.0.failure.lock().unwrap_or_else(PoisonError::into_inner) = failure;
    }

    /// How often it was asked for a signature.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// The identity that has this key.
    #[must_use]
    pub fn identity(&self) -> X509Identity {
        let chain = self.0.certified.cert.iter().map(|der| der.to_vec()).collect();
        X509Identity::from_signing_key(chain, Arc::new(self.clone())).expect("a usable identity")
    }
}

impl SigningKey for OutsideKey {
    fn choose_scheme(&self, offered: &[SignatureScheme]) -> Option<Box<dyn Signer>> {
        let inner = self.0.certified.key.choose_scheme(offered)?;
        Some(Box::new(OutsideKeySigner { key: self.clone(), inner }))
    }

    fn public_key(&self) -> Option<SubjectPublicKeyInfoDer<'_>> {
        self.0.certified.key.public_key()
    }

    fn algorithm(&self) -> SignatureAlgorithm {
        self.0.certified.key.algorithm()
    }
}

#[derive(Debug)]
struct OutsideKeySigner {
    key: OutsideKey,
    inner: Box<dyn Signer>,
}

impl Signer for OutsideKeySigner {
    fn sign(&self, message: &[u8]) -> Result<Vec<u8>, rustls::Error> {
        self.key.0.asked.fetch_add(1, Ordering::Relaxed);
        match &*self.key.0.failure.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(failure) => Err(failure.clone()),
            None => self.inner.sign(message),
        }
    }

    fn scheme(&self) -> SignatureScheme {
        self.inner.scheme()
    }
}
