//! A software TPM as a child process, plain commands to it, and a middleman that does damage.

use std::{
    io::{Read, Write},
    os::{
        fd::OwnedFd,
        unix::net::{UnixListener, UnixStream},
    },
    path::PathBuf,
    process::{Child, Command, Stdio},
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use dps_emulator::{TpmStorageKey, wrap_key};
use dps_tpm::{AuthenticationKey, Tpm, TpmConfig, TpmKeys};

/// Ends the test when the software TPM is missing: as a failure in CI, as a skip that says so elsewhere.
macro_rules! swtpm {
    () => {
        match crate::support::Swtpm::start() {
            Some(swtpm) => swtpm,
            None => return,
        }
    };
}
pub(crate) use swtpm;

/// One TPM in the state of the factory. It ends with its owner.
pub(crate) struct Swtpm {
    child: Child,
    folder: PathBuf,
}

impl Swtpm {
    /// The socket listens before the TPM runs, so that nobody has to wait for it.
    pub(crate) fn start() -> Option<Self> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = std::env::temp_dir().join(format!("dps-tpm-{}-{number}", std::process::id()));
        std::fs::create_dir_all(&folder).unwrap();
        let socket = UnixListener::bind(folder.join("socket")).unwrap();
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
                let why = format!("swtpm: {error}; install the Debian package swtpm");
                assert!(std::env::var("CI").is_err(), "{why}");
                eprintln!("SKIPPED: {why}");
                None
            }
        }
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.folder.join("socket")
    }

    pub(crate) fn config(&self) -> TpmConfig {
        TpmConfig::new(format!("swtpm:{}", self.path().display()).parse().unwrap())
    }

    pub(crate) fn tpm(&self) -> Tpm {
        Tpm::new(self.config()).unwrap()
    }

    /// Sends a command whose handles, authorizations and parameters are given as bytes; what follows the header.
    pub(crate) fn command(&self, code: u32, body: &[u8]) -> Vec<u8> {
        let sessions = body.windows(4).any(|window| window == PASSWORD);
        let answer =
            exchange(&mut UnixStream::connect(self.path()).unwrap(), &frame(sessions, code, body));
        assert_eq!(answer[6..10], [0; 4], "command {code:#x}: {answer:02x?}");
        answer[10..].to_vec()
    }

    /// What is loaded: keys and sessions.
    pub(crate) fn in_memory(&self) -> Vec<u32> {
        [self.handles(0x8000_0000), self.handles(0x0200_0000)].concat()
    }

    pub(crate) fn persistent(&self) -> Vec<u32> {
        self.handles(0x8100_0000)
    }

    fn handles(&self, first: u32) -> Vec<u32> {
        let body = [&1u32.to_be_bytes()[..], &first.to_be_bytes(), &100u32.to_be_bytes()].concat();
        let answer = self.command(GET_CAPABILITY, &body);
        answer[9..].chunks(4).map(|handle| u32::from_be_bytes(handle.try_into().unwrap())).collect()
    }

    /// Makes a primary key of the owner from a template, a TPMT_PUBLIC, and keeps it at a handle.
    pub(crate) fn keep_primary(&self, template: &[u8], handle: u32) {
        let object = self.make_primary(template);
        self.keep(object, handle);
    }

    pub(crate) fn make_primary(&self, template: &[u8]) -> u32 {
        let body =
            [&OWNER[..], &NO_PASSWORD, &[0, 4, 0, 0, 0, 0], &sized(template), &[0; 6]].concat();
        let answer = self.command(CREATE_PRIMARY, &body);
        u32::from_be_bytes(answer[..4].try_into().unwrap())
    }

    /// Keeps a loaded key at a handle, and unloads it.
    pub(crate) fn keep(&self, object: u32, handle: u32) {
        let object = object.to_be_bytes();
        let body = [&OWNER[..], &object, &NO_PASSWORD, &handle.to_be_bytes()].concat();
        self.command(EVICT_CONTROL, &body);
        self.command(FLUSH_CONTEXT, &object);
    }

    /// Makes a key under a parent, with a password of its own: TPM2B_PRIVATE and TPM2B_PUBLIC.
    pub(crate) fn make_key(
        &self,
        parent: u32,
        template: &[u8],
        password: &[u8],
    ) -> (Vec<u8>, Vec<u8>) {
        let sensitive = sized(&[sized(password), sized(&[])].concat());
        let parent = parent.to_be_bytes();
        let body = [&parent[..], &NO_PASSWORD, &sensitive, &sized(template), &[0; 6]].concat();
        let answer = self.command(CREATE, &body);
        let rest = &answer[4..];
        let (private, rest) =
            rest.split_at(2 + usize::from(u16::from_be_bytes([rest[0], rest[1]])));
        let public = &rest[..2 + usize::from(u16::from_be_bytes([rest[0], rest[1]]))];
        (private.to_vec(), public.to_vec())
    }

    /// Sets the password of a hierarchy that has none yet.
    pub(crate) fn set_password(&self, hierarchy: u32, password: &[u8]) {
        let body = [&hierarchy.to_be_bytes()[..], &NO_PASSWORD, &sized(password)].concat();
        self.command(HIERARCHY_CHANGE_AUTH, &body);
    }
}

impl Drop for Swtpm {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
        let _ = std::fs::remove_dir_all(&self.folder);
    }
}

