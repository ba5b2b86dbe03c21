//! The authority that `--fixed` keeps: its certificate in a file, and its key in another beside it.

use std::{
    fs::{self, OpenOptions},
    io::Write as _,
    path::{Path, PathBuf},
};

use dps_client::Error;
use dps_emulator::Config;

use crate::{
    files::Source,
    given::{CA_OUT, FIXED, Given, wrong},
};

/// The two files.
pub(super) struct Kept {
    pub(super) certificate: Given,
    pub(super) key: Given,
}

impl Kept {
    /// The file of `--ca-out`, or one in the folder for the user's data; the key's has the ending `.key`.
    pub(super) fn find(ca_out: Option<&String>) -> Result<Self, Error> {
        let certificate = match CA_OUT.find(ca_out)? {
            Some(given) => given,
            None => {
                let folder = data_folder().ok_or_else(|| {
                    wrong(
                        FIXED.flag,
                        "",
                        "there is no folder for the authority; name a file with --ca-out",
                    )
                })?;
                let path = folder.join("dps").join("emulator-ca.pem");
                Given { from: FIXED.flag, text: path.display().to_string() }
            }
        };
        let key = Path::new(&certificate.text).with_extension("key").display().to_string();
        Ok(Self { key: Given { from: certificate.from, text: key }, certificate })
    }

    /// Takes the authority that is there, or makes one. No file that is there is written to.
    pub(super) fn authority(&self, config: Config) -> Result<Config, Error> {
        let Self { certificate, key } = self;
        let is_there = |given: &Given| fs::symlink_metadata(&given.text).is_ok();
        match (is_there(certificate), is_there(key)) {
            (false, false) => self.make(config),
            (true, true) => {
                let file = |given: &Given| Source::new(given.from, &given.text).read();
                config.authority(&file(certificate)?, &file(key)?).map_err(|error| {
                    let given = if error.field() == "ca-key" { key } else { certificate };
                    let reason = format!(
                        "{}; for a fresh authority remove it and {}",
                        error.reason(),
                        if error.field() == "ca-key" { &certificate.text } else { &key.text }
                    );
                    wrong(given.from, &given.text, &reason)
                })
            }
            (true, false) => Err(alone(certificate, key)),
            (false, true) => Err(alone(key, certificate)),
        }
    }

    fn make(&self, config: Config) -> Result<Config, Error> {
        let Self { certificate, key } = self;
        if certificate.from == FIXED.flag
            && let Some(folder) = Path::new(&certificate.text).parent()
        {
            fs::create_dir_all(folder).map_err(|error| unwritable(certificate, &error))?;
        }
        let made = Config::make_authority();
        let (chain, secret) = made.map_err(|error| wrong(key.from, "", &error.to_string()))?;
        write_new(certificate, chain.as_bytes(), 0o644)?;
        write_new(key, secret.as_bytes(), 0o600).inspect_err(|_| {
            // The one is of no use without the other.
            let _ = fs::remove_file(&certificate.text);
        })?;
        let taken = config.authority(chain.as_bytes(), secret.as_bytes());
        taken.map_err(|error| wrong(certificate.from, &certificate.text, error.reason()))
    }
}

/// An error when there is a file that has another certificate than this one, which was given.
pub(super) fn ensure_kept(file: &Given, pem: &str) -> Result<(), Error> {
    let is_other = |text: Vec<u8>| text != pem.as_bytes();
    if Path::new(&file.text).is_file() && fs::read(&file.text).is_ok_and(is_other) {
        let reason = "it has another certificate than the authority that is given, and --fixed overwrites none; remove it, or name another file";
        return Err(wrong(file.from, &file.text, reason));
    }
    Ok(())
}

fn alone(there: &Given, other: &Given) -> Error {
    let reason =
        format!("there is no {} beside it; name another file, or remove this one", other.text);
    wrong(there.from, &there.text, &reason)
}

fn write_new(given: &Given, text: &[u8], mode: u32) -> Result<(), Error> {
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, mode);
    #[cfg(not(unix))]
    let _ = mode;
    let written = options.open(&given.text).and_then(|mut file| file.write_all(text));
    written.map_err(|error| unwritable(given, &error))
}

fn unwritable(given: &Given, error: &std::io::Error) -> Error {
    super::unwritable(given.from, &given.text, error)
}

/// Where programs keep the data of the user who runs them.
fn data_folder() -> Option<PathBuf> {
    let variable = |name| std::env::var_os(name).filter(|value| !value.is_empty());
    let home = || Some(PathBuf::from(variable("HOME")?).join(".local/share"));
    let named = ["XDG_DATA_HOME", "LOCALAPPDATA"].into_iter().find_map(variable);
    named.map(PathBuf::from).or_else(home)
}
