//! `cargo xtask test`: every test, each line as it comes, and one line that sums them up.

use std::{fmt, process::ExitStatus, time::Duration};

use xshell::Shell;

use crate::{
    packages,
    process::{Result, Running, TOLD, cargo, in_ci},
};

/// A build on a slow machine says nothing on stdout for minutes; a test that hangs says nothing for ever.
const SILENCE: Duration = Duration::from_secs(15 * 60);

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
    let tests = cargo(shell, "test --locked --no-fail-fast --all-features").args(scope);
    let mut total = Total::default();
    let ended = Running::start(tests.args(arguments))?.each_line(SILENCE, |line| {
        println!("{line}");
        total.add(line);
    });
    let succeeded = ended.as_ref().is_ok_and(ExitStatus::success);
    let verdict = total.verdict(succeeded);
    for why in [ended.err().map(|e| e.to_string()), verdict.err().map(str::to_owned)] {
        why.into_iter().for_each(|why| eprintln!("xtask test: {why}"));
    }
    if !succeeded {
        // What broke without a verdict counts as one.
        total.failed = total.failed.max(1);
    }
    println!("{total}");
    verdict.map_err(|_| TOLD.into())
}

/// The tests of all binaries, doctests included.
#[derive(Debug, Default, PartialEq, Eq)]
struct Total {
    passed: u64,
    failed: u64,
    ignored: u64,
}

impl Total {
    /// Counts a test binary's closing line; any other line changes nothing.
    fn add(&mut self, line: &str) {
        let Some((_, counts)) = line.strip_prefix("test result: ").and_then(|l| l.split_once(". "))
        else {
            return;
        };
        for (number, what) in counts.split(';').filter_map(|count| count.trim().split_once(' ')) {
            let number = number.parse().unwrap_or(0);
            match what {
                "passed" => self.passed += number,
                "failed" => self.failed += number,
                "ignored" => self.ignored += number,
                _ => {}
            }
        }
    }

    fn verdict(&self, cargo_succeeded: bool) -> Result<(), &'static str> {
        match (self.failed, cargo_succeeded, self.passed) {
            (1.., _, _) => Err("tests failed; their output stands above"),
            (0, false, _) => Err("a build failed or a test binary died without a verdict"),
            (0, true, 0) => Err("no test ran"),
            (0, true, 1..) => Ok(()),
        }
    }
}

impl fmt::Display for Total {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} passed, {} failed", self.passed, self.failed)?;
        if self.ignored > 0 {
            write!(f, ", {} skipped", self.ignored)?;
        }
        Ok(())
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
    fn all_binaries_are_summed_up_in_one_line() {
        let total = total(OUTPUT);
        assert_eq!(total, Total { passed: 13, failed: 1, ignored: 3 });
        assert_eq!(total.to_string(), "13 passed, 1 failed, 3 skipped");
        assert_eq!(Total { ignored: 0, ..total }.to_string(), "13 passed, 1 failed");
    }

    #[test]
    fn a_failed_test_a_broken_build_and_an_empty_run_each_fail() {
        assert!(total(OUTPUT).verdict(false).is_err());
        assert!(Total { passed: 5, ..Total::default() }.verdict(false).is_err());
        assert!(Total { ignored: 5, ..Total::default() }.verdict(true).is_err());
        assert!(total("running 0 tests").verdict(true).is_err());
        assert!(Total { passed: 1, ..Total::default() }.verdict(true).is_ok());
    }
}
