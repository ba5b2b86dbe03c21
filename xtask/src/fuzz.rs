//! `cargo xtask fuzz [--minutes N] [TARGET..]`: whatever comes in from a peer, a file or a person, by coverage.
//!
//! Builds every target of `tests/fuzz`, replays its checked-in corpus and goes on from there: for some seconds, or
//! for N minutes each. What is found is kept in the target folder and built upon by the next run.

use std::{
    collections::{BTreeMap, BTreeSet},
    ffi::OsString,
    fmt::Write as _,
    fs,
    path::{Path, PathBuf},
    process::Command,
    sync::Mutex,
    time::Duration,
};

use crate::{
    missing::skip_unless_ci,
    process::{Cmd, Failure, Result},
};

const FOLDER: &str = "tests/fuzz";
pub(crate) const MANIFEST: &str = "tests/fuzz/Cargo.toml";

/// How long each target searches when nobody says.
const SHORT: Duration = Duration::from_secs(3);

/// How long one input may take, in seconds.
const SLOWEST_INPUT: u32 = 10;

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

pub(crate) fn run(arguments: &[String]) -> Result {
    let all = targets()?;
    let Wish { time, targets } = Wish::read(arguments, &all)?;
    if let Some(why) = no_compiler() {
        return skip_unless_ci("fuzz", &why);
    }
    let place = Place::new();
    Cmd::cargo(["fmt", "--check", "--manifest-path", MANIFEST]).run()?;
    sync_lock()?;
    place.build()?;

    let todo = Mutex::new(targets.iter().rev().copied().collect::<Vec<_>>());
    let done = Mutex::new(Vec::new());
    std::thread::scope(|scope| {
        for _ in 0..std::thread::available_parallelism().map_or(1, usize::from) {
            scope.spawn(|| {
                while let Some(target) = take(&todo) {
                    let found = place.search(target, time);
                    done.lock().unwrap_or_else(|e| e.into_inner()).push((target.clone(), found));
                }
            });
        }
    });
    let mut done = done.into_inner().unwrap_or_else(|e| e.into_inner());
    done.sort_by(|(a, _), (b, _)| a.cmp(b));
    report(&done)
}

fn take<'a>(todo: &Mutex<Vec<&'a String>>) -> Option<&'a String> {
    todo.lock().unwrap_or_else(|e| e.into_inner()).pop()
}

/// Why libFuzzer can't be built, if it can't.
pub(crate) fn no_compiler() -> Option<String> {
    let compiler = Cmd::new(std::env::var_os("CXX").unwrap_or_else(|| "c++".into()));
    let why = compiler.args(["--version"]).read().err()?;
    Some(format!("no C++ compiler, which libFuzzer needs (Debian: g++): {why:?}"))
}

/// Where all that is built for fuzzing goes.
pub(crate) fn folder() -> PathBuf {
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or("target".into(), PathBuf::from);
    std::path::absolute(target.join("fuzz")).unwrap_or(target)
}

/// What is asked for.
#[derive(Debug, PartialEq)]
struct Wish<'a> {
    time: Duration,
    targets: Vec<&'a String>,
}

impl<'a> Wish<'a> {
    fn read(arguments: &[String], all: &'a [String]) -> Result<Self> {
        let mut wish = Self { time: SHORT, targets: Vec::new() };
        let mut arguments = arguments.iter();
        while let Some(argument) = arguments.next() {
            if argument == "--minutes" {
                let minutes = arguments.next().and_then(|text| text.parse::<f64>().ok());
                wish.time = minutes
                    .filter(|minutes| *minutes > 0.0)
                    .and_then(|minutes| Duration::try_from_secs_f64(minutes * 60.0).ok())
                    .ok_or("--minutes needs a number above 0")?;
                continue;
            }
            let known = all.iter().find(|target| *target == argument);
            wish.targets.push(known.ok_or_else(|| {
                format!("{argument:?} is no target; there are {}", all.join(", "))
            })?);
        }
        if wish.targets.is_empty() {
            wish.targets = all.iter().collect();
        }
        Ok(wish)
    }
}

/// One binary each; each has seeds.
fn targets() -> Result<Vec<String>> {
    let mut targets = Vec::new();
    for entry in fs::read_dir(format!("{FOLDER}/src/bin"))? {
        let name = entry?.path().file_stem().unwrap_or_default().to_string_lossy().into_owned();
        if files_in(&seeds(&name)) == 0 {
            return Err(format!("{} has no seeds", seeds(&name).display()).into());
        }
        targets.push(name);
    }
    targets.sort();
    Ok(targets)
}

fn seeds(target: &str) -> PathBuf {
    Path::new(FOLDER).join("corpus").join(target)
}

fn files_in(folder: &Path) -> usize {
    fs::read_dir(folder).map_or(0, Iterator::count)
}

