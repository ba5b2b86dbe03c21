//! What these tests ask a software TPM for, and a middleman that does damage.

use std::{
    io::Write,
    os::unix::net::{UnixListener, UnixStream},
    path::PathBuf,
    sync::{
        Arc, Mutex,
        atomic::{AtomicU32, Ordering},
    },
    thread,
};

use dps_emulator::{TpmStorageKey, wrap_key};
use dps_tpm::{AuthenticationKey, Tpm, TpmConfig, TpmKeys};

use crate::swtpm::{NO_PASSWORD, Swtpm, exchange, read_frame, sized};

/// Ends the test when the software TPM is missing: as a failure in CI, as a skip that says so elsewhere.
macro_rules! swtpm {
    () => {
        match crate::swtpm::Swtpm::start() {
            Some(swtpm) => swtpm,
            None => return,
        }
    };
}
pub(crate) use swtpm;

impl Swtpm {
    pub(crate) fn config(&self) -> TpmConfig {
        TpmConfig::new(self.address().parse().unwrap())
    }

    pub(crate) fn tpm(&self) -> Tpm {
        Tpm::new(self.config()).unwrap()
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

pub(crate) const ENDORSEMENT_HIERARCHY: u32 = 0x4000_000b;
pub(crate) const OWNER_HIERARCHY: u32 = 0x4000_0001;
const HIERARCHY_CHANGE_AUTH: u32 = 0x129;
const CREATE: u32 = 0x153;
const GET_CAPABILITY: u32 = 0x17a;

/// A refusal.
pub(crate) fn refusal(code: u32) -> Vec<u8> {
    [&[0x80, 1, 0, 0, 0, 10][..], &code.to_be_bytes()].concat()
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
        let folder = swtpm.folder().join(format!("middleman-{number}"));
        let listener = UnixListener::bind(&folder).unwrap();
        let (tpm, seen) = (swtpm.socket(), Arc::new(Mutex::new(Vec::new())));
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
