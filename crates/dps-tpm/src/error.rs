//! What goes wrong with a TPM.

use std::{fmt, io, sync::Arc, time::Duration};

use tpm2_protocol::data::{TPM_RC_FMT1, TpmRc, TpmRcBase};

/// What went wrong with the TPM, or with what it was given. Nothing in it is secret.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TpmError {
    /// The device or the socket can't be opened.
    #[error("the TPM {address} can't be opened: {source}")]
    Open {
        /// Where the TPM should be.
        address: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// The connection to the TPM broke, or what came over it is no answer of a TPM.
    #[error("the TPM {address} failed at {command}: {source}")]
    Io {
        /// Where the TPM is.
        address: String,
        /// The command, by the name that the TCG gives it.
        command: String,
        /// What the operating system said.
        source: Arc<io::Error>,
    },
    /// No answer came in time.
    #[error("the TPM {address} did not answer {command} within {} s", after.as_secs_f32())]
    Timeout {
        /// Where the TPM is.
        address: String,
        /// The command, by the name that the TCG gives it.
        command: String,
        /// How long it had.
        after: Duration,
    },
    /// The TPM refused a command.
    #[error("the TPM refused {command}: {code}")]
    Refused {
        /// The command, by the name that the TCG gives it.
        command: String,
        /// Why.
        code: ResponseCode,
    },
    /// The password of a hierarchy is wrong or missing.
    #[error("the password of the {hierarchy} is wrong or missing")]
    Password {
        /// The hierarchy, or the key, that it would open.
        hierarchy: &'static str,
    },
    /// What is kept at a handle is not the key that should be there.
    #[error("at {handle:#010x} there must be {expected}, but there is {found}")]
    WrongKey {
        /// The persistent handle.
        handle: u32,
        /// What should be there.
        expected: &'static str,
        /// What is.
        found: String,
    },
    /// Nothing is kept at a handle.
    #[error("at {handle:#010x} there is no key")]
    NoKey {
        /// The persistent handle.
        handle: u32,
    },
    /// What the service sent as an authentication key is none. The TPM was not asked.
    #[error("the authentication key that the service sent is damaged: {reason}")]
    DamagedKey {
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The TPM can't take the authentication key that the service sent: it was made for another TPM.
    #[error(
        "the authentication key that the service sent was not made for this TPM ({command}: {code})"
    )]
    ForeignKey {
        /// The command that refused it.
        command: String,
        /// How.
        code: ResponseCode,
    },
    /// The former key for the hub is gone, and the new one could not be kept. It is said too when the TPM does not answer
    /// any more, so that nobody knows.
    #[error(
        "the former key at {handle:#010x} is gone, and the new one could not be kept: {source}"
    )]
    KeyLost {
        /// The persistent handle.
        handle: u32,
        /// Why it could not be kept.
        source: Arc<TpmError>,
    },
    /// A file with a TPM key, or the key in it, can't be used.
    #[error("TPM key: {reason}")]
    UnusableKey {
        /// Why, and what would do.
        reason: String,
    },
    /// The text is too long to be signed at once.
    #[error("the text has {length} bytes; the TPM signs at most {most}")]
    TooLong {
        /// In bytes.
        length: usize,
        /// In bytes.
        most: usize,
    },
    /// The thread that speaks to the TPM could not be started.
    #[error("the thread for the TPM could not be started: {source}")]
    Thread {
        /// What the operating system said.
        source: Arc<io::Error>,
    },
}

