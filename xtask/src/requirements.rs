//! `cargo xtask requirements`: each requirement is held by a test that runs.
//!
//! The ids stand in docs/requirements.md. A test says `// Holds: 18_011, 18_012` above its attributes, in a comment
//! of its own or within its doc comment.

use std::collections::{BTreeMap, BTreeSet};

use cargo_metadata::Message;
use xshell::{Shell, cmd};

use crate::process::{Result, cargo, metadata, none_of, rust_files};

const LIST: &str = "docs/requirements.md";
const PREFIX: &str = "SRS_NODE_PROVISIONING_TRANSPORT_STATE_MACHINE_";

/// Prints the table; fails when an id has no test, or a comment names an unknown id or stands above no test that runs.
pub(crate) fn run(shell: &Shell, _: &[String]) -> Result {
    let mut table: Table =
        ids_in(&shell.read_file(LIST)?).into_iter().map(|id| (id, BTreeSet::new())).collect();
    if table.is_empty() {
        return Err(format!("{LIST} names no requirement").into());
    }
    let running = tests_that_run(shell)?;
    let mut faults = Vec::new();
    // The files of xtask show such comments in their tests.
    for package in metadata()?.workspace_packages().iter().filter(|p| p.name != "xtask") {
        let folder = package.manifest_path.parent().ok_or("a package without a folder")?;
        let running = running.get(package.name.as_str()).cloned().unwrap_or_default();
        for (file, code) in rust_files(shell, folder.as_str())? {
            faults.extend(enter(&mut table, &file, claims(&code), &running));
        }
    }
    faults.extend(bare(&table));
    for (id, tests) in table {
        println!("{PREFIX}{id}");
        tests.iter().for_each(|test| println!("    {test}"));
    }
    none_of(&faults)
}

/// Names of tests, or short ids.
type Names = BTreeSet<String>;

/// The tests that hold each short id.
type Table = BTreeMap<String, Names>;

/// Names of tests, each with an id that it says it holds.
type Claims = Vec<(String, String)>;

/// The short ids (`18_011`) of the lines `- SRS_..._18_011: text`.
fn ids_in(list: &str) -> Names {
    let ids = list.lines().filter_map(|line| line.strip_prefix("- ")?.strip_prefix(PREFIX));
    ids.filter_map(|line| Some(line.split_once(": ")?.0.to_owned())).collect()
}

/// The ids of every `Holds:` comment of a file, each with the name of the function that comes next.
fn claims(code: &str) -> Claims {
    let lines: Vec<&str> = code.lines().map(str::trim).collect();
    let claims = lines.iter().enumerate().filter_map(|(index, line)| {
        let comment = line.strip_prefix("//")?.trim_start_matches('/').trim_start();
        let ids = comment.strip_prefix("Holds:")?.trim().trim_end_matches('.').split(',');
        let test = lines.iter().skip(index).find_map(|line| function_name(line));
        let short = |id: &str| id.trim().trim_matches('`').trim_start_matches(PREFIX).to_owned();
        Some(ids.map(move |id| (test.unwrap_or("nothing").to_owned(), short(id))))
    });
    claims.flatten().collect()
}

fn function_name(line: &str) -> Option<&str> {
    let after = line.strip_prefix("async ").unwrap_or(line).strip_prefix("fn ")?;
    after.split(|c: char| !c.is_alphanumeric() && c != '_').next()
}

/// The names of each package's tests, as the test binaries themselves tell: a function that is no test, one in a
/// file that is not compiled, and an ignored test are not among them.
fn tests_that_run(shell: &Shell) -> Result<BTreeMap<String, Names>> {
    let build = "test --locked --workspace --all-features --no-run --message-format json";
    let messages = cargo(shell, build).read()?;
    let metadata = metadata()?;
    let mut tests = BTreeMap::<String, Names>::new();
    for message in Message::parse_stream(messages.as_bytes()) {
        if let Message::CompilerArtifact(artifact) = message?
            && artifact.profile.test
            && let Some(program) = &artifact.executable
        {
            let package = &metadata[&artifact.package_id];
            let shell = shell.clone();
            shell.change_dir(package.manifest_path.parent().ok_or("a package without a folder")?);
            let ignored = listed(&cmd!(shell, "{program} --list --format terse --ignored").read()?);
            let all = listed(&cmd!(shell, "{program} --list --format terse").read()?);
            let running = all.difference(&ignored).cloned();
            tests.entry(package.name.to_string()).or_default().extend(running);
        }
    }
    Ok(tests)
}

/// The paths in lines such as `machine::tests::a_name: test`.
fn listed(output: &str) -> Names {
    output.lines().filter_map(|line| line.strip_suffix(": test")).map(str::to_owned).collect()
}

/// Enters a file's claims into the table; returns those that don't fit.
fn enter(table: &mut Table, file: &str, claims: Claims, running: &Names) -> Vec<String> {
    let faults = claims.into_iter().filter_map(|(test, id)| {
        let path = running.iter().find(|path| path.rsplit("::").next() == Some(&test));
        match (path, table.get_mut(&id)) {
            (None, _) => Some(format!("{file}: {test} is not among the tests that run")),
            (_, None) => Some(format!("{file}: {test} holds {id:?}, which is not in {LIST}")),
            (Some(path), Some(tests)) => {
                tests.insert(path.clone());
                None
            }
        }
    });
    faults.collect()
}

/// The ids that no test holds.
fn bare(table: &Table) -> impl Iterator<Item = String> {
    let bare = table.iter().filter(|(_, tests)| tests.is_empty());
    bare.map(|(id, _)| format!("no test holds {PREFIX}{id}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The faults of a file of the given code, in a package where the given tests run.
    fn faults(code: &str, running: &[&str]) -> Vec<String> {
        let mut table = Table::from([("18_011".to_owned(), BTreeSet::new())]);
        let running = running.iter().map(|name| name.to_string()).collect();
        let mut faults = enter(&mut table, "a.rs", claims(code), &running);
        faults.extend(bare(&table));
        faults
    }

    #[test]
    fn an_id_held_by_a_test_that_runs_passes() {
        let code = "// Holds: 18_011\n#[test]\nfn one() {";
        assert_eq!(faults(code, &["m::tests::one"]), Vec::<String>::new());
        let code =
            format!("/// Why.\n/// Holds: `{PREFIX}18_011`.\n#[tokio::test]\nasync fn one() {{");
        assert_eq!(faults(&code, &["one"]), Vec::<String>::new());
    }

    #[test]
    fn an_id_without_a_test_that_runs_fails() {
        let bare = format!("no test holds {PREFIX}18_011");
        assert_eq!(faults("let x = \"// Holds: 18_011\";\n", &["one"]), [&*bare]);
        let dead = faults("// Holds: 18_011\nfn one() {", &["m::tests::someone"]);
        assert_eq!(dead, ["a.rs: one is not among the tests that run", &bare]);
        assert_eq!(faults("// Holds: 18_011", &["one"]).len(), 2);
    }

    #[test]
    fn an_unknown_id_fails() {
        let faults = faults("// Holds: 18_011, 18_999\n#[test]\nfn one() {", &["one"]);
        assert_eq!(faults, [format!("a.rs: one holds \"18_999\", which is not in {LIST}")]);
    }

    #[test]
    fn ids_are_read_from_the_list_and_tests_from_the_binaries() {
        assert_eq!(ids_in(include_str!("../../docs/requirements.md")).len(), 15);
        let output = "a::tests::one: test\nbench_it: benchmark\n\n3 tests, 0 benchmarks\n";
        assert_eq!(listed(output), BTreeSet::from(["a::tests::one".to_owned()]));
    }
}
