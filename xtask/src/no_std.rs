//! `cargo xtask no-std`: the state machine needs no standard library, no clock and no runtime.
//!
//! Without its feature `std` the crate is `no_std` and depends on no runtime, so the compiler itself refuses a clock,
//! a thread or a socket. What is left to check: that it builds so, that no crate below it brings `std` in, and that
//! the pure core is the same code with every feature and waits for nothing.

use std::path::Path;

use xshell::{Shell, cmd};

use crate::process::{Result, cargo, none_of};

/// The folder of the pure core.
const CORE: &str = "crates/dps-state-machine/src/machine";

/// What the core's code never says, and why not.
const NEVER: &[(&str, &str)] = &[
    ("feature =", "the core is the same with every feature"),
    ("async ", "the core returns outputs, it waits for nothing"),
    (".await", "the core returns outputs, it waits for nothing"),
];

/// Targets without a standard library; one that is installed is built for.
const BARE_METAL: &[&str] =
    &["thumbv7em-none-eabi", "thumbv7em-none-eabihf", "x86_64-unknown-none"];

pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let what = "--locked --package dps-state-machine --no-default-features";
    cargo(shell, &format!("build --lib {what}")).run()?;
    let edges = "--edges normal,no-proc-macro --prefix none --format {p}|{f}";
    let mut faults = std_users(&cargo(shell, &format!("tree {what} {edges}")).read()?);
    for file in shell.read_dir(CORE)? {
        if file.extension().is_some_and(|extension| extension == "rs") {
            let found = words_in(&shell.read_file(&file)?);
            faults.extend(found.into_iter().map(|found| format!("{}:{found}", file.display())));
        }
    }
    none_of(&faults)?;
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

/// The words that the core never says, with their lines; comments may say anything.
fn words_in(code: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let code = line.split("//").next().unwrap_or_default();
        let words = NEVER.iter().filter(|(word, _)| code.contains(word));
        found.extend(words.map(|(word, why)| format!("{}: {word:?}: {why}", index + 1)));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_with_std_is_found() {
        let tree = "serde v1.0.228|alloc\nserde_json v1.0.145|alloc,std\nours v0.1.0 (/x)|\n";
        assert_eq!(std_users(tree), ["serde_json v1.0.145 is built with its feature std"]);
    }

    #[test]
    fn waiting_in_the_core_is_found_with_its_line() {
        let code = "// .await is for the driver\nfn f() {\n    now().await;\n}\n";
        let found = ["3: \".await\": the core returns outputs, it waits for nothing"];
        assert_eq!(words_in(code), found);
        assert_eq!(words_in("#[cfg(feature = \"std\")]").len(), 1);
    }
}
