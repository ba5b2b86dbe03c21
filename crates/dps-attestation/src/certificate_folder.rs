//! A folder with a device's certificate and its key, which change together.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

use dps_state_machine::{ConfigurationError, Error};

use crate::{
    disk::{Lock, advice, may_pass, step, sync, write},
    file::parse_certificates,
    reload,
    stored_certificate::StoredCertificate,
    x509::X509Identity,
};

const CHAIN: &str = "chain.pem";
const KEY: &str = "key.pem";
/// The link that names the pair in use.
const CURRENT: &str = "current";
/// The link that is to take its place.
const NEXT: &str = "current.new";
const PAIRS: &str = "pairs";
const LOCK: &str = "lock";

/// So many bytes must have room before a registration begins (64 KiB): a chain and a key are smaller.
const ROOM: usize = 64 * 1024;

/// A folder on disk with the device's certificate chain and its private key, which are replaced together.
///
/// `chain.pem` and `key.pem` in it are links into the folder that the link `current` names, `pairs/N`, and a new pair
/// comes into use by one rename of that link. So whoever opens the two files finds a pair that belongs together, and a
/// process that is killed at any moment, or an error, leaves the former pair in use and whole. What such a process left
/// over goes with the next [`prepare`](Self::prepare). The pair before the one in use is kept, for those who read it
/// just now.
///
/// The folders have the mode 0700 and the files 0600 from the moment that they are made. They are for one user: give
/// the two paths to [`X509Files`](crate::X509Files), which takes the new pair at the next handshake.
///
/// Unix only, since it needs links that a rename replaces.
///
/// ```no_run
/// # fn main() -> Result<(), dps_client::Error> {
/// # let (chain, key) = ("", "");
/// use dps_client::{CertificateFolder, X509Files};
/// let folder = CertificateFolder::open("/var/lib/pump/certificate")?;
/// folder.store(chain, Some(key))?;
/// let files = X509Files::open(folder.chain_path(), folder.key_path())?;
/// # Ok(())
/// # }
/// ```
#[derive(Clone, Debug)]
pub struct CertificateFolder(PathBuf);

impl CertificateFolder {
    /// Names the folder. It need not be there yet: [`prepare`](Self::prepare) makes it.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the path is empty or names something else than a folder, and on systems that are no
    /// Unix.
    pub fn open(path: impl Into<PathBuf>) -> Result<Self, Error> {
        let folder = Self(path.into());
        if cfg!(not(unix)) {
            let reason = "certificates can be stored on Unix systems only; store the chain and the key yourself";
            return Err(wrong(&folder.0, reason));
        }
        if folder.0.as_os_str().is_empty() {
            return Err(wrong(&folder.0, "the path is empty; name a folder"));
        }
        match fs::metadata(&folder.0) {
            Ok(metadata) if !metadata.is_dir() => {
                Err(wrong(&folder.0, "it is no folder; name one, or a path where none is yet"))
            }
            Err(error) if error.kind() != io::ErrorKind::NotFound => Err(failed(&folder.0, &error)),
            _ => Ok(folder),
        }
    }

