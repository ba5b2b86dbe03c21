//! A software TPM as a child process, and plain commands to it: `swtpm` of the Debian package of that name.

use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::atomic::{AtomicU32, Ordering},
};

/// One TPM in the state of the factory. It ends with its owner.
#[derive(Debug)]
pub struct Swtpm {
    child: Child,
    folder: PathBuf,
}

impl Swtpm {
    /// Starts it. `None` where it is not installed, with a word about it.
    ///
    /// The socket listens before the TPM runs, so that nobody has to wait for it.
    ///
    /// # Panics
    /// In CI when it is not installed; when its folder can't be written.
    #[must_use]
    pub fn start() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder =
            std::env::temp_dir().join(format!("dps-swtpm-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).expect("a folder");
        let socket = UnixListener::bind(folder.join("socket")).expect("a socket");
        let child = Command::new("swtpm")
            .args(["socket", "--tpm2", "--server", "type=unixio,fd=0"])
            .args(["--flags", "not-need-init,startup-clear", "--tpmstate"])
            .arg(format!("dir={}", folder.display()))
            .stdin(Stdio::from(OwnedFd::from(socket)))
            .stderr(Stdio::null())
            .spawn();
        match child {
            Ok(child) => Some(Self { child, folder }),
            Err(error) => {
                let _ = std::fs::remove_dir_all(&folder);
                let why = format!("swtpm: {error}; install the Debian package swtpm");
                assert!(std::env::var("CI").is_err(), "{why}");
                eprintln!("SKIPPED: {why}");
                None
            }
        }
    }

    /// Its own folder, which it takes along.
    #[must_use]
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// Its socket.
    #[must_use]
    pub fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }

    /// Where it is, as the client takes it.
    #[must_use]
    pub fn address(&self) -> String {
        format!("swtpm:{}", self.socket().display())
    }

    /// Sends a command whose handles, authorizations and parameters are given as bytes; what follows the header.
    ///
    /// # Panics
    /// When the TPM refuses it.
    pub(crate) fn command(&self, code: u32, body: &[u8]) -> Vec<u8> {
        let sessions = body.windows(4).any(|window| window == PASSWORD);
        let mut stream = UnixStream::connect(self.socket()).expect("a software TPM");
        let answer = exchange(&mut stream, &frame(sessions, code, body));
        assert_eq!(answer[6..10], [0; 4], "command {code:#x}: {answer:02x?}");
        answer[10..].to_vec()
    }

    /// Makes a primary key of the owner from a template, a TPMT_PUBLIC, and keeps it at a handle.
    ///
    /// # Panics
    /// When the TPM refuses it.
    pub fn keep_primary(&self, template: &[u8], handle: u32) {
        let object = self.make_primary(template);
        self.keep(object, handle);
    }

    /// Makes a primary key of the owner from a template; its handle.
    ///
    /// # Panics
    /// When the TPM refuses it.
    #[must_use]
    pub fn make_primary(&self, template: &[u8]) -> u32 {
        let body =
            [&OWNER[..], &NO_PASSWORD, &[0, 4, 0, 0, 0, 0], &sized(template), &[0; 6]].concat();
        let answer = self.command(CREATE_PRIMARY, &body);
        u32::from_be_bytes(answer[..4].try_into().expect("a handle"))
    }

    /// Keeps a loaded key at a handle, and unloads it.
    ///
    /// # Panics
    /// When the TPM refuses it.
    pub fn keep(&self, object: u32, handle: u32) {
        let object = object.to_be_bytes();
        let body = [&OWNER[..], &object, &NO_PASSWORD, &handle.to_be_bytes()].concat();
        self.command(EVICT_CONTROL, &body);
        self.command(FLUSH_CONTEXT, &object);
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

/// The owner's hierarchy.
pub(crate) const OWNER: [u8; 4] = [0x40, 0, 0, 1];
/// An authorization area with one empty password.
pub(crate) const NO_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];
const PASSWORD: [u8; 4] = [0x40, 0, 0, 9];

const EVICT_CONTROL: u32 = 0x120;
const CREATE_PRIMARY: u32 = 0x131;
const FLUSH_CONTEXT: u32 = 0x165;

/// Bytes behind their number.
///
/// # Panics
/// Over 65,535 bytes.
#[must_use]
pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).expect("a length").to_be_bytes(), bytes].concat()
}

fn frame(sessions: bool, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).expect("a length");
    [&[0x80, 1 + u8::from(sessions)][..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// Sends a command as it is.
///
/// # Panics
/// When the TPM does not answer.
pub(crate) fn exchange(stream: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).expect("a software TPM that reads");
    read_frame(stream).expect("an answer of the TPM")
}

/// A command or an answer; `None` at the end.
///
/// # Panics
/// When its length is none.
pub(crate) fn read_frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut frame = vec![0; 10];
    stream.read_exact(&mut frame).ok()?;
    let size = u32::from_be_bytes(frame[2..6].try_into().expect("four bytes"));
    frame.resize(usize::try_from(size).expect("a length"), 0);
    stream.read_exact(&mut frame[10..]).ok()?;
    Some(frame)
}
