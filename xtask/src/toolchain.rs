//! `cargo xtask toolchain`: the compiler at work, the hosted workflow and `rust-version` agree, and the workflow
//! runs what `.ci/run` does.

use cargo_metadata::semver::Version;
use xshell::{Shell, cmd};

use crate::process::{Result, metadata, none_of};

/// Prints the compiler's version; fails when it is older than a member's `rust-version`, or a member has none.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let text = cmd!(shell, "rustc --version").read()?;
    println!("{text}");
    let used = text.split(' ').nth(1).ok_or("rustc tells no version")?.parse()?;
    let mut faults = Vec::new();
    for package in metadata()?.workspace_packages() {
        faults.extend(version_fault(&package.name, package.rust_version.as_ref(), &used));
        if let Some(promised) = &package.rust_version {
            let workflow = shell.read_file(".github/workflows/ci.yml")?;
            faults.extend(workflow_faults(&workflow, &shell.read_file(".ci/run")?, promised));
        }
    }
    faults.dedup();
    none_of(&faults)
}

fn version_fault(name: &str, promised: Option<&Version>, used: &Version) -> Option<String> {
    match promised {
        None => Some(format!("{name} has no rust-version")),
        Some(promised) if used < promised => {
            Some(format!("{name} needs Rust {promised}, this is {used}"))
        }
        Some(_) => None,
    }
}

/// The workflow takes the promised compiler, and runs the commands of `.ci/run` one by one.
fn workflow_faults(workflow: &str, ci_run: &str, promised: &Version) -> Vec<String> {
    let steps: Vec<&str> =
        workflow.lines().map(|line| line.trim().trim_start_matches("- run: ")).collect();
    let compiler = format!("rustup default {}.{}", promised.major, promised.minor);
    let commands = ci_run.lines().filter(|line| line.starts_with("cargo "));
    let missing = [&*compiler].into_iter().chain(commands).filter(|line| !steps.contains(line));
    missing.map(|line| format!("the workflow doesn't run `{line}`")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_compiler_that_is_too_old_and_a_crate_without_a_promise_fail() {
        let [old, new] = [Version::new(1, 95, 0), Version::new(1, 100, 0)];
        assert!(version_fault("ours", Some(&new), &old).is_some());
        assert!(version_fault("ours", Some(&old), &new).is_none());
        assert_eq!(version_fault("ours", None, &old).unwrap(), "ours has no rust-version");
    }

    #[test]
    fn a_workflow_that_does_something_else_fails() {
        let ci_run = "set -eu\ncargo xtask test\ncargo xtask ci\n";
        let workflow = "  - run: |\n      rustup default 1.95\n  - run: cargo xtask test\n";
        let faults = workflow_faults(workflow, ci_run, &Version::new(1, 95, 0));
        assert_eq!(faults, ["the workflow doesn't run `cargo xtask ci`"]);
        assert_eq!(workflow_faults(workflow, "", &Version::new(1, 96, 0)).len(), 1);
    }
}
