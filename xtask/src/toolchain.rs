//! `cargo xtask toolchain`: the compiler at work, the hosted workflow and `rust-version` agree, and the workflow
//! runs what `.ci/run` does.

use std::collections::BTreeSet;

use crate::{
    metadata::Metadata,
    process::{Cmd, Result, none_of},
};

/// Prints the compiler's version; fails when it is older than a member's `rust-version`, or a member has none.
pub(crate) fn run(_: &[String]) -> Result {
    let text = Cmd::rustc(["--version"]).read()?;
    println!("{}", text.trim());
    let used = text.split(' ').nth(1).and_then(minor_of);
    let used = used.ok_or_else(|| format!("can't read the version in {text:?}"))?;
    let ci_run = std::fs::read_to_string(".ci/run")?;
    let workflow = std::fs::read_to_string(".github/workflows/ci.yml")?;
    let mut faults = BTreeSet::new();
    for package in Metadata::load()?.members() {
        let name = &package.name;
        let Some(promised) = package.rust_version.as_deref().and_then(minor_of) else {
            faults.insert(format!("{name} has no rust-version"));
            continue;
        };
        if used < promised {
            faults.insert(format!("{name} needs Rust {promised:?}, this is {used:?}"));
        }
        if used > promised {
            println!("note: {name} promises to build with the older Rust {promised:?}");
        }
        faults.extend(workflow_faults(&workflow, &ci_run, promised));
    }
    none_of(&Vec::from_iter(faults))
}

/// The workflow takes the promised compiler, and runs the commands of `.ci/run` one by one.
fn workflow_faults(workflow: &str, ci_run: &str, promised: (u32, u32)) -> Vec<String> {
    let steps: Vec<&str> =
        workflow.lines().map(|line| line.trim().trim_start_matches("- run: ")).collect();
    let compiler = format!("rustup default {}.{}", promised.0, promised.1);
    let commands = ci_run.lines().filter(|line| line.starts_with("cargo "));
    [compiler.as_str()]
        .into_iter()
        .chain(commands)
        .filter(|line| !steps.contains(line))
        .map(|line| format!("the workflow doesn't run `{line}`"))
        .collect()
}

/// Major and minor of `1.95`, `1.95.0` or `1.96.0-nightly`.
fn minor_of(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_compare_by_number() {
        assert_eq!(minor_of("1.95"), Some((1, 95)));
        assert!(minor_of("1.100.0-nightly") > minor_of("1.95.0"));
        assert_eq!(minor_of("stable"), None);
    }

    #[test]
    fn a_workflow_that_does_something_else_fails() {
        let ci_run = "set -eu\ncargo xtask test\ncargo xtask ci\n";
        let workflow = "  - run: |\n      rustup default 1.95\n  - run: cargo xtask test\n";
        assert_eq!(
            workflow_faults(workflow, ci_run, (1, 95)),
            ["the workflow doesn't run `cargo xtask ci`"]
        );
        assert_eq!(workflow_faults(workflow, "", (1, 96)).len(), 1);
    }
}
