//! `cargo xtask requirements`: each requirement is held by a test that runs.
//!
//! The ids stand in docs/requirements.md. A test says `// Holds: 18_011, 18_012` directly above its attributes, in
//! a comment of its own or within its doc comment.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    metadata::Metadata,
    no_std::rust_files,
    process::{Cmd, Result, none_of},
};

const LIST: &str = "docs/requirements.md";
const PREFIX: &str = "SRS_NODE_PROVISIONING_TRANSPORT_STATE_MACHINE_";

/// Prints the table; fails when an id has no test, or a comment names an unknown id or stands above no test that runs.
pub(crate) fn run(_: &[String]) -> Result {
    let ids = ids_in(&std::fs::read_to_string(LIST)?);
    if ids.is_empty() {
        return Err(format!("{LIST} names no requirement").into());
    }
    let mut faults = Vec::new();
    let mut table: Table = ids.into_iter().map(|id| (id, BTreeSet::new())).collect();
    for package in Metadata::load()?.members().filter(|package| package.name != "xtask") {
        let mut claims = Vec::new();
        for file in rust_files(package.manifest_path.parent().ok_or("a package without a folder")?)?
        {
            for found in scan(&std::fs::read_to_string(&file)?) {
                match found {
                    Ok(claim) => claims.push(claim),
                    Err(fault) => faults.push(format!("{}:{fault}", file.display())),
                }
            }
        }
        if !claims.is_empty() {
            let running = tests_that_run(&package.name)?;
            faults.extend(enter(&mut table, &package.name, &claims, &running));
        }
    }
    faults.extend(bare(&table));
    for (id, tests) in table {
        println!("{PREFIX}{id}");
        tests.iter().for_each(|test| println!("    {test}"));
    }
    none_of(&faults)
}

/// The tests that hold each short id, as `package test`.
type Table = BTreeMap<String, BTreeSet<String>>;

/// A test that says which ids it holds.
#[derive(Debug, PartialEq, Eq)]
struct Claim {
    test: String,
    ids: Vec<String>,
}

/// The short ids (`18_011`) of the lines `- SRS_..._18_011: text`.
fn ids_in(list: &str) -> BTreeSet<String> {
    list.lines()
        .filter_map(|line| line.strip_prefix("- ")?.strip_prefix(PREFIX)?.split_once(": "))
        .map(|(id, _)| id.to_string())
        .collect()
}

/// Every `Holds:` comment of a file: the claim of the test that it stands above, or what is wrong with it.
fn scan(code: &str) -> Vec<Result<Claim, String>> {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let mut found = Vec::new();
    for (index, line) in lines.iter().enumerate() {
        let Some(ids) = holds(line) else { continue };
        let below = lines.iter().skip(index + 1).copied();
        found.push(match test_below(below) {
            Ok(test) => Ok(Claim { test: test.to_string(), ids }),
            Err(why) => Err(format!("{}: {why}", index + 1)),
        });
    }
    found
}

/// The ids of a `Holds:` comment, without their common part.
fn holds(line: &str) -> Option<Vec<String>> {
    let comment = line.strip_prefix("//")?.trim_start_matches('/').trim_start();
    let ids = comment.strip_prefix("Holds:")?.trim().trim_end_matches('.');
    let short = |id: &str| id.trim().trim_matches('`').trim_start_matches(PREFIX).to_string();
    Some(ids.split(',').map(short).collect())
}

/// The name of the test whose attributes begin here; comments may stand between.
fn test_below<'a>(lines: impl Iterator<Item = &'a str>) -> Result<&'a str, &'static str> {
    let mut is_test = false;
    let mut open = 0_usize;
    for line in lines {
        if open == 0 && line.starts_with("//") {
            continue;
        }
        if open == 0 && !line.starts_with("#[") {
            let name = function_name(line).ok_or("stands above no function")?;
            return if is_test { Ok(name) } else { Err("stands above a function that is no test") };
        }
        if line.starts_with("#[ignore") {
            return Err("stands above an ignored test");
        }
        is_test |=
            ["#[test]", "#[tokio::test]", "#[tokio::test("].iter().any(|t| line.starts_with(t));
        // An attribute may take several lines.
        open = (open + line.matches('[').count()).saturating_sub(line.matches(']').count());
    }
    Err("stands above nothing")
}

fn function_name(line: &str) -> Option<&str> {
    let after = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    let end = after.find(|c: char| !c.is_alphanumeric() && c != '_')?;
    after.get(..end)
}

/// Asks the test binaries themselves: a test in a file that is not compiled, or an ignored one, is not among these.
fn tests_that_run(package: &str) -> Result<BTreeSet<String>> {
    let list = |more: &[&str]| {
        Cmd::cargo(["test", "--locked", "--package", package, "--all-features", "--quiet"])
            .args(["--all-targets", "--", "--list", "--format", "terse"])
            .args(more)
            .read()
    };
    let ignored = listed(&list(&["--ignored"])?);
    Ok(listed(&list(&[])?).difference(&ignored).cloned().collect())
}

