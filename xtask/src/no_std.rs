//! `cargo xtask no-std`: the state machine needs no standard library, no clock and no runtime.
//!
//! Without its feature `std` the crate is `no_std` and depends on no runtime, so the compiler itself refuses a clock,
//! a thread or a socket. What is left to check: that it builds so, and that no crate below it brings `std` in. That the
//! pure core is the same code with every feature and waits for nothing is held by a test of the crate.

use std::path::Path;

use xshell::{Shell, cmd};

use crate::process::{Result, cargo, none_of};

/// Targets without a standard library; one that is installed is built for.
const BARE_METAL: &[&str] = &["thumbv7em-none-eabi", "x86_64-unknown-none"];

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let what = "--locked --package dps-state-machine --no-default-features";
    cargo(shell, &format!("build --lib {what}")).run()?;
    let edges = "--edges normal,no-proc-macro --prefix none --format {p}|{f}";
    none_of(&std_users(&cargo(shell, &format!("tree {what} {edges}")).read()?))?;
    let libraries = Path::new(&cmd!(shell, "rustc --print sysroot").read()?).join("lib/rustlib");
    match BARE_METAL.iter().find(|target| libraries.join(target).is_dir()) {
        Some(target) => cargo(shell, &format!("build --lib {what} --target {target}")).run()?,
        None => println!("skipped: no bare-metal target is installed (one of {BARE_METAL:?})"),
    }
    Ok(())
}

/// The lines `crate version|feature,feature` that ask for `std`.
fn std_users(tree: &str) -> Vec<String> {
    let lines = tree.lines().filter_map(|line| line.split_once('|'));
    let users = lines.filter(|(_, features)| features.split(',').any(|feature| feature == "std"));
    users.map(|(name, _)| format!("{name} is built with its feature std")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_with_std_is_found() {
        let tree = "serde v1.0.228|alloc\nserde_json v1.0.145|alloc,std\nours v0.1.0 (/x)|\n";
        assert_eq!(std_users(tree), ["serde_json v1.0.145 is built with its feature std"]);
    }
}
