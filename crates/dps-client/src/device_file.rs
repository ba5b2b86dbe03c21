//! The configuration file of a device: what the flags of `dps register` say, in TOML, for the command and for programs.

use std::{
    fs::File,
    io::Read as _,
    path::{Path, PathBuf},
};

use dps_state_machine::{ConfigurationError, Error, internal as secret};
use toml::de::{DeTable, DeValue};

mod keys;
mod program;

use keys::{Fault, KEYS, Key};

/// The largest file that is read, in bytes (1 MiB).
const LARGEST: u64 = 1024 * 1024;

/// The configuration file of a device, read and checked.
///
/// It is one flat table of TOML whose keys are the flags of `dps register` without their dashes; [`Self::EXAMPLE`] shows
/// each. Names of files in it are relative to its folder. It holds no secret, only the names of files that do.
///
/// ```no_run
/// # async fn register() -> Result<(), dps_client::Error> {
/// use dps_client::DeviceFile;
///
/// let file = DeviceFile::read("/etc/dps/config.toml")?;
/// let client = file.client()?;
/// let device = client.register(file.request()?).await?;
/// println!("{} is a device of {}", device.device_id, device.assigned_hub);
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct DeviceFile {
    path: PathBuf,
    values: Vec<FileValue>,
}

/// What a [`DeviceFile`] says for one key.
#[derive(Clone, Debug)]
pub struct FileValue {
    key: &'static str,
    line: usize,
    place: String,
    texts: Vec<String>,
}

impl DeviceFile {
    /// A file with every key, each explained and as a comment.
    pub const EXAMPLE: &str = include_str!("../device.toml");

    /// Reads a file and checks it: its syntax, its keys, and each value as far as it needs nothing else. Files that it
    /// names are not read before they are asked for. Blocks for as long as the file system takes.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the file, the line and the key, like
    /// `dps.toml:7: transport "pigeon": there is no such transport; ..`. A secret in the wrong place is not repeated.
    pub fn read(path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let mut bytes = Vec::new();
        let read = File::open(path).and_then(|file| file.take(LARGEST + 1).read_to_end(&mut bytes));
        read.map_err(|error| wrong_file(path, &format!("it can't be read: {error}")))?;
        if bytes.len() as u64 > LARGEST {
            return Err(wrong_file(path, &format!("it is larger than {LARGEST} bytes")));
        }
        match String::from_utf8(bytes) {
            Ok(text) => Self::parse(&text, path),
            Err(_) => Err(wrong_file(path, "it is not UTF-8 text; save it as UTF-8")),
        }
    }

    /// As [`Self::read`], for a text that was read already from a file of this name.
    ///
    /// # Errors
    /// As of [`Self::read`].
    pub fn parse(text: &str, path: impl AsRef<Path>) -> Result<Self, Error> {
        let path = path.as_ref();
        let text = text.trim_start_matches('\u{feff}');
        let line = |at: usize| 1 + text.bytes().take(at).filter(|byte| *byte == b'\n').count();
        let place = |at: usize| format!("{}:{}", path.display(), line(at));
        let table = DeTable::parse(text).map_err(|error| {
            let reason = format!("this is no TOML: {}", secret::masked(error.message()));
            // Not all that is wrong has a place.
            let whole = || path.display().to_string();
            let place = error.span().map_or_else(whole, |span| place(span.start));
            Error::from(ConfigurationError::new(place, "", &reason))
        })?;
        let mut pairs: Vec<_> = table.into_inner().into_iter().collect();
        pairs.sort_by_key(|(key, _)| key.span().start);
        let folder = path.parent().unwrap_or(Path::new(""));
        let value = |key: &str, at: usize, value: &DeValue<'_>| {
            let place = format!("{}: {}", place(at), secret::masked(key));
            let wrong = |Fault { given, reason }| {
                Error::from(ConfigurationError::new(place.clone(), given, &reason))
            };
            let known = KEYS.iter().find(|known| known.name == key);
            let Key { name, takes } = known.ok_or_else(|| wrong(keys::unknown(key)))?;
            let texts = takes.read(value, folder).map_err(wrong)?;
            Ok(FileValue { key: name, line: line(at), place, texts })
        };
        let values =
            pairs.iter().map(|(key, of)| value(key.as_ref(), key.span().start, of.as_ref()));
        Ok(Self { path: path.to_owned(), values: values.collect::<Result<_, Error>>()? })
    }

    /// The name of the file, as it was given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// What it says, in the order of its lines.
    #[must_use]
    pub fn values(&self) -> &[FileValue] {
        &self.values
    }

    /// What it says for a key, like `id-scope`.
    #[must_use]
    pub fn get(&self, key: &str) -> Option<&FileValue> {
        self.values.iter().find(|value| value.key == key)
    }

    /// Every key that such a file can have.
    pub fn keys() -> impl Iterator<Item = &'static str> {
        KEYS.iter().map(|key| key.name)
    }
}

impl FileValue {
    /// The key, like `id-scope`.
    #[must_use]
    pub fn key(&self) -> &'static str {
        self.key
    }

    /// The line that the key is in, counted from 1.
    #[must_use]
    pub fn line(&self) -> usize {
        self.line
    }

    /// Where it stands, for messages: `dps.toml:7: id-scope`.
    #[must_use]
    pub fn place(&self) -> &str {
        &self.place
    }

    /// The value as the flag of this name takes it; `true` or `false` for a switch. A file is named so that it is found
    /// from the working directory. The first one, where there are several.
    #[must_use]
    pub fn text(&self) -> &str {
        self.texts.first().map_or("", String::as_str)
    }

    /// All values, for a key that takes several: the files of several credentials.
    #[must_use]
    pub fn texts(&self) -> &[String] {
        &self.texts
    }

    /// Whether it switches something on.
    #[must_use]
    pub fn is_on(&self) -> bool {
        self.text() == "true"
    }

    fn wrong(&self, value: &str, reason: &str) -> Error {
        ConfigurationError::new(self.place.clone(), value, reason).into()
    }

    /// The error, of this place in the file. A value that was read is no secret, and what is in a file may be one.
    fn named(&self, error: Error) -> Error {
        match error {
            Error::Configuration(error) => self.wrong(self.text(), &error.reason),
            other => other,
        }
    }
}

fn wrong_file(path: &Path, reason: &str) -> Error {
    ConfigurationError::new("configuration file", path.display().to_string(), reason).into()
}

#[cfg(test)]
mod tests;