/// The paths in lines such as `machine::tests::a_name: test`.
fn listed(output: &str) -> BTreeSet<String> {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_string).collect()
}

/// Enters a package's claims into the table; returns those that don't fit.
fn enter(
    table: &mut Table,
    package: &str,
    claims: &[Claim],
    running: &BTreeSet<String>,
) -> Vec<String> {
    let mut faults = Vec::new();
    for Claim { test, ids } in claims {
        let is_it = |path: &&String| path.rsplit("::").next() == Some(test);
        let Some(path) = running.iter().find(is_it) else {
            faults.push(format!("{package}: {test} is not among the tests that run"));
            continue;
        };
        for id in ids {
            match table.get_mut(id) {
                Some(tests) => _ = tests.insert(format!("{package} {path}")),
                None => faults
                    .push(format!("{package}: {test} holds {id:?}, which {LIST} doesn't name")),
            }
        }
    }
    faults
}

/// The ids that no test holds.
fn bare(table: &Table) -> impl Iterator<Item = String> {
    let bare = table.iter().filter(|(_, tests)| tests.is_empty());
    bare.map(|(id, _)| format!("no test holds {PREFIX}{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claim(test: &str, ids: &[&str]) -> Claim {
        Claim { test: test.into(), ids: ids.iter().map(|id| id.to_string()).collect() }
    }

    fn only(code: &str) -> Result<Claim, String> {
        let mut found = scan(code);
        assert_eq!(found.len(), 1, "{found:?}");
        found.remove(0)
    }

    #[test]
    fn ids_are_read_from_the_list() {
        let list = format!("# Title\n- {PREFIX}18_011: one.\n- {PREFIX}18_012: two.\n- other\n");
        assert_eq!(ids_in(&list), BTreeSet::from(["18_011".to_string(), "18_012".to_string()]));
    }

    #[test]
    fn a_comment_above_a_test_is_a_claim() {
        let code = "// Holds: 18_011, 18_012\n#[test]\nfn fails_offline() {";
        assert_eq!(only(code), Ok(claim("fails_offline", &["18_011", "18_012"])));
        let code = format!(
            "/// Says why.\n///\n/// Holds: `{PREFIX}18_014`.\n/// More.\n#[tokio::test(\n    start_paused = true\n)]\nasync fn emits() {{"
        );
        assert_eq!(only(&code), Ok(claim("emits", &["18_014"])));
    }

    #[test]
    fn a_comment_above_anything_else_is_a_fault() {
        for code in [
            "// Holds: 18_011\nfn no_test() {}",
            "// Holds: 18_011\n#[test]\n#[ignore = \"slow\"]\nfn ignored() {}",
            "// Holds: 18_011\n// #[test]\n// fn commented_out() {}",
            "// Holds: 18_011\n\n#[test]\nfn apart() {}",
            "// Holds: 18_011\n#[test]\nstruct Odd;",
            "// Holds: 18_011",
        ] {
            assert!(only(code).is_err(), "{code}");
        }
    }

    #[test]
    fn other_comments_are_no_claims() {
        assert_eq!(scan("// It holds: nothing\nlet x = \"// Holds: 18_011\";\n"), []);
    }

    #[test]
    fn the_binaries_say_which_tests_run() {
        let output =
            "a::tests::one: test\ntwo: test\nbench_it: benchmark\n\n3 tests, 0 benchmarks\n";
        assert_eq!(listed(output), BTreeSet::from(["a::tests::one".into(), "two".into()]));
    }

    fn faults(claims: &[Claim], running: &[&str]) -> Vec<String> {
        let mut table = Table::from([("18_011".to_string(), BTreeSet::new())]);
        let running = running.iter().map(|name| name.to_string()).collect();
        let mut faults = enter(&mut table, "ours", claims, &running);
        faults.extend(bare(&table));
        faults
    }

    #[test]
    fn an_id_held_by_a_test_that_runs_passes() {
        assert_eq!(faults(&[claim("one", &["18_011"])], &["m::tests::one"]), Vec::<String>::new());
    }

    #[test]
    fn an_id_without_a_test_fails() {
        let bare = format!("no test holds {PREFIX}18_011");
        assert_eq!(faults(&[], &["m::tests::one"]), std::slice::from_ref(&bare));
        let dead = faults(&[claim("one", &["18_011"])], &["m::tests::someone"]);
        assert_eq!(dead, ["ours: one is not among the tests that run".to_string(), bare]);
    }

    #[test]
    fn an_unknown_id_fails() {
        let faults = faults(&[claim("one", &["18_011", "18_999"])], &["one"]);
        assert_eq!(faults, [format!("ours: one holds \"18_999\", which {LIST} doesn't name")]);
    }

    #[test]
    fn the_list_in_the_repository_is_whole() {
        let ids = ids_in(include_str!("../../docs/requirements.md"));
        assert_eq!(ids.len(), 15);
    }
}
