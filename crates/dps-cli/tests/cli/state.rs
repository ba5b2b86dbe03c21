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
pub(crate) fn ask(port: &Value, method: &str, path: &str, body: &str) -> Option<Value> {
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

fn service_key(ready: &Value) -> &str {
    text(ready, "serviceConnectionString").rsplit_once("SharedAccessKey=").unwrap().1
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

/// Has it stop in an orderly manner; gives its folder and what it said on standard error.
pub(crate) fn stopped(emulator: Emulator) -> (Folder, String) {
    emulator.running.signal("-TERM");
    let Emulator { running, folder, .. } = emulator;
    let ended = running.ended();
    assert_eq!(ended.code, 0, "{ended:?}");
    (folder, ended.stderr)
}

pub(crate) fn start(folder: Folder, arguments: &[&str]) -> Emulator {
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
    assert_eq!(service_key(&emulator.ready), service_key(&ready));
    assert_eq!(fs::read(text(&emulator.ready, "caFile")).unwrap(), ca);
    assert_eq!(issuing(admin), issued_by);
    assert_eq!(ask(admin, "GET", "/devices", "").unwrap(), known);
    let kept = ask(admin, "GET", "/enrollments/dev", "").unwrap();
    assert_eq!(kept["initial-twin"]["tags"]["floor"], 3, "{kept}");
    let second = run(&mut emulator.register_dev(&[])).assigned();
    assert_eq!(second["assignedHub"], first["assignedHub"]);
    assert_ne!(second["operationId"], first["operationId"]);

    // A key that the group has got since is the one that is told.
    let mut group = ask(admin, "GET", "/enrollments/group", "").unwrap();
    group["symmetric-key"] = KEY.into();
    ask(admin, "PUT", "/enrollments/group", &group.to_string()).unwrap();
    let emulator = again(emulator);
    assert_eq!(emulator.ready["groupKey"], KEY);

    // What was removed stays so, though the configuration had it.
    let admin = &emulator.ready["adminPort"];
    ask(admin, "DELETE", "/enrollments/dev", "");
    ask(admin, "DELETE", "/enrollments/group", "");
    let emulator = again(emulator);
    assert_eq!(emulator.ready["groupKey"], Value::Null);
    assert!(enrollments(&emulator).is_empty());
    assert_eq!(run(&mut emulator.register_dev(&[])).failed("rejected")["errorCode"], 404_201);
}

#[test]
fn keys_that_were_given_hold_where_they_are_not_given_again() {
    const OTHER: &str = "YW5vdGhlciBrZXkgb2YgdGhlIHRlc3RzIG9mIHRoZSBjb21tYW5k";
    let folder = Folder::new();
    let (own, key) = (folder.path("own.pem"), folder.path("own.key"));
    let made = dps(&["emulate", "--fixed", "--ca-out", &own, "--https-port", "0"])
        .args(["--mqtt-port", "0", "--amqp-port", "0", "--admin-port", "0", "--stop-at-eof"])
        .output()
        .unwrap();
    assert!(made.status.success(), "{made:?}");
    let given = ["--group-key", KEY, "--service-key", OTHER, "--ca-cert", &own, "--ca-key", &key];
    let emulator = start(folder, &given);
    let emulator = again(emulator);
    assert_eq!(emulator.ready["groupKey"], KEY);
    assert_eq!(service_key(&emulator.ready), OTHER);
    let ca = |emulator: &Emulator| fs::read(text(&emulator.ready, "caFile")).unwrap();
    assert_eq!(ca(&emulator), fs::read(&own).unwrap());
    let group = emulator.folder.file("group.key", KEY);
    let device = ["--registration-id", "dev", "--group-key-file", &group];
    run(&mut emulator.register(&device)).assigned();

    // Others take their place, each on its own.
    let (folder, _) = stopped(emulator);
    let emulator = again(start(folder, &["--group-key", OTHER]));
    assert_eq!(emulator.ready["groupKey"], OTHER);
    assert_eq!(service_key(&emulator.ready), OTHER);

    // A seed can't: what follows from it is there already.
    let (mut folder, said) = stopped(emulator);
    assert_eq!(said, "");
    for seed in [&["--seed", "another"][..], &["--seed", "another", "--quiet"]] {
        let emulator = start(folder, seed);
        assert_eq!(emulator.ready["groupKey"], OTHER);
        let said;
        (folder, said) = stopped(emulator);
        let parts = ["warning: --seed: ", "state.db", "another seed"];
        assert_eq!(parts.iter().all(|part| said.contains(part)), seed.len() == 2, "{said}");
        assert_eq!(said.lines().count(), usize::from(seed.len() == 2), "{said}");
    }
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
