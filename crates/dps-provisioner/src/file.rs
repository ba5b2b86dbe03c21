//! The file that keeps an assignment over restarts and power cuts.

use std::{
    fs::{self, File},
    io::{self, Read as _},
    path::{Path, PathBuf},
};

use dps_client::{
    ConfigurationError, Error,
    disk::{self, Lock, advice, beside, may_pass},
};
use serde::{Deserialize, Serialize, de::IgnoredAny};
use serde_json::{Value, value::RawValue};
use sha2::{Digest as _, Sha256};

use crate::assignment::{Assignment, Record};

/// Goes up when an older version could not read what a newer one has written.
const VERSION: u64 = 1;
/// So many bytes must have room before a registration begins (64 KiB): most assignments are smaller.
const ROOM: usize = 64 * 1024;
/// The largest file that is read, in bytes (8 MiB): an answer of the service is 1 MiB at most.
const LARGEST: u64 = 8 * 1024 * 1024;

/// How files begin that are none of ours for sure: the emulator's state, keys and certificates.
const OF_OTHERS: [&[u8]; 2] = [b"SQLite format 3", b"-----BEGIN "];

/// Where an assignment is kept: one JSON file with a checksum, for its owner alone.
///
/// It is replaced at once and is on the disk then, so that a process that is killed at any moment, or a power cut, leaves
/// the old content or the new one. Programs of any language may read it:
///
/// ```json
/// {"version": 1, "sha256": "...", "content": {"idScope": "0ne00AABBCC", "registrationId": "pump-17",
///  "endpoint": "global.azure-devices-provisioning.net", "result": {"assignedHub": "...", "deviceId": "...", ...}, ...}}
/// ```
///
/// The checksum is that of the content, from its `{` to its `}`. Beside the file, `.FILE.dps-` with a number is where
/// it is written first, `FILE.lock` keeps two processes from changing it at once, and `FILE.damaged` is what the file was
/// when it could not be read any more.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AssignmentFile(PathBuf);

/// What is in a file.
#[derive(Debug)]
pub(crate) enum Found {
    /// There is none yet.
    Nothing,
    /// What was written last.
    Whole(Box<Record>),
    /// What is no longer what was written, and what is wrong with it.
    Damaged(String),
}

#[derive(Serialize, Deserialize)]
struct Envelope {
    version: u64,
    sha256: String,
    content: Box<RawValue>,
}

/// What every version of the file has; a damaged one may have lost some of it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Outline {
    version: Option<Value>,
    sha256: Option<IgnoredAny>,
    content: Option<IgnoredAny>,
}

impl AssignmentFile {
    /// Names the file. It need not be there yet; the folder that it is in must be.
    ///
    /// # Errors
    /// [`Error::Configuration`] that says what to do when the path is empty or `-`, or names a folder, a link, or something
    /// else that is no regular file.
    pub fn new(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let file = Self(path.into());
        let text = file.0.to_string_lossy();
        let kind = fs::symlink_metadata(&file.0).map(|metadata| metadata.file_type());
        let reason = match kind {
            _ if text.is_empty() => "the path is empty; name a file",
            _ if text == "-" => "standard input and output keep nothing; name a file",
            _ if text.ends_with(std::path::is_separator) => "it is a folder; name a file in it",
            Ok(kind) if kind.is_dir() => "it is a folder; name a file in it",
            Ok(kind) if kind.is_symlink() => {
                "it is a link, which would be replaced; name the file that it leads to"
            }
            Ok(kind) if !kind.is_file() => "it is no regular file; name another",
            _ => return Ok(file),
        };
        Err(file.wrong(reason))
    }

    /// The file's path, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// What is stored, whoever it was assigned to; `None` when there is no file, or when it is damaged.
    ///
    /// # Errors
    /// As [`Provisioner::open`](crate::Provisioner::open).
    pub fn load(&self) -> Result<Option<Assignment>, Error> {
        Ok(match self.read()? {
            Found::Whole(record) => Some(record.assignment),
            Found::Nothing | Found::Damaged(_) => None,
        })
    }

    /// Reads what is there.
    ///
    /// # Errors
    /// [`Error::Configuration`] when it can't be read, was written by a newer version, or belongs to another program: such
    /// a file is left as it is.
    pub(crate) fn read(&self) -> Result<Found, Error> {
        let mut bytes = Vec::new();
        let read = File::open(&self.0).and_then(|file| file.take(LARGEST).read_to_end(&mut bytes));
        match read {
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(Found::Nothing),
            Err(error) => Err(self.failed(&self.0, &error)),
            Ok(_) => self.parse(&bytes),
        }
    }

