//! What goes wrong with a token.

use std::path::PathBuf;

use cryptoki::{
    context::Function,
    error::{Error as Failure, RvError},
};
use dps_state_machine::{CredentialError, Error};

/// What went wrong with a token, its module, or what they were given. Nothing in it is secret.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Pkcs11Error {
    /// No module was named.
    #[error("no PKCS#11 module is named")]
    NoModule,
    /// The module can't be loaded.
    #[error("the PKCS#11 module {} can't be loaded: {reason}", path.display())]
    Module {
        /// Its library.
        path: PathBuf,
        /// What the system said.
        reason: String,
    },
    /// The module is not the one that the URI wants.
    #[error("the PKCS#11 module {} is {found}; the URI wants {wanted}", path.display())]
    OtherModule {
        /// Its library.
        path: PathBuf,
        /// What the URI says of it.
        wanted: String,
        /// What it says of itself, in the same form.
        found: String,
    },
    /// No token is what the URI wants.
    #[error("no token matches {wanted:?}; {}", listed(found))]
    NoToken {
        /// What the URI says of it.
        wanted: String,
        /// The tokens that are there, in the same form.
        found: Vec<String>,
    },
    /// More than one token is what the URI wants.
    #[error("{} tokens match {wanted:?}; {}", found.len(), listed(found))]
    SeveralTokens {
        /// What the URI says of it.
        wanted: String,
        /// Those that match, in the same form.
        found: Vec<String>,
    },
    /// No private key in the token is what the URI wants.
    #[error("in the token {token:?} no private key matches {wanted:?}; {}", listed(found))]
    NoKey {
        /// Its label.
        token: String,
        /// What the URI says of the key.
        wanted: String,
        /// The private keys that are there, in the same form.
        found: Vec<String>,
    },
    /// More than one private key in the token is what the URI wants.
    #[error("in the token {token:?} {} private keys match {wanted:?}; {}", found.len(), listed(found))]
    SeveralKeys {
        /// Its label.
        token: String,
        /// What the URI says of the key.
        wanted: String,
        /// Those that match, in the same form.
        found: Vec<String>,
    },
    /// The token does not let its user in.
    #[error("the token {token:?}: {problem}")]
    Pin {
        /// Its label.
        token: String,
        /// Why.
        problem: PinProblem,
    },
    /// The token was pulled out, or lost the session and did not take another one.
    #[error("the token {token:?} is gone: {function} failed with {code}")]
    TokenGone {
        /// Its label.
        token: String,
        /// The function that found out, by its name in PKCS#11.
        function: String,
        /// How, by its name in PKCS#11.
        code: String,
    },
    /// The token or the machine has no room for what is asked now.
    #[error("the token {token:?} is busy: {function} failed with {code}")]
    Busy {
        /// Its label.
        token: String,
        /// The function, by its name in PKCS#11.
        function: String,
        /// How, by its name in PKCS#11.
        code: String,
    },
    /// The key can't sign TLS handshakes.
    #[error("the key {key:?} in the token {token:?} can't be used: {reason}")]
    UnusableKey {
        /// The label of the token.
        token: String,
        /// The key, as a URI names it.
        key: String,
        /// Why, and what would do.
        reason: String,
    },
    /// The module has no such function.
    #[error("the PKCS#11 module does not support {function}")]
    NotSupported {
        /// The function, by its name in PKCS#11.
        function: String,
    },
    /// Another failure.
    #[error("the token {token:?}: {function} failed with {code}")]
    Failed {
        /// Its label.
        token: String,
        /// The function, by its name in PKCS#11.
        function: String,
        /// How, by its name in PKCS#11.
        code: String,
    },
}

/// Why a token does not let its user in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum PinProblem {
    /// It wants a PIN, and none was given.
    #[error("it wants a PIN, and none was given")]
    Missing,
    /// It refused the PIN.
    #[error("it refused the PIN")]
    Wrong,
    /// It refused this PIN before. It was not tried again: tokens lock after a few wrong ones.
    #[error("it refused this PIN before, so that it was not tried again")]
    RefusedBefore,
    /// The next wrong PIN locks it. The PIN was not tried.
    #[error("one more wrong PIN locks it, so that the PIN was not tried")]
    LastTry,
    /// It is locked after too many wrong PINs.
    #[error("its PIN is locked")]
    Locked,
    /// The PIN has expired.
    #[error("its PIN has expired")]
    Expired,
    /// Nobody set a PIN for its user yet.
    #[error("no PIN was set for its user yet")]
    NotSet,
}

