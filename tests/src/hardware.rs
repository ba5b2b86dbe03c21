//! Keys in hardware, as software plays it, for all tests of a process.

use std::{
    fs,
    path::PathBuf,
    process::{Command, ExitCode},
};

use rcgen::KeyPair;

use crate::SoftHsm;

/// In the environment of the process that has them: the folder with their files.
const FOLDER: &str = "DPS_TEST_HARDWARE";
/// The label of the one key in the token.
const LABEL: &str = "device";

/// Runs the tests in a process that has a token with a key: SoftHSM takes its folder from the environment. A process that
/// only lists tests, or that runs one without a token, is spared it.
pub fn with_hardware(run: impl FnOnce() -> ExitCode) -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let has = |part: &str| arguments.iter().any(|argument| argument.contains(part));
    let needs_none = has("--list") || (has("--exact") && !has("softhsm"));
    if std::env::var_os(FOLDER).is_some() || needs_none || SoftHsm::library().is_none() {
        return run();
    }
    let folder = std::env::temp_dir().join(format!("dps-hardware-{}", std::process::id()));
    fs::create_dir_all(&folder).expect("a folder");
    let token = SoftHsm::new(&folder).expect("SoftHSM");
    token.import(LABEL, "01", &KeyPair::generate().expect("a key").serialize_pem());
    let mut child = Command::new(std::env::current_exe().expect("this program"));
    let child = child.args(arguments).env(FOLDER, &folder).env(SoftHsm::VARIABLE, token.config());
    let ended = child.status().expect("this program once more");
    fs::remove_dir_all(&folder).expect("a folder that is ours");
    if ended.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

/// The URI of the key in the token of this process.
pub(crate) fn key_in_token() -> String {
    let folder = std::env::var_os(FOLDER).map(PathBuf::from);
    let folder = folder.expect("SoftHSM; install the Debian package softhsm2");
    SoftHsm::in_folder(&folder).uri(LABEL)
}
