//! The state of an emulator in a file: enrollments, what devices were assigned, and keys outlive the process.
//!
//! The file is a database of SQLite with one row for each record. A change is in it, in one transaction, before the answer that
//! tells of it goes out: a process that is killed leaves the old or the new. When the machine itself loses its power, the
//! last changes may be missing, and what is there is whole; see <https://sqlite.org/wal.html>.

use std::{
    collections::BTreeMap,
    path::{Path, absolute},
    time::Duration,
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{
    Connection, ErrorCode, OpenFlags, OptionalExtension as _, Transaction, config::DbConfig,
};
use zeroize::Zeroizing;

use crate::{
    config_error::ConfigError,
    core::{Record, RecordKind, Service},
    enrollment::Enrollment,
};

/// What tells our files from those of other programs: `dps` and a number.
const APPLICATION: i32 = 0x6470_7301;
/// Goes up when an older emulator could not read what a newer one has written.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS record (kind TEXT, name TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS configured (kind TEXT, name TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// An open file, which no other emulator has open at the same time.
#[derive(Debug)]
pub(crate) struct StateFile {
    connection: Connection,
    is_read_only: bool,
    /// How often an emulator was started with it before.
    starts: u64,
    /// What could not be written when it was to be, each record once.
    unwritten: BTreeMap<(RecordKind, String), Option<String>>,
}

impl StateFile {
    /// Opens a file, or makes it. One that is only read has to be there; what happens is then kept in memory.
    pub(crate) fn open(path: &Path, is_read_only: bool) -> Result<Self, ConfigError> {
        let wrong = |reason: &str| {
            ConfigError::new("state", reason).value(path.display().to_string().chars())
        };
        // To SQLite an empty name and a few others are databases that no file keeps; none of them is absolute.
        let path = &absolute(path).map_err(|_| wrong("it is no path; name a file"))?;
        if path.exists() && !path.is_file() {
            return Err(wrong("it is no regular file; name another"));
        }
        if is_read_only && !path.is_file() {
            return Err(wrong("there is no such file to read; start once without read-only"));
        }
        let opened = if is_read_only { read_only(path) } else { read_write(path) };
        let said = |error: &rusqlite::Error| match error.sqlite_error_code() {
            Some(ErrorCode::DatabaseBusy) => {
                wrong("another emulator has it open; stop that one, or name another file")
            }
            Some(ErrorCode::NotADatabase) => {
                wrong("it is no file of an emulator's state; name another file")
            }
            _ => wrong(&format!("it can't be used: {error}")),
        };
        let connection = opened.map_err(|error| said(&error))?;
        let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
        let read = || -> rusqlite::Result<(i32, i32, i32)> {
            Ok((number("application_id")?, number("user_version")?, number("schema_version")?))
        };
        match read().map_err(|error| said(&error))? {
            (APPLICATION, VERSION, _) => {}
            (APPLICATION, version, _) => {
                return Err(wrong(&format!(
                    "it is of version {version}, and this emulator reads version {VERSION}; use the emulator that wrote it, or name another file"
                )));
            }
            // New and empty.
            (0, 0, 0) if !is_read_only => {}
            _ => return Err(wrong("it is a database of another program; name another file")),
        }
        let mut file = Self { connection, is_read_only, starts: 0, unwritten: BTreeMap::new() };
        file.begin().map_err(|error| said(&error))?;
        Ok(file)
    }

    /// Makes the tables and counts the start.
    fn begin(&mut self) -> rusqlite::Result<()> {
        if !self.is_read_only {
            let transaction = self.connection.transaction()?;
            transaction.execute_batch(TABLES)?;
            transaction.pragma_update(None, "application_id", APPLICATION)?;
            transaction.pragma_update(None, "user_version", VERSION)?;
            transaction.commit()?;
        }
        let starts = self.setting("starts")?.and_then(|text| text.parse().ok());
        self.starts = starts.unwrap_or(0);
        self.set("starts", &(self.starts + 1).to_string())
    }

    /// How often an emulator was started with it before.
    pub(crate) fn starts(&self) -> u64 {
        self.starts
    }

    /// The 32 bytes that all keys follow from: those that are kept, or else these, which are kept from now on.
    pub(crate) fn seed(&self, fresh: &[u8; 32]) -> Result<Zeroizing<[u8; 32]>, ConfigError> {
        let kept = self.kept("seed", || Zeroizing::new(STANDARD.encode(fresh)))?;
        let bytes = STANDARD.decode(&*kept).map(Zeroizing::new).ok();
        let bytes = bytes.and_then(|bytes| <[u8; 32]>::try_from(bytes.as_slice()).ok());
        bytes.map(Zeroizing::new).ok_or_else(|| damaged("seed", "it is not 32 bytes"))
    }

    /// A text that is kept, or else this one, which is kept from now on.
    pub(crate) fn kept(
        &self,
        name: &str,
        fresh: impl FnOnce() -> Zeroizing<String>,
    ) -> Result<Zeroizing<String>, ConfigError> {
        let failed = |error| damaged(name, &format!("{error}"));
        match self.setting(name).map_err(failed)? {
            Some(kept) => Ok(kept.into()),
            None => {
                let fresh = fresh();
                self.set(name, &fresh).map_err(failed)?;
                Ok(fresh)
            }
        }
    }

    /// Puts all back as it was kept. Gives those of the configuration's enrollments that the last start did not have, or had
    /// otherwise.
    pub(crate) fn restore(
        &mut self,
        service: &mut Service,
        configured: Vec<Enrollment>,
    ) -> Result<Vec<Enrollment>, ConfigError> {
        let new = self.put_back(service).and_then(|()| self.changed(configured));
        new.map_err(|error| damaged("file", &error.to_string()))
    }

    fn put_back(&self, service: &mut Service) -> rusqlite::Result<()> {
        let mut rows = self.connection.prepare("SELECT kind, name, json FROM record")?;
        let mut rows = rows.query([])?;
        while let Some(row) = rows.next()? {
            let (kind, name, json): (String, String, String) =
                (row.get(0)?, row.get(1)?, row.get(2)?);
            let restored = match RecordKind::named(&kind) {
                Some(known) => service.restore(known, name.clone(), &json),
                None => Err("no such kind is known".to_owned()),
            };
            if let Err(reason) = restored {
                let what = format!("the record of {kind} {name:?} can't be read: {reason}");
                return Err(rusqlite::Error::InvalidParameterName(what));
            }
        }
        // All of it is in the file already.
        service.drop_changes();
        Ok(())
    }

    fn changed(&mut self, configured: Vec<Enrollment>) -> rusqlite::Result<Vec<Enrollment>> {
        let mut new = Vec::new();
        let transaction = self.connection.transaction()?;
        for enrollment in configured {
            let (kind, name) = RecordKind::of(&enrollment);
            let (kind, json) = (kind.name(), enrollment.to_json().to_string());
            let last = "SELECT json FROM configured WHERE kind = ?1 AND name = ?2";
            let last = transaction.query_row(last, [kind, &name], |row| row.get(0)).optional()?;
            if last.as_ref() != Some(&json) {
                if !self.is_read_only {
                    let replace = "INSERT OR REPLACE INTO configured VALUES (?1, ?2, ?3)";
                    transaction.execute(replace, [kind, &name, &json])?;
                }
                new.push(enrollment);
            }
        }
        transaction.commit()?;
        Ok(new)
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
    }

    fn setting(&self, name: &str) -> rusqlite::Result<Option<String>> {
        let select = "SELECT value FROM setting WHERE name = ?1";
        self.connection.query_row(select, [name], |row| row.get(0)).optional()
    }

    fn set(&self, name: &str, value: &str) -> rusqlite::Result<()> {
        if !self.is_read_only {
            let replace = "INSERT OR REPLACE INTO setting VALUES (?1, ?2)";
            self.connection.execute(replace, [name, value])?;
        }
        Ok(())
    }
}

fn put(
    transaction: &Transaction<'_>,
    ((kind, name), json): (&(RecordKind, String), &Option<String>),
) -> rusqlite::Result<()> {
    let replace = "INSERT OR REPLACE INTO record VALUES (?1, ?2, ?3)";
    let delete = "DELETE FROM record WHERE kind = ?1 AND name = ?2";
    match json {
        Some(json) => transaction.prepare_cached(replace)?.execute([kind.name(), name, json]),
        None => transaction.prepare_cached(delete)?.execute([kind.name(), name]),
    }
    .map(|_| ())
}

fn read_write(path: &Path) -> rusqlite::Result<Connection> {
    make_for_owner(path);
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_CREATE;
    let connection = locked(path, flags)?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    Ok(connection)
}

/// Opens a file so that neither it nor any beside it is changed or made.
fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    /// What has a meaning in the names of SQLite's files.
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    if Path::new(&log).exists() {
        // An emulator was killed. What it has written last is in the log, and stays there.
        let connection = locked(path, OpenFlags::SQLITE_OPEN_READ_WRITE)?;
        connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
        return Ok(connection);
    }
    let path = path.display().to_string();
    let name = format!("file:{}?immutable=1", utf8_percent_encode(&path, ENCODED));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// Opens a file that nobody else can then open. A lock that another has fails at once.
fn locked(path: &Path, flags: OpenFlags) -> rusqlite::Result<Connection> {
    let connection = Connection::open_with_flags(path, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    connection.busy_timeout(Duration::ZERO)?;
    Ok(connection)
}

/// Makes the file, which will have keys in it, so that nobody but its owner can read it. If that fails, so does opening it.
fn make_for_owner(path: &Path) {
    let mut options = std::fs::OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).ok();
}

fn damaged(name: &str, reason: &str) -> ConfigError {
    ConfigError::new("state", &format!("its {name} can't be read: {reason}"))
}
