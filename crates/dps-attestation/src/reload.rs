//! Credentials that live in files and are replaced there while the program runs.

use std::{
    fmt,
    fs::File,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::{Duration, SystemTime},
};

use dps_state_machine::{ConfigurationError, Error};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The largest file that is read, in bytes (1 MiB): a chain and a key are far smaller.
const LARGEST: u64 = 1024 * 1024;

/// A file that was changed within this time may still be being written.
const SETTLED: Duration = Duration::from_secs(10);

/// What can be made from files.
pub(crate) trait Credential: Clone {
    /// Makes it from the contents of its files, in the order of their paths.
    fn parse(contents: &[Zeroizing<Vec<u8>>]) -> Result<Self, Error>;

    /// Which of its paths an error is about, by the error's field.
    fn blamed(field: &str) -> usize;

    /// Checks what speaks against it at this moment, though it is whole.
    fn check(&self, now: SystemTime) -> Result<(), Error>;

    /// Whether it is perhaps only the beginning of what is to take the place of the one in use, and why.
    fn cut_off(&self, used: &Self) -> Option<&'static str>;
}

/// A credential, and the files that it comes from. Clones share both.
pub(crate) struct Reloading<T>(Arc<Inner<T>>);

struct Inner<T> {
    paths: Vec<PathBuf>,
    state: Mutex<State<T>>,
}

struct State<T> {
    used: T,
    /// Of the files that the one in use was made from.
    digest: [u8; 32],
    /// Why the files as they are now are not taken.
    refused: Option<String>,
}

/// The files as they are now.
struct Found {
    contents: Vec<Zeroizing<Vec<u8>>>,
    digest: [u8; 32],
    /// When the last of them was changed; `None` when the system does not say.
    modified: Option<SystemTime>,
}

impl<T: Credential> Reloading<T> {
    /// Reads the files for the first time: now they must be right.
    pub(crate) fn open(paths: Vec<PathBuf>) -> Result<Self, Error> {
        let (used, digest) = parse(&paths, Found::read(&paths)?)?;
        let state = Mutex::new(State { used, digest, refused: None });
        Ok(Self(Arc::new(Inner { paths, state })))
    }

    /// Looks at the files, and gives what they hold; or what they held before, when that can't be used.
    ///
    /// They are read, not only asked when they were changed: a few kilobytes cost less than a signature does, and
    /// no coarse clock of a file system can hide a change.
    pub(crate) fn current(&self) -> T {
        let mut state = self.state();
        match self.look(&state) {
            Ok(None) => state.refused = None,
            Ok(Some((used, digest))) => {
                tracing::info!(files = %self, "taking the credential that is now in the files");
                *state = State { used, digest, refused: None };
            }
            Err(error) => {
                let reason = error.to_string();
                // Once for each reason, not at each look.
                if state.refused.as_ref() != Some(&reason) {
                    tracing::warn!(files = %self, %reason, "keeping the credential from before");
                    state.refused = Some(reason);
                }
            }
        }
        state.used.clone()
    }

    /// What was given last. No I/O.
    pub(crate) fn in_use(&self) -> T {
        self.state().used.clone()
    }

    /// What is new and can be used, with its digest.
    fn look(&self, state: &State<T>) -> Result<Option<(T, [u8; 32])>, Error> {
        let paths = &self.0.paths;
        let found = Found::read(paths)?;
        if found.digest == state.digest {
            return Ok(None);
        }
        let now = SystemTime::now();
        let modified = found.modified;
        let (new, digest) = parse::<T>(paths, found)?;
        new.check(now).map_err(|error| at::<T>(paths, error))?;
        // A file from the future is from a clock that was set since.
        let unsettled = modified.and_then(|at| now.duration_since(at).ok());
        if let Some(why) = new.cut_off(&state.used)
            && unsettled.is_some_and(|since| since < SETTLED)
        {
            let seconds = SETTLED.as_secs();
            let reason = format!("{why}; it is taken if it stays so for {seconds} s");
            return Err(at::<T>(paths, ConfigurationError::new("", "", &reason).into()));
        }
        Ok(Some((new, digest)))
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Nothing is left half-changed: the state is replaced as a whole.
        self.0.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Clone for Reloading<T> {
    fn clone(&self) -> Self {
        Self(Arc::clone(&self.0))
    }
}

impl<T> fmt::Display for Reloading<T> {
    /// The files.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.paths.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}

impl Found {
    fn read(paths: &[PathBuf]) -> Result<Self, Error> {
        let mut found = Self { contents: Vec::new(), digest: [0; 32], modified: None };
        let mut digest = Sha256::new();
        for path in paths {
            let (content, modified) = read(path).map_err(|error| unreadable(path, &error))?;
            // The length parts one file from the next.
            digest.update(content.len().to_be_bytes());
            digest.update(&*content);
            found.modified = found.modified.max(modified);
            found.contents.push(content);
        }
        // A whole block of zeros takes the place of the end of a key's text, which waited for the rest of its block. And in its
        // place: one that is moved leaves a copy behind.
        digest.update([0; 64]);
        found.digest = digest.finalize_reset().into();
        Ok(found)
    }
}

pub(crate) fn read(path: &Path) -> io::Result<(Zeroizing<Vec<u8>>, Option<SystemTime>)> {
    let wrong = |reason: String| Err(io::Error::new(io::ErrorKind::InvalidInput, reason));
    // Asked before it is opened: opening a pipe waits for whoever writes into it.
    if !std::fs::metadata(path)?.is_file() {
        return wrong("it is no regular file, which can be read again when it changes".to_owned());
    }
    let file = File::open(path)?;
    let metadata = file.metadata()?;
    // Room for all at once: a buffer that grows leaves pieces of a key behind.
    let room = usize::try_from(metadata.len().min(LARGEST)).unwrap_or_default();
    let mut content = Zeroizing::new(Vec::with_capacity(room + 64));
    file.take(LARGEST + 1).read_to_end(&mut content)?;
    if content.len() as u64 > LARGEST {
        return wrong(format!("it is larger than {LARGEST} bytes"));
    }
    Ok((content, metadata.modified().ok()))
}

/// Files that are replaced all the time are read so many times more.
const TRIES: usize = 16;

/// What the files hold, with their digest. Files that don't belong together are read again when they were being replaced:
/// one may be from before and one from after.
fn parse<T: Credential>(paths: &[PathBuf], mut found: Found) -> Result<(T, [u8; 32]), Error> {
    let mut tries = 0;
    loop {
        let error = match T::parse(&found.contents) {
            Ok(parsed) => return Ok((parsed, found.digest)),
            Err(error) => error,
        };
        let again = Found::read(paths)?;
        if again.digest == found.digest || tries == TRIES {
            return Err(at::<T>(paths, error));
        }
        tries += 1;
        found = again;
    }
}

fn unreadable(path: &Path, error: &io::Error) -> Error {
    let reason = format!("the file can't be read: {error}");
    ConfigurationError::new("credential", path.display().to_string(), &reason).into()
}

/// Says which of the files the error is about.
fn at<T: Credential>(paths: &[PathBuf], error: Error) -> Error {
    let Error::Configuration(error) = error else { return error };
    let path = paths.get(T::blamed(&error.field)).map(|path| path.display().to_string());
    let field = if error.field.is_empty() { "credential".into() } else { error.field.clone() };
    let reason = match error.value.as_str() {
        "" => error.reason.clone(),
        value => format!("{value}: {}", error.reason),
    };
    ConfigurationError::new(field, path.unwrap_or_default(), &reason).into()
}
