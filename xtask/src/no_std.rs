//! `cargo xtask no-std`: the pure core needs no standard library, no clock and no runtime.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
};

use crate::process::{Cmd, Result, none_of};

const CRATE: &str = "dps-state-machine";

/// The folder of the pure core.
const CORE: &str = "crates/dps-state-machine/src/machine";

/// What the core's code never says, and why not.
const NEVER: &[(&str, &str)] = &[
    ("std::", "the core is no_std"),
    ("feature =", "the core is the same with every feature"),
    ("Instant", "time comes in as a duration since the driver's origin"),
    ("SystemTime", "time comes in as a duration since the driver's origin"),
    ("sleep", "waiting is the driver's"),
    ("tokio", "the core knows no runtime"),
    ("async ", "the core returns actions, it waits for nothing"),
    (".await", "the core returns actions, it waits for nothing"),
    ("tracing", "the core returns what happened, the driver tells it"),
];

/// Targets without a standard library; one that is installed is built for.
const BARE_METAL: &[&str] = &[
    "thumbv7em-none-eabi",
    "thumbv7em-none-eabihf",
    "thumbv8m.main-none-eabihf",
    "aarch64-unknown-none",
    "x86_64-unknown-none",
];

/// Builds the crate without its default features, looks for `std` among the features of what it uses, and reads the
/// core's code.
pub(crate) fn run(_: &[String]) -> Result {
    let build = ["build", "--locked", "--package", CRATE, "--no-default-features", "--lib"];
    Cmd::cargo(build).run()?;
    let tree = Cmd::cargo(["tree", "--locked", "--package", CRATE, "--no-default-features"])
        .args(["--edges", "normal,no-proc-macro", "--prefix", "none", "--format", "{p}|{f}"])
        .read()?;
    let mut faults = std_users(&tree);
    faults.extend(code_faults(Path::new(CORE))?);
    none_of(&faults)?;
    match installed_target()? {
        Some(target) => Cmd::cargo(build).args(["--target", target]).run(),
        None => {
            println!(
                "skipped: no bare-metal target is installed (one of {})",
                BARE_METAL.join(", ")
            );
            Ok(())
        }
    }
}

/// The lines `crate version|feature,feature` that ask for `std`.
fn std_users(tree: &str) -> Vec<String> {
    tree.lines()
        .filter_map(|line| line.rsplit_once('|'))
        .filter(|(_, features)| features.split(',').any(|feature| feature == "std"))
        .map(|(krate, _)| format!("{krate} is built with its feature std"))
        .collect()
}

fn code_faults(folder: &Path) -> Result<Vec<String>> {
    let mut files = BTreeMap::new();
    for file in rust_files(folder)? {
        files.insert(file.clone(), std::fs::read_to_string(file)?);
    }
    if files.is_empty() {
        return Err(format!("{} has no code to read", folder.display()).into());
    }
    let tests: BTreeSet<&str> = files.values().flat_map(|code| modules_for_tests(code)).collect();
    let is_core = |file: &Path| !file.file_stem().is_some_and(|s| tests.iter().any(|t| s == *t));
    let core = files.iter().filter(|(file, _)| is_core(file));
    Ok(core
        .flat_map(|(file, code)| words_in(code).map(|found| format!("{}:{found}", file.display())))
        .collect())
}

/// The files that only tests compile: `#[cfg(test)]` and `mod name;` on the next line.
fn modules_for_tests(code: &str) -> impl Iterator<Item = &str> {
    let next = code.lines().skip(1);
    code.lines()
        .zip(next)
        .filter(|(line, _)| line.trim() == "#[cfg(test)]")
        .filter_map(|(_, next)| next.trim().strip_prefix("mod ")?.strip_suffix(';'))
}

/// Forbidden words in the code before the tests, comments aside.
fn words_in(code: &str) -> impl Iterator<Item = String> {
    let lines = code.lines().take_while(|line| line.trim() != "mod tests {").enumerate();
    lines.flat_map(|(index, line)| {
        let code = line.split("//").next().unwrap_or_default();
        NEVER
            .iter()
            .filter(move |(word, _)| code.contains(word))
            .map(move |(word, why)| format!("{}: {word:?}: {why}", index + 1))
    })
}

/// The code in a folder and below it.
pub(crate) fn rust_files(folder: &Path) -> Result<Vec<PathBuf>> {
    let mut files = Vec::new();
    let mut folders = vec![folder.to_path_buf()];
    while let Some(folder) = folders.pop() {
        for entry in std::fs::read_dir(&folder).map_err(|e| format!("{}: {e}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                files.push(path);
            }
        }
    }
    files.sort();
    Ok(files)
}

fn installed_target() -> Result<Option<&'static str>> {
    let sysroot = Cmd::rustc(["--print", "sysroot"]).read()?;
    let libraries = Path::new(sysroot.trim()).join("lib/rustlib");
    Ok(BARE_METAL.iter().copied().find(|target| libraries.join(target).is_dir()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_dependency_with_std_is_found() {
        let tree =
            "serde v1.0.228|alloc,derive\nserde_json v1.0.145|alloc,std\nours v0.1.0 (/x)|\n";
        assert_eq!(std_users(tree), ["serde_json v1.0.145 is built with its feature std"]);
    }

    #[test]
    fn a_clock_in_the_core_is_found_with_its_line() {
        let code = "fn f() {\n    let now = Instant::now();\n}\n";
        let found: Vec<String> = words_in(code).collect();
        assert_eq!(
            found,
            ["2: \"Instant\": time comes in as a duration since the driver's origin"]
        );
        assert_eq!(words_in("use std::fmt;").count(), 1);
    }

    #[test]
    fn comments_and_tests_may_say_anything() {
        assert_eq!(words_in("//! No Instant here.\nfn f() {} // no sleep\n").count(), 0);
        assert_eq!(words_in("fn f() {}\n#[cfg(test)]\nmod tests {\nuse std::fmt;\n}").count(), 0);
    }

    #[test]
    fn files_for_tests_only_are_not_the_core() {
        let code = "#[cfg(test)]\nmod walk;\nmod state;\n#[cfg(test)]\nmod tests {\n}\n";
        assert_eq!(modules_for_tests(code).collect::<Vec<_>>(), ["walk"]);
        assert_eq!(words_in("#[cfg(test)]\nmod walk;\nuse std::fmt;").count(), 1);
    }

    #[test]
    fn a_folder_that_is_gone_fails() {
        assert!(code_faults(Path::new("no/such/folder")).is_err());
    }
}
