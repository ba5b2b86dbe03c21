//! `cargo xtask fuzz [--minutes N] [TARGET..]`: whatever comes in from a peer, a file or a person, by coverage.
//!
//! Builds every target of `tests/fuzz`, replays its checked-in corpus and goes on from there: for some seconds, or
//! for N minutes each. What is found is kept in the target folder and built upon by the next run.

use std::{
    collections::BTreeSet,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use cargo_metadata::{Metadata, MetadataCommand};
use xshell::{Shell, cmd};

use crate::process::{Result, all_of, cargo, metadata, skip_unless_ci};

pub(crate) const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// How long each target searches when nobody says.
const SHORT: Duration = Duration::from_secs(3);

/// A target that sees less of the code has lost its coverage counters, not its way.
const LEAST_EDGES: u64 = 100;

/// What `cargo fuzz` sets: a counter at every edge and the operands of every comparison, for libFuzzer to steer by.
/// All of it is stable; only sanitizers are not, and without unsafe code they have little to find.
const FLAGS: &[&str] = &[
    "--cfg=fuzzing",
    "-Dwarnings",
    "-Ccodegen-units=1",
    "-Cpasses=sancov-module",
    "-Cllvm-args=-sanitizer-coverage-level=4",
    "-Cllvm-args=-sanitizer-coverage-inline-8bit-counters",
    "-Cllvm-args=-sanitizer-coverage-pc-table",
    "-Cllvm-args=-sanitizer-coverage-trace-compares",
    "-Cllvm-args=-simplifycfg-branch-fold-threshold=0",
];

pub(crate) fn run(shell: &Shell, arguments: &[String]) -> Result {
    let all = targets(shell)?;
    let (time, targets) = read_arguments(arguments, &all)?;
    if let Some(why) = no_compiler(shell) {
        return skip_unless_ci("fuzz", &why);
    }
    cargo(shell, &format!("fmt --check --manifest-path {MANIFEST}")).run()?;
    sync_lock(shell)?;
    let programs = build(shell)?;
    println!("target               runs   runs/s     edges      new");
    let todo = Mutex::new(targets.into_iter());
    let done = Mutex::new(Vec::new());
    let next = || todo.lock().unwrap_or_else(|e| e.into_inner()).next();
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(target) = next() {
                    let found = search(&programs, &target, time);
                    let found = found.map_err(|why| format!("{target}: {why}"));
                    done.lock().unwrap_or_else(|e| e.into_inner()).push(found);
                }
            });
        }
    });
    let done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    all_of(done.into_iter().map(|found| found.map_err(Into::into)))
}

/// Why libFuzzer can't be built, if it can't.
pub(crate) fn no_compiler(shell: &Shell) -> Option<String> {
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    let why = cmd!(shell, "{compiler} --version").read().err()?;
    Some(format!("no C++ compiler, which libFuzzer needs (Debian: g++): {why}"))
}

/// Where all that is built for fuzzing goes.
pub(crate) fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::path::absolute(target.join("fuzz")).unwrap_or(target)
}

/// How long to search, and in which targets.
fn read_arguments(arguments: &[String], all: &[String]) -> Result<(Duration, Vec<String>)> {
    let (mut time, mut targets) = (SHORT, Vec::new());
    let mut arguments = arguments.iter();
    while let Some(argument) = arguments.next() {
        if argument == "--minutes" {
            let minutes = arguments.next().and_then(|text| text.parse::<f64>().ok());
            let minutes = minutes.filter(|minutes| *minutes > 0.0);
            let found = minutes.and_then(|m| Duration::try_from_secs_f64(m * 60.0).ok());
            time = found.ok_or("--minutes needs a number above 0")?;
        } else if all.contains(argument) {
            targets.push(argument.clone());
        } else {
            return Err(format!("{argument:?} is no target; there are {}", all.join(", ")).into());
        }
    }
    Ok((time, if targets.is_empty() { all.to_vec() } else { targets }))
}

/// One binary each; each has seeds.
fn targets(shell: &Shell) -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for path in shell.read_dir("tests/fuzz/src/bin")? {
        let name = path.file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if shell.read_dir(seeds(&name)).map_or(0, |seeds| seeds.len()) == 0 {
            return Err(format!("{} has no seeds", seeds(&name).display()).into());
        }
        targets.push(name);
    }
    Ok(targets)
}

fn seeds(target: &str) -> PathBuf {
    Path::new("tests/fuzz/corpus").join(target)
}

/// What is fuzzed is what is shipped: the same version of every crate that both lock files have. A lock file that is
/// behind is made anew. Returns our crates among those that are fuzzed.
pub(crate) fn sync_lock(shell: &Shell) -> Result<Vec<String>> {
    let load = |locked: &[&str]| {
        let mut command = MetadataCommand::new();
        command
            .manifest_path(MANIFEST)
            .other_options(locked.iter().map(|l| l.to_string()).collect::<Vec<_>>());
        command.exec()
    };
    let main = versions(&metadata()?);
    let fuzzed = match load(&["--locked"]) {
        Ok(fuzzed) if !is_behind(&main, &versions(&fuzzed)) => fuzzed,
        _ => {
            println!("note: the lock file of tests/fuzz was behind and is made anew; commit it");
            shell.copy_file("Cargo.lock", "tests/fuzz/Cargo.lock")?;
            load(&[])?
        }
    };
    let ours = fuzzed
        .packages
        .iter()
        .filter(|package| package.manifest_path.as_str().contains("/crates/dps-"));
    Ok(ours.map(|package| package.name.to_string()).collect())
}

