//! A certificate and its key in files.

use std::{fmt, path::PathBuf, time::SystemTime};

use dps_state_machine::Error;
use zeroize::Zeroizing;

use crate::{
    reload::{Credential, Reloading},
    x509::X509Identity,
};

/// An [`X509Identity`] that lives in two files, which may be replaced while the program runs: the next TLS handshake
/// takes what is there then.
///
/// The files are read at each handshake. What they hold is taken when both parse, the key is the certificate's, the
/// chain is in order and none of its certificates but the last of several is expired or not valid yet. Otherwise the one from before stays
/// in use, and a warning says why: so a file that is half written, missing, or newer than its counterpart does no
/// harm. A chain that ends where the one in use went on may be cut off, and is taken only when its file was left
/// alone for ten seconds. The surest way to replace a file is still to write a new one beside it and rename it.
///
/// A connection that stands keeps the identity it was made with, and so does HTTP's from one request to the next.
/// Clones share the files and what was read from them. The private key is wiped from memory with the last use of
/// the identity that it belongs to, and never printed.
///
/// ```no_run
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::{Attestation, X509Files};
/// let files = X509Files::open("/etc/pump/chain.pem", "/etc/pump/key.pem")?;
/// let attestation = Attestation::from(files);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct X509Files(Reloading<X509Identity>);

impl X509Files {
    /// Reads the two files, which hold what [`X509Identity::from_pem`] takes. Blocks while it does.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the file: it can't be read, is no regular file, is larger than 1 MiB, or
    /// for the reasons of [`X509Identity::from_pem`].
    pub fn open(certificates: impl Into<PathBuf>, key: impl Into<PathBuf>) -> Result<Self, Error> {
        Reloading::open(vec![certificates.into(), key.into()]).map(Self)
    }

    /// What is in the files now, or what was there before when that can't be used. Blocks while it reads them:
    /// well under a millisecond, for files of the usual size on a disk of one's own.
    #[must_use]
    pub fn current(&self) -> X509Identity {
        self.0.current()
    }

    /// What was read last. No I/O.
    #[must_use]
    pub fn in_use(&self) -> X509Identity {
        self.0.in_use()
    }
}

impl fmt::Debug for X509Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "X509Files({}; {:?})", self.0, self.in_use())
    }
}

impl Credential for X509Identity {
    fn parse(contents: &[Zeroizing<Vec<u8>>]) -> Result<Self, Error> {
        match contents {
            [certificates, key] => Self::from_pem(certificates, key),
            _ => Self::from_pem(&[], &[]),
        }
    }

    fn blamed(field: &str) -> usize {
        usize::from(field == "private key")
    }

    fn check(&self, now: SystemTime) -> Result<(), Error> {
        self.check_chain(now)
    }

    fn cut_off(&self, used: &Self) -> Option<&'static str> {
        self.lacks_issuer_of(used).then_some("its chain seems to be cut off")
    }
}