    /// The folder's path, as given.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.0
    }

    /// Where the chain is: the device's certificate and its issuers, in PEM.
    #[must_use]
    pub fn chain_path(&self) -> PathBuf {
        self.0.join(CHAIN)
    }

    /// Where the private key is, in PEM, unless it is outside of the folder.
    #[must_use]
    pub fn key_path(&self) -> PathBuf {
        self.0.join(KEY)
    }

    /// The files that are kept in the folder, which are for nobody else to write.
    #[must_use]
    pub fn files(&self) -> [PathBuf; 3] {
        [CHAIN, KEY, LOCK].map(|name| self.0.join(name))
    }

    /// Reads the pair in use. Blocks while it does. A pair that is replaced meanwhile is read again.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the path: nothing was stored yet, something there was not made by this type,
    /// or a file can't be read or holds no certificates.
    pub fn load(&self) -> Result<StoredCertificate, Error> {
        loop {
            let Some(number) = self.used()? else {
                return Err(wrong(&self.0, "no certificate was stored in it yet"));
            };
            match self.read(number) {
                Err(_) if self.used()? != Some(number) => {}
                read => return read,
            }
        }
    }

    /// Makes all ready for a pair, so that storing it is not likely to fail any more: makes the folder with the mode
    /// 0700 if it is missing, takes its lock, removes what killed processes left over, and tries whether there is room.
    /// Call this before the registration that brings the certificate. Blocks while it does.
    ///
    /// # Errors
    /// [`Error::Configuration`] that names the path and what to do: another process has the lock, others than the owner
    /// may write into the folder, a file of a name that is needed was not made by this type, the folder above is
    /// missing, or there is no permission or no room.
    pub fn prepare(&self) -> Result<PreparedFolder, Error> {
        self.make()?;
        let lock = self.lock()?;
        for name in [CHAIN, KEY] {
            let target = self.target(name)?;
            ensure_ours(&self.0.join(name), target, |target| {
                target == Path::new(CURRENT).join(name)
            })?;
        }
        ensure_ours(&self.0.join(NEXT), self.target(NEXT)?, |_| true)?;
        let used = self.used()?;
        let pairs = self.0.join(PAIRS);
        match fs::symlink_metadata(&pairs) {
            Ok(metadata) if metadata.is_dir() => {}
            Ok(_) => return Err(foreign(&pairs)),
            Err(_) => make_folder(&pairs).map_err(|error| failed(&pairs, &error))?,
        }
        self.clean(used).map_err(|error| failed(&pairs, &error))?;
        let pair = self.pair(used.unwrap_or(0).saturating_add(1));
        make_folder(&pair).map_err(|error| failed(&pair, &error))?;
        let prepared =
            PreparedFolder { folder: self.clone(), pair, used, in_use: false, _lock: lock };
        prepared.try_room().map_err(|error| failed(&prepared.pair, &error))?;
        Ok(prepared)
    }

    /// [`prepare`](Self::prepare) and [`PreparedFolder::store`] in one call.
    ///
    /// # Errors
    /// As those two.
    pub fn store(&self, chain_pem: &str, key_pem: Option<&str>) -> Result<(), Error> {
        self.prepare()?.store(chain_pem, key_pem)
    }

    /// Makes the folder if it is missing, and checks that nobody else can replace what is in it.
    fn make(&self) -> Result<(), Error> {
        let made = match fs::metadata(&self.0) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => make_folder(&self.0)
                .and_then(|()| sync(self.0.parent().unwrap_or(&self.0)))
                .and_then(|()| fs::metadata(&self.0)),
            made => made,
        };
        match made.map_err(|error| failed(&self.0, &error))? {
            metadata if !metadata.is_dir() => Err(wrong(&self.0, "it is no folder; name one")),
            metadata if system::is_writable_by_others(&metadata) => Err(wrong(
                &self.0,
                "others than its owner may write into it, and could replace the key; take that right away with `chmod go-w`, or name another folder",
            )),
            _ => Ok(()),
        }
    }

    /// Takes the lock, which the system releases when the process ends in whatever way.
    fn lock(&self) -> Result<Lock, Error> {
        let path = self.0.join(LOCK);
        if fs::symlink_metadata(&path).is_ok_and(|metadata| !metadata.is_file()) {
            return Err(foreign(&path));
        }
        Lock::take(&path).map_err(|error| failed(&path, &error))?.ok_or_else(|| {
            let reason = "another process has the lock of the folder, and gets or stores a certificate there; wait until it has ended";
            configuration(&path, reason).for_now().into()
        })
    }

    /// The number of the pair in use; `None` when there is none yet.
    fn used(&self) -> Result<Option<u64>, Error> {
        let Some(target) = self.target(CURRENT)? else { return Ok(None) };
        let number = target.strip_prefix(PAIRS).ok().and_then(number);
        number.map(Some).ok_or_else(|| foreign(&self.0.join(CURRENT)))
    }

    /// What a link of the folder points to; `None` when there is none.
    fn target(&self, name: &str) -> Result<Option<PathBuf>, Error> {
        let path = self.0.join(name);
        match fs::read_link(&path) {
            Ok(target) => Ok(Some(target)),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => Err(foreign(&path)),
            Err(error) => Err(failed(&path, &error)),
        }
    }

    fn pair(&self, number: u64) -> PathBuf {
        self.0.join(PAIRS).join(number.to_string())
    }

    fn read(&self, number: u64) -> Result<StoredCertificate, Error> {
        let pair = self.pair(number);
        let read = |name| {
            let path = pair.join(name);
            match reload::read(&path) {
                Ok((content, _)) => Ok(Some(content)),
                Err(error) if error.kind() == io::ErrorKind::NotFound && name == KEY => Ok(None),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {
                    Err(wrong(&path, "it was removed; ask for a new certificate"))
                }
                Err(error) => Err(failed(&path, &error)),
            }
        };
        let chain = read(CHAIN)?.unwrap_or_default();
        let stored = StoredCertificate::parse(&chain, read(KEY)?);
        stored.map_err(|error| match error {
            Error::Configuration(error) => wrong(&self.chain_path(), &error.reason),
            other => other,
        })
    }

    /// Removes all pairs but the one in use and the one before it, and a link that was never renamed.
    fn clean(&self, used: Option<u64>) -> io::Result<()> {
        let next = self.0.join(NEXT);
        if fs::symlink_metadata(&next).is_ok() {
            step()?;
            fs::remove_file(next)?;
        }
        let entries = fs::read_dir(self.0.join(PAIRS))?;
        let mut numbers = Vec::new();
        for entry in entries {
            numbers.extend(number(Path::new(&entry?.file_name())));
        }
        let former = numbers.iter().copied().filter(|&number| Some(number) < used).max();
        for number in numbers {
            if Some(number) != used && Some(number) != former {
                step()?;
                fs::remove_dir_all(self.pair(number))?;
            }
        }
        Ok(())
    }
}