impl TpmError {
    /// What to do about it, in a sentence.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::Open { source, .. } => match source.kind() {
                io::ErrorKind::NotFound => {
                    "check that the machine has a TPM 2.0, that it is enabled, and the path; the usual one is /dev/tpmrm0"
                }
                io::ErrorKind::PermissionDenied => {
                    "let the program's user into the group that may use the TPM, which is mostly `tss`"
                }
                io::ErrorKind::ConnectionRefused => "start the software TPM, or check its address",
                _ => "check the address of the TPM and whether another program has it",
            },
            Self::Io { .. } => "check the TPM, and the kernel's log for it",
            Self::Timeout { .. } => {
                "a software TPM, and /dev/tpm0, serve one program at a time: end the other one"
            }
            Self::Refused { code, .. } => return code.hint(),
            Self::Password { .. } => "give the password that the TPM's owner set",
            Self::WrongKey { .. } => {
                "choose another handle for it; what is there may belong to another program"
            }
            Self::NoKey { .. } => "register first, or give the handle at which the key is",
            Self::DamagedKey { .. } => "register again; if it stays so, tell the service's support",
            Self::ForeignKey { .. } => {
                "check that the enrollment has this TPM's endorsement key, which `dps tpm show` prints"
            }
            Self::KeyLost { .. } => "register again: until then the device can't sign for its hub",
            Self::UnusableKey { .. } | Self::TooLong { .. } => return None,
            Self::Thread { .. } => "the system has no room for a thread; end other programs",
        })
    }

    /// Whether the same request can succeed later with nothing changed.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Io { .. } | Self::Timeout { .. } | Self::Thread { .. } => true,
            Self::Refused { code, .. } => code.is_passing(),
            Self::Open { source, .. } => source.kind() == io::ErrorKind::ResourceBusy,
            Self::KeyLost { .. } => true,
            _ => false,
        }
    }

    /// The code with which the TPM refused.
    pub(crate) fn code(&self) -> Option<ResponseCode> {
        match self {
            Self::Refused { code, .. } | Self::ForeignKey { code, .. } => Some(*code),
            _ => None,
        }
    }
}

/// Why a TPM refused: the number of its answer, with the name that the TCG gives it.
///
/// See the TPM 2.0 Library, Part 2, `TPM_RC`: <https://trustedcomputinggroup.org/resource/tpm-library-specification/>.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ResponseCode(pub u32);

impl ResponseCode {
    /// `None` for a vendor's code.
    fn base(self) -> Option<TpmRcBase> {
        TpmRc::try_from(self.0).ok().map(|code| code.base())
    }

    pub(crate) fn is(self, base: TpmRcBase) -> bool {
        self.base() == Some(base)
    }

    /// Whether the command can be sent again after a little while.
    pub(crate) fn is_passing(self) -> bool {
        use TpmRcBase::{NvRate, Retry, Testing, Yielded};
        matches!(self.base(), Some(NvRate | Retry | Testing | Yielded))
    }

    /// Whether it is about what the command was given, and not about the state of the TPM. Where RSA-OAEP fails, libtpms
    /// says no more than `TPM_RC_FAILURE`.
    pub(crate) fn is_about_a_parameter(self) -> bool {
        self.0 & TPM_RC_FMT1 != 0 || self.is(TpmRcBase::Failure)
    }

    fn hint(self) -> Option<&'static str> {
        use TpmRcBase::{
            Failure, Hierarchy, Initialize, Lockout, Memory, NvSpace, ObjectHandles, ObjectMemory,
            SessionHandles, SessionMemory,
        };
        Some(match self.base()? {
            _ if self.is_passing() => "the TPM is busy; try again later",
            ObjectMemory | ObjectHandles | SessionMemory | SessionHandles | Memory => {
                "another program left its keys or sessions in the TPM: use /dev/tpmrm0, or clear them with `tpm2_flushcontext -t -l -s`"
            }
            NvSpace => {
                "the TPM has no room for another persistent key: remove one that nobody needs"
            }
            Lockout => {
                "the TPM locked itself after wrong passwords; wait, or let its owner unlock it"
            }
            Hierarchy => "the hierarchy is switched off; switch it on in the firmware's settings",
            Initialize | Failure => "the TPM needs a restart of the machine",
            _ => return None,
        })
    }
}

impl fmt::Display for ResponseCode {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.base() {
            Some(base) => write!(f, "{base} ({:#05x})", self.0),
            None => write!(f, "{:#05x}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_code_prints_with_its_name_and_an_unknown_one_as_its_number() {
        for (code, text) in [
            (0x18b, "TPM_RC_HANDLE (0x18b)"),
            (0x9a2, "TPM_RC_BAD_AUTH (0x9a2)"),
            (0x902, "TPM_RC_OBJECT_MEMORY (0x902)"),
            (0x101, "TPM_RC_FAILURE (0x101)"),
            (0x5ff_0000, "0x5ff0000"),
        ] {
            assert_eq!(ResponseCode(code).to_string(), text);
        }
    }

    #[test]
    fn the_four_codes_that_pass_by_themselves_are_known() {
        for code in [0x922, 0x908, 0x90a, 0x920] {
            assert!(ResponseCode(code).is_passing(), "{code:#x}");
        }
        for code in [0, 0x101, 0x18b, 0x902, 0x921, 0x923, 0x9a2, u32::MAX] {
            assert!(!ResponseCode(code).is_passing(), "{code:#x}");
        }
    }
}
