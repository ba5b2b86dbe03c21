//! Files that the command line names; `-` is standard input.

use std::{
    fs::File,
    io::{self, Read},
    path::Path,
    time::Duration,
};

use dps_client::{Error, SymmetricKey};
use tokio::time::{Instant, timeout_at};
use zeroize::Zeroizing;

use crate::given::wrong;

/// The largest file that is read, in bytes (1 MiB): a key, a chain and a payload are far smaller, and what never
/// ends, like `/dev/zero`, must not fill the memory.
const LARGEST: u64 = 1024 * 1024;

/// A file, and the flag or the variable that names it.
#[derive(Clone, Debug)]
pub(crate) struct Source {
    pub(crate) from: &'static str,
    pub(crate) path: String,
}

impl Source {
    /// A name without a folder is looked for first where systemd puts what `LoadCredential=` has loaded.
    pub(crate) fn new(from: &'static str, path: &str) -> Self {
        let loaded = || {
            let is_name = Path::new(path).file_name()? == path;
            let folder = std::env::var_os("CREDENTIALS_DIRECTORY").filter(|_| is_name)?;
            let file = Path::new(&folder).join(path);
            file.is_file().then(|| file.to_str().map(ToOwned::to_owned))?
        };
        Self { from, path: loaded().unwrap_or_else(|| path.to_owned()) }
    }

    pub(crate) fn is_stdin(&self) -> bool {
        self.path == "-"
    }

    /// What is wrong with the file, or with what is in it.
    pub(crate) fn wrong(&self, reason: &str) -> Error {
        wrong(self.from, &self.path, reason)
    }

    /// Reads it. Blocks for as long as whoever writes into a pipe takes.
    pub(crate) fn read(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        if self.path.is_empty() {
            return Err(self.wrong("the path is empty; name a file, or - for standard input"));
        }
        let bytes = if self.is_stdin() {
            capped(io::stdin().lock(), 0)
        } else {
            File::open(&self.path).and_then(|file| {
                let size = file.metadata().map_or(0, |metadata| metadata.len());
                capped(file, size)
            })
        };
        let bytes = bytes.map_err(|error| {
            if self.is_content() {
                let reason = "this is what the file should hold; write it to a file and name that";
                return wrong(self.from, "", reason);
            }
            if self.path.starts_with("file:") {
                return self.wrong("leave file:// out; give the path of the file");
            }
            let what = if self.is_stdin() { "standard input" } else { "the file" };
            self.wrong(&format!("{what} can't be read: {error}"))
        })?;
        if bytes.len() as u64 > LARGEST {
            return Err(self.wrong(&format!("it is larger than {LARGEST} bytes")));
        }
        Ok(bytes)
    }

    /// Whether somebody gave a key or PEM text in place of the file's path. It may be a secret.
    fn is_content(&self) -> bool {
        let is_padded = self.path.ends_with('=') || self.path.len() >= 40;
        self.path.contains("-----BEGIN ")
            || (is_padded && self.path.parse::<SymmetricKey>().is_ok())
    }

    /// As [`Self::read`], without the line end that editors put behind a password.
    pub(crate) fn read_password(&self) -> Result<Zeroizing<Vec<u8>>, Error> {
        let mut content = self.read()?;
        for end in [b'\n', b'\r'] {
            if content.last() == Some(&end) {
                content.pop();
            }
        }
        Ok(content)
    }

    /// As [`Self::read`], but no longer than until the deadline. What can be slow is read aside.
    pub(crate) async fn read_until(&self, deadline: Deadline) -> Result<Zeroizing<Vec<u8>>, Error> {
        if !self.is_stdin() && Path::new(&self.path).metadata().is_ok_and(|m| m.is_file()) {
            return self.read();
        }
        tracing::debug!(from = self.from, "reading");
        let source = self.clone();
        aside(deadline, move || source.read()).await.map_err(|reason| self.wrong(&reason))?
    }

    /// As [`Self::read_until`], for a file of text.
    pub(crate) async fn text_until(&self, deadline: Deadline) -> Result<Zeroizing<String>, Error> {
        self.text(&self.read_until(deadline).await?)
    }

    /// What was read, as text; without the byte-order mark that some editors put first.
    pub(crate) fn text(&self, bytes: &[u8]) -> Result<Zeroizing<String>, Error> {
        match std::str::from_utf8(bytes) {
            Ok(text) => Ok(Zeroizing::new(text.trim_start_matches('\u{feff}').to_owned())),
            Err(_) if matches!(bytes, [0xff, 0xfe, ..] | [0xfe, 0xff, ..]) => {
                Err(self.wrong("it is UTF-16 text; save it as UTF-8"))
            }
            Err(_) => Err(self.wrong("it is not UTF-8 text")),
        }
    }
}

/// When the time for the whole registration is up, and how long that is.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Deadline {
    pub(crate) at: Instant,
    pub(crate) after: Duration,
}

/// Does what may block aside, so that it does not hold up the deadline. The error is what is wrong with it, in
/// words for a message.
pub(crate) async fn aside<T: Send + 'static>(
    deadline: Deadline,
    what: impl FnOnce() -> T + Send + 'static,
) -> Result<T, String> {
    match timeout_at(deadline.at, tokio::task::spawn_blocking(what)).await {
        Ok(done) => done.map_err(|error| format!("it can't be read: {error}")),
        Err(_) => {
            let seconds = deadline.after.as_secs_f64();
            Err(format!("it did not come to its end within {seconds} s"))
        }
    }
}

fn capped(from: impl Read, size: u64) -> io::Result<Zeroizing<Vec<u8>>> {
    // Room for all of a file at once: a buffer that grows leaves pieces of a key behind.
    let room = usize::try_from(size.min(LARGEST)).unwrap_or_default().max(4096);
    let mut bytes = Zeroizing::new(Vec::with_capacity(room + 64));
    from.take(LARGEST + 1).read_to_end(&mut bytes)?;
    Ok(bytes)
}