/// A [`CertificateFolder`] that is ready for a new pair and locked against other processes until this is dropped.
/// Dropped without a pair, it leaves the former one in use and nothing else behind.
pub struct PreparedFolder {
    folder: CertificateFolder,
    /// The folder of the new pair.
    pair: PathBuf,
    /// The pair that was in use before.
    used: Option<u64>,
    /// Whether the new pair is the one in use.
    in_use: bool,
    _lock: Lock,
}

impl PreparedFolder {
    /// Stores the pair and puts it into use. Without a key, as when that is in a TPM, only the chain is stored. Blocks
    /// until it is on the disk.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the chain or the key can't be read or don't belong together, or that names the path
    /// that can't be written. The former pair is in use then; only when the system can't say whether the new one is on
    /// the disk already, that is.
    pub fn store(mut self, chain_pem: &str, key_pem: Option<&str>) -> Result<(), Error> {
        match key_pem {
            Some(key) => drop(X509Identity::from_pem(chain_pem.as_bytes(), key.as_bytes())?),
            None => drop(parse_certificates(chain_pem.as_bytes())?),
        }
        self.put(chain_pem, key_pem).map_err(|(path, error)| failed(&path, &error))?;
        // The new pair is in use whatever becomes of the old ones: the next call removes those.
        let number = self.used.unwrap_or(0).saturating_add(1);
        if let Err(error) = self.folder.clean(Some(number)) {
            tracing::warn!(folder = %self.folder.0.display(), %error, "an old certificate was not removed");
        }
        Ok(())
    }

