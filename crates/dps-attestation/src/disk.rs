//! Changes of the disk that leave the old or the new when a process is killed: files for their owner alone, names that
//! are there for good.

use std::{
    fs::{self, File, OpenOptions, TryLockError},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// What went wrong at which path.
pub type Failure = (PathBuf, io::Error);

/// Replaces a file, or makes it, so that whoever opens it finds all of the old content or all of the new one. It has the
/// mode 0600 on Unix, and is on the disk when this returns. `FILE.new` beside it is where the new content is written
/// first, and what a killed process left there goes: two processes take turns by a [`Lock`] of theirs.
///
/// # Errors
/// The path that can't be written. The old content is in place then; only when the system can't say whether the new one
/// is on the disk already, that is.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let new = beside(path, ".new");
    let put = || {
        discard(&new).map_err(|error| (new.clone(), error))?;
        write(&new, content)?;
        step().and_then(|()| fs::rename(&new, path)).map_err(|error| (path.to_owned(), error))
    };
    if let Err(failure) = put() {
        let _ = fs::remove_file(&new);
        return Err(failure);
    }
    let folder = path.parent().unwrap_or(path);
    sync(folder).map_err(|error| (folder.to_owned(), error))
}

/// Whether [`replace`] has room for so many bytes, and may write there: writes `FILE.new` beside the file and removes it.
///
/// # Errors
/// The path that can't be written.
pub fn try_room(path: &Path, bytes: usize) -> Result<(), Failure> {
    let new = beside(path, ".new");
    let at = |error| (new.clone(), error);
    discard(&new).map_err(at)?;
    let written = write(&new, &vec![0; bytes]);
    written.and(discard(&new).map_err(at))
}

/// The path with this behind its name.
#[must_use]
pub fn beside(path: &Path, ending: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(ending);
    name.into()
}

/// A file that is locked for this process. The system releases it when the process ends in whatever way.
#[derive(Debug)]
pub struct Lock(File);

impl Lock {
    /// Takes it, and makes the file if there is none; `None` when another process has it.
    ///
    /// # Errors
    /// The file can't be opened or made, or its file system has no locks.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        step()?;
        let mut options = for_owner();
        let file = options.create(true).truncate(false).open(path)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(Self(file))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(error),
        }
    }
}

impl Drop for Lock {
    fn drop(&mut self) {
        // Closing the file is not enough: a process that was forked meanwhile has it open until it becomes another program.
        let _ = self.0.unlock();
    }
}

/// What to do about a change that failed, to stand behind what the system says of it.
#[must_use]
pub fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "; make the folder above it first",
        io::ErrorKind::PermissionDenied => "; run as the user that owns it, or name another folder",
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            "; make room on the disk and try again"
        }
        io::ErrorKind::ReadOnlyFilesystem => "; name a folder on a disk that can be written",
        _ => "",
    }
}

/// A new file, on the disk when this returns.
pub(crate) fn write(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let write = || {
        step()?;
        let mut file = for_owner().create_new(true).open(path)?;
        step()?;
        file.write_all(content)?;
        step()?;
        file.sync_all()
    };
    write().map_err(|error| (path.to_owned(), error))
}

/// Puts the names in a folder on the disk.
pub(crate) fn sync(folder: &Path) -> io::Result<()> {
    step()?;
    // Elsewhere a folder can't be opened, and its names are on the disk without that.
    if cfg!(not(unix)) {
        return Ok(());
    }
    let folder = if folder.as_os_str().is_empty() { Path::new(".") } else { folder };
    match File::open(folder)?.sync_all() {
        // Some file systems know no such request, and keep names by other means.
        Err(error) if error.kind() == io::ErrorKind::InvalidInput => Ok(()),
        synced => synced,
    }
}

fn discard(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        removed => removed,
    }
}

fn for_owner() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.write(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    options
}

/// Comes before each change of the disk: tests stop there.
#[cfg(not(test))]
pub(crate) fn step() -> io::Result<()> {
    Ok(())
}

#[cfg(test)]
pub(crate) use stop::step;

