//! `cargo xtask ci`: every other task, one after the other, and a table of how they ended.

use std::{
    fmt::Write as _,
    time::{Duration, Instant},
};

use crate::{
    TASKS,
    process::{Failure, Result},
};

/// Not run by `ci`: itself, the tests, which `.ci/run` runs before it, and the bench, which only informs.
const NOT_HERE: &[&str] = &["ci", "test", "bench"];

/// Goes on after a failure, so that one run tells all that is wrong; fails at the end.
pub(crate) fn run(_: &[String]) -> Result {
    let mut ends = Vec::new();
    for task in TASKS.iter().filter(|task| !NOT_HERE.contains(&task.name)) {
        println!("\n== {}: {}", task.name, task.what);
        let begin = Instant::now();
        let outcome = (task.run)(&[]);
        if let Some(why) = outcome.as_ref().err().and_then(|failure| failure.of(task.name)) {
            println!("{why}");
        }
        ends.push(End { task: task.name, passed: outcome.is_ok(), took: begin.elapsed() });
    }
    println!("\n{}", table(&ends));
    if ends.iter().all(|end| end.passed) { Ok(()) } else { Err(Failure::told()) }
}

struct End {
    task: &'static str,
    passed: bool,
    took: Duration,
}

fn table(ends: &[End]) -> String {
    let mut table = String::new();
    for End { task, passed, took } in ends {
        let word = if *passed { "ok" } else { "FAILED" };
        writeln!(table, "{task:<14}{word:<8}{:>6.1} s", took.as_secs_f64()).ok();
    }
    let failed: Vec<&str> = ends.iter().filter(|end| !end.passed).map(|end| end.task).collect();
    let total: Duration = ends.iter().map(|end| end.took).sum();
    let verdict = match failed.as_slice() {
        [] => "all of CI is fine".to_string(),
        failed => format!("CI FAILED in {}", failed.join(", ")),
    };
    table + &format!("{verdict} after {:.0} s", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn end(task: &'static str, passed: bool) -> End {
        End { task, passed, took: Duration::from_millis(1500) }
    }

    #[test]
    fn the_table_ends_with_the_verdict() {
        let fine = table(&[end("fmt", true), end("deps", true)]);
        assert_eq!(
            fine,
            "fmt           ok         1.5 s\ndeps          ok         1.5 s\nall of CI is fine after 3 s"
        );
        let broken = table(&[end("fmt", false), end("deps", true), end("docs", false)]);
        assert!(broken.contains("fmt           FAILED     1.5 s"), "{broken}");
        assert!(broken.ends_with("CI FAILED in fmt, docs after 4 s"), "{broken}");
    }

    #[test]
    fn what_ci_leaves_out_exists() {
        assert!(NOT_HERE.iter().all(|name| TASKS.iter().any(|task| task.name == *name)));
    }
}