/// How many keys or tokens a message lists.
const LISTED: usize = 6;

fn listed(found: &[String]) -> String {
    let first: Vec<&str> = found.iter().take(LISTED).map(String::as_str).collect();
    match found.len() {
        0 => "there is none".to_owned(),
        1..=LISTED => format!("there is {}", first.join(" and ")),
        all => format!("there is {} and {} more", first.join(" and "), all - LISTED),
    }
}

impl Pkcs11Error {
    /// What to do about it, in a sentence.
    #[must_use]
    pub fn hint(&self) -> Option<&'static str> {
        Some(match self {
            Self::NoModule => {
                "add `?module-path=` with the path of the token's PKCS#11 library to the URI, or give the path beside it"
            }
            Self::Module { .. } => {
                "give the path of the PKCS#11 library that came with the token, built for this machine's processor"
            }
            Self::OtherModule { .. } => {
                "leave `library-` attributes out of the URI, or give the other module"
            }
            Self::NoToken { .. } => {
                "plug the token in, and compare the URI with what is there; `slot-id` changes by itself"
            }
            Self::SeveralTokens { .. } => "add `serial` to the URI",
            Self::NoKey { .. } => "compare `object` and `id` in the URI with what is there",
            Self::SeveralKeys { .. } => {
                "add `id` to the URI; two keys with the same label and id can't be told apart"
            }
            Self::Pin { problem, .. } => problem.hint(),
            Self::TokenGone { .. } => "plug the token in again; the next attempt opens it anew",
            Self::Busy { .. } => "try again later, or end other programs that use the token",
            Self::UnusableKey { .. } => return None,
            Self::NotSupported { .. } => "use another module for the token",
            Self::Failed { .. } => "check the token with the tool of its manufacturer",
        })
    }

    /// Whether the same request can succeed later with nothing changed. A refused PIN never can.
    #[must_use]
    pub fn is_retryable(&self) -> bool {
        matches!(self, Self::Busy { .. })
    }

    /// Names what failed in the token with this label.
    pub(crate) fn of(token: &str, failure: &Failure) -> Self {
        use RvError as Rv;
        let (code, function) = match failure {
            Failure::Pkcs11(code, function) => (*code, name_of(*function)),
            Failure::NullFunctionPointer | Failure::NotSupported => {
                return Self::NotSupported { function: "a function that is needed".to_owned() };
            }
            other => {
                let (function, code) = ("reading its answer".to_owned(), other.to_string());
                return Self::Failed { token: token.to_owned(), function, code };
            }
        };
        let token = token.to_owned();
        let problem = match code {
            Rv::PinIncorrect | Rv::PinInvalid | Rv::PinLenRange => Some(PinProblem::Wrong),
            Rv::PinLocked => Some(PinProblem::Locked),
            Rv::PinExpired => Some(PinProblem::Expired),
            Rv::UserPinNotInitialized => Some(PinProblem::NotSet),
            _ => None,
        };
        if let Some(problem) = problem {
            return Self::Pin { token, problem };
        }
        let is_gone = is_lost(failure);
        let code_name = code_name(code);
        match code {
            Rv::FunctionNotSupported => Self::NotSupported { function },
            Rv::HostMemory | Rv::DeviceMemory | Rv::SessionCount | Rv::OperationActive => {
                Self::Busy { token, function, code: code_name }
            }
            _ if is_gone => Self::TokenGone { token, function, code: code_name },
            _ => Self::Failed { token, function, code: code_name },
        }
    }
}

impl PinProblem {
    fn hint(self) -> &'static str {
        match self {
            Self::Missing => {
                "add `?pin-source=file:PATH` to the URI, with a file that holds the PIN"
            }
            Self::Wrong | Self::RefusedBefore => {
                "correct the PIN before anything else is tried; the token locks after a few wrong ones"
            }
            Self::LastTry => {
                "log in once with the right PIN by another tool, like pkcs11-tool --login; that resets the count"
            }
            Self::Locked => "unlock it with the security officer's PIN or the PUK",
            Self::Expired => "set a new PIN with the tool of the token's manufacturer",
            Self::NotSet => "set one with the security officer's PIN, like pkcs11-tool --init-pin",
        }
    }
}

