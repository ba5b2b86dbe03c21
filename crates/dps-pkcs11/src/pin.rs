//! The PIN of a token.

use std::{fmt, fs::File, io::Read, path::Path, str::FromStr};

use dps_state_machine::{ConfigurationError, Error};
use zeroize::Zeroizing;

/// The PIN of a token's user. It is wiped from memory when it is dropped and never printed.
#[derive(Clone)]
pub struct Pin(Zeroizing<Vec<u8>>);

/// In bytes. Tokens take far fewer; what never ends, like `/dev/zero`, must not fill the memory.
const LONGEST: usize = 1024;

const FIELD: &str = "PIN";

impl Pin {
    /// Takes the PIN's bytes, which are UTF-8 for most tokens.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it is empty or longer than 1,024 bytes.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        let reason = match bytes.len() {
            0 => "it is empty",
            1..=LONGEST => return Ok(Self(Zeroizing::new(bytes.to_vec()))),
            _ => "it is longer than 1024 bytes",
        };
        Err(ConfigurationError::new(FIELD, "", reason).into())
    }

    /// Reads the file that holds it, without the line end that editors put behind it.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the file, when it can't be read or [`from_bytes`](Self::from_bytes) does not
    /// take its content.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let wrong =
            |reason: &str| ConfigurationError::new("PIN file", path.display().to_string(), reason);
        // Room for all of it at once: a buffer that grows leaves pieces of the PIN behind.
        let mut bytes = Zeroizing::new(Vec::with_capacity(LONGEST + 64));
        File::open(path)
            .and_then(|file| file.take(LONGEST as u64 + 3).read_to_end(&mut bytes))
            .map_err(|error| wrong(&format!("the file can't be read: {error}")))?;
        let pin = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let pin = pin.strip_suffix(b"\r").unwrap_or(pin);
        Self::from_bytes(pin).map_err(|error| match error {
            Error::Configuration(error) => wrong(&error.reason).into(),
            other => other,
        })
    }

    pub(crate) fn bytes(&self) -> &[u8] {
        &self.0
    }
}

impl FromStr for Pin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        Self::from_bytes(text.as_bytes())
    }
}

impl fmt::Debug for Pin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Pin(***)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_ends_with_one_line_end_or_none() {
        let path = std::env::temp_dir().join(format!("dps-pkcs11-pin-{}", std::process::id()));
        for (content, pin) in [
            (&b"1234"[..], &b"1234"[..]),
            (b"1234\n", b"1234"),
            (b"1234\r\n", b"1234"),
            (b" 12 34 \n\n", b" 12 34 \n"),
        ] {
            std::fs::write(&path, content).unwrap();
            assert_eq!(Pin::from_file(&path).unwrap().bytes(), pin);
        }
        for (content, says) in
            [(vec![], "it is empty"), (b"\n".to_vec(), "it is empty"), (vec![b'x'; 1025], "longer")]
        {
            std::fs::write(&path, content).unwrap();
            let message = Pin::from_file(&path).unwrap_err().to_string();
            assert!(message.starts_with("PIN file ") && message.contains(says), "{message}");
        }
        std::fs::remove_file(&path).unwrap();
        let message = Pin::from_file(&path).unwrap_err().to_string();
        assert!(message.contains("the file can't be read: "), "{message}");
    }

    #[test]
    fn a_pin_is_never_printed() {
        assert_eq!(format!("{:?}", "hunter2".parse::<Pin>().unwrap()), "Pin(***)");
    }
}
