//! Which keys of the TPM are used, and what opens them.

use std::{fmt, ops::RangeInclusive, time::Duration};

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

use crate::TpmAddress;

/// What the owner of a TPM may use; above it are the handles of the platform (TCG Registry of Reserved TPM 2.0 Handles).
const PERSISTENT: RangeInclusive<u32> = 0x8100_0000..=0x817f_ffff;

/// The longest password that every TPM takes, in bytes: a SHA-256 digest.
const LONGEST_PASSWORD: usize = 32;

/// Which TPM, which of its handles, and the passwords of its hierarchies.
///
/// ```
/// use dps_client::tpm::{Tpm, TpmConfig};
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let mut config = TpmConfig::new("/dev/tpmrm0".parse()?);
/// config.owner_password = "secret of the owner".parse()?;
/// let tpm = Tpm::new(config)?; // the TPM is not opened yet
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
#[non_exhaustive]
pub struct TpmConfig {
    /// Where the TPM is.
    pub address: TpmAddress,
    /// Where the endorsement key is kept: 0x81010001, as the TCG has it. It is made there when nothing is.
    pub endorsement_handle: u32,
    /// Where the storage root key is kept: 0x81000001, as the TCG has it. It is made there when nothing is.
    pub storage_handle: u32,
    /// Where the key for the assigned hub is kept: 0x81000100, as in Microsoft's SDKs.
    pub identity_handle: u32,
    /// Opens the endorsement hierarchy; empty unless it was set.
    pub endorsement_password: Password,
    /// Opens the owner hierarchy; empty unless it was set.
    pub owner_password: Password,
    /// How long a software TPM may take for one command; 30 s. The kernel has its own limits for a device.
    pub timeout: Duration,
}

impl TpmConfig {
    /// The usual handles, no passwords.
    #[must_use]
    pub fn new(address: TpmAddress) -> Self {
        Self {
            address,
            endorsement_handle: 0x8101_0001,
            storage_handle: 0x8100_0001,
            identity_handle: 0x8100_0100,
            endorsement_password: Password::default(),
            owner_password: Password::default(),
            timeout: Duration::from_secs(30),
        }
    }

    pub(crate) fn check(&self) -> Result<(), Error> {
        let handles = [
            (ENDORSEMENT, self.endorsement_handle),
            (STORAGE, self.storage_handle),
            (IDENTITY, self.identity_handle),
        ];
        for (index, (field, handle)) in handles.into_iter().enumerate() {
            check_handle(field, handle)?;
            if let Some((other, _)) = handles.iter().take(index).find(|(_, h)| *h == handle) {
                let reason = format!("the {other} has it too; each key needs its own");
                return Err(wrong(field, handle, &reason));
            }
        }
        if self.timeout.is_zero() {
            let reason = "it is zero; give the time that a command may take, for example 30 s";
            return Err(ConfigurationError::new("TPM timeout", "0", reason).into());
        }
        Ok(())
    }
}

const ENDORSEMENT: &str = "handle of the endorsement key";
const STORAGE: &str = "handle of the storage root key";
const IDENTITY: &str = "handle of the identity key";

/// Whether a key of the owner can be kept at the handle.
pub(crate) fn check_handle(field: &'static str, handle: u32) -> Result<(), Error> {
    if PERSISTENT.contains(&handle) {
        return Ok(());
    }
    Err(wrong(field, handle, "give one from 0x81000000 to 0x817fffff"))
}

fn wrong(field: &'static str, handle: u32, reason: &str) -> Error {
    ConfigurationError::new(field, format!("{handle:#010x}"), reason).into()
}

/// The password of a hierarchy or of a key. It is wiped from memory when it is dropped and never printed.
#[derive(Clone, Default)]
pub struct Password(Zeroizing<Vec<u8>>);

impl Password {
    /// Takes the password's bytes; none is the empty password, which hierarchies and keys have unless one was set.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is longer than 32 bytes, the most that every TPM takes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        // The TPM ignores zero bytes at the end (TPM 2.0 Library, Part 1, authorization values).
        if bytes.len() > LONGEST_PASSWORD {
            let reason =
                format!("it has {} bytes; the longest has {LONGEST_PASSWORD}", bytes.len());
            return Err(ConfigurationError::new("TPM password", "", &reason).into());
        }
        Ok(Self(Zeroizing::new(bytes.to_vec())))
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl std::str::FromStr for Password {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Debug for Password {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Password(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn config() -> TpmConfig {
        TpmConfig::new("/dev/tpmrm0".parse().unwrap())
    }

    #[test]
    fn the_usual_handles_pass_and_others_of_the_owner_too() {
        config().check().unwrap();
        let identity_handle = 0x817f_ffff;
        TpmConfig { identity_handle, ..config() }.check().unwrap();
    }

    #[test]
    fn a_handle_that_no_owner_has_is_refused_by_name() {
        for handle in [0, 1, 0x0100_0000, 0x4000_0001, 0x80ff_ffff, 0x8180_0000, u32::MAX] {
            let wrong = TpmConfig { storage_handle: handle, ..config() };
            let message = wrong.check().unwrap_err().to_string();
            let expected = format!("handle of the storage root key \"{handle:#010x}\": give one");
            assert!(message.starts_with(&expected), "{message}");
        }
    }

    #[test]
    fn two_keys_at_one_handle_are_refused() {
        let wrong = TpmConfig { identity_handle: 0x8101_0001, ..config() };
        let message = wrong.check().unwrap_err().to_string();
        assert!(message.contains("the handle of the endorsement key has it too"), "{message}");
    }

    #[test]
    fn no_time_at_all_is_refused() {
        let wrong = TpmConfig { timeout: Duration::ZERO, ..config() };
        assert!(wrong.check().unwrap_err().to_string().starts_with("TPM timeout"));
    }

    #[test]
    fn a_password_is_never_printed_and_has_at_most_32_bytes() {
        let config = TpmConfig { owner_password: "hunter2".parse().unwrap(), ..config() };
        assert!(!format!("{config:?}").contains("hunter2"));
        assert!(Password::from_bytes(&[7; 32]).is_ok());
        let message = Password::from_bytes(&[b'x'; 33]).unwrap_err().to_string();
        assert_eq!(message, "TPM password: it has 33 bytes; the longest has 32");
    }
}
