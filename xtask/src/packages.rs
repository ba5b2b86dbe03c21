//! Debian packages that tests need beside Rust: CI installs them, anywhere else a test that lacks one says so.

use xshell::{Shell, cmd};

use crate::process::Result;

/// What `cargo xtask test` needs: a software TPM, a software token, what makes keys in it that are not ours, what messages advise people to
/// convert files with, and what renders manual pages.
const TESTS: &str =
    "swtpm softhsm2 openssh-client openssl tpm2-openssl libtss2-tcti-cmd0 socat groff-base";

pub(crate) fn install_for_tests(shell: &Shell) -> Result {
    install_missing(shell, TESTS)
}

/// Installs those of the packages that are not there.
pub(crate) fn install_missing(shell: &Shell, names: &str) -> Result {
    let installed = |name: &&str| cmd!(shell, "dpkg --status {name}").quiet().read().is_ok();
    let missing: Vec<&str> = names.split(' ').filter(|name| !installed(name)).collect();
    if missing.is_empty() { Ok(()) } else { install(shell, &missing) }
}

/// Installs the packages.
pub(crate) fn install(shell: &Shell, packages: &[&str]) -> Result {
    as_root(shell, "apt-get update --quiet")?;
    let install = "apt-get install --yes --quiet --no-install-recommends";
    as_root(shell, &format!("{install} {}", packages.join(" ")))
}

/// Runs a command as root, by sudo where that is needed.
pub(crate) fn as_root(shell: &Shell, command: &str) -> Result {
    let root = cmd!(shell, "id -u").read()? == "0";
    let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    let words = command.split(' ');
    Ok(cmd!(shell, "env {sudo...} env DEBIAN_FRONTEND=noninteractive {words...}").run()?)
}
