//! The file of the state: how it is opened, and what is said of one that can't be.

use std::{
    fs::OpenOptions,
    io,
    path::{Path, PathBuf, absolute},
    time::Duration,
};

use percent_encoding::{AsciiSet, CONTROLS, utf8_percent_encode};
use rusqlite::{Connection, ErrorCode, OpenFlags, config::DbConfig};

use super::StatePlace;
use crate::config_error::ConfigError;

/// What tells our files from those of other programs: `dps` and a number.
const APPLICATION: i32 = 0x6470_7301;
/// Goes up when an older emulator could not read what a newer one has written.
const VERSION: i32 = 1;

const TABLES: &str = "
    CREATE TABLE IF NOT EXISTS record (kind TEXT, name TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS configured (kind TEXT, name TEXT, json TEXT NOT NULL, PRIMARY KEY (kind, name)) WITHOUT ROWID;
    CREATE TABLE IF NOT EXISTS setting (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
";

/// What to do about a damaged file.
pub(super) const ANOTHER: &str = "put a copy from before in its place, or name another file";

/// Opens the file, or makes it, and begins the transaction of the start. Gives its path too, from the root.
pub(super) fn open(place: &StatePlace) -> Result<(Connection, PathBuf), ConfigError> {
    let wrong = |reason: &str| wrong(&place.path, reason);
    // To SQLite an empty name and a few others are databases that no file keeps; none of them is absolute.
    let path = absolute(&place.path).map_err(|_| wrong("it is no path; name a file"))?;
    if path.exists() && !path.is_file() {
        return Err(wrong("it is no regular file; name another"));
    }
    let is_read_only = place.is_read_only;
    if is_read_only && !path.is_file() {
        return Err(wrong("there is no such file to read; start once without read-only"));
    }
    if !is_read_only {
        make_for_owner(&path).map_err(|error| wrong(&format!("it can't be made: {error}")))?;
    }
    let unusable = |error| unusable(&place.path, is_read_only, &error);
    let has_log = log_of(&path).exists();
    let is_ours = |connection: rusqlite::Result<Connection>, may_be_new| {
        let fault = connection.and_then(|it| fault(&it, may_be_new)).map_err(unusable)?;
        fault.map_or(Ok(()), |reason| Err(wrong(&reason)))
    };
    // SQLite changes a file that it opens in another manner, be it whose it may.
    is_ours(immutable(&path), !is_read_only || has_log)?;
    if has_log {
        // What a killed program wrote last is in its log alone, be it all that there is.
        is_ours(read_only(&path), !is_read_only)?;
    }
    if is_read_only {
        let connection = read_only(&path).map_err(unusable)?;
        return Ok((connection, path));
    }
    let connection = locked(&path).map_err(unusable)?;
    if connection.is_readonly("main").map_err(unusable)? {
        return Err(wrong("it can't be written to; give read-only to leave it as it is"));
    }
    for_owner_only(&path)
        .map_err(|error| wrong(&format!("others can't be kept from its keys: {error}")))?;
    begin(&connection).map_err(unusable)?;
    Ok((connection, path))
}

/// Ends the transaction of the start. From then on each change is one of its own.
pub(super) fn end_of_start(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("COMMIT")?;
    connection.pragma_update(None, "journal_mode", "WAL")?;
    connection.pragma_update(None, "synchronous", "NORMAL")?;
    // Whoever asks makes the log, by which others see that the file is open.
    connection.pragma_query_value(None, "schema_version", |_| Ok(()))
}

/// What is wrong with the file at this path.
pub(super) fn wrong(path: &Path, reason: &str) -> ConfigError {
    ConfigError::new("state", reason).value(path.display().to_string().chars())
}

/// What SQLite says of the file at this path, and what to do about it.
pub(super) fn unusable(path: &Path, is_read_only: bool, error: &rusqlite::Error) -> ConfigError {
    let reason = match error.sqlite_error_code() {
        Some(ErrorCode::DatabaseBusy) => {
            "another emulator has it open; stop that one, or name another file".to_owned()
        }
        Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase) | None => {
            format!("it is damaged: {error}; {ANOTHER}")
        }
        Some(_) if is_read_only && log_of(path).exists() => format!(
            "an emulator that was killed has left its last changes beside it, in a file -wal that is only taken in where both can be written to ({error}); start once without read-only there"
        ),
        Some(_) if is_read_only => format!("it can't be read: {error}"),
        Some(_) => format!(
            "it can't be used: {error}; name a file in a folder that can be written to and has room"
        ),
    };
    wrong(path, &reason)
}

/// Makes the file so that nobody but its owner can read it, unless there is one.
fn make_for_owner(path: &Path) -> io::Result<()> {
    if path.exists() {
        return Ok(());
    }
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(false);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options.open(path).map(|_| ())
}

/// What tells a file from one of ours; `None` for one of ours, and for one without anything in it where it may be new.
fn fault(connection: &Connection, may_be_new: bool) -> rusqlite::Result<Option<String>> {
    let number = |pragma: &str| connection.pragma_query_value(None, pragma, |row| row.get(0));
    let header = || -> rusqlite::Result<(i32, i32, i32)> {
        Ok((number("application_id")?, number("user_version")?, number("schema_version")?))
    };
    Ok(match header() {
        Ok((APPLICATION, VERSION, _)) => None,
        Ok((APPLICATION, version, _)) => Some(format!(
            "it is of version {version}, and this emulator reads version {VERSION}; use the emulator that wrote it, or name another file"
        )),
        Ok((0, 0, 0)) if may_be_new => None,
        Ok(_) => Some("it is a database of another program; name another file".to_owned()),
        Err(error) if error.sqlite_error_code() == Some(ErrorCode::NotADatabase) => {
            Some("it is no file of an emulator's state; name another file".to_owned())
        }
        Err(error) => return Err(error),
    })
}

/// Keeps others from a file that a program has made for all of them, and from what a killed emulator has left beside it.
#[cfg(unix)]
fn for_owner_only(path: &Path) -> io::Result<()> {
    use std::{fs, os::unix::fs::PermissionsExt as _};
    for path in [path, &log_of(path)] {
        if path.exists() && fs::metadata(path)?.permissions().mode() & 0o077 != 0 {
            fs::set_permissions(path, fs::Permissions::from_mode(0o600))?;
        }
    }
    Ok(())
}

#[cfg(not(unix))]
fn for_owner_only(_: &Path) -> io::Result<()> {
    Ok(())
}

/// Begins the transaction of the start.
fn begin(connection: &Connection) -> rusqlite::Result<()> {
    connection.execute_batch("BEGIN EXCLUSIVE")?;
    connection.execute_batch(TABLES)?;
    // A new file has no log yet: they are in the file itself, where they are looked for.
    connection.pragma_update(None, "application_id", APPLICATION)?;
    connection.pragma_update(None, "user_version", VERSION)
}

/// Opens a file so that neither it nor any beside it is changed or made.
fn read_only(path: &Path) -> rusqlite::Result<Connection> {
    if !log_of(path).exists() {
        return immutable(path);
    }
    // An emulator was killed. What it has written last is in the log, and stays there.
    let connection = locked(path)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    Ok(connection)
}

/// Opens a file as one that nobody changes, without what is in a log beside it.
fn immutable(path: &Path) -> rusqlite::Result<Connection> {
    /// What has a meaning in the names of SQLite's files.
    const ENCODED: &AsciiSet = &CONTROLS.add(b'%').add(b'?').add(b'#');
    let path = path.display().to_string();
    let name = format!("file:{}?immutable=1", utf8_percent_encode(&path, ENCODED));
    let flags = OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_URI;
    Connection::open_with_flags(name, flags | OpenFlags::SQLITE_OPEN_NO_MUTEX)
}

/// Opens a file that nobody else can then open.
fn locked(path: &Path) -> rusqlite::Result<Connection> {
    let flags = OpenFlags::SQLITE_OPEN_READ_WRITE | OpenFlags::SQLITE_OPEN_NO_MUTEX;
    let connection = Connection::open_with_flags(path, flags)?;
    connection.pragma_update(None, "locking_mode", "EXCLUSIVE")?;
    // Of two that start at once one has it, and not none.
    connection.busy_timeout(Duration::from_millis(200))?;
    Ok(connection)
}

/// What SQLite writes last before it is in the file.
fn log_of(path: &Path) -> PathBuf {
    let mut log = path.as_os_str().to_owned();
    log.push("-wal");
    log.into()
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    /// The files of a database as a program leaves them that is killed before anything but the log was written.
    fn killed(folder: &Path, name: &str, wrote: &str) -> PathBuf {
        let path = folder.join(name);
        let connection = Connection::open(folder.join("open")).unwrap();
        connection.pragma_update(None, "journal_mode", "WAL").unwrap();
        connection.execute_batch(wrote).unwrap();
        fs::copy(folder.join("open"), &path).unwrap();
        fs::copy(folder.join("open-wal"), log_of(&path)).unwrap();
        drop(connection);
        fs::remove_file(folder.join("open")).unwrap();
        path
    }

    #[test]
    fn a_database_whose_log_alone_says_whose_it_is_is_known_by_it() {
        let folder = std::env::temp_dir().join(format!("dps-state-log-{}", std::process::id()));
        fs::create_dir_all(&folder).unwrap();
        let header = |id| format!("{TABLES} PRAGMA application_id = {id};");
        for (name, wrote, expected) in [
            (
                "theirs",
                "CREATE TABLE theirs (x); PRAGMA user_version = 7;".to_owned(),
                "another program",
            ),
            ("newer", format!("{} PRAGMA user_version = 2;", header(APPLICATION)), "of version 2"),
            ("ours", format!("{} PRAGMA user_version = 1;", header(APPLICATION)), ""),
        ] {
            for is_read_only in [true, false] {
                let path = killed(&folder, name, &wrote);
                let before = [&path, &log_of(&path)].map(|file| fs::read(file).unwrap());
                let opened = open(&StatePlace { path: path.clone(), is_read_only });
                let said = opened.map(drop).map_err(|error| error.to_string());
                match said {
                    Ok(()) => assert_eq!(expected, "", "{name}"),
                    Err(said) => {
                        assert!(!expected.is_empty() && said.contains(expected), "{name}: {said}");
                        let after = [&path, &log_of(&path)].map(|file| fs::read(file).unwrap());
                        assert!(before == after, "{name} has changed");
                    }
                }
            }
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
