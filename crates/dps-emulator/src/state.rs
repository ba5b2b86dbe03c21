//! The state of an emulator in a file: enrollments, what devices were assigned, and keys outlive the process.
//!
//! The file is a database of SQLite with one row for each record. A change is in it, in one transaction, before the answer that
//! tells of it goes out: a process that is killed leaves the old or the new. When the machine itself loses its power, the
//! last changes may be missing, and what is there is whole; see <https://sqlite.org/wal.html>.

use std::{collections::BTreeMap, path::PathBuf};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use rusqlite::{Connection, OptionalExtension as _, Row};
use zeroize::Zeroizing;

use crate::{
    config_error::ConfigError,
    core::{Record, RecordKind, Service},
    enrollment::Enrollment,
};

mod file;

/// Where the state is kept.
#[derive(Debug)]
pub(crate) struct StatePlace {
    pub(crate) path: PathBuf,
    /// Whether the file has to be there and stays as it is: what happens is then kept in memory.
    pub(crate) is_read_only: bool,
}

/// An open file, which no other emulator has open at the same time. Nothing is in it of a start that has not come to
/// [`StateFile::begin`].
#[derive(Debug)]
pub(crate) struct StateFile {
    connection: Connection,
    path: PathBuf,
    is_read_only: bool,
    /// How often an emulator was started with it before.
    starts: u64,
    /// What could not be written when it was to be, each record once.
    unwritten: BTreeMap<(RecordKind, String), Option<String>>,
    /// Whether the file was where it is to be when it was written to last.
    is_there: bool,
}

impl StateFile {
    /// Opens a file, or makes it, and begins the transaction of the start.
    pub(crate) fn open(place: &StatePlace) -> Result<Self, ConfigError> {
        let (connection, path) = file::open(place)?;
        let mut file = Self {
            connection,
            path,
            is_read_only: place.is_read_only,
            starts: 0,
            unwritten: BTreeMap::new(),
            is_there: true,
        };
        let starts = file.setting("starts")?.and_then(|text| text.parse().ok());
        file.starts = starts.unwrap_or(0);
        file.keep("starts", &(file.starts + 1).to_string())?;
        Ok(file)
    }

