//! Where the TPM is.

use std::{fmt, path::PathBuf, str::FromStr};

use dps_state_machine::{ConfigurationError, Error};

const SOFTWARE: &str = "swtpm:";

/// Where the TPM is: a device of the Linux kernel or the socket of a software TPM.
///
/// | text | is |
/// |---|---|
/// | `/dev/tpmrm0` | the kernel's resource manager: several programs may use the TPM at once. Take this one. |
/// | `/dev/tpm0` | the TPM without the resource manager: one program at a time |
/// | `swtpm:HOST:PORT` | a software TPM on a TCP socket, for tests. Nothing on it is encrypted. |
/// | `swtpm:/PATH` | a software TPM on a Unix socket |
///
/// See <https://docs.kernel.org/security/tpm/index.html> and <https://github.com/stefanberger/swtpm/wiki>.
///
/// ```
/// use dps_client::tpm::TpmAddress;
/// let address: TpmAddress = "/dev/tpmrm0".parse().unwrap();
/// assert_eq!(address, TpmAddress::Device("/dev/tpmrm0".into()));
/// let error = "tpmrm0".parse::<TpmAddress>().unwrap_err();
/// assert!(error.to_string().starts_with("TPM \"tpmrm0\": give"));
/// ```
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum TpmAddress {
    /// A character device, by its path.
    Device(PathBuf),
    /// The TCP socket of a software TPM.
    Tcp {
        /// A name or an address; an IPv6 address has no brackets here.
        host: String,
        /// Not 0.
        port: u16,
    },
    /// The Unix socket of a software TPM, by its path.
    Unix(PathBuf),
}

impl TpmAddress {
    /// Whether what a program leaves in the TPM goes away when it closes the device: only the kernel's resource
    /// manager does that.
    pub(crate) fn is_managed(&self) -> bool {
        match self {
            Self::Device(path) => path
                .file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with("tpmrm")),
            Self::Tcp { .. } | Self::Unix(_) => false,
        }
    }
}

impl FromStr for TpmAddress {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] when it is neither an absolute path nor `swtpm:` with a socket.
    fn from_str(text: &str) -> Result<Self, Error> {
        let socket = text.strip_prefix(SOFTWARE);
        match (socket, socket.and_then(|socket| socket.rsplit_once(':'))) {
            (None, _) if text.starts_with('/') => Ok(Self::Device(text.into())),
            (Some(path), _) if path.starts_with('/') => Ok(Self::Unix(path.into())),
            (_, Some((host, port))) => match (unbracketed(host), port.parse()) {
                (Some(host), Ok(port)) if port > 0 => Ok(Self::Tcp { host: host.into(), port }),
                _ => Err(wrong(text)),
            },
            _ => Err(wrong(text)),
        }
    }
}

/// The host without the brackets of an IPv6 address, which must have them.
fn unbracketed(host: &str) -> Option<&str> {
    let inside = host.strip_prefix('[').and_then(|rest| rest.strip_suffix(']'));
    match inside {
        Some(address) => Some(address),
        None if host.is_empty() || host.contains([':', '[', ']']) => None,
        None => Some(host),
    }
}

fn wrong(text: &str) -> Error {
    let reason = "give the path of a device, for example /dev/tpmrm0, or a software TPM as swtpm:HOST:PORT or swtpm:/PATH";
    ConfigurationError::new("TPM", text, reason).into()
}

impl fmt::Display for TpmAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Device(path) => write!(f, "{}", path.display()),
            Self::Tcp { host, port } if host.contains(':') => {
                write!(f, "{SOFTWARE}[{host}]:{port}")
            }
            Self::Tcp { host, port } => write!(f, "{SOFTWARE}{host}:{port}"),
            Self::Unix(path) => write!(f, "{SOFTWARE}{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_reads_as_it_prints() {
        for text in [
            "/dev/tpmrm0",
            "/dev/tpm0",
            "swtpm:127.0.0.1:2321",
            "swtpm:tpm.local:1",
            "swtpm:[::1]:2321",
            "swtpm:/run/tpm/socket",
            "swtpm:/odd:1",
        ] {
            assert_eq!(text.parse::<TpmAddress>().unwrap().to_string(), text);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_forms_that_are_taken() {
        for text in [
            "",
            "tpm0",
            "swtpm:",
            "swtpm:host",
            "swtpm:host:",
            "swtpm:host:0",
            "swtpm:host:65536",
            "swtpm::2321",
            "swtpm:::1:2321",
            "swtpm:relative/path",
            "mssim:host:2321",
        ] {
            let message = text.parse::<TpmAddress>().unwrap_err().to_string();
            assert!(message.contains("swtpm:HOST:PORT"), "{text}: {message}");
        }
    }

    #[test]
    fn only_the_resource_manager_cleans_up_after_a_program() {
        let managed = |text: &str| text.parse::<TpmAddress>().unwrap().is_managed();
        assert!(managed("/dev/tpmrm0") && managed("/dev/tpmrm12"));
        assert!(!managed("/dev/tpm0") && !managed("swtpm:/tpmrm0") && !managed("swtpm:tpmrm0:1"));
    }
}
