//! Debian packages that tests need beside Rust: CI installs them, anywhere else a test that lacks one says so.

use xshell::{Shell, cmd};

use crate::process::{Result, in_ci};

/// What `cargo xtask test` needs: a software TPM, a software token, what makes keys in it that are not ours, what messages advise people to
/// convert files with, what renders manual pages, and what pages of the documentation speak HTTP with.
const TESTS: &str =
    "swtpm softhsm2 openssh-client openssl tpm2-openssl libtss2-tcti-cmd0 socat groff-base curl";

pub(crate) fn install_for_tests(shell: &Shell) -> Result {
    let installed = |name: &&str| cmd!(shell, "dpkg --status {name}").quiet().read().is_ok();
    let missing: Vec<&str> = TESTS.split(' ').filter(|name| !installed(name)).collect();
    if missing.is_empty() { Ok(()) } else { install(shell, &missing) }
}

/// Which programs a machine lacks, of pairs with the package that has one. In CI they are installed, and a failure if they
/// can't be; elsewhere what is missing is returned.
pub(crate) fn missing<'a>(
    shell: &Shell,
    needs: impl IntoIterator<Item = &'a (&'a str, &'a str)>,
) -> Result<Option<String>> {
    let found = |program: &str| cmd!(shell, "sh -c 'command -v $0' {program}").read().is_ok();
    let missing = needs.into_iter().filter(|(program, _)| !found(program));
    match missing.map(|(_, package)| *package).collect::<Vec<_>>().as_slice() {
        [] => Ok(None),
        missing if in_ci() => install(shell, missing).map(|()| None),
        missing => Ok(Some(format!("{} not installed", missing.join(", ")))),
    }
}

/// Installs the packages.
pub(crate) fn install(shell: &Shell, packages: &[&str]) -> Result {
    as_root(shell, "apt-get update --quiet")?;
    let install = "apt-get install --yes --quiet --no-install-recommends";
    as_root(shell, &format!("{install} {}", packages.join(" ")))
}

/// Runs a command as root, by sudo where that is needed. Tasks that run beside each other take turns: apt and dpkg fail while
/// another one is at work.
pub(crate) fn as_root(shell: &Shell, command: &str) -> Result {
    let root = cmd!(shell, "id -u").read()? == "0";
    let sudo: &[&str] = if root { &[] } else { &["sudo", "-n"] };
    let words = command.split(' ');
    let lock = std::env::temp_dir().join("dps-xtask-root.lock");
    Ok(cmd!(shell, "env {sudo...} flock {lock} env DEBIAN_FRONTEND=noninteractive {words...}")
        .run()?)
}
