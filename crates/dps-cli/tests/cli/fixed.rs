//! `dps emulate` where it is the same from run to run, and where its admin port listens.

use std::{
    fs,
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::TcpStream,
    os::unix::fs::PermissionsExt as _,
};

use serde_json::Value;

use crate::support::{Folder, KEY, Running, dps, run, text};

const ANY_PORTS: [&str; 8] =
    ["--https-port", "0", "--mqtt-port", "0", "--amqp-port", "0", "--admin-port", "0"];

/// One that serves, and its first line.
fn started(arguments: &[&str], folder: &Folder) -> (Running, Value) {
    let mut command = dps(&[&["emulate"], &ANY_PORTS[..], arguments].concat());
    let mut running = Running::start(command.env("XDG_DATA_HOME", folder.path("data")));
    let mut line = String::new();
    let mut stdout = BufReader::new(running.child().stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    (running, serde_json::from_str(&line).unwrap_or_else(|error| panic!("{line}: {error}")))
}

/// The status line of the answer.
fn status(ready: &Value, headers: &str) -> String {
    let port = u16::try_from(ready["adminPort"].as_u64().unwrap()).unwrap();
    let mut tcp = TcpStream::connect(("127.0.0.1", port)).unwrap();
    write!(tcp, "GET /info HTTP/1.0\r\nHost: localhost\r\n{headers}\r\n").unwrap();
    let mut answer = String::new();
    tcp.read_to_string(&mut answer).unwrap();
    answer.lines().next().unwrap_or_default().to_owned()
}

#[test]
fn what_is_fixed_is_the_same_each_run_and_as_documented() {
    let folder = Folder::new();
    let page =
        fs::read_to_string(concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/emulator/admin.md"));
    let page = page.unwrap();
    let ca = folder.path("ca.pem");
    for arguments in [vec!["--fixed", "--ca-out", ca.as_str()], vec!["--fixed"]] {
        let mut authorities = Vec::new();
        for _ in 0..2 {
            let (_running, ready) = started(&arguments, &folder);
            assert!(page.contains(text(&ready, "groupKey")), "{ready}");
            assert!(page.contains(text(&ready, "idScope")), "{ready}");
            let service = text(&ready, "serviceConnectionString").split_once("SharedAccessKey=");
            assert!(page.contains(service.unwrap().1), "{ready}");
            authorities.push(fs::read_to_string(text(&ready, "caFile")).unwrap());
            let key = text(&ready, "caFile").replace(".pem", ".key");
            assert!(fs::read_to_string(&key).unwrap().contains("PRIVATE KEY"));
            assert_eq!(fs::metadata(key).unwrap().permissions().mode() & 0o777, 0o600);
        }
        assert_eq!(authorities[0], authorities[1], "{arguments:?}");
    }
    assert!(fs::exists(folder.path("data/dps/emulator-ca.pem")).unwrap());
}

#[test]
fn with_fixed_no_file_is_overwritten_that_is_something_else() {
    let folder = Folder::new();
    let foreign = folder.file("foreign.pem", "mine");
    let (alone, both) = (folder.file("alone.key", "mine"), folder.file("both.pem", "mine"));
    folder.file("both.key", "mine");
    for (file, parts) in [
        (&foreign, ["there is no ", "foreign.key beside it"]),
        (&folder.path("alone.pem"), ["alone.key", "alone.pem beside it"]),
        (&both, ["both.pem", "for a fresh authority remove it"]),
    ] {
        let ended =
            run(&mut dps(&[&["emulate", "--fixed", "--ca-out", file], &ANY_PORTS[..]].concat()));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{ended:?}");
    }
    for file in [foreign, alone, both] {
        assert_eq!(fs::read_to_string(file).unwrap(), "mine");
    }
    let ended = run(&mut dps(&["emulate", "--fixed", "--ca-out", &folder.path("none/")]));
    assert!(ended.code == 2 && ended.stderr.contains("it can't be written"), "{ended:?}");
    assert!(!fs::exists(folder.path("none.key")).unwrap());
    let key = folder.path("ca.key");
    let ended = run(&mut dps(&["emulate", "--fixed", "--ca-out", &key]));
    assert!(ended.code == 2 && ended.stderr.contains("names the same file"), "{ended:?}");
    assert!(!fs::exists(key).unwrap());
}

#[test]
fn the_authority_that_is_kept_stays_whatever_else_has_one() {
    let folder = Folder::new();
    let path = |name: &str| folder.path(name);
    let (ca, state, other) = (path("ca.pem"), path("state.db"), path("other.pem"));
    let begin = ["--fixed", "--ca-out", &ca];
    drop(started(&begin, &folder));
    let kept = fs::read(&ca).unwrap();
    for more in [&["--state", &state][..], &[], &["--state", &state]] {
        let (_running, ready) = started(&[&begin, more].concat(), &folder);
        assert_eq!(fs::read(text(&ready, "caFile")).unwrap(), kept, "{more:?}");
    }
    drop(started(&["--fixed", "--ca-out", &other], &folder));
    let given = ["--ca-cert", &other, "--ca-key", &path("other.key")];
    let ended = run(dps(&["emulate"]).args([&begin[..], &given].concat()));
    assert!(ended.code == 2 && ended.stderr.contains("--fixed overwrites none"), "{ended:?}");
    assert_eq!(fs::read(&ca).unwrap(), kept);
    fs::copy(&other, path("copy.pem")).unwrap();
    drop(started(&[&["--fixed", "--ca-out", &path("copy.pem")], &given[..]].concat(), &folder));
}

#[test]
fn a_state_that_was_begun_without_fixed_has_other_keys_which_is_told() {
    let folder = Folder::new();
    let state = folder.path("state.db");
    let (_, ready) = started(&["--state", &state], &folder);
    let (mut running, again) = started(&["--state", &state, "--fixed"], &folder);
    assert_eq!(again["groupKey"], ready["groupKey"]);
    running.wait_for_stderr("warning: --fixed: the state in ");
}

#[test]
fn a_seed_gives_the_same_key_each_run() {
    let folder = Folder::new();
    let key = |seed| text(&started(&["--seed", seed], &folder).1, "groupKey").to_owned();
    let (one, again, other) = (key("7"), key("7"), key("eight"));
    assert!(one == again && one != other, "{one} {again} {other}");
}

#[test]
fn beyond_loopback_the_admin_port_wants_a_token_which_it_tells_unless_it_was_given() {
    let folder = Folder::new();
    let (_fresh, ready) = started(&["--admin-listen", "0.0.0.0"], &folder);
    let token = text(&ready, "adminToken");
    assert_eq!(status(&ready, ""), "HTTP/1.0 401 Unauthorized");
    let shown = format!("Authorization: Bearer {token}\r\n");
    assert_eq!(status(&ready, &shown), "HTTP/1.0 200 OK");

    let file = folder.file("token", "a-token-of-ours\n");
    let (_given, ready) = started(&["--admin-token-file", &file], &folder);
    assert_eq!(ready["adminToken"], Value::Null);
    assert_eq!(status(&ready, ""), "HTTP/1.0 401 Unauthorized");
    assert_eq!(status(&ready, "Authorization: Bearer a-token-of-ours\r\n"), "HTTP/1.0 200 OK");

    let (_loopback, ready) = started(&["--group-key", KEY], &folder);
    assert_eq!(
        (&ready["adminToken"], status(&ready, "").as_str()),
        (&Value::Null, "HTTP/1.0 200 OK")
    );
}

#[test]
fn bad_values_of_these_flags_are_named() {
    let folder = Folder::new();
    let missing = folder.path("missing");
    let spaced = folder.file("spaced", "two words");
    for (arguments, parts) in [
        (["--admin-listen", "everywhere"], ["--admin-listen", "everywhere"]),
        (["--admin-token-file", &missing], ["--admin-token-file", "No such file"]),
        (["--admin-token-file", &spaced], ["--admin-token-file", "visible ASCII"]),
        (["--seed", ""], ["--seed", "it is empty"]),
    ] {
        let ended = run(&mut dps(&[&["emulate"], &arguments[..]].concat()));
        assert_eq!((ended.code, ended.stdout.as_str()), (2, ""), "{ended:?}");
        assert!(parts.iter().all(|part| ended.stderr.contains(part)), "{ended:?}");
        assert!(!ended.stderr.contains("two words"), "{ended:?}");
    }
}
