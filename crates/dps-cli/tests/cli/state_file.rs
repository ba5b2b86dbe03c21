//! `dps emulate --state`: the file itself, and what is said of one that is not for this emulator.

use std::{
    fs,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::Path,
    process::Command,
};

use serde_json::json;

use crate::{
    state::{ask, start, stopped},
    support::{Folder, KEY, dps, run},
};

/// Bytes of a state whose emulator has ended.
fn of_a_state() -> Vec<u8> {
    let (folder, _) = stopped(start(Folder::new(), &[]));
    fs::read(folder.path("state.db")).unwrap()
}

fn rights(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn only_its_owner_reads_the_file() {
    let mut folder = Folder::new();
    // Somebody else has made it, for all.
    fs::set_permissions(folder.file("state.db", ""), fs::Permissions::from_mode(0o666)).unwrap();
    for round in 0..2 {
        let emulator = start(folder, &[]);
        let mut files = 0;
        for entry in fs::read_dir(emulator.folder.path("")).unwrap() {
            let path = entry.unwrap().path();
            if path.display().to_string().contains("state.db") {
                assert_eq!(rights(&path), 0o600, "{} {round}", path.display());
                fs::set_permissions(&path, fs::Permissions::from_mode(0o644)).unwrap();
                files += 1;
            }
        }
        assert_eq!(files, 2, "the file and its log");
        emulator.running.signal("-KILL");
        emulator.running.status();
        folder = emulator.folder;
    }
}

#[test]
fn a_file_that_is_not_for_this_emulator_is_refused_and_left() {
    let emulator = start(Folder::new(), &[]);
    let (taken, folder) = (emulator.folder.path("state.db"), Folder::new());
    let text = folder.file("text", "no database, but long enough to be looked at".repeat(100));
    // What a program writes there: see <https://sqlite.org/fileformat.html#the_database_header>.
    let mut bytes = of_a_state();
    bytes[60..64].copy_from_slice(&2_u32.to_be_bytes());
    let newer = folder.file("newer", &bytes);
    bytes[60..64].fill(0);
    bytes[68..72].fill(0);
    let with_log = folder.file("with-log", &bytes);
    bytes[18..20].fill(1);
    let without_log = folder.file("without-log", &bytes);
    let missing = folder.path("missing");
    let there = [&text, &newer, &with_log, &without_log];
    let before = there.map(|path| fs::read(path).unwrap());
    let names = || fs::read_dir(folder.path("")).unwrap().count();
    for (arguments, expected) in [
        (&["--state", &taken][..], "another emulator has it open"),
        (&["--state", &taken, "--read-only"], "another emulator has it open"),
        (&["--state", &text], "it is no file of an emulator's state"),
        (&["--state", &newer], "it is of version 2"),
        (&["--state", &with_log], "it is a database of another program"),
        (&["--state", &without_log], "it is a database of another program"),
        (&["--state", &without_log, "--read-only"], "it is a database of another program"),
        (&["--state", &missing, "--read-only"], "there is no such file"),
        (&["--read-only"], "give --state with it"),
        (&["--state", &folder.path("none/state.db")], "it can't be made"),
        (&["--state", &folder.path("")], "it is no regular file"),
        (&["--state", "/dev/null"], "it is no regular file"),
        (&["--state", ""], "it is empty; name a file"),
        (&["--state", "-"], "standard input keeps nothing; name a file"),
    ] {
        let ended = run(dps(&["emulate"]).args(arguments));
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
        assert_eq!(names(), there.len(), "{arguments:?} has left a file");
    }
    assert!(there.map(|path| fs::read(path).unwrap()) == before, "a file has changed");
}

#[test]
fn a_start_that_fails_leaves_no_file() {
    let folder = Folder::new();
    let state = folder.path("state.db");
    for (flag, value) in [
        ("--service-key", "short"),
        ("--https-port", "zz"),
        ("--name", "two words"),
        ("--listen", "192.0.2.1"),
    ] {
        let ended = run(&mut dps(&["emulate", "--state", &state, flag, value]));
        assert_eq!(ended.code, 2, "{ended:?}");
        assert!(!fs::exists(&state).unwrap(), "{flag}");
    }
}

#[test]
fn a_damaged_file_is_told_with_what_to_do_about_it() {
    let folder = Folder::new();
    let mut bytes = of_a_state();
    let whole = bytes.clone();
    let at = bytes.windows(10).position(|it| it == b"\"etag\":\"ey".as_slice());
    let at = at.or_else(|| bytes.windows(8).position(|it| it == b"\"etag\":\"")).unwrap();
    bytes[at] = b'?';
    let record = folder.file("record", &bytes);
    let page = folder.file("page", [&whole[..4096], &[7; 4096], &whole[8192..]].concat());
    let cut = folder.file("cut", &whole[..6000]);
    for (path, expected) in [
        (record, "the record of enrollment-group \"group\" can't be read"),
        (page, "malformed"),
        (cut, "malformed"),
    ] {
        for more in [&[][..], &["--read-only"]] {
            let ended = run(dps(&["emulate", "--state", &path]).args(more));
            assert_eq!(ended.code, 2, "{ended:?}");
            let told = format!("error: --state {path:?}: ");
            let advice = "put a copy from before in its place, or name another file";
            for part in [&told, expected, advice] {
                assert!(ended.stderr.contains(part), "{part}: {}", ended.stderr);
            }
            assert!(!ended.stderr.contains("parameter"), "{}", ended.stderr);
        }
    }
}

#[test]
fn a_file_that_can_not_be_written_to_is_told_with_what_to_do_about_it() {
    let folder = Folder::new();
    let file = folder.file("state.db", of_a_state());
    fs::set_permissions(&file, fs::Permissions::from_mode(0o444)).unwrap();
    let started = |more: &[&str]| {
        // Root may write to any file; nobody may not.
        let mut command = dps(&[]);
        if fs::metadata("/proc/self").unwrap().uid() == 0 {
            let mut other = Command::new("setpriv");
            other.args(["--reuid=65534", "--clear-groups"]).arg(command.get_program());
            command = other;
        }
        run(command.args(["emulate", "--stop-at-eof", "--state", &file]).args(more))
    };
    let ended = started(&[]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("it can't be written to; give read-only"), "{ended:?}");
    assert_eq!(started(&["--read-only"]).code, 0);
    folder.file("state.db-wal", "");
    fs::set_permissions(folder.path("state.db-wal"), fs::Permissions::from_mode(0o444)).unwrap();
    let ended = started(&["--read-only"]);
    assert_eq!(ended.code, 2, "{ended:?}");
    assert!(ended.stderr.contains("start once without read-only there"), "{ended:?}");
}

#[test]
fn a_file_that_is_deleted_while_it_runs_is_told_once() {
    let emulator = start(Folder::new(), &[]);
    fs::remove_file(emulator.folder.path("state.db")).unwrap();
    for name in ["one", "two"] {
        let body = json!({ "registration-id": name, "symmetric-key": KEY });
        ask(&emulator.ready["adminPort"], "POST", "/enrollments", &body.to_string()).unwrap();
    }
    let (_folder, said) = stopped(emulator);
    assert!(said.contains("state.db") && said.contains("is not there any more"), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn whoever_can_not_be_told_that_it_serves_is_not_left_waiting() {
    let full = fs::File::options().write(true).open("/dev/full").unwrap();
    let output = dps(&["emulate"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains("standard output can't be written"), "{said}");
}