/// Whether the session is of no more use, so that another one may be.
pub(crate) fn is_lost(failure: &Failure) -> bool {
    use RvError as Rv;
    matches!(
        failure,
        Failure::Pkcs11(
            Rv::DeviceRemoved
                | Rv::TokenNotPresent
                | Rv::TokenNotRecognized
                | Rv::SlotIdInvalid
                | Rv::SessionHandleInvalid
                | Rv::SessionClosed
                | Rv::KeyHandleInvalid
                | Rv::ObjectHandleInvalid
                | Rv::UserNotLoggedIn
                | Rv::OperationActive
                | Rv::CryptokiNotInitialized,
            _
        )
    )
}

fn name_of(function: Function) -> String {
    format!("C_{function:?}")
}

/// `CKR_PIN_INCORRECT` for `PinIncorrect`; the number of a code that has no name.
fn code_name(code: RvError) -> String {
    let number = match code {
        RvError::VendorDefined(number) | RvError::UnknownErrorCode(number) => number,
        _ => {
            let mut name = "CKR".to_owned();
            for letter in format!("{code:?}").chars() {
                if letter.is_ascii_uppercase() {
                    name.push('_');
                }
                name.push(letter.to_ascii_uppercase());
            }
            return name;
        }
    };
    format!("{number:#010x}")
}

impl From<Pkcs11Error> for CredentialError {
    fn from(error: Pkcs11Error) -> Self {
        let mut shown = Self::new(error.to_string());
        if let Some(hint) = error.hint() {
            shown = shown.hint(hint);
        }
        if error.is_retryable() {
            shown = shown.retryable();
        }
        shown.source(error)
    }
}

impl From<Pkcs11Error> for Error {
    fn from(error: Pkcs11Error) -> Self {
        CredentialError::from(error).into()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_code_is_the_error_that_says_what_to_do() {
        use RvError as Rv;
        for (code, message, retryable) in [
            (Rv::PinIncorrect, "the token \"t\": it refused the PIN", false),
            (Rv::PinLenRange, "the token \"t\": it refused the PIN", false),
            (Rv::PinLocked, "the token \"t\": its PIN is locked", false),
            (Rv::PinExpired, "the token \"t\": its PIN has expired", false),
            (Rv::UserPinNotInitialized, "the token \"t\": no PIN was set for its user yet", false),
            (
                Rv::SessionCount,
                "the token \"t\" is busy: C_Sign failed with CKR_SESSION_COUNT",
                true,
            ),
            (Rv::HostMemory, "the token \"t\" is busy: C_Sign failed with CKR_HOST_MEMORY", true),
            (
                Rv::DeviceMemory,
                "the token \"t\" is busy: C_Sign failed with CKR_DEVICE_MEMORY",
                true,
            ),
            (
                Rv::DeviceRemoved,
                "the token \"t\" is gone: C_Sign failed with CKR_DEVICE_REMOVED",
                false,
            ),
            (
                Rv::TokenNotPresent,
                "the token \"t\" is gone: C_Sign failed with CKR_TOKEN_NOT_PRESENT",
                false,
            ),
            (Rv::FunctionNotSupported, "the PKCS#11 module does not support C_Sign", false),
            (Rv::GeneralError, "the token \"t\": C_Sign failed with CKR_GENERAL_ERROR", false),
            (
                Rv::VendorDefined(0x8000_0001),
                "the token \"t\": C_Sign failed with 0x80000001",
                false,
            ),
        ] {
            let error = Pkcs11Error::of("t", &Failure::Pkcs11(code, Function::Sign));
            assert_eq!((error.to_string().as_str(), error.is_retryable()), (message, retryable));
            assert_eq!(CredentialError::from(error.clone()).retryable, retryable);
            assert!(error.hint().is_some(), "{error}");
        }
    }

    #[test]
    fn a_long_list_is_cut() {
        let found: Vec<String> = (0..8).map(|number| format!("object=k{number}")).collect();
        let text = listed(&found);
        assert!(text.starts_with("there is object=k0 and object=k1"), "{text}");
        assert!(text.ends_with("and object=k5 and 2 more"), "{text}");
    }
}
