//! A symmetric key in a file.

use std::{fmt, path::PathBuf, time::SystemTime};

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::{
    key::SymmetricKey,
    reload::{Credential, Reloading},
};

/// A [`SymmetricKey`] that lives in a file, as base64, and may be replaced there while the program runs: the next SAS
/// token is signed with what is there then.
///
/// The file is read at each signature. A file that is missing or holds no key leaves the one from before in use, and
/// a warning says why. A key that is shorter than the one in use may be cut off, and is taken only when the file was
/// left alone for ten seconds. The surest way to replace the file is still to write a new one beside it and rename
/// it.
///
/// Clones share the file and what was read from it. Keys are wiped from memory when they are dropped, and never
/// printed.
///
/// ```no_run
/// # fn main() -> Result<(), dps_client::Error> {
/// use dps_client::{Attestation, SymmetricKeyFile};
/// let attestation = Attestation::from(SymmetricKeyFile::open("/etc/pump/device.key")?);
/// # Ok(())
/// # }
/// ```
#[derive(Clone)]
pub struct SymmetricKeyFile(Reloading<SymmetricKey>);

impl SymmetricKeyFile {
    /// Reads the file. Blocks while it does.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the file: it can't be read, is no regular file, is larger than 1 MiB, or
    /// holds no key.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        Reloading::open(vec![path.into()]).map(Self)
    }

    /// What is in the file now, or what was there before when that can't be used. Blocks while it reads it: well
    /// under a millisecond, on a disk of one's own.
    #[must_use]
    pub fn current(&self) -> SymmetricKey {
        self.0.current()
    }

    /// What was read last. No I/O.
    #[must_use]
    pub fn in_use(&self) -> SymmetricKey {
        self.0.in_use()
    }
}

impl fmt::Debug for SymmetricKeyFile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SymmetricKeyFile({}; ***)", self.0)
    }
}

impl Credential for SymmetricKey {
    fn parse(contents: &[Zeroizing<Vec<u8>>]) -> Result<Self, Error> {
        let bytes: &[u8] = contents.first().map_or(&[], |bytes| bytes);
        let Ok(text) = str::from_utf8(bytes) else {
            let reason = match bytes {
                [0xff, 0xfe, ..] | [0xfe, 0xff, ..] => "it is UTF-16 text; save it as UTF-8",
                _ => "it is not text; give the key in base64",
            };
            return Err(ConfigurationError::new("symmetric key", "", reason).into());
        };
        text.parse()
    }

    fn blamed(_: &str) -> usize {
        0
    }

    fn check(&self, _: SystemTime) -> Result<(), Error> {
        Ok(())
    }

    fn cut_off(&self, used: &Self) -> Option<&'static str> {
        (self.length() < used.length()).then_some("it is shorter than the key before")
    }
}