pub(crate) const OWNER: [u8; 4] = [0x40, 0, 0, 1];
pub(crate) const ENDORSEMENT_HIERARCHY: u32 = 0x4000_000b;
pub(crate) const OWNER_HIERARCHY: u32 = 0x4000_0001;
const PASSWORD: [u8; 4] = [0x40, 0, 0, 9];
/// An authorization area with one empty password.
const NO_PASSWORD: [u8; 13] = [0, 0, 0, 9, 0x40, 0, 0, 9, 0, 0, 0, 0, 0];

const EVICT_CONTROL: u32 = 0x120;
const HIERARCHY_CHANGE_AUTH: u32 = 0x129;
const CREATE_PRIMARY: u32 = 0x131;
const CREATE: u32 = 0x153;
const FLUSH_CONTEXT: u32 = 0x165;
const GET_CAPABILITY: u32 = 0x17a;

pub(crate) fn sized(bytes: &[u8]) -> Vec<u8> {
    [&u16::try_from(bytes.len()).unwrap().to_be_bytes(), bytes].concat()
}

fn frame(sessions: bool, code: u32, body: &[u8]) -> Vec<u8> {
    let size = u32::try_from(10 + body.len()).unwrap();
    [&[0x80, 1 + u8::from(sessions)][..], &size.to_be_bytes(), &code.to_be_bytes(), body].concat()
}

/// A refusal.
pub(crate) fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
}

fn exchange(stream: &mut UnixStream, command: &[u8]) -> Vec<u8> {
    stream.write_all(command).unwrap();
    read_frame(stream).expect("an answer of the TPM")
}

/// A command or an answer; `None` at the end.
pub(crate) fn read_frame(stream: &mut impl Read) -> Option<Vec<u8>> {
    let mut frame = vec![0; 10];
    stream.read_exact(&mut frame).ok()?;
    let size = u32::from_be_bytes(frame[2..6].try_into().unwrap());
    frame.resize(usize::try_from(size).unwrap(), 0);
    stream.read_exact(&mut frame[10..]).ok()?;
    Some(frame)
}

/// Encrypts a key for the TPM with these keys, as the service does.
pub(crate) fn wrapped(keys: &TpmKeys, key: &[u8]) -> AuthenticationKey {
    AuthenticationKey::from_bytes(&wrapped_bytes(keys, key)).unwrap()
}

pub(crate) fn wrapped_bytes(keys: &TpmKeys, key: &[u8]) -> Vec<u8> {
    let endorsement: TpmStorageKey = keys.endorsement_key().parse().unwrap();
    let storage: TpmStorageKey = keys.storage_root_key().parse().unwrap();
    wrap_key(&endorsement, &storage, key, b"global.azure-devices-provisioning.net").unwrap()
}

/// What a middleman does with a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    Pass,
    /// Answers with this code; the TPM never sees the command.
    Refuse(u32),
    /// Breaks the connection; the TPM never sees the command.
    CutBefore,
    /// Breaks the connection after the TPM has carried the command out.
    CutAfter,
}

type Plan = Box<dyn FnMut(usize, u32) -> Act + Send>;

/// Stands between a client and the TPM: counts the commands and does what its plan says.
pub(crate) struct Middleman {
    folder: PathBuf,
    seen: Arc<Mutex<Vec<u32>>>,
}

impl Middleman {
    /// The plan gets the number of the command, from 0, and its code.
    pub(crate) fn new(swtpm: &Swtpm, plan: impl FnMut(usize, u32) -> Act + Send + 'static) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let folder = swtpm.folder.join(format!("middleman-{number}"));
        let listener = UnixListener::bind(&folder).unwrap();
        let (tpm, seen) = (swtpm.path(), Arc::new(Mutex::new(Vec::new())));
        let commands = Arc::clone(&seen);
        let mut plan: Plan = Box::new(plan);
        thread::spawn(move || {
            for client in listener.incoming().map_while(Result::ok) {
                let tpm = UnixStream::connect(&tpm);
                let Ok(mut tpm) = tpm else { return };
                serve(client, &mut tpm, &commands, &mut plan);
            }
        });
        Self { folder, seen }
    }

    pub(crate) fn config(&self) -> TpmConfig {
        TpmConfig::new(format!("swtpm:{}", self.folder.display()).parse().unwrap())
    }

    pub(crate) fn tpm(&self) -> Tpm {
        Tpm::new(self.config()).unwrap()
    }

    /// The codes of the commands so far.
    pub(crate) fn seen(&self) -> Vec<u32> {
        self.seen.lock().unwrap().clone()
    }
}

fn serve(mut client: UnixStream, tpm: &mut UnixStream, seen: &Mutex<Vec<u32>>, plan: &mut Plan) {
    while let Some(command) = read_frame(&mut client) {
        let code = u32::from_be_bytes(command[6..10].try_into().unwrap());
        let number = {
            let mut seen = seen.lock().unwrap();
            seen.push(code);
            seen.len() - 1
        };
        let answer = match plan(number, code) {
            Act::Pass => exchange(tpm, &command),
            Act::Refuse(code) => refusal(code),
            Act::CutBefore => return,
            Act::CutAfter => {
                exchange(tpm, &command);
                return;
            }
        };
        if client.write_all(&answer).is_err() {
            return;
        }
    }
}