    fn put(&mut self, chain: &str, key: Option<&str>) -> Result<(), (PathBuf, io::Error)> {
        let folder = &self.folder.0;
        let at = |path: &Path| {
            let path = path.to_owned();
            move |error| (path, error)
        };
        write(&self.pair.join(CHAIN), chain.as_bytes())?;
        if let Some(key) = key {
            write(&self.pair.join(KEY), key.as_bytes())?;
        }
        let pairs = folder.join(PAIRS);
        for path in [&self.pair, &pairs] {
            sync(path).map_err(at(path))?;
        }
        for name in [CHAIN, KEY] {
            let path = folder.join(name);
            if fs::symlink_metadata(&path).is_err() && (name == CHAIN || key.is_some()) {
                link(&Path::new(CURRENT).join(name), &path).map_err(at(&path))?;
            }
        }
        let (next, current) = (folder.join(NEXT), folder.join(CURRENT));
        let target = Path::new(PAIRS).join(self.pair.file_name().unwrap_or_default());
        link(&target, &next).map_err(at(&next))?;
        step().and_then(|()| fs::rename(&next, &current)).map_err(at(&current))?;
        self.in_use = true;
        sync(folder).map_err(at(folder))?;
        // Of a pair whose key is elsewhere the link would lead nowhere.
        let key_path = folder.join(KEY);
        if key.is_none() && fs::symlink_metadata(&key_path).is_ok() {
            step().and_then(|()| fs::remove_file(&key_path)).map_err(at(&key_path))?;
        }
        Ok(())
    }

    fn try_room(&self) -> io::Result<()> {
        let path = self.pair.join("room");
        write(&path, &[0; ROOM]).map_err(|(_, error)| error)?;
        step()?;
        fs::remove_file(path)
    }
}

impl Drop for PreparedFolder {
    fn drop(&mut self) {
        // What stays behind goes with the next call.
        if !self.in_use {
            let _ = fs::remove_dir_all(&self.pair);
        }
    }
}

impl fmt::Debug for PreparedFolder {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_tuple("PreparedFolder").field(&self.folder.0).finish()
    }
}

/// The number that a path of one part is.
fn number(path: &Path) -> Option<u64> {
    let text = path.to_str()?;
    let number: u64 = text.parse().ok()?;
    (number.to_string() == text).then_some(number)
}

fn make_folder(path: &Path) -> io::Result<()> {
    step()?;
    system::make_folder(path)
}

fn link(target: &Path, path: &Path) -> io::Result<()> {
    step()?;
    system::link(target, path)
}

fn ensure_ours(
    path: &Path,
    target: Option<PathBuf>,
    is_ours: impl Fn(&Path) -> bool,
) -> Result<(), Error> {
    match target {
        Some(target) if !is_ours(&target) => Err(foreign(path)),
        _ => Ok(()),
    }
}

fn foreign(path: &Path) -> Error {
    let reason = "it was put there by something else and is not overwritten; move it away, or name another folder";
    wrong(path, reason)
}

fn failed(path: &Path, error: &io::Error) -> Error {
    let failed = configuration(path, &format!("{error}{}", advice(error)));
    if may_pass(error) { failed.for_now().into() } else { failed.into() }
}

fn wrong(path: &Path, reason: &str) -> Error {
    configuration(path, reason).into()
}

fn configuration(path: &Path, reason: &str) -> ConfigurationError {
    ConfigurationError::new("certificate folder", path.display().to_string(), reason)
}

#[cfg(unix)]
mod system {
    use std::{
        fs::{DirBuilder, Metadata},
        io,
        os::unix::fs::{DirBuilderExt as _, MetadataExt as _, symlink},
        path::Path,
    };

    pub(super) fn make_folder(path: &Path) -> io::Result<()> {
        DirBuilder::new().mode(0o700).create(path)
    }

    pub(super) fn link(target: &Path, path: &Path) -> io::Result<()> {
        symlink(target, path)
    }

    pub(super) fn is_writable_by_others(metadata: &Metadata) -> bool {
        metadata.mode() & 0o022 != 0
    }
}

/// [`CertificateFolder::open`] has refused before any of this is called.
#[cfg(not(unix))]
mod system {
    use std::{fs::Metadata, io, path::Path};

    pub(super) fn make_folder(_: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn link(_: &Path, _: &Path) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    pub(super) fn is_writable_by_others(_: &Metadata) -> bool {
        false
    }
}

#[cfg(test)]
mod tests;