/// What is fuzzed is what is shipped: the same version of every crate that both lock files have. A lock file that is
/// behind is made anew.
pub(crate) fn sync_lock() -> Result {
    let own = format!("{FOLDER}/Cargo.lock");
    let (main, fuzz) = (fs::read_to_string("Cargo.lock")?, fs::read_to_string(&own)?);
    let metadata = ["metadata", "--format-version=1", "--manifest-path", MANIFEST];
    let complete = Cmd::cargo(metadata).args(["--locked"]).run_quietly().is_ok();
    if complete && differences(&main, &fuzz).is_empty() {
        return Ok(());
    }
    println!("note: {own} was behind Cargo.lock and is made anew; commit it");
    fs::write(&own, main)?;
    Cmd::cargo(metadata).run_quietly()
}

/// The crates of which the second lock file has a version that the first one has not.
fn differences(main: &str, fuzz: &str) -> Vec<String> {
    let (main, fuzz) = (versions(main), versions(fuzz));
    let differs = |(name, versions): (&&str, &BTreeSet<&str>)| {
        let shipped = main.get(name)?;
        (!versions.is_subset(shipped)).then(|| (*name).to_owned())
    };
    fuzz.iter().filter_map(differs).collect()
}

fn versions(lock: &str) -> BTreeMap<&str, BTreeSet<&str>> {
    let mut versions: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
    let mut name = "";
    for line in lock.lines() {
        let value = |key| line.strip_prefix(key).map(|value: &str| value.trim_matches('"'));
        if let Some(found) = value("name = ") {
            name = found;
        } else if let Some(version) = value("version = ").filter(|_| !name.is_empty()) {
            versions.entry(name).or_default().insert(version);
        }
    }
    versions
}

/// Where it all goes.
struct Place {
    folder: PathBuf,
    host: String,
}

impl Place {
    fn new() -> Self {
        let version = Cmd::rustc(["-vV"]).read().unwrap_or_default();
        let host = version.lines().find_map(|line| line.strip_prefix("host: "));
        Self { folder: folder(), host: host.unwrap_or_default().to_owned() }
    }

    /// With a target named, so that the flags are not for build scripts and macros.
    fn build(&self) -> Result {
        Cmd::cargo(["build", "--release", "--bins", "--manifest-path", MANIFEST])
            .args(["--target", &self.host])
            .env("CARGO_TARGET_DIR", &self.folder)
            .env("CARGO_ENCODED_RUSTFLAGS", FLAGS.join("\x1f"))
            .run()
    }

    fn binary(&self, target: &str) -> PathBuf {
        self.folder.join(&self.host).join("release").join(target)
    }

    fn search(&self, target: &str, time: Duration) -> Result<Found> {
        let found = self.folder.join("corpus").join(target);
        let crashes = self.folder.join("crashes").join(target);
        fs::create_dir_all(&found)?;
        fs::create_dir_all(&crashes)?;
        let mut arguments: Vec<OsString> = vec![
            format!("-max_total_time={}", time.as_secs().max(1)).into(),
            format!("-timeout={SLOWEST_INPUT}").into(),
            "-print_final_stats=1".into(),
            format!("-artifact_prefix={}/", crashes.display()).into(),
        ];
        let dictionary = format!("{FOLDER}/dictionaries/{target}.dict");
        if Path::new(&dictionary).exists() {
            arguments.push(format!("-dict={dictionary}").into());
        }
        let known = files_in(&found);
        let run = Command::new(self.binary(target))
            .args(arguments)
            .args([&found, &seeds(target)])
            .output()
            .map_err(|error| format!("can't run {target}: {error}"))?;
        let log = String::from_utf8_lossy(&run.stderr);
        fs::write(self.folder.join(format!("{target}.log")), log.as_bytes())?;
        let mut result = Found { corpus: files_in(&seeds(target)) + known, ..Found::read(&log) };
        if !run.status.success() {
            result.crash = Some(self.explain(target, &log));
        } else if result.edges < LEAST_EDGES {
            result.crash = Some(format!("only {} edges: no coverage?", result.edges));
        }
        Ok(result)
    }

    /// What went wrong, and the smallest input that makes it so.
    fn explain(&self, target: &str, log: &str) -> String {
        let binary = self.binary(target);
        let Some(input) = log.lines().find_map(|line| Some(line.split_once("unit written to ")?.1))
        else {
            let end: Vec<_> = log.lines().rev().take(20).collect();
            return end.into_iter().rev().collect::<Vec<_>>().join("\n");
        };
        let smaller = format!("{input}.min");
        Command::new(&binary)
            .args(["-minimize_crash=1", "-max_total_time=20", input])
            .arg(format!("-exact_artifact_path={smaller}"))
            .output()
            .ok();
        let input = if Path::new(&smaller).exists() { &smaller } else { input };
        let said = log.lines().skip_while(|line| !line.contains("panicked at")).take(2);
        let mut text = said.collect::<Vec<_>>().join("\n");
        if text.is_empty() {
            text = log
                .lines()
                .find(|line| line.contains("ERROR: libFuzzer"))
                .unwrap_or_default()
                .into();
        }
        format!("{text}\nthe input:  {input}\nto see it:  {} {input}", binary.display())
    }
}

