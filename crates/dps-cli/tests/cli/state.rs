//! `dps emulate --state`: what outlives the emulator, however that ends.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read as _, Write as _},
    net::TcpStream,
    thread,
    time::{Duration, Instant},
};

use serde_json::{Value, json};

use crate::support::{Emulator, Folder, KEY, dps, run, text};

/// How often the emulator is killed; `DPS_TEST_KILLS` says otherwise.
const KILLS: u32 = 12;

/// Asks the admin port; `None` when the emulator is gone before the answer is whole.
fn ask(port: &Value, method: &str, path: &str, body: &str) -> Option<Value> {
    let port = u16::try_from(port.as_u64()?).ok()?;
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).ok()?;
    let length = body.len();
    write!(
        tcp,
        "{method} {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\
         Content-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )
    .ok()?;
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).ok()?;
    let (head, body) = answer.split_once("\r\n\r\n")?;
    assert!(head.starts_with("HTTP/1.1 2"), "{answer}");
    serde_json::from_str(body).ok()
}

fn enrollments(emulator: &Emulator) -> BTreeSet<String> {
    let all = ask(&emulator.ready["adminPort"], "GET", "/enrollments", "").unwrap();
    let all = all["enrollments"].as_array().unwrap();
    all.iter().filter_map(|it| it["registration-id"].as_str().map(str::to_owned)).collect()
}

/// Starts an emulator with the state of the one before, which is killed.
fn again(emulator: Emulator) -> Emulator {
    emulator.running.signal("-KILL");
    let Emulator { running, folder, .. } = emulator;
    running.status();
    start(folder, &[])
}

fn start(folder: Folder, arguments: &[&str]) -> Emulator {
    let state = folder.path("state.db");
    Emulator::start(folder, &[&["--state", &state], arguments].concat())
}