/// The names and versions of a workspace's packages.
type Versions = BTreeSet<(String, String)>;

fn versions(metadata: &Metadata) -> Versions {
    let packages = metadata.packages.iter();
    packages.map(|package| (package.name.to_string(), package.version.to_string())).collect()
}

/// Whether the second has a version of a crate that the first, which has that crate too, has not.
fn is_behind(main: &Versions, fuzz: &Versions) -> bool {
    let names: BTreeSet<_> = main.iter().map(|(name, _)| name).collect();
    fuzz.difference(main).any(|(name, _)| names.contains(name))
}

/// Builds the targets, and says in which folder they are. The host is named as the target, so that the flags are not
/// for build scripts and macros.
fn build(shell: &Shell) -> Result<PathBuf> {
    let version = cmd!(shell, "rustc -vV").read()?;
    let host = version.lines().find_map(|line| line.strip_prefix("host: ")).unwrap_or_default();
    let words = format!("build --release --bins --manifest-path {MANIFEST} --target {host}");
    let build = cargo(shell, &words).env("CARGO_TARGET_DIR", folder());
    build.env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f")).run()?;
    Ok(folder().join(host).join("release"))
}

/// Searches in one target and prints its figures; fails with the end of libFuzzer's log, which names the input.
fn search(programs: &Path, target: &str, time: Duration) -> Result {
    let found = folder().join("corpus").join(target);
    let crashes = folder().join("crashes").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&crashes)?;
    let mut command = Command::new(programs.join(target));
    command.args(["-timeout=10", "-print_final_stats=1"]);
    command.arg(format!("-max_total_time={}", time.as_secs().max(1)));
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    let dictionary = format!("tests/fuzz/dictionaries/{target}.dict");
    if Path::new(&dictionary).exists() {
        command.arg(format!("-dict={dictionary}"));
    }
    let run = command.args([&found, &seeds(target)]).output()?;
    let log = String::from_utf8_lossy(&run.stderr);
    fs::write(folder().join(format!("{target}.log")), log.as_bytes())?;
    let [runs, per_second, edges, all_edges, new] = FIGURES.map(|what| figure(&log, what));
    println!("{target:<14}{runs:>11}{per_second:>9}{:>10}{new:>9}", format!("{edges}/{all_edges}"));
    if !run.status.success() {
        let end = log.lines().count().saturating_sub(25);
        return Err(log.lines().skip(end).collect::<Vec<_>>().join("\n").into());
    }
    if edges < LEAST_EDGES {
        return Err(format!("only {edges} edges: no coverage?").into());
    }
    Ok(())
}

/// What stands before the figures of a search in libFuzzer's log.
const FIGURES: [&str; 5] = [
    "stat::number_of_executed_units:",
    "stat::average_exec_per_sec:",
    " cov: ",
    "PC tables (",
    "stat::new_units_added:",
];

/// The last number in the log behind these words.
fn figure(log: &str, what: &str) -> u64 {
    let text = log.rsplit_once(what).map_or("", |(_, text)| text).trim_start();
    let end = text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len());
    text.get(..end).and_then(|digits| digits.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_read_from_the_log() {
        let log = "INFO: Loaded 1 PC tables (1607 PCs): 1607 [0x1,0x2),\n\
            #8\tINITED cov: 256 ft: 353 corp: 7/206b exec/s: 0 rss: 27Mb\n\
            #496987\tDONE   cov: 446 ft: 1851 corp: 710/91Kb exec/s: 55220 rss: 28Mb\n\
            stat::number_of_executed_units: 496987\n\
            stat::average_exec_per_sec:     55220\nstat::new_units_added:          703\n";
        assert_eq!(FIGURES.map(|what| figure(log, what)), [496_987, 55_220, 446, 1607, 703]);
        assert_eq!(figure("", " cov: "), 0);
    }

    #[test]
    fn targets_and_minutes_are_read_and_others_named() {
        let all = ["keys".to_owned(), "sas".to_owned()];
        let read = |text: &str| {
            let arguments: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            let (time, targets) = read_arguments(&arguments, &all).map_err(|e| e.to_string())?;
            Ok((time.as_secs(), targets.len()))
        };
        assert_eq!(read(""), Ok((3, 2)));
        assert_eq!(read("sas --minutes 1.5"), Ok((90, 1)));
        for (wrong, says) in [("--minutes", "number"), ("--minutes 0", "above 0"), ("x", "keys")] {
            let why: String = read(wrong).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_lock_file_that_has_another_version_is_behind() {
        let lock = |crates: &[(&str, &str)]| -> Versions {
            crates.iter().map(|(name, version)| (name.to_string(), version.to_string())).collect()
        };
        let main = lock(&[("a", "1.0"), ("a", "2.0")]);
        assert!(!is_behind(&main, &lock(&[("a", "2.0"), ("only-here", "9")])));
        assert!(is_behind(&main, &lock(&[("a", "2.1")])));
    }
}
