//! What to do about a failure, in terms of the command: the library's hint, and the flags that do what it says.

use dps_client::{Error, Stage};

use crate::credential::Credential;

/// What was given and what was not, as far as advice depends on it.
#[derive(Clone, Debug, Default)]
pub(crate) struct Advice {
    /// Whether the flags are of use: those of `dps register` without `--emulator`.
    pub(crate) names_flags: bool,
    pub(crate) has_proxy: bool,
    pub(crate) has_platform_roots: bool,
    pub(crate) credential: Option<CredentialKind>,
}

/// Which key was given.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum CredentialKind {
    SymmetricKey,
    GroupKey,
    X509,
    /// A certificate that is to be renewed.
    Stored,
    Tpm,
}

impl From<&Credential> for CredentialKind {
    fn from(credential: &Credential) -> Self {
        match credential {
            Credential::SymmetricKey(_) | Credential::SymmetricKeyFile(_) => Self::SymmetricKey,
            Credential::GroupKeyFile(_) => Self::GroupKey,
            Credential::X509(_) => Self::X509,
            Credential::Stored(..) => Self::Stored,
            Credential::Tpm(_) => Self::Tpm,
        }
    }
}

/// Where to say that something else is to be reached.
const OTHER_END: &str = "--endpoint HOST:PORT and --transport NAME choose what is reached";

impl Advice {
    /// In a line; `None` when there is none.
    pub(crate) fn hint(&self, error: &Error) -> Option<String> {
        let hint = error.hint();
        let flags = if self.names_flags { self.flags(error, hint.as_deref()) } else { None };
        match (hint, flags) {
            (Some(hint), Some(flags)) => Some(format!("{hint} ({flags})")),
            (hint, flags) => hint.or(flags),
        }
    }

    fn flags(&self, error: &Error, hint: Option<&str>) -> Option<String> {
        match error {
            Error::Connection(connection) => match connection.stage {
                Stage::Tls if hint.is_some_and(|hint| hint.contains("to the roots")) => {
                    Some(self.roots())
                }
                Stage::Resolve | Stage::Connect => self.way_out(),
                Stage::Tls | Stage::Websocket | Stage::Register
                    if hint.is_some_and(|hint| hint.contains("port")) =>
                {
                    Some(OTHER_END.to_owned())
                }
                Stage::Proxy => Some("--proxy http://USER:PASSWORD@HOST:PORT".to_owned()),
                _ => None,
            },
            // Nothing of what came could be read: it may be another protocol's.
            Error::Protocol(protocol) if protocol.status.is_none() => Some(OTHER_END.to_owned()),
            Error::Timeout(timeout) => {
                let more = "--timeout SECONDS allows more time";
                match timeout.stage {
                    Stage::Resolve | Stage::Connect => {
                        Some(self.way_out().map_or_else(
                            || more.to_owned(),
                            |way_out| format!("{more}; {way_out}"),
                        ))
                    }
                    _ if timeout.retry_after.is_some() && !timeout.asked_by_service => {
                        Some(format!("{more}, --poll-floor SECONDS polls sooner"))
                    }
                    _ => Some(more.to_owned()),
                }
            }
            Error::Rejected(rejection) if rejection.status == 401 => match self.credential? {
                CredentialKind::SymmetricKey => {
                    Some("a key of an enrollment group goes to --group-key-file".to_owned())
                }
                CredentialKind::GroupKey => {
                    Some("a device's own key goes to --symmetric-key-file".to_owned())
                }
                CredentialKind::X509 => None,
                CredentialKind::Stored => {
                    Some("the enrollment may know only the credential that the device was shipped with; give that, like --symmetric-key-file".to_owned())
                }
                CredentialKind::Tpm => {
                    Some("dps tpm show prints the endorsement key for the enrollment".to_owned())
                }
            },
            _ => None,
        }
    }

    fn roots(&self) -> String {
        let file = "--ca-file FILE adds it";
        match self.has_platform_roots {
            true => file.to_owned(),
            false => {
                format!("{file}, --platform-roots trusts what this system trusts instead")
            }
        }
    }

    /// How to get out by a proxy, if none is used.
    fn way_out(&self) -> Option<String> {
        if self.has_proxy {
            return None;
        }
        let set = |name: &&str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        let names = ["HTTPS_PROXY", "https_proxy", "ALL_PROXY", "all_proxy"];
        Some(match names.iter().find(|name| set(name)) {
            Some(name) => format!("{name} is set and was not used; --proxy env uses it"),
            None => "--proxy URL goes through a proxy".to_owned(),
        })
    }
}
