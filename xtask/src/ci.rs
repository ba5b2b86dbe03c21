//! `cargo xtask ci`: every other task, one after the other, and a table of how they ended.

use std::time::{Duration, Instant};

use xshell::Shell;

use crate::{
    TASKS,
    process::{Result, SAID, tell},
};

/// Not run by `ci`: itself, the tests, which `.ci/run` runs before it, and the bench, which only informs.
const NOT_HERE: &[&str] = &["ci", "test", "bench"];

/// Goes on after a failure, so that one run tells all that is wrong; fails at the end.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let mut ends = Vec::new();
    for (name, what, run) in TASKS.iter().filter(|(name, ..)| !NOT_HERE.contains(name)) {
        println!("\n== {name}: {what}");
        let begin = Instant::now();
        let outcome = run(shell, &[]);
        if let Err(why) = &outcome {
            tell(name, &**why);
        }
        ends.push((*name, outcome.is_ok(), begin.elapsed()));
    }
    println!("\n{}", table(&ends));
    if ends.iter().all(|(_, passed, _)| *passed) { Ok(()) } else { Err(SAID.into()) }
}

/// One row for each task with its name, whether it passed and how long it took, and the verdict.
fn table(ends: &[(&str, bool, Duration)]) -> String {
    let mut table = String::new();
    for (task, passed, took) in ends {
        let word = if *passed { "ok" } else { "FAILED" };
        table += &format!("{task:<14}{word:<8}{:>6.1} s\n", took.as_secs_f64());
    }
    let failed = ends.iter().filter(|(_, passed, _)| !passed).map(|(task, ..)| *task);
    let verdict = match failed.collect::<Vec<_>>().join(", ").as_str() {
        "" => "all of CI is fine".to_owned(),
        failed => format!("CI FAILED in {failed}"),
    };
    let total: Duration = ends.iter().map(|(.., took)| *took).sum();
    format!("{table}{verdict} after {:.0} s", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_verdict() {
        let took = Duration::from_millis(1500);
        let fine = table(&[("fmt", true, took), ("deps", true, took)]);
        assert_eq!(
            fine,
            "fmt           ok         1.5 s\ndeps          ok         1.5 s\nall of CI is fine after 3 s"
        );
        let broken = table(&[("fmt", false, took), ("deps", true, took), ("docs", false, took)]);
        assert!(broken.contains("fmt           FAILED     1.5 s"), "{broken}");
        assert!(broken.ends_with("CI FAILED in fmt, docs after 4 s"), "{broken}");
    }

    #[test]
    fn what_ci_leaves_out_exists() {
        assert!(NOT_HERE.iter().all(|name| TASKS.iter().any(|(known, ..)| known == name)));
    }
}