#[test]
fn enrollments_assignments_and_keys_outlive_a_kill() {
    let emulator = start(Folder::new(), &[]);
    let device = json!({
        "registration-id": "dev", "symmetric-key": KEY, "hubs": ["a.localhost", "b.localhost"],
        "reprovisioning": "never", "initial-twin": { "tags": { "floor": 3 } },
    });
    let admin = emulator.ready["adminPort"].clone();
    ask(&admin, "POST", "/enrollments", &device.to_string()).unwrap();
    let first = run(&mut emulator.register_dev(&[])).assigned();
    let known = ask(&admin, "GET", "/devices", "").unwrap();
    let (ready, ca) = (emulator.ready.clone(), fs::read(text(&emulator.ready, "caFile")).unwrap());
    let issuing = |port: &Value| {
        let mut tcp = TcpStream::connect(("127.0.0.1", port.as_u64().unwrap() as u16)).unwrap();
        write!(tcp, "GET /issuing-ca.pem HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
            .unwrap();
        let mut pem = String::new();
        tcp.read_to_string(&mut pem).unwrap();
        pem.split_once("\r\n\r\n").unwrap().1.to_owned()
    };
    let issued_by = issuing(&admin);
    assert!(issued_by.contains("BEGIN CERTIFICATE"), "{issued_by}");

    let emulator = again(emulator);
    let admin = &emulator.ready["adminPort"];
    for key in ["idScope", "groupKey"] {
        assert_eq!(emulator.ready[key], ready[key], "{key}");
    }
    let service_key = |ready: &Value| {
        text(ready, "serviceConnectionString").rsplit_once("SharedAccessKey=").unwrap().1.to_owned()
    };
    assert_eq!(service_key(&emulator.ready), service_key(&ready));
    assert_eq!(fs::read(text(&emulator.ready, "caFile")).unwrap(), ca);
    assert_eq!(issuing(admin), issued_by);
    assert_eq!(ask(admin, "GET", "/devices", "").unwrap(), known);
    let kept = ask(admin, "GET", "/enrollments/dev", "").unwrap();
    assert_eq!(kept["initial-twin"]["tags"]["floor"], 3, "{kept}");
    let second = run(&mut emulator.register_dev(&[])).assigned();
    assert_eq!(second["assignedHub"], first["assignedHub"]);
    assert_ne!(second["operationId"], first["operationId"]);

    // What was removed stays so, though the configuration had it.
    ask(admin, "DELETE", "/enrollments/dev", "");
    ask(admin, "DELETE", "/enrollments/group", "");
    let emulator = again(emulator);
    assert!(enrollments(&emulator).is_empty());
    assert_eq!(run(&mut emulator.register_dev(&[])).failed("rejected")["errorCode"], 404_201);
}

#[test]
fn no_kill_loses_what_was_answered_or_leaves_half_of_what_was_not() {
    let kills = std::env::var("DPS_TEST_KILLS").map_or(KILLS, |kills| kills.parse().unwrap());
    let mut emulator = start(Folder::new(), &[]);
    let mut answered = BTreeSet::new();
    for round in 0..kills {
        let admin = emulator.ready["adminPort"].clone();
        let writer = thread::spawn(move || {
            // Those that were answered, and the one that was under way.
            let mut answered = Vec::new();
            for number in 0.. {
                let name = format!("device-{round}-{number}");
                let body = json!({ "registration-id": name, "symmetric-key": KEY });
                match ask(&admin, "POST", "/enrollments", &body.to_string()) {
                    Some(_) => answered.push(name),
                    None => return (answered, name),
                }
            }
            unreachable!("it goes on until the emulator is killed")
        });
        // Another moment each time.
        let begin = Instant::now();
        let moment = Duration::from_micros(u64::from(round) * 7919 % 60_000);
        while begin.elapsed() < moment {
            thread::yield_now();
        }
        emulator = again(emulator);
        let (new, under_way) = writer.join().unwrap();
        answered.extend(new);
        let mut there = enrollments(&emulator);
        assert!(answered.is_subset(&there), "round {round}: {:?}", &answered - &there);
        if there.remove(&under_way) {
            answered.insert(under_way);
        }
        there.extend(answered.iter().cloned());
        assert_eq!(there, answered, "round {round}");
    }
    eprintln!("{kills} kills, {} enrollments", answered.len());
}

#[test]
fn a_file_that_is_only_read_stays_as_it_is() {
    let folder = Folder::new();
    let state = folder.path("state.db");
    let emulator = start(folder, &[]);
    let before = json!({ "registration-id": "before", "symmetric-key": KEY }).to_string();
    ask(&emulator.ready["adminPort"], "POST", "/enrollments", &before).unwrap();
    let Emulator { mut running, mut folder, ready, .. } = emulator;
    let files = || {
        let names = fs::read_dir(std::path::Path::new(&state).parent().unwrap()).unwrap();
        let mut files: Vec<_> = names.map(|it| it.unwrap().path()).collect();
        files.retain(|path| path.display().to_string().contains("state.db"));
        files.sort();
        files.into_iter().map(|path| (fs::read(&path).unwrap(), path)).collect::<Vec<_>>()
    };
    // With what a killed one has left, and after one that has ended well.
    for end in ["-KILL", "-TERM"] {
        running.signal(end);
        running.status();
        let before = files();
        for _ in 0..2 {
            let emulator = start(folder, &["--read-only"]);
            assert_eq!(emulator.ready["groupKey"], ready["groupKey"]);
            assert_eq!(enrollments(&emulator), ["before".to_owned()].into());
            let body = json!({ "registration-id": "dev", "symmetric-key": KEY }).to_string();
            ask(&emulator.ready["adminPort"], "POST", "/enrollments", &body).unwrap();
            run(&mut emulator.register_dev(&[])).assigned();
            emulator.running.signal("-TERM");
            assert!(emulator.running.status().success());
            folder = emulator.folder;
            assert!(files() == before, "after {end} a file has changed");
        }
        Emulator { running, folder, .. } = start(folder, &[]);
    }
}

#[cfg(unix)]
#[test]
fn only_its_owner_reads_the_file() {
    use std::os::unix::fs::PermissionsExt as _;
    let emulator = start(Folder::new(), &[]);
    for entry in fs::read_dir(emulator.folder.path("")).unwrap() {
        let entry = entry.unwrap();
        if entry.file_name().to_string_lossy().contains("state.db") {
            let mode = entry.metadata().unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{}", entry.path().display());
        }
    }
}

#[test]
fn a_file_that_is_not_for_this_emulator_is_refused_and_left() {
    let emulator = start(Folder::new(), &[]);
    let (taken, folder) = (emulator.folder.path("state.db"), Folder::new());
    let text = folder.file("text", "no database, but long enough to be looked at".repeat(100));
    let newer = folder.path("newer");
    {
        let Emulator { running, folder, .. } = start(Folder::new(), &[]);
        running.signal("-TERM");
        running.status();
        let mut bytes = fs::read(folder.path("state.db")).unwrap();
        // The version of what a program writes: see <https://sqlite.org/fileformat.html#the_database_header>.
        bytes[60..64].copy_from_slice(&2_u32.to_be_bytes());
        fs::write(&newer, bytes).unwrap();
    }
    let missing = folder.path("missing");
    for (arguments, expected) in [
        (&["--state", &taken][..], "another emulator has it open"),
        (&["--state", &text], "it is no file of an emulator's state"),
        (&["--state", &newer], "it is of version 2"),
        (&["--state", &missing, "--read-only"], "there is no such file"),
        (&["--read-only"], "give --state with it"),
        (&["--state", &folder.path("none/state.db")], "it can't be used"),
        (&["--state", &folder.path("")], "it is no regular file"),
        (&["--state", "/dev/null"], "it is no regular file"),
        (&["--state", ""], "it is empty; name a file"),
        (&["--state", "-"], "standard input keeps nothing; name a file"),
    ] {
        let ended = run(dps(&["emulate"]).args(arguments));
        assert_eq!(ended.code, 2, "{arguments:?}: {}", ended.stderr);
        assert!(ended.stderr.contains(expected), "{arguments:?}: {}", ended.stderr);
    }
    assert!(!std::path::Path::new(&missing).exists());
    assert_eq!(fs::read(&text).unwrap().len(), 4400);
}
