//! `cargo xtask ci`: every other task, in two lanes beside each other, and a table of how they ended.

use std::{
    thread,
    time::{Duration, Instant},
};

use xshell::Shell;

use crate::{
    TASKS,
    process::{Result, Running, SAID, tell},
};

/// Not run by `ci`: itself, the tests, which `.ci/run` runs before it, one of them by itself, and the bench, which only informs.
const NOT_HERE: &[&str] = &["ci", "test", "public-api", "bench"];

/// Most wait for downloads, or build in a folder of their own: time for the other lane to compile. Together they take as
/// long as the others.
const SECOND_LANE: &[&str] = &["dist", "installs", "peers", "fuzz", "soak"];

/// A task that says nothing for so long hangs.
const SILENCE: Duration = Duration::from_secs(15 * 60);

/// How a task ended: its name, whether it passed, and how long it took.
type End = (&'static str, bool, Duration);

/// Goes on after a failure, so that one run tells all that is wrong; fails at the end.
pub(crate) fn run(_: &Shell, _: &[String]) -> Result {
    let begin = Instant::now();
    let lane = |second| move || TASKS.iter().filter(move |task| is_here(task.0, second));
    let ends: Vec<End> = thread::scope(|scope| {
        let lanes = [false, true].map(|second| {
            scope.spawn(move || lane(second)().map(|(name, what, _)| one(name, what)).collect())
        });
        lanes
            .into_iter()
            .flat_map(|lane| lane.join().unwrap_or(vec![("ci", false, begin.elapsed())]))
            .collect()
    });
    println!("\n{}", table(&ends, begin.elapsed()));
    if ends.iter().all(|(_, passed, _)| *passed) { Ok(()) } else { Err(SAID.into()) }
}

/// Whether `ci` runs a task in this lane.
fn is_here(task: &str, second: bool) -> bool {
    !NOT_HERE.contains(&task) && SECOND_LANE.contains(&task) == second
}

/// Runs a task as a program of its own, so that all of its output can be printed together when it ends.
fn one(name: &'static str, what: &str) -> End {
    let begin = Instant::now();
    let mut said = format!("\n== {name}: {what}\n");
    let mut ended = || -> Result {
        let (shell, itself) = (Shell::new()?, std::env::current_exe()?);
        let task = shell.cmd("sh").args(["-c", "exec \"$0\" \"$1\" 2>&1"]).arg(itself).arg(name);
        Running::start(task)?.each_line(SILENCE, |line| said.extend([line, "\n"]))
    };
    let outcome = ended();
    println!("{said}");
    if let Err(why) = &outcome {
        tell(name, &**why);
    }
    (name, outcome.is_ok(), begin.elapsed())
}

/// One row for each task with its name, whether it passed and how long it took, and the verdict on all.
fn table(ends: &[End], total: Duration) -> String {
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
    format!("{table}{verdict} after {:.0} s", total.as_secs_f64())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_ends_with_the_verdict() {
        let took = Duration::from_millis(1500);
        let fine = table(&[("fmt", true, took), ("deps", true, took)], took);
        assert_eq!(
            fine,
            "fmt           ok         1.5 s\ndeps          ok         1.5 s\nall of CI is fine after 2 s"
        );
        let broken =
            table(&[("fmt", false, took), ("deps", true, took), ("docs", false, took)], took);
        assert!(broken.contains("fmt           FAILED     1.5 s"), "{broken}");
        assert!(broken.ends_with("CI FAILED in fmt, docs after 2 s"), "{broken}");
    }

    #[test]
    fn every_task_is_in_one_lane_or_left_out() {
        let named = NOT_HERE.iter().chain(SECOND_LANE);
        assert!(named.clone().all(|name| TASKS.iter().any(|(known, ..)| known == name)));
        let run = |second| TASKS.iter().filter(|task| is_here(task.0, second)).count();
        assert_eq!(run(false) + run(true) + NOT_HERE.len(), TASKS.len());
        assert_eq!(run(true), SECOND_LANE.len());
    }
}