/// What came of a search.
#[derive(Debug, Default, PartialEq)]
struct Found {
    /// Inputs to begin with.
    corpus: usize,
    runs: u64,
    runs_per_second: u64,
    /// Edges seen, of those that there are.
    edges: u64,
    all_edges: u64,
    new: u64,
    crash: Option<String>,
}

impl Found {
    /// Reads what libFuzzer writes.
    fn read(log: &str) -> Self {
        let number = |text: &str| {
            let digits: String = text.trim().chars().take_while(char::is_ascii_digit).collect();
            digits.parse::<u64>().ok()
        };
        let last = |what| log.lines().rev().find_map(|line| number(line.split_once(what)?.1));
        let pcs = log.lines().find_map(|line| number(line.split_once("PC tables (")?.1));
        Self {
            runs: last("stat::number_of_executed_units:").unwrap_or_default(),
            runs_per_second: last("stat::average_exec_per_sec:").unwrap_or_default(),
            edges: last(" cov: ").unwrap_or_default(),
            all_edges: pcs.unwrap_or_default(),
            new: last("stat::new_units_added:").unwrap_or_default(),
            ..Self::default()
        }
    }
}

fn report(done: &[(String, Result<Found>)]) -> Result {
    let mut faults = String::new();
    let mut total = Found::default();
    println!("\ntarget          corpus        runs   runs/s         edges     new  crashes");
    for (target, found) in done {
        let found = match found {
            Ok(found) => found,
            Err(why) => &Found { crash: Some(format!("{why:?}")), ..Found::default() },
        };
        let crashes = u8::from(found.crash.is_some());
        println!("{}", row(target, found, crashes));
        if let Some(why) = &found.crash {
            writeln!(faults, "\n{target}: {why}").ok();
        }
        total.corpus += found.corpus;
        total.runs += found.runs;
        total.new += found.new;
    }
    println!("{:<14}{:>8}{:>12}{:>31}", "all", total.corpus, total.runs, total.new);
    if faults.is_empty() {
        return Ok(());
    }
    println!("{faults}");
    Err(Failure::told())
}

fn row(target: &str, found: &Found, crashes: u8) -> String {
    let Found { corpus, runs, runs_per_second, edges, all_edges, new, .. } = found;
    let edges = format!("{edges}/{all_edges}");
    format!("{target:<14}{corpus:>8}{runs:>12}{runs_per_second:>9}{edges:>14}{new:>8}{crashes:>9}")
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOG: &str = "\
INFO: Loaded 1 PC tables (1607 PCs): 1607 [0x1,0x2),
#8\tINITED cov: 256 ft: 353 corp: 7/206b exec/s: 0 rss: 27Mb
#9\tNEW    cov: 257 ft: 358 corp: 8/233b lim: 46 exec/s: 0 rss: 27Mb L: 27/46 MS: 1 EraseBytes-
#496987\tDONE   cov: 446 ft: 1851 corp: 710/91Kb lim: 694 exec/s: 55220 rss: 28Mb
stat::number_of_executed_units: 496987
stat::average_exec_per_sec:     55220
stat::new_units_added:          703
stat::slowest_unit_time_sec:    0
";

    #[test]
    fn figures_are_read_from_the_log() {
        let found = Found::read(LOG);
        let expected = Found {
            runs: 496_987,
            runs_per_second: 55_220,
            edges: 446,
            all_edges: 1607,
            new: 703,
            ..Found::default()
        };
        assert_eq!(found, expected);
        assert_eq!(
            row("names", &found, 0),
            "names                0      496987    55220      446/1607     703        0"
        );
    }

    #[test]
    fn targets_and_minutes_are_read_and_others_named() {
        let all = ["keys".to_owned(), "sas".to_owned()];
        let read = |text: &str| {
            let arguments: Vec<_> = text.split_whitespace().map(str::to_owned).collect();
            Wish::read(&arguments, &all).map(|wish| (wish.time.as_secs(), wish.targets.len()))
        };
        assert_eq!(read("").ok(), Some((3, 2)));
        assert_eq!(read("sas --minutes 1.5").ok(), Some((90, 1)));
        for (wrong, says) in
            [("--minutes", "number"), ("--minutes 0", "above 0"), ("x", "keys, sas")]
        {
            let why = format!("{:?}", read(wrong).unwrap_err());
            assert!(why.contains(says), "{why}");
        }
    }

    #[test]
    fn a_lock_file_that_has_another_version_is_behind() {
        let main = "version = 4\n[[package]]\nname = \"a\"\nversion = \"1.0\"\n[[package]]\nname = \"a\"\nversion = \"2.0\"\n";
        let fuzz = "version = 4\n[[package]]\nname = \"a\"\nversion = \"2.0\"\n[[package]]\nname = \"only-here\"\nversion = \"9\"\n";
        assert!(differences(main, fuzz).is_empty());
        assert_eq!(differences(main, &fuzz.replace("2.0", "2.1")), ["a"]);
    }
}
