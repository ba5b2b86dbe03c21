//! A token of SoftHSM in a folder of its own, keys in it, and a module before it that fails when it shall.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use crate::softhsm::SoftHsm as Token;
use cryptoki::{
    context::{CInitializeArgs, CInitializeFlags, Pkcs11},
    error::{Error, RvError},
    mechanism::Mechanism,
    object::Attribute,
    session::{Session, UserType},
    types::AuthPin,
};
use dps_pkcs11::{Pkcs11Error, Pkcs11Key, Pkcs11Options};

/// The user's PIN of each token.
pub(crate) const PIN: &str = Token::PIN;

/// In the environment of a test's own process: the folder of its token.
const FOLDER: &str = "DPS_TEST_SOFTHSM";

/// What a test has.
pub(crate) struct SoftHsm {
    pub(crate) folder: PathBuf,
    pub(crate) token: Token,
}

/// Runs the body in a process of its own, with a fresh token with the label `dps`. `test` is the path of the test.
///
/// Without SoftHSM it ends the test: as a failure in CI, as a skip that says so elsewhere.
pub(crate) fn in_own_process(test: &str, body: impl FnOnce(&SoftHsm)) {
    if let Some(folder) = std::env::var_os(FOLDER).map(PathBuf::from) {
        let token = Token::in_folder(&folder);
        return body(&SoftHsm { folder, token });
    }
    let name = format!("dps-pkcs11-{}-{}", std::process::id(), test.replace("::", "-"));
    let folder = std::env::temp_dir().join(name);
    fs::create_dir_all(&folder).unwrap();
    let Some(token) = Token::new(&folder) else { return };
    let mut child = Command::new(std::env::current_exe().unwrap());
    let child = child.args([test, "--exact", "--nocapture"]);
    let child = child.env(Token::VARIABLE, token.config()).env(FOLDER, &folder);
    let child = child.env("FAULTS_FOLDER", &folder);
    let ended = child.env("FAULTS_MODULE", Token::library().unwrap()).output().unwrap();
    fs::remove_dir_all(&folder).unwrap();
    let said = String::from_utf8_lossy(&[ended.stdout, ended.stderr].concat()).into_owned();
    assert!(ended.status.success() && said.contains("1 passed"), "{said}");
}

pub(crate) enum Kind {
    Rsa(u64),
    P256,
    P384,
    P521,
}

impl SoftHsm {
    pub(crate) fn options(&self) -> Pkcs11Options {
        let mut options = Pkcs11Options::default();
        options.module = Token::library();
        options
    }

    /// Opens the key of a URI that need not name the module.
    pub(crate) fn open(&self, uri: &str) -> Result<Pkcs11Key, dps_client::Error> {
        Pkcs11Key::open(&uri.parse()?, &self.options())
    }

    /// A session in which keys can be made. It keeps the login of the process for as long as it lives.
    pub(crate) fn session(&self) -> Session {
        let context = Pkcs11::new(Token::library().unwrap()).unwrap();
        let _ = context.initialize(CInitializeArgs::new(CInitializeFlags::OS_LOCKING_OK));
        let slots = context.get_slots_with_initialized_token().unwrap();
        let session = context.open_rw_session(slots[0]).unwrap();
        let login = session.login(UserType::User, Some(&AuthPin::from(PIN.to_owned())));
        assert!(
            matches!(login, Ok(()) | Err(Error::Pkcs11(RvError::UserAlreadyLoggedIn, _))),
            "{login:?}"
        );
        session
    }

    /// Makes a key pair that signs.
    pub(crate) fn make(&self, kind: Kind, label: &str, id: u8) {
        self.make_with(kind, label, id, &[]);
    }

    /// As [`Self::make`], with more attributes of the private key.
    pub(crate) fn make_with(&self, kind: Kind, label: &str, id: u8, more: &[Attribute]) {
        let session = self.session();
        let common = [
            Attribute::Token(true),
            Attribute::Label(label.as_bytes().to_vec()),
            Attribute::Id(vec![id]),
        ];
        let curve = match kind {
            Kind::Rsa(_) => vec![],
            Kind::P256 => vec![6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7],
            Kind::P384 => vec![6, 5, 0x2b, 0x81, 4, 0, 0x22],
            Kind::P521 => vec![6, 5, 0x2b, 0x81, 4, 0, 0x23],
        };
        let (mechanism, own) = match kind {
            Kind::Rsa(bits) => (
                Mechanism::RsaPkcsKeyPairGen,
                vec![Attribute::ModulusBits(bits.into()), Attribute::PublicExponent(vec![1, 0, 1])],
            ),
            _ => (Mechanism::EccKeyPairGen, vec![Attribute::EcParams(curve)]),
        };
        let public = [&common[..], &own, &[Attribute::Verify(true)]].concat();
        let private =
            [&common[..], &[Attribute::Private(true), Attribute::Sensitive(true)]].concat();
        let signs = more.iter().any(|attribute| matches!(attribute, Attribute::Sign(_)));
        let sign = if signs { vec![] } else { vec![Attribute::Sign(true)] };
        let private = [&private[..], &sign, more].concat();
        session.generate_key_pair(&mechanism, &public, &private).unwrap();
    }

    /// The module that fails when it shall, as the option of a URI.
    pub(crate) fn faulty(&self) -> String {
        let library = self.folder.join("faults.so");
        if !library.exists() {
            let source = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/softhsm/faults.c");
            let built = Command::new("cc")
                .args(["-shared", "-fPIC", "-o"])
                .args([library.as_path(), Path::new(source)])
                .arg("-ldl")
                .output()
                .unwrap();
            assert!(built.status.success(), "{}", String::from_utf8_lossy(&built.stderr));
        }
        format!("module-path={}", library.display())
    }

    /// Lets the next calls of a function fail with a code.
    pub(crate) fn fail(&self, function: &str, code: u32, times: u32) {
        fs::write(self.folder.join(function), format!("{code:x} {times}")).unwrap();
    }

    /// Writes a file for the faulty module.
    pub(crate) fn set(&self, name: &str, content: &str) {
        fs::write(self.folder.join(name), content).unwrap();
    }

    pub(crate) fn unset(&self, name: &str) {
        fs::remove_file(self.folder.join(name)).unwrap();
    }

    /// How often the function was called through the faulty module.
    pub(crate) fn calls(&self, function: &str) -> usize {
        let calls = fs::read_to_string(self.folder.join("calls")).unwrap_or_default();
        calls.lines().filter(|line| *line == function).count()
    }
}

/// The typed error below.
pub(crate) fn typed(error: &dps_client::Error) -> Pkcs11Error {
    let dps_client::Error::Credential(error) = error else { panic!("{error:?}") };
    let source = error.source.as_ref().unwrap();
    source.downcast_ref::<Pkcs11Error>().unwrap().clone()
}