/// Ends a test's process, or fails, before a change of the disk.
#[cfg(test)]
pub(crate) mod stop {
    use std::{cell::Cell, io};

    /// How a change of the disk ends before it is made.
    #[derive(Clone, Copy)]
    pub(crate) enum Stop {
        Kill,
        Fail(i32),
    }

    thread_local! {
        /// After how many changes, and how.
        pub(crate) static STOP: Cell<Option<(u32, Stop)>> = const { Cell::new(None) };
    }

    pub(crate) fn step() -> io::Result<()> {
        match STOP.take() {
            None => Ok(()),
            Some((0, Stop::Kill)) => std::process::abort(),
            Some((0, Stop::Fail(number))) => Err(io::Error::from_raw_os_error(number)),
            Some((left, stop)) => {
                STOP.set(Some((left - 1, stop)));
                Ok(())
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::{
        stop::{STOP, Stop},
        *,
    };

    fn folder(name: &str) -> PathBuf {
        let path = std::env::temp_dir().join(format!("dps-disk-{name}-{}", std::process::id()));
        let _ = fs::remove_dir_all(&path);
        fs::create_dir(&path).unwrap();
        path
    }

    /// The process that the next test starts.
    #[test]
    fn a_process_replaces_a_file() {
        let Some(path) = std::env::var_os("DPS_TEST_REPLACED") else {
            return assert!(beside(Path::new("a/state"), ".new").ends_with("a/state.new"));
        };
        let steps = std::env::var("DPS_TEST_STEP").unwrap().parse().unwrap();
        STOP.set(Some((steps, Stop::Kill)));
        replace(Path::new(&path), b"new content").unwrap();
    }

    #[test]
    #[cfg(unix)]
    fn killed_at_any_step_a_file_is_the_old_or_the_new_and_for_its_owner() {
        use std::os::unix::fs::MetadataExt as _;
        for old in [None, Some("old")] {
            let folder = folder(&format!("killed-{}", old.is_some()));
            let path = folder.join("state");
            let mut outcomes = Vec::new();
            for step in 0.. {
                let _ = fs::remove_file(&path);
                old.iter().for_each(|old| fs::write(&path, old).unwrap());
                let mut command = Command::new(std::env::current_exe().unwrap());
                command.args(["--exact", "disk::tests::a_process_replaces_a_file"]);
                command.env("DPS_TEST_REPLACED", &path).env("DPS_TEST_STEP", step.to_string());
                let ended = command.output().unwrap().status.success();
                let found = fs::read_to_string(&path).ok();
                let is_new = found.as_deref() == Some("new content");
                assert!(is_new || found.as_deref() == old, "step {step}: {found:?}");
                outcomes.push(is_new);
                if ended {
                    break;
                }
            }
            assert!(outcomes.len() > 4 && outcomes.is_sorted(), "{outcomes:?}");
            assert!(outcomes.contains(&false) && outcomes.ends_with(&[true]), "{outcomes:?}");
            assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
            try_room(&path, 64).unwrap();
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "nothing is left over");
            fs::remove_dir_all(folder).unwrap();
        }
    }

    #[test]
    #[cfg(unix)]
    fn an_error_at_any_step_keeps_the_old_content_or_the_new_and_leaves_nothing_over() {
        let folder = folder("failed");
        let path = folder.join("state");
        for step in 0..5 {
            fs::write(&path, "old").unwrap();
            STOP.set(Some((step, Stop::Fail(28)))); // No space is left.
            let (at, error) = replace(&path, b"new content").unwrap_err();
            assert!(STOP.take().is_none() && at.starts_with(&folder), "{at:?}");
            assert!(advice(&error).contains("make room"), "{error}");
            let expected = if step < 4 { "old" } else { "new content" };
            assert_eq!(fs::read_to_string(&path).unwrap(), expected, "step {step}");
            assert_eq!(fs::read_dir(&folder).unwrap().count(), 1, "step {step}");
        }
        fs::remove_dir_all(folder).unwrap();
    }
}