    /// How often an emulator was started with it before.
    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }

    /// The 32 bytes that all keys follow from which are not kept themselves.
    pub(crate) fn seed(&self) -> Result<Option<Zeroizing<[u8; 32]>>, ConfigError> {
        let Some(kept) = self.setting("seed")? else { return Ok(None) };
        let bytes = STANDARD.decode(&*kept).map(Zeroizing::new).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        let bytes = bytes.ok_or_else(|| self.damaged("the seed", "it is not 32 bytes"))?;
        Ok(Some(Zeroizing::new(bytes)))
    }

    /// Keeps the bytes for [`StateFile::seed`].
    pub(crate) fn keep_seed(&self, seed: &[u8; 32]) -> Result<(), ConfigError> {
        self.keep("seed", &Zeroizing::new(STANDARD.encode(seed)))
    }

    /// A text that is kept.
    pub(crate) fn setting(&self, name: &str) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let select = "SELECT value FROM setting WHERE name = ?1";
        let text = |row: &Row<'_>| row.get(0).map(Zeroizing::new);
        let found = self.connection.query_row(select, [name], text).optional();
        found.map_err(|error| self.unusable(&error))
    }

    /// Keeps a text from now on.
    pub(crate) fn keep(&self, name: &str, value: &str) -> Result<(), ConfigError> {
        self.replace("INSERT OR REPLACE INTO setting VALUES (?1, ?2)", &[name, value])
    }

    /// The enrollment as the configuration had it that named it last.
    pub(crate) fn configured(
        &self,
        kind: RecordKind,
        name: &str,
    ) -> Result<Option<Enrollment>, ConfigError> {
        let Some(json) = self.configured_json(kind, name)? else { return Ok(None) };
        let read = serde_json::from_str(&json).ok().map(|json| Enrollment::from_json(&json));
        let what = || format!("the configuration's {} {name:?}", kind.name());
        match read {
            Some(Ok(enrollment)) => Ok(Some(enrollment)),
            Some(Err(error)) => Err(self.damaged(&what(), &error.to_string())),
            None => Err(self.damaged(&what(), "it is no JSON")),
        }
    }

    fn configured_json(
        &self,
        kind: RecordKind,
        name: &str,
    ) -> Result<Option<Zeroizing<String>>, ConfigError> {
        let select = "SELECT json FROM configured WHERE kind = ?1 AND name = ?2";
        let text = |row: &Row<'_>| row.get(0).map(Zeroizing::new);
        let found = self.connection.query_row(select, [kind.name(), name], text).optional();
        found.map_err(|error| self.unusable(&error))
    }

    /// Puts all back as it was kept. Gives those of the configuration's enrollments that the last start did not have, or had
    /// otherwise.
    pub(crate) fn restore(
        &self,
        service: &mut Service,
        configured: Vec<Enrollment>,
    ) -> Result<Vec<Enrollment>, ConfigError> {
        let unusable = |error| self.unusable(&error);
        let select = "SELECT kind, name, json FROM record";
        let mut rows = self.connection.prepare(select).map_err(unusable)?;
        let mut rows = rows.query([]).map_err(unusable)?;
        while let Some(row) = rows.next().map_err(unusable)? {
            let record = |row: &Row<'_>| Ok((row.get(0)?, row.get(1)?, row.get(2)?));
            let (kind, name, json): (String, String, String) = record(row).map_err(unusable)?;
            let restored = match RecordKind::named(&kind) {
                Some(known) => service.restore(known, name.clone(), &json),
                None => Err("no such kind is known".to_owned()),
            };
            let what = || format!("the record of {kind} {name:?}");
            restored.map_err(|reason| self.damaged(&what(), &reason))?;
        }
        // All of it is in the file already.
        service.drop_changes();
        let mut new = Vec::new();
        for enrollment in configured {
            let (kind, name) = RecordKind::of(&enrollment);
            let json = Zeroizing::new(enrollment.to_json().to_string());
            if self.configured_json(kind, &name)?.as_ref() != Some(&json) {
                let replace = "INSERT OR REPLACE INTO configured VALUES (?1, ?2, ?3)";
                self.replace(replace, &[kind.name(), &name, &json])?;
                new.push(enrollment);
            }
        }
        Ok(new)
    }

    /// Writes what was changed and ends the transaction of the start: all of it is in the file, or nothing.
    pub(crate) fn begin(&mut self, changes: Vec<Record>) -> Result<(), ConfigError> {
        if self.is_read_only {
            return Ok(());
        }
        let written = changes.iter().try_for_each(|(id, json)| put(&self.connection, (id, json)));
        let begun = written.and_then(|()| file::end_of_start(&self.connection));
        begun.map_err(|error| self.unusable(&error))
    }

    /// Writes what was changed; what can't be written is tried again with the next change.
    pub(crate) fn write(&mut self, changes: Vec<Record>) {
        if self.is_read_only || (changes.is_empty() && self.unwritten.is_empty()) {
            return;
        }
        // It is told once, until all is written again.
        let is_new = self.unwritten.is_empty();
        self.unwritten.extend(changes);
        let written = self.connection.transaction().and_then(|transaction| {
            self.unwritten.iter().try_for_each(|record| put(&transaction, record))?;
            transaction.commit()
        });
        match written {
            Ok(()) => self.unwritten.clear(),
            Err(error) if is_new => {
                tracing::error!(%error, "the state can't be written to its file; each further change tries it again");
            }
            Err(_) => {}
        }
        // What is written to a file that was deleted is gone with this process.
        let was_there = std::mem::replace(&mut self.is_there, self.path.exists());
        if was_there && !self.is_there {
            tracing::error!(file = %self.path.display(), "the file of the state is not there any more: what is in it and what changes is lost when the emulator ends");
        }
    }

    fn replace(&self, statement: &str, row: &[&str]) -> Result<(), ConfigError> {
        if !self.is_read_only {
            let replaced = self.connection.execute(statement, rusqlite::params_from_iter(row));
            replaced.map_err(|error| self.unusable(&error))?;
        }
        Ok(())
    }

    fn unusable(&self, error: &rusqlite::Error) -> ConfigError {
        file::unusable(&self.path, self.is_read_only, error)
    }

    /// Something in it that a program has changed, or that a disk has lost.
    pub(crate) fn damaged(&self, what: &str, reason: &str) -> ConfigError {
        self.unfit(what, reason, file::ANOTHER)
    }

    /// Something in it that can't be read, and what to do about it.
    pub(crate) fn unfit(&self, what: &str, reason: &str, advice: &str) -> ConfigError {
        file::wrong(&self.path, &format!("{what} can't be read: {reason}; {advice}"))
    }
}

fn put(
    connection: &Connection,
    ((kind, name), json): (&(RecordKind, String), &Option<String>),
) -> rusqlite::Result<()> {
    let replace = "INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3)";
    let delete = "DELETE FROM record WHERE kind = ?1 AND name = ?2";
    match json {
        Some(json) => connection.prepare_cached(replace)?.execute([kind.name(), name, json]),
        None => connection.prepare_cached(delete)?.execute([kind.name(), name]),
    }
    .map(|_| ())
}
