//! `cargo xtask toolchain`: the compiler at work, the hosted workflow and `rust-version` agree, and the workflow
//! runs what `.ci/run` does.

use cargo_metadata::semver::Version;
use xshell::{Shell, cmd};

use crate::process::{Result, metadata, none_of};

/// Prints the compiler's version; fails when a member has no `rust-version`. cargo itself refuses an older compiler.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    println!("{}", cmd!(shell, "rustc --version").read()?);
    let workflow = shell.read_file(".github/workflows/ci.yml")?;
    let ci_run = shell.read_file(".ci/run")?;
    let mut faults = Vec::new();
    for package in metadata()?.workspace_packages() {
        match &package.rust_version {
            Some(promised) => faults.extend(workflow_faults(&workflow, &ci_run, promised)),
            None => faults.push(format!("{} has no rust-version", package.name)),
        }
    }
    faults.dedup();
    none_of(&faults)
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
    fn a_workflow_that_does_something_else_fails() {
        let ci_run = "set -eu\ncargo xtask test\ncargo xtask ci\n";
        let workflow = "  - run: |\n      rustup default 1.95\n  - run: cargo xtask test\n";
        let faults = workflow_faults(workflow, ci_run, &Version::new(1, 95, 0));
        assert_eq!(faults, ["the workflow doesn't run `cargo xtask ci`"]);
        assert_eq!(workflow_faults(workflow, "", &Version::new(1, 96, 0)).len(), 1);
    }
}
