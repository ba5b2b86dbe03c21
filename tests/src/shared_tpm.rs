//! Software TPMs for the cells, which take turns: a TPM with its keys costs some 200 ms to make.

use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use dps_client::tpm::{KeySource, Password, Tpm, TpmConfig, TpmSigningKey};

use crate::swtpm::Swtpm;

/// A software TPM that nobody else has until this is dropped.
#[derive(Debug)]
pub struct SharedTpm(Arc<Made>);

#[derive(Debug)]
struct Made {
    /// Whoever had it before may have left a job: one thread does them all in turn.
    tpm: Tpm,
    _swtpm: Swtpm,
}

/// Those that nobody has.
static IDLE: Mutex<Vec<Arc<Made>>> = Mutex::new(Vec::new());

/// Where the TLS key is.
const SIGNING_KEY: u32 = 0x8100_0002;

impl SharedTpm {
    /// One that is idle, or a new one: no two that are there at once have the same keys.
    ///
    /// # Panics
    /// When swtpm is not installed, or the TPM refuses to make its keys.
    pub async fn take() -> Self {
        let idle = IDLE.lock().unwrap_or_else(PoisonError::into_inner).pop();
        Self(match idle {
            Some(made) => made,
            None => Arc::new(Made::new().await),
        })
    }

    /// Ends those that are idle: a process that ends does not.
    pub fn end_all() {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).clear();
    }

    /// Whether swtpm is installed.
    #[must_use]
    pub fn is_available() -> bool {
        static AVAILABLE: LazyLock<bool> = LazyLock::new(|| Swtpm::start().is_some());
        *AVAILABLE
    }

    /// The TPM.
    #[must_use]
    pub fn tpm(&self) -> &Tpm {
        &self.0.tpm
    }

    /// A key on P-256 that signs TLS handshakes.
    ///
    /// # Panics
    /// When the TPM does not tell its public half.
    #[must_use]
    pub fn signing_key(&self) -> TpmSigningKey {
        let source = KeySource::Handle(SIGNING_KEY);
        TpmSigningKey::new(self.tpm(), &source, Password::default()).expect("a key in the TPM")
    }
}

impl Drop for SharedTpm {
    fn drop(&mut self) {
        IDLE.lock().unwrap_or_else(PoisonError::into_inner).push(Arc::clone(&self.0));
    }
}

impl Made {
    async fn new() -> Self {
        let swtpm = Swtpm::start().expect("swtpm");
        swtpm.keep_primary(&P256, SIGNING_KEY);
        let config = TpmConfig::new(swtpm.address().parse().expect("an address"));
        let tpm = Tpm::new(config).expect("a TPM");
        tpm.keys().await.expect("the keys of the TPM");
        Self { tpm, _swtpm: swtpm }
    }
}

/// The template of the TLS key, a TPMT_PUBLIC with the attributes fixedTPM, fixedParent, sensitiveDataOrigin,
/// userWithAuth and sign.
const P256: [u8; 22] =
    [0, 0x23, 0, 0x0b, 0, 4, 0, 0x72, 0, 0, 0, 0x10, 0, 0x10, 0, 3, 0, 0x10, 0, 0, 0, 0];
