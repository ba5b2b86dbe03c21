//! A signer outside of the process, which does as a test tells it.

use std::sync::{
    Arc, Mutex, PoisonError,
    atomic::{AtomicUsize, Ordering},
};

use dps_client::{Attestation, CredentialError, SasSigner, Signing};
use tokio::sync::Notify;

/// What a signer does when it is asked for a signature.
#[derive(Clone, Debug)]
pub enum SignerConduct {
    /// It signs, and is pending once before.
    Sign,
    /// It signs so many times and then fails.
    SignThenFail(usize, CredentialError),
    /// It never answers.
    KeepSilent,
    /// It fails.
    Fail(CredentialError),
}

/// A signer with the key of another attestation. Clones are the same signer.
#[derive(Clone, Debug)]
pub struct OutsideSigner(Arc<Inner>);

#[derive(Debug)]
struct Inner {
    key: Attestation,
    conduct: Mutex<SignerConduct>,
    asked: AtomicUsize,
    in_flight: AtomicUsize,
    changed: Notify,
}

impl OutsideSigner {
    /// One that signs.
    #[must_use]
    pub fn new(key: Attestation) -> Self {
        Self::that(key, SignerConduct::Sign)
    }

    /// One that does as its script says.
    #[must_use]
    pub fn that(key: Attestation, conduct: SignerConduct) -> Self {
        Self(Arc::new(Inner {
            key,
            conduct: Mutex::new(conduct),
            asked: AtomicUsize::new(0),
            in_flight: AtomicUsize::new(0),
            changed: Notify::new(),
        }))
    }

    /// Changes what it does.
    pub fn now(&self, conduct: SignerConduct) {
        *self.0.conduct.lock().unwrap_or_else(PoisonError::into_inner) = conduct;
    }

    /// How often it was asked.
    #[must_use]
    pub fn asked(&self) -> usize {
        self.0.asked.load(Ordering::Relaxed)
    }

    /// How many signatures are being made: their futures were neither ready nor dropped.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.0.in_flight.load(Ordering::Relaxed)
    }

    /// Waits until a signature is being made.
    pub async fn is_asked(&self) {
        while self.in_flight() == 0 {
            self.0.changed.notified().await;
        }
    }

    fn conduct(&self) -> SignerConduct {
        self.0.conduct.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl SasSigner for OutsideSigner {
    fn sign<'a>(&'a self, text: &'a str) -> Signing<'a> {
        Box::pin(async move {
            let asked = self.0.asked.fetch_add(1, Ordering::Relaxed);
            self.0.in_flight.fetch_add(1, Ordering::Relaxed);
            let _in_flight = InFlight(&self.0.in_flight);
            self.0.changed.notify_one();
            tokio::task::yield_now().await;
            match self.conduct() {
                SignerConduct::KeepSilent => std::future::pending().await,
                SignerConduct::Fail(error) => Err(error),
                SignerConduct::SignThenFail(times, error) if asked >= times => Err(error),
                SignerConduct::Sign | SignerConduct::SignThenFail(..) => {
                    self.0.key.sas_signer().expect("a key that signs").sign(text).await
                }
            }
        })
    }
}

/// Counts until it is dropped.
struct InFlight<'a>(&'a AtomicUsize);

impl Drop for InFlight<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}