    fn parse(&self, bytes: &[u8]) -> Result<Found, Error> {
        let foreign = || self.wrong("it is a file of another program; name another file");
        match serde_json::from_slice(bytes) {
            Ok(Outline { version: None, sha256: None, content: None }) => Err(foreign()),
            // A list in their place has no names at all.
            Ok(_) if bytes.trim_ascii_start().first() != Some(&b'{') => Err(foreign()),
            Ok(Outline { version: Some(version), .. }) if version.as_u64() > Some(VERSION) => {
                Err(self.wrong(&format!(
                    "it is of version {version}, and this program reads version {VERSION}; use the program that wrote it, or name another file"
                )))
            }
            Ok(_) => Ok(match Record::read(bytes) {
                Ok(record) => Found::Whole(Box::new(record)),
                Err(reason) => Found::Damaged(reason),
            }),
            Err(error) if error.is_data() => Err(foreign()),
            _ if OF_OTHERS.iter().any(|start| bytes.starts_with(start)) => Err(foreign()),
            _ if bytes.is_empty() => Ok(Found::Damaged("it is empty".to_owned())),
            Err(error) => Ok(Found::Damaged(format!("it is no JSON: {error}"))),
        }
    }

    /// Takes the file's lock, and sees to it that writing it is not likely to fail. Call this before a registration.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the path and what to do: another process has the lock, the folder is missing or
    /// can't be written, or the disk has no room.
    pub(crate) fn prepare(&self) -> Result<PreparedFile, Error> {
        let prepared = self.lock()?;
        let tried = disk::try_room(&self.0, ROOM);
        tried.map_err(|(path, error)| self.failed(&path, &error))?;
        Ok(prepared)
    }

    /// Takes the lock alone.
    pub(crate) fn lock(&self) -> Result<PreparedFile, Error> {
        let path = beside(&self.0, ".lock");
        match Lock::take(&path) {
            Ok(Some(lock)) => Ok(PreparedFile { file: self.clone(), _lock: lock }),
            Ok(None) => {
                let reason = "another process has its lock, and registers the device or writes the file; wait until it has ended";
                Err(self.configuration(reason).for_now().into())
            }
            Err(error) => Err(self.failed(&path, &error)),
        }
    }

    fn failed(&self, at: &Path, error: &io::Error) -> Error {
        let at = if at == self.0 { String::new() } else { format!("{}: ", at.display()) };
        let failed = self.configuration(&format!("{at}{error}{}", advice(error)));
        if may_pass(error) { failed.for_now().into() } else { failed.into() }
    }

    pub(crate) fn wrong(&self, reason: &str) -> Error {
        self.configuration(reason).into()
    }

    fn configuration(&self, reason: &str) -> ConfigurationError {
        ConfigurationError::new("assignment file", self.0.display().to_string(), reason)
    }
}

/// A file whose lock this process has until this is dropped.
pub(crate) struct PreparedFile {
    file: AssignmentFile,
    _lock: Lock,
}

impl PreparedFile {
    /// What is there now: another process may have written it since.
    pub(crate) fn read(&self) -> Result<Found, Error> {
        self.file.read()
    }

    /// Replaces what is there. What was damaged is kept aside.
    pub(crate) fn store(&self, record: &Record) -> Result<(), Error> {
        let path = &self.file.0;
        if let Found::Damaged(reason) = self.read()? {
            let damaged = beside(path, ".damaged");
            fs::rename(path, &damaged).map_err(|error| self.file.failed(&damaged, &error))?;
            let kept_as = damaged.display();
            tracing::warn!(file = %path.display(), %kept_as, reason, "the stored assignment was damaged");
        }
        let text = record.write().map_err(|reason| self.file.wrong(&reason))?;
        disk::replace(path, text.as_bytes())
            .map_err(|(path, error)| self.file.failed(&path, &error))
    }
}

impl Record {
    fn read(bytes: &[u8]) -> Result<Self, String> {
        let said = |error: serde_json::Error| format!("it is cut short or changed: {error}");
        let envelope: Envelope = serde_json::from_slice(bytes).map_err(said)?;
        if envelope.sha256 != checksum(envelope.content.get()) {
            return Err("its checksum is another one".to_owned());
        }
        serde_json::from_str(envelope.content.get()).map_err(said)
    }

    fn write(&self) -> Result<String, String> {
        let write = || {
            let content = serde_json::value::to_raw_value(self)?;
            let sha256 = checksum(content.get());
            serde_json::to_string(&Envelope { version: VERSION, sha256, content })
        };
        let text: Result<String, serde_json::Error> = write();
        text.map(|text| text + "\n").map_err(|error| format!("it can't be written: {error}"))
    }
}

/// In hexadecimal digits.
fn checksum(text: &str) -> String {
    Sha256::digest(text).iter().map(|byte| format!("{byte:02x}")).collect()
}
