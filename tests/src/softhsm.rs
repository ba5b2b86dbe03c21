//! A token of SoftHSM, with its files in a folder of its own.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

/// Where distributions put it.
const LIBRARIES: &[&str] = &[
    "/usr/lib/softhsm/libsofthsm2.so",
    "/usr/lib/x86_64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib/aarch64-linux-gnu/softhsm/libsofthsm2.so",
    "/usr/lib64/pkcs11/libsofthsm2.so",
    "/usr/local/lib/softhsm/libsofthsm2.so",
];

/// A token with the label `dps`. The folder stays when it is dropped.
#[derive(Debug)]
pub struct SoftHsm {
    folder: PathBuf,
    library: PathBuf,
}

impl SoftHsm {
    /// The user's PIN.
    pub const PIN: &str = "1234";
    /// The environment variable that names the configuration. A process takes it when it initializes the module.
    pub const VARIABLE: &str = "SOFTHSM2_CONF";

    /// Makes the token, in a folder that is there. `None` without SoftHSM, with a word about it.
    ///
    /// # Panics
    /// In CI when SoftHSM is missing; when the folder can't be written.
    #[must_use]
    pub fn new(folder: &Path) -> Option<Self> {
        let Some(library) = Self::library() else {
            let why = "SoftHSM is missing; install the Debian package softhsm2";
            assert!(std::env::var("CI").is_err(), "{why}");
            eprintln!("SKIPPED: {why}");
            return None;
        };
        let this = Self { folder: folder.to_owned(), library };
        let tokens = folder.join("tokens");
        fs::create_dir(&tokens).expect("a folder");
        let config = format!("directories.tokendir = {}\nlog.level = ERROR\n", tokens.display());
        fs::write(this.config(), config).expect("a file");
        this.add_token("dps");
        Some(this)
    }

    /// The one that was made in this folder before.
    ///
    /// # Panics
    /// Without SoftHSM.
    #[must_use]
    pub fn in_folder(folder: &Path) -> Self {
        let library = Self::library().expect("SoftHSM");
        Self { folder: folder.to_owned(), library }
    }

    /// The module.
    #[must_use]
    pub fn library() -> Option<PathBuf> {
        LIBRARIES.iter().map(PathBuf::from).find(|path| path.exists())
    }

    /// The configuration, for [`Self::VARIABLE`].
    #[must_use]
    pub fn config(&self) -> PathBuf {
        self.folder.join("softhsm2.conf")
    }

    /// A URI of a key in the token, with the PIN and the module.
    #[must_use]
    pub fn uri(&self, label: &str) -> String {
        let module = self.library.display();
        format!("pkcs11:token=dps;object={label}?pin-value={}&module-path={module}", Self::PIN)
    }

    /// Another token in the same folder.
    ///
    /// # Panics
    /// When SoftHSM does not make it.
    pub fn add_token(&self, label: &str) {
        self.util(&["--init-token", "--free", "--label", label, "--so-pin", "5678"]);
    }

    /// Puts a private key, as PEM of PKCS#8, and its public half into the token.
    ///
    /// # Panics
    /// When SoftHSM does not take it.
    pub fn import(&self, label: &str, id: &str, key: &str) {
        let file = self.folder.join(format!("{label}.pem"));
        fs::write(&file, key).expect("a file");
        let file = file.display().to_string();
        self.util(&["--import", &file, "--token", "dps", "--label", label, "--id", id]);
    }

    fn util(&self, arguments: &[&str]) {
        let mut util = Command::new("softhsm2-util");
        let util = util.args(arguments).args(["--pin", Self::PIN]);
        let done = util.env(Self::VARIABLE, self.config()).output().expect("softhsm2-util");
        assert!(done.status.success(), "{arguments:?}: {}", String::from_utf8_lossy(&done.stderr));
    }
}
