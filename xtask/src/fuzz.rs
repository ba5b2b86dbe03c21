//! `cargo xtask fuzz [--minutes N] [TARGET..]`: whatever comes in from a peer, a file or a person, by coverage.
//!
//! Builds every target of `tests/fuzz`, replays its checked-in corpus and goes on from there: for some seconds, or
//! for N minutes each, and then optimized, which takes longer to build. What is found is kept in the target folder and built upon by the next run.

use std::{
    error::Error,
    fs,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use xshell::{Shell, cmd};

use crate::process::{Result, cargo, in_ci, none_of};

const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// How long each target searches when nobody says.
const SHORT: Duration = Duration::from_secs(3);

/// A target that sees less of the code has lost its coverage counters, not its way.
const LEAST_EDGES: u64 = 100;

pub(crate) fn run(shell: &Shell, arguments: &[String]) -> Result {
    let (time, targets) = read_arguments(arguments, targets(shell)?)?;
    let compiler = std::env::var("CXX").unwrap_or_else(|_| "c++".to_owned());
    if let Err(why) = cmd!(shell, "{compiler} --version").read() {
        let why = format!("no C++ compiler, which libFuzzer needs (Debian: g++): {why}");
        println!("SKIPPED fuzz: {why}");
        return if in_ci() { Err(why.into()) } else { Ok(()) };
    }
    cargo(shell, &format!("fmt --check --manifest-path {MANIFEST}")).run()?;
    let programs = &build(shell, time > SHORT)?;
    let cores = std::thread::available_parallelism().map_or(1, usize::from);
    let mut faults = Vec::new();
    for group in targets.chunks(cores) {
        std::thread::scope(|scope| {
            let start = |target| scope.spawn(move || search(programs, target, time));
            let searches: Vec<_> = group.iter().map(|target| start(target.as_str())).collect();
            let ends = searches
                .into_iter()
                .map(|search| search.join().unwrap_or(Err("it panicked".into())));
            let failed =
                |(target, end): (_, Result<_, _>)| Some(format!("{target}: {}", end.err()?));
            faults.extend(group.iter().zip(ends).filter_map(failed));
        });
    }
    none_of(&faults)
}

/// How long to search, and in which targets.
fn read_arguments(arguments: &[String], all: Vec<String>) -> Result<(Duration, Vec<String>)> {
    let (time, targets) = match arguments {
        [flag, minutes, targets @ ..] if flag == "--minutes" => {
            let minutes = minutes.parse().ok().filter(|minutes: &f64| *minutes > 0.0);
            let time = minutes.and_then(|m| Duration::try_from_secs_f64(m * 60.0).ok());
            (time.ok_or("--minutes needs a number above 0")?, targets)
        }
        targets => (SHORT, targets),
    };
    if let Some(wrong) = targets.iter().find(|target| !all.contains(target)) {
        return Err(format!("{wrong:?} is no target; there are {}", all.join(", ")).into());
    }
    Ok((time, if targets.is_empty() { all } else { targets.to_vec() }))
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

/// Where all that is built goes.
fn target() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::path::absolute(&target).unwrap_or(target)
}

/// Where what is found goes.
fn folder() -> PathBuf {
    target().join("fuzz")
}

/// Builds the targets, and says in which folder they are. What is fuzzed is what is shipped, so the lock file is the
/// workspace's, to which cargo adds the engine; and the macros are those that the workspace was compiled with.
fn build(shell: &Shell, optimized: bool) -> Result<PathBuf> {
    shell.copy_file("Cargo.lock", "tests/fuzz/Cargo.lock")?;
    let (profile, built) = if optimized { ("release", "release") } else { ("dev", "debug") };
    let words = format!("build --profile {profile} --bins --manifest-path {MANIFEST} --config");
    let build = cargo(shell, &words).arg("tests/fuzz/coverage.toml");
    let target = target();
    build.env("CARGO_TARGET_DIR", &target).run()?;
    Ok(target.join(cmd!(shell, "rustc --print host-tuple").read()?).join(built))
}

type SendError = Box<dyn Error + Send + Sync>;

/// Searches in one target and prints its last figures; fails with the end of libFuzzer's log, which names the input.
fn search(programs: &Path, target: &str, time: Duration) -> Result<(), SendError> {
    let found = folder().join("corpus").join(target);
    let crashes = folder().join("crashes").join(target);
    fs::create_dir_all(&found)?;
    fs::create_dir_all(&crashes)?;
    let mut command = Command::new(programs.join(target));
    command.args(["-timeout=10", &format!("-max_total_time={}", time.as_secs().max(1))]);
    command.arg(format!("-artifact_prefix={}/", crashes.display()));
    let dictionary = format!("tests/fuzz/dictionaries/{target}.dict");
    if Path::new(&dictionary).exists() {
        command.arg(format!("-dict={dictionary}"));
    }
    let run = command.args([&found, &seeds(target)]).output()?;
    let log = String::from_utf8_lossy(&run.stderr);
    fs::write(folder().join(format!("{target}.log")), log.as_bytes())?;
    let last = log.lines().rfind(|line| line.contains(" cov: ")).unwrap_or_default();
    println!("{target:<14}{last}");
    if !run.status.success() {
        let end = log.lines().count().saturating_sub(25);
        return Err(log.lines().skip(end).collect::<Vec<_>>().join("\n").into());
    }
    if edges(last) < LEAST_EDGES {
        return Err(format!("too few edges for {target}, is there no coverage? {last}").into());
    }
    Ok(())
}

/// How many edges a line of libFuzzer's log counts.
fn edges(line: &str) -> u64 {
    let words = line.split_whitespace().skip_while(|word| *word != "cov:");
    words.skip(1).find_map(|number| number.parse().ok()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edges_are_read_from_the_log() {
        let line = "#496987\tDONE   cov: 446 ft: 1851 corp: 710/91Kb exec/s: 55220 rss: 28Mb";
        assert_eq!((edges(line), edges("")), (446, 0));
    }

    #[test]
    fn targets_and_minutes_are_read_and_others_named() {
        let all = ["keys".to_owned(), "sas".to_owned()];
        let read = |text: &str| {
            let arguments: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            let read = read_arguments(&arguments, all.to_vec());
            let (time, targets) = read.map_err(|error| error.to_string())?;
            Ok((time.as_secs(), targets.len()))
        };
        assert_eq!(read(""), Ok((3, 2)));
        assert_eq!(read("--minutes 1.5 sas"), Ok((90, 1)));
        for (wrong, says) in [("--minutes x", "number"), ("--minutes 0", "above 0"), ("x", "keys")]
        {
            let why: String = read(wrong).unwrap_err();
            assert!(why.contains(says), "{why}");
        }
    }
}
