//! No file that is written is one that another flag names, however it is spelled.

use std::{
    fs, io,
    path::{Path, PathBuf},
};

use dps_client::Error;

use crate::given::{Given, wrong};

/// The files that are written and those that are read.
#[derive(Default)]
pub(crate) struct Files {
    pub(crate) written: Vec<Given>,
    pub(crate) read: Vec<Given>,
}

impl Files {
    /// An error that names the flag whose file would be overwritten.
    pub(crate) fn check(&self) -> Result<(), Error> {
        for (at, output) in self.written.iter().enumerate() {
            let earlier = self.written.iter().take(at).chain(&self.read);
            for other in earlier.filter(|other| other.text != "-" && output.text != "-") {
                if are_one(Path::new(&output.text), Path::new(&other.text)) {
                    let reason = format!("{} names the same file; name another", other.from);
                    return Err(wrong(output.from, &output.text, &reason));
                }
            }
        }
        Ok(())
    }
}

/// Whether both are one file, which may not be there yet. What is no file, like a terminal, may be written to twice.
pub(crate) fn are_one(one: &Path, other: &Path) -> bool {
    match (fs::metadata(one), fs::metadata(other)) {
        (Ok(one), Ok(other)) if one.is_file() && other.is_file() && is_same(&one, &other) => true,
        (Ok(metadata), _) | (_, Ok(metadata)) if !metadata.is_file() => false,
        _ => matches!((real_path(one), real_path(other)), (Ok(one), Ok(other)) if one == other),
    }
}

#[cfg(unix)]
fn is_same(one: &fs::Metadata, other: &fs::Metadata) -> bool {
    use std::os::unix::fs::MetadataExt as _;
    (one.dev(), one.ino()) == (other.dev(), other.ino())
}

#[cfg(not(unix))]
fn is_same(_: &fs::Metadata, _: &fs::Metadata) -> bool {
    false
}

/// The path without links, `.` and `..`. Of a file that is not there yet it is that of its folder and its name.
pub(crate) fn real_path(path: &Path) -> io::Result<PathBuf> {
    /// As many links as systems follow.
    const LINKS: usize = 40;
    let mut path = path.to_owned();
    for _ in 0..LINKS {
        if let Ok(real) = fs::canonicalize(&path) {
            return Ok(real);
        }
        let parent = path.parent().filter(|parent| !parent.as_os_str().is_empty());
        let folder = fs::canonicalize(parent.unwrap_or(Path::new(".")))?;
        match fs::read_link(&path) {
            Ok(target) => path = folder.join(target),
            Err(_) => return Ok(folder.join(path.file_name().unwrap_or_default())),
        }
    }
    Err(io::ErrorKind::InvalidInput.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_file_is_known_however_it_is_spelled() {
        let folder = std::env::temp_dir().join(format!("dps-apart-{}", std::process::id()));
        fs::create_dir_all(folder.join("below")).unwrap();
        let path = |name: &str| folder.join(name);
        fs::write(path("there"), "").unwrap();
        fs::write(path("another"), "").unwrap();
        for (one, other) in [
            ("there", "there"),
            ("there", "./there"),
            ("there", "below/../there"),
            ("new", "new"),
            ("new", "./new"),
            ("below/../new", "new"),
        ] {
            assert!(are_one(&path(one), &path(other)), "{one} {other}");
            assert!(are_one(&path(other), &path(one)), "{other} {one}");
        }
        for (one, other) in [("there", "another"), ("there", "new"), ("new", "newer")] {
            assert!(!are_one(&path(one), &path(other)), "{one} {other}");
        }
        #[cfg(unix)]
        {
            use std::os::unix::fs::symlink;
            fs::hard_link(path("there"), path("hard")).unwrap();
            symlink("there", path("soft")).unwrap();
            symlink("new", path("dangling")).unwrap();
            symlink(".", path("around")).unwrap();
            symlink("endless", path("endless")).unwrap();
            for (one, other) in [
                ("hard", "there"),
                ("soft", "there"),
                ("hard", "soft"),
                ("dangling", "new"),
                ("dangling", "around/new"),
                ("around/there", "soft"),
            ] {
                assert!(are_one(&path(one), &path(other)), "{one} {other}");
                assert!(are_one(&path(other), &path(one)), "{other} {one}");
            }
            assert!(!are_one(&path("endless"), &path("there")));
            assert!(!are_one(Path::new("/dev/null"), Path::new("/dev/null")));
        }
        fs::remove_dir_all(&folder).unwrap();
    }
}
