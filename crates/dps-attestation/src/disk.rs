//! Changes of the disk that leave the old or the new when a process is killed: files for their owner alone, names that
//! are there for good.

use std::{
    ffi::{OsStr, OsString},
    fs::{self, File, OpenOptions, TryLockError},
    hash::{BuildHasher as _, Hasher as _, RandomState},
    io::{self, Write as _},
    path::{Path, PathBuf},
};

/// What went wrong at which path.
pub type Failure = (PathBuf, io::Error);

/// So often a change is begun anew when another process took what was written for what a killed one had left.
const TRIES: u32 = 5;
/// Stands between a file's name and a random number in the name of what is written first.
const MARK: &str = ".dps-";

/// Replaces a file, or makes it, so that whoever opens it finds all of the old content or all of the new one. It has the
/// mode 0600 on Unix, and is on the disk when this returns. The new content is written to a new file beside it first,
/// `.FILE.dps-` with a random number of 16 digits; what a killed process left of that goes with [`try_room`].
///
/// # Errors
/// The path that can't be written. The old content is in place then; only when the system can't say whether the new one
/// is on the disk already, that is.
pub fn replace(path: &Path, content: &[u8]) -> Result<(), Failure> {
    let put = || {
        let new = scratch(path);
        let put = write(&new, content).map_err(|(_, error)| error);
        let put = put.and_then(|()| step()).and_then(|()| fs::rename(&new, path));
        put.inspect_err(|_| drop(fs::remove_file(&new)))
    };
    let mut tries = 1..TRIES;
    loop {
        match put() {
            Ok(()) => break,
            Err(error) if error.kind() == io::ErrorKind::NotFound && tries.next().is_some() => {}
            Err(error) => return Err((path.to_owned(), error)),
        }
    }
    let folder = folder_of(path);
    sync(folder).map_err(|error| (folder.to_owned(), error))
}

/// Whether [`replace`] has room for so many bytes, and may write there: writes a file beside it and removes that, with
/// what killed processes left under such names, and no other file.
///
/// # Errors
/// The path that can't be written.
pub fn try_room(path: &Path, bytes: usize) -> Result<(), Failure> {
    remove_left_over(path);
    let new = scratch(path);
    let written = write(&new, &vec![0; bytes]).map_err(|(_, error)| error);
    written.and(discard(&new)).map_err(|error| (path.to_owned(), error))
}

/// A name beside the file that nobody else has: where its content is written first.
fn scratch(path: &Path) -> PathBuf {
    let mut name = scratch_start(path);
    // A new hasher has new keys: that needs no crate.
    name.push(format!("{:016x}", RandomState::new().build_hasher().finish()));
    path.with_file_name(name)
}

fn scratch_start(path: &Path) -> OsString {
    let mut name = OsString::from(".");
    name.push(path.file_name().unwrap_or_default());
    name.push(MARK);
    name
}

/// Removes what killed processes left beside the file. What can't be removed is in nobody's way.
fn remove_left_over(path: &Path) {
    let start = scratch_start(path);
    let is_scratch = |name: &OsStr| {
        let number = name.as_encoded_bytes().strip_prefix(start.as_encoded_bytes());
        number.is_some_and(|number| number.len() == 16 && number.iter().all(u8::is_ascii_hexdigit))
    };
    for entry in fs::read_dir(folder_of(path)).into_iter().flatten().flatten() {
        if is_scratch(&entry.file_name()) {
            let _ = step().and_then(|()| fs::remove_file(entry.path()));
        }
    }
}

/// The folder that it is in.
fn folder_of(path: &Path) -> &Path {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    folder.unwrap_or(Path::new("."))
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
    /// The file can't be opened or made, its file system has no locks, or something else than a file has its name.
    pub fn take(path: &Path) -> io::Result<Option<Self>> {
        step()?;
        // A pipe would be waited for.
        if fs::symlink_metadata(path).is_ok_and(|there| !there.is_file()) {
            let reason = "something else than a file is there; move it away";
            return Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
        }
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

/// Whether a change that failed so may succeed later with nothing changed by hand: other programs make room.
#[must_use]
pub fn may_pass(error: &io::Error) -> bool {
    matches!(error.kind(), io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded)
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
    fn files_with_other_names_stay_and_left_over_ones_go() {
        let folder = folder("names");
        let path = folder.join("state");
        let others = [
            "state.new",
            ".state.dps-1",
            ".state.dps-000000000000000g",
            ".states.dps-0123456789abcdef",
        ];
        let left_over = folder.join(".state.dps-0123456789abcdef");
        others.iter().for_each(|name| fs::write(folder.join(name), "mine").unwrap());
        fs::write(&left_over, "half of it").unwrap();
        try_room(&path, 64).unwrap();
        replace(&path, b"new").unwrap();
        assert!(!left_over.exists());
        let is_there = |name: &&str| fs::read_to_string(folder.join(name)).unwrap() == "mine";
        assert!(others.iter().all(is_there));
        assert_eq!(fs::read_dir(&folder).unwrap().count(), others.len() + 1);
        fs::remove_dir_all(folder).unwrap();
    }

    #[test]
    fn processes_that_replace_a_file_at_once_are_not_in_each_others_way() {
        let folder = folder("at-once");
        let path = folder.join("state");
        std::thread::scope(|scope| {
            for number in 0..4_u8 {
                let path = &path;
                scope.spawn(move || {
                    (0..25).for_each(|_| replace(path, &[number; 5000]).unwrap());
                });
            }
            // What this takes away from the others is written again.
            (1..TRIES).for_each(|_| try_room(&path, 64).unwrap());
        });
        let content = fs::read(&path).unwrap();
        assert!(content.len() == 5000 && content.iter().all(|byte| *byte == content[0]));
        fs::remove_dir_all(folder).unwrap();
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
