//! `cargo xtask test`: every test, and one line that sums them up.

use std::{collections::BTreeSet, time::Duration};

use xshell::Shell;

use crate::{
    packages,
    process::{Result, Running, SAID, all_of, cargo, in_ci, metadata, tell},
};

/// A build on a slow machine says nothing on stdout for minutes; a test that hangs says nothing for ever.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// How many tests of one binary run at once, unless the variable says otherwise.
const THREADS: &str = "4";

/// Those that take long, by the lane in which they run one after the other: most of a test's time is waiting, so each
/// lane runs beside the others. The longest is compiled first.
const LANES: &[&[&str]] = &[&["secrets"], &["cli", "floods"], &["conformance", "doctor", "faults"]];

/// Runs the workspace's tests. Arguments go to `cargo test`: a filter, `-p CRATE`, `-- --nocapture`.
///
/// The last line is `N passed, M failed`, with `, K skipped` when tests are ignored. A run in which no test ran
/// or something broke without a verdict, a build for example, has failed.
pub(crate) fn run(shell: &Shell, arguments: &[String]) -> Result {
    if in_ci() {
        packages::install_for_tests(shell)?;
    }
    let one_crate = arguments.iter().any(|a| a == "-p" || a.starts_with("--package"));
    let scope = if one_crate { None } else { Some("--workspace") };
    let threads = std::env::var("RUST_TEST_THREADS").unwrap_or_else(|_| THREADS.to_owned());
    let parts = if arguments.is_empty() { parts()? } else { vec![arguments.to_vec()] };
    let start = |part: &Vec<String>| {
        let tests = cargo(shell, "test --locked --no-fail-fast --all-features").args(scope);
        Running::start(tests.env("RUST_TEST_THREADS", &threads).args(part))
    };
    let started: Vec<Running> = parts.iter().map(start).collect::<Result<_>>()?;
    let mut total = Total::default();
    // What the later ones say waits until the ones before have ended.
    let ended = all_of(started.into_iter().map(|tests| {
        tests.each_line(SILENCE, |line| {
            println!("{line}");
            total.add(line);
        })
    }));
    let broke = ended.is_err();
    let verdict = total.verdict(ended).inspect_err(|why| tell("test", &**why));
    // What broke without a verdict counts as one.
    total.failed = total.failed.max(u64::from(broke));
    println!("{}", total.line());
    verdict.map_err(|_| SAID.into())
}

/// The words for `cargo test` of each part of all tests; the parts run beside each other.
fn parts() -> Result<Vec<Vec<String>>> {
    let metadata = metadata()?;
    let targets = metadata.workspace_packages().into_iter().flat_map(|package| &package.targets);
    let tests = targets.filter(|target| target.is_test()).map(|target| target.name.clone());
    let words =
        |names: &[&str]| -> Vec<String> { names.iter().map(|name| (*name).to_owned()).collect() };
    let mut parts = vec![Vec::new(); LANES.len()];
    let mut others = words(&["--lib", "--bins", "--examples"]);
    for name in tests.collect::<BTreeSet<String>>() {
        let lane = LANES.iter().position(|lane| lane.contains(&&*name));
        let part = lane.and_then(|lane| parts.get_mut(lane)).unwrap_or(&mut others);
        part.extend(["--test".to_owned(), name]);
    }
    parts.extend([others, words(&["--doc"])]);
    Ok(parts)
}

/// The tests of all binaries, doctests included.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    /// Counts a test binary's closing line, `N passed; N failed; N ignored; ..`; any other line changes nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|l| l.split_once(". "))
        else {
            return;
        };
        let totals = [&mut self.passed, &mut self.failed, &mut self.ignored];
        for (total, count) in totals.into_iter().zip(counts.split(';')) {
            *total += count.trim().split(' ').next().and_then(|n| n.parse().ok()).unwrap_or(0u64);
        }
    }

    fn line(&self) -> String {
        let skipped = format!(", {} skipped", self.ignored);
        let skipped = if self.ignored > 0 { &skipped } else { "" };
        format!("{} passed, {} failed{skipped}", self.passed, self.failed)
    }

    /// What made the run fail: its tests, cargo, or that there was no test.
    fn verdict(&self, ended: Result) -> Result {
        match (self.failed, self.passed) {
            (1.., _) => Err("tests failed; their output stands above".into()),
            (0, 0) if ended.is_ok() => Err("no test ran".into()),
            _ => ended.map_err(|why| {
                format!("a build failed or a test binary died without a verdict: {why}").into()
            }),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OUTPUT: &str = "\
running 2 tests
test ids::keeps_the_case ... FAILED
test result: FAILED. 1 passed; 1 failed; 0 ignored; 0 measured; 0 filtered out; finished in 0.00s
test result: \u{1b}[32mok\u{1b}[m. 12 passed; 0 failed; 3 ignored; 0 measured; 7 filtered out; finished in 0.10s
all doctests ran in 0.33s; merged doctests compilation took 0.22s";

    fn total(output: &str) -> Total {
        let mut total = Total::default();
        output.lines().for_each(|line| total.add(line));
        total
    }

    #[test]
    fn each_test_that_takes_long_is_in_the_lane_that_names_it() {
        let parts = parts().unwrap();
        assert_eq!(parts.len(), LANES.len() + 2);
        for (lane, part) in LANES.iter().zip(&parts) {
            let named: Vec<&str> = lane.iter().flat_map(|name| ["--test", name]).collect();
            assert_eq!(part, &named);
        }
    }

    #[test]
    fn all_binaries_are_summed_up_in_one_line() {
        let total = total(OUTPUT);
        assert_eq!(total, Total { passed: 13, failed: 1, ignored: 3 });
        assert_eq!(total.line(), "13 passed, 1 failed, 3 skipped");
        assert_eq!(Total { ignored: 0, ..total }.line(), "13 passed, 1 failed");
    }

    #[test]
    fn a_failed_test_a_broken_build_and_an_empty_run_each_fail() {
        let broken = || Err("cargo test: exit status: 101".into());
        assert!(total(OUTPUT).verdict(broken()).is_err());
        assert!(total(OUTPUT).verdict(Ok(())).is_err());
        assert!(Total { passed: 5, ..Total::default() }.verdict(broken()).is_err());
        assert!(Total { ignored: 5, ..Total::default() }.verdict(Ok(())).is_err());
        assert!(total("running 0 tests").verdict(Ok(())).is_err());
        assert!(Total { passed: 1, ..Total::default() }.verdict(Ok(())).is_ok());
    }
}
