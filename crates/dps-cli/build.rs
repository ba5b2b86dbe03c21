//! Tells the command from which commit it is built, for `dps --version`: a package says so in a file that cargo puts
//! there, a checkout by git. Without either the version says nothing of it.

use std::{env, fs, path::Path, process::Command};

/// So much of a commit's hash is shown.
const SHOWN: usize = 12;

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let folder = env::var_os("CARGO_MANIFEST_DIR").unwrap_or_default();
    let folder = Path::new(&folder);
    let commit = of_package(folder).or_else(|| of_checkout(folder)).unwrap_or_default();
    let commit = commit.get(..SHOWN).map(|commit| format!(" ({commit})")).unwrap_or_default();
    println!("cargo::rustc-env=COMMIT_OF_DPS={commit}");
}

/// What `cargo package` wrote down: `{"git": {"sha1": "..."}, ..}`.
fn of_package(folder: &Path) -> Option<String> {
    let text = fs::read_to_string(folder.join(".cargo_vcs_info.json")).ok()?;
    let (_, hash) = text.split_once("\"sha1\"")?;
    hash.split('"').nth(1).map(str::to_owned)
}

/// The commit of the checkout that this file belongs to. A file that git does not know lies in somebody else's.
fn of_checkout(folder: &Path) -> Option<String> {
    git(folder, &["ls-files", "--error-unmatch", "Cargo.toml"])?;
    // It grows with every commit and every switch to another one.
    let log = git(folder, &["rev-parse", "--git-path", "logs/HEAD"])?;
    if folder.join(&log).exists() {
        println!("cargo::rerun-if-changed={}", folder.join(log).display());
    }
    git(folder, &["rev-parse", "HEAD"])
}

fn git(folder: &Path, arguments: &[&str]) -> Option<String> {
    let output = Command::new("git").current_dir(folder).args(arguments).output().ok()?;
    let text = String::from_utf8(output.stdout).ok()?;
    output.status.success().then(|| text.trim().to_owned())
}
