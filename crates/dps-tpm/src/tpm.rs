//! The TPM as a program sees it: a thread of its own that does one job after the other.

use std::{
    fmt,
    sync::{Arc, mpsc},
    thread,
};

use tokio::sync::oneshot;
use zeroize::Zeroizing;

use crate::{
    AuthenticationKey, TpmConfig, TpmError, TpmKeys,
    identity::{ImportedKey, Signature},
    session::Session,
};

type Job = Box<dyn FnOnce(&TpmConfig) + Send>;

/// A TPM 2.0. Cheap to clone; the clones share one thread, on which each job runs to its end.
///
/// The TPM is opened for each job and closed after it, so that other programs have their turn; nothing is left in it
/// but the keys at the handles of [`TpmConfig`].
///
/// # Cancel safety
/// A command can't be taken back from a TPM. When a future of this type is dropped, a job that has not begun is never
/// done; one that has begun is done to its end, and its result is dropped.
///
/// ```no_run
/// # async fn show() -> Result<(), Box<dyn std::error::Error>> {
/// use dps_client::tpm::{Tpm, TpmConfig};
/// let tpm = Tpm::new(TpmConfig::new("/dev/tpmrm0".parse()?))?;
/// let keys = tpm.keys().await?;
/// println!("endorsement key: {}", keys.endorsement_key());
/// println!("registration id: {}", keys.registration_id()?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct Tpm {
    config: Arc<TpmConfig>,
    jobs: mpsc::Sender<Job>,
}

impl Tpm {
    /// Starts the thread. The TPM is not opened before the first job.
    ///
    /// # Errors
    /// [`Error::Configuration`](dps_state_machine::Error::Configuration) when a handle is none of the owner's or two
    /// are the same, when the timeout is zero; [`Error::Credential`](dps_state_machine::Error::Credential) when the
    /// system has no room for a thread.
    pub fn new(config: TpmConfig) -> Result<Self, dps_state_machine::Error> {
        config.check()?;
        let config = Arc::new(config);
        let (jobs, queue) = mpsc::channel::<Job>();
        let its = Arc::clone(&config);
        thread::Builder::new()
            .name("tpm".into())
            .spawn(move || queue.into_iter().for_each(|job| job(&its)))
            .map_err(|source| TpmError::Thread { source: source.into() })?;
        Ok(Self { config, jobs })
    }

    /// What the TPM was opened with.
    #[must_use]
    pub fn config(&self) -> &TpmConfig {
        &self.config
    }

    /// The endorsement key and the storage root key. They are made when they are missing, which takes a hardware TPM
    /// up to a minute, once.
    ///
    /// # Errors
    /// [`TpmError`]; when another key is at a handle, nothing is made.
    pub async fn keys(&self) -> Result<TpmKeys, TpmError> {
        self.run(|session| session.keys()).await
    }

    /// Takes in the key of a challenge. Nothing of it stays in the TPM, and the key for the hub stays as it is.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::ForeignKey`] when the key was made for another TPM.
    pub async fn import(&self, key: AuthenticationKey) -> Result<NonceKey, TpmError> {
        let key = self.run(move |session| session.import(&key)).await?;
        Ok(NonceKey { tpm: self.clone(), key })
    }

    /// Keeps a key as the one for the hub, in place of the former one. That stays as it is until the new one is in the
    /// TPM.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::KeyLost`] when the former key is gone and the new one could not be kept.
    pub async fn store(&self, key: AuthenticationKey) -> Result<(), TpmError> {
        self.run(move |session| session.store(&key)).await
    }

    /// The HMAC-SHA256 of a text of at most 1024 bytes, by the key for the hub.
    ///
    /// # Errors
    /// [`TpmError`]; [`TpmError::NoKey`] when there is none yet.
    pub async fn sign(&self, text: &[u8]) -> Result<Zeroizing<[u8; 32]>, TpmError> {
        let text = text.to_vec();
        self.run(move |session| session.sign_stored(&text)).await
    }

    /// Does a job on the TPM's thread.
    pub(crate) async fn run<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = oneshot::channel();
        self.submit(Box::new(move |config| {
            if !reply.is_closed() {
                // Nobody may be there any more.
                let _ = reply.send(Session::run(config, job));
            }
        }))?;
        answer.await.map_err(|_| stopped())?
    }

    /// The same from where nothing can be awaited. It blocks the thread.
    pub(crate) fn run_blocking<T: Send + 'static>(
        &self,
        job: impl FnOnce(&mut Session<'_>) -> Result<T, TpmError> + Send + 'static,
    ) -> Result<T, TpmError> {
        let (reply, answer) = mpsc::sync_channel(1);
        self.submit(Box::new(move |config| {
            let _ = reply.send(Session::run(config, job));
        }))?;
        answer.recv().map_err(|_| stopped())?
    }

    fn submit(&self, job: Job) -> Result<(), TpmError> {
        self.jobs.send(job).map_err(|_| stopped())
    }
}

/// The thread never ends before the last sender, unless a bug ended it.
fn stopped() -> TpmError {
    TpmError::Thread { source: Arc::new(std::io::Error::other("it has ended")) }
}

impl fmt::Debug for Tpm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Tpm").field("config", &self.config).finish_non_exhaustive()
    }
}

/// The key of a challenge, which signs for one registration. It lives here, encrypted by the TPM, and not in the TPM.
#[derive(Clone)]
pub struct NonceKey {
    tpm: Tpm,
    key: ImportedKey,
}

impl NonceKey {
    /// The HMAC-SHA256 of a text of at most 1024 bytes.
    ///
    /// # Errors
    /// [`TpmError`].
    pub async fn sign(&self, text: &[u8]) -> Result<Signature, TpmError> {
        let (key, text) = (self.key.clone(), text.to_vec());
        self.tpm.run(move |session| session.sign_with(&key, &text)).await
    }
}

impl fmt::Debug for NonceKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("NonceKey").finish_non_exhaustive()
    }
}
