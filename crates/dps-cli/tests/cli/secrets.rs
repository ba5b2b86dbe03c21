//! Nothing that the command says, with `-vv`, holds a secret that it was given: on every transport, with every credential,
//! through success and failure. What `derive-key` and `sas-token` are asked to print is another matter.

use std::{
    collections::BTreeSet,
    fs,
    io::{Read, Write},
    net::TcpListener,
    process::Command,
    thread::{self, JoinHandle},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_client::{GroupKey, RegistrationId};
use rcgen::KeyPair;

use crate::{
    canary::Canaries,
    generated::{command_of, commands},
    support::{Emulator, Ended, Folder, closed_endpoint, dps, run, run_with_stdin},
};

/// Where it is taken for the name of a file, that is one in the folder of the test.
const DEVICE_KEY: &str =
    "GFFYLcHGXw8lM9mLOBuQr+6nFx+LGfF4ZPQ6pNHPvdbJGIaemUAcqMr9cYkH2O+ZX2Dx5VfQEUCEPtt5rVOWgA==";
const GROUP_KEY: &str =
    "qs5f351rCc5yFv4kcjAeqg/J7Xhn+GV/zauFnIsLoqm1baXpTLjDFjDRKqBBPatgptaiL30MYpMdLopu3Tg9xg==";
const PASSWORD: &str = "kT7vQ2mKw9Lz4Rb8nXeH";
/// On P-256. Its secret is the 32 bytes after the first 36.
const PRIVATE_KEY: &str = include_str!("../../../dps-attestation/tests/data/p256.pkcs8.pem");
const TRANSPORTS: [&str; 5] = ["http", "mqtt", "mqtt-ws", "amqp", "amqp-ws"];

fn derived() -> String {
    let device: RegistrationId = "in-a-group".parse().unwrap();
    GROUP_KEY.parse::<GroupKey>().unwrap().derive(&device).expose_base64().to_string()
}

fn canaries() -> Canaries {
    let mut canaries = Canaries::new();
    for (name, key) in [("device", DEVICE_KEY), ("group", GROUP_KEY), ("derived", &derived())] {
        canaries.add(format!("the {name} key"), STANDARD.decode(key).unwrap());
        canaries.add(format!("the {name} key's text"), key);
    }
    let key = KeyPair::from_pem(PRIVATE_KEY).unwrap().serialize_der();
    canaries.add("the private key", &key[36..68]);
    canaries.add("the proxy's password", PASSWORD);
    canaries
}

fn keeps_quiet(what: &str, ended: &Ended) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    canaries().assert_absent(what, said.as_bytes());
    // A token is known by what stands before its signature, which nobody knows beforehand.
    let signed = said.split("sig=").skip(1).any(|after| !after.starts_with("***"));
    assert!(!signed && !said.contains("SharedAccessSignature sr"), "{what}: {said}");
}

/// Files with the device's secrets, and an emulator that knows them.
struct Bench {
    emulator: Emulator,
    /// What the emulator says on standard error.
    said: JoinHandle<String>,
    files: Folder,
}

impl Bench {
    fn new() -> Self {
        let key = KeyPair::from_pem(PRIVATE_KEY).unwrap();
        let mut params = rcgen::CertificateParams::default();
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.distinguished_name.push(rcgen::DnType::CommonName, "with-certificate");
        let certificate = params.self_signed(&key).unwrap().pem();
        let files = Folder::new();
        files.file("device.key", DEVICE_KEY);
        files.file("group.key", GROUP_KEY);
        files.file("private.pem", PRIVATE_KEY);
        files.file("certificate.pem", &certificate);
        let toml = format!(
            "[[enrollment]]\nregistration-id = \"with-key\"\nsymmetric-key = \"{DEVICE_KEY}\"\n\
             [[enrollment]]\ngroup = \"group\"\nsymmetric-key = \"{GROUP_KEY}\"\npolls = 1\nretry-after = 0\n\
             [[enrollment]]\nregistration-id = \"with-certificate\"\ncertificate = '''{certificate}'''\n"
        );
        let config = files.file("emulator.toml", toml);
        let events = files.path("events");
        let mut emulator =
            Emulator::start(Folder::new(), &["--config", &config, "-vv", "--events", &events]);
        let mut stderr = emulator.running.child().stderr.take().unwrap();
        let said = thread::spawn(move || {
            let mut said = String::new();
            stderr.read_to_string(&mut said).unwrap();
            said
        });
        Self { emulator, said, files }
    }

    /// `dps register -vv` with each credential there is.
    fn each(&self, transport: &str, arguments: &[&str]) -> Vec<Command> {
        let file = |name| self.files.path(name);
        let credentials: [(&str, Vec<String>); 4] = [
            ("with-key", vec![]),
            ("with-key", vec!["--symmetric-key-file".into(), file("device.key")]),
            ("in-a-group", vec!["--group-key-file".into(), file("group.key")]),
            (
                "with-certificate",
                vec!["--cert".into(), file("certificate.pem"), "--key".into(), file("private.pem")],
            ),
        ];
        let commands = credentials.into_iter().map(|(device, credential)| {
            let mut command =
                self.emulator.register_over(transport, &["--registration-id", device]);
            if credential.is_empty() {
                command.env("DPS_SYMMETRIC_KEY", DEVICE_KEY);
            }
            command.args(credential).args(["-vv", "--poll-floor", "0"]).args(arguments);
            command
        });
        commands.collect()
    }
}

/// A proxy that answers each request with this status.
fn proxy(status: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let mut byte = [0];
                if stream.read(&mut byte).unwrap_or(0) == 0 {
                    break;
                }
                head.push(byte[0]);
            }
            let _ = write!(stream, "HTTP/1.1 {status}\r\n\r\n");
        }
    });
    format!("http://user:{PASSWORD}@{address}")
}

#[test]
fn nothing_is_given_away_on_any_transport() {
    let bench = Bench::new();
    let refusing = proxy("407 Proxy Authentication Required");
    let broken = proxy("502 Bad Gateway");
    for transport in TRANSPORTS {
        for mut command in bench.each(transport, &[]) {
            let ended = run(&mut command);
            assert_eq!(ended.code, 0, "{transport}: {ended:?}");
            assert!(ended.stderr.contains("TRACE") || ended.stderr.contains("DEBUG"), "{ended:?}");
            keeps_quiet(transport, &ended);
        }
        for proxy in [&refusing, &broken] {
            for mut command in bench.each(transport, &["--proxy", proxy]) {
                let ended = run(&mut command);
                ended.failed("connection");
                keeps_quiet(transport, &ended);
            }
        }
        for mut command in bench.each(transport, &["--id-scope", "0ne00FFFFFF"]) {
            keeps_quiet(transport, &run(&mut command));
        }
        for mut command in
            bench.each(transport, &["--proxy", &format!("http://user:{PASSWORD}@:1")])
        {
            let ended = run(&mut command);
            ended.failed("configuration");
            keeps_quiet(transport, &ended);
        }
    }
    let Bench { emulator, said, files } = bench;
    emulator.running.signal("-TERM");
    assert_eq!(emulator.running.ended().code, 0);
    let stderr = said.join().unwrap();
    let stdout = fs::read_to_string(files.path("events")).unwrap();
    assert!(stdout.contains("\"authenticated\"") && stderr.contains("rustls"), "{stderr}");
    keeps_quiet("dps emulate", &Ended { code: 0, stdout, stderr });
}

#[test]
fn what_is_damaged_or_in_the_wrong_place_is_not_repeated() {
    let files = Folder::new();
    let cut = files.file("cut.key", &DEVICE_KEY[..41]);
    let damaged = files.file("damaged.key", format!("{DEVICE_KEY}*"));
    let private = files.file("private.pem", PRIVATE_KEY);
    let half = files.file("half.pem", &PRIVATE_KEY[..PRIVATE_KEY.len() / 2]);
    let toml = files.file("bad.toml", format!("[[enrollment]]\nsymmetric-key = {GROUP_KEY}\n"));
    let device = ["--id-scope", "0ne00AABBCC", "--registration-id", "with-key", "-vv"];
    for credential in [
        ["--symmetric-key-file", &cut, "--endpoint", "localhost:1"],
        ["--symmetric-key-file", &damaged, "--endpoint", "localhost:1"],
        ["--symmetric-key-file", &private, "--endpoint", "localhost:1"],
        ["--group-key-file", &damaged, "--endpoint", "localhost:1"],
        ["--cert", &private, "--key", &private],
        ["--cert", &half, "--key", &half],
        ["--ca-file", &private, "--symmetric-key-file", &damaged],
    ] {
        let ended = run(dps(&["register", "--json"]).args(device).args(credential));
        ended.failed("configuration");
        keeps_quiet(credential[0], &ended);
    }
    for (name, value) in [
        ("DPS_SYMMETRIC_KEY", format!("{DEVICE_KEY}*")),
        ("HTTPS_PROXY", format!("http://user:{PASSWORD}@:port")),
        ("DPS_ENDPOINT", format!("http://user:{PASSWORD}@proxy:1")),
    ] {
        let mut command = dps(&["register", "--json"]);
        command.args(device).env("DPS_ENDPOINT", closed_endpoint());
        let ended = run(command.env("DPS_SYMMETRIC_KEY", DEVICE_KEY).env(name, value));
        assert_ne!(ended.code, 0, "{ended:?}");
        keeps_quiet(name, &ended);
    }
    let ended = run_with_stdin(
        dps(&["register", "--json", "--symmetric-key-file", "-"]).args(device),
        &DEVICE_KEY.repeat(2),
    );
    ended.failed("configuration");
    keeps_quiet("standard input", &ended);
    let ended = run(&mut dps(&["emulate", "-vv", "--config", &toml]));
    assert_ne!(ended.code, 0);
    keeps_quiet("dps emulate", &ended);
}

/// What people paste into the wrong place, and what is secret of it.
fn misplaced() -> Vec<(&'static str, String, &'static str)> {
    let key = DEVICE_KEY;
    let hub = format!("HostName=h.example;SharedAccessKeyName=owner;SharedAccessKey={key}");
    let token =
        format!("SharedAccessSignature sr=0ne1%2Fregistrations%2Fdev&sig={PASSWORD}%3D&se=1");
    let unpadded = key.trim_end_matches('=').to_owned();
    vec![
        ("a key", key.to_owned(), key),
        ("a key without its padding", unpadded, key),
        ("half a key", key[..43].to_owned(), key),
        ("a connection string", hub, key),
        ("a SAS token", token, PASSWORD),
        ("a PKCS#11 URI", format!("pkcs11:token=t;object=o?pin-value={PASSWORD}"), PASSWORD),
        ("a private key", PRIVATE_KEY.to_owned(), PRIVATE_KEY.lines().nth(2).unwrap()),
        ("a proxy", format!("joe:{PASSWORD}@127.0.0.1:1"), PASSWORD),
        ("a misspelled proxy", format!("http:/joe:{PASSWORD}@127.0.0.1:1"), PASSWORD),
    ]
}

/// Not even twelve characters of the secret are in what was said.
fn assert_not_repeated(what: &str, secret: &str, ended: &Ended) {
    let said = format!("{}{}", ended.stdout, ended.stderr);
    for at in 0..secret.len() - 12 {
        assert!(!said.contains(&secret[at..at + 12]), "{what}: {said}");
    }
}

/// The long options of a command, by its help.
fn options(command: &str) -> Vec<String> {
    let help = run(command_of(command).arg("--help")).stdout;
    let named = |line: &str| {
        let line = line.trim_start();
        let flag = line.strip_prefix("-v, ").unwrap_or(line).split([' ', '=']).next()?;
        flag.strip_prefix("--").filter(|name| *name != "help").map(|name| format!("--{name}"))
    };
    // Examples follow the options.
    let options = help.split("Examples:").next().unwrap();
    options.lines().filter_map(named).collect()
}

#[test]
fn a_secret_in_any_option_of_any_command_is_not_repeated() {
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let closed = closed_endpoint();
    let mut tried = 0;
    for name in commands().iter().chain(["register".to_owned()].iter()) {
        // Words that let it come as far as it can without a peer; the second time for people.
        let rest: &[&str] = match name.as_str() {
            "register" if tried == 0 => &["--json", "--endpoint", &closed, "--timeout", "2"],
            "register" => &["--endpoint", &closed, "--timeout", "2"],
            "doctor" | "status" => &["--endpoint", &closed, "--timeout", "2"],
            "emulate" => &["--mqtt-port", &taken],
            _ => &[],
        };
        let options = options(name);
        for option in options.iter().map(String::as_str).chain(["", "--frobnicate"]) {
            for (what, secret, part) in misplaced() {
                let rest = match rest.iter().position(|word| *word == option) {
                    Some(at) => {
                        [&rest[..at], &rest[at + 1 + usize::from(option != "--json")..]].concat()
                    }
                    None => rest.to_vec(),
                };
                // How a flag and its value are written is read once for all commands.
                let forms: &[bool] = if name == "register" { &[true, false] } else { &[true] };
                for joined in forms.iter().copied() {
                    let mut command = command_of(name);
                    command.args(&rest).current_dir(folder.path("."));
                    command.env("DPS_ID_SCOPE", "0ne1").env("DPS_REGISTRATION_ID", "dev");
                    command.env("DPS_SYMMETRIC_KEY", DEVICE_KEY);
                    if name == "agent" {
                        // It runs until it is told to end, unless it has no credential.
                        command.env_remove("DPS_SYMMETRIC_KEY");
                    }
                    match (option, joined) {
                        ("", _) => command.arg(&secret),
                        (option, true) => command.arg(format!("{option}={secret}")),
                        (option, false) => command.args([option, &secret]),
                    };
                    let ended = run(&mut command);
                    assert_not_repeated(&format!("{what} as {option:?}"), part, &ended);
                    tried += 1;
                }
            }
        }
    }
    assert!(tried > 400, "{tried}");
}

#[test]
fn a_secret_in_any_variable_is_not_repeated() {
    // An example is printed whatever is set.
    let commands = commands().into_iter().filter(|name| name != "config example");
    let commands: Vec<(String, Vec<String>)> =
        commands.map(|name| (name.clone(), options(&name))).collect();
    let folder = Folder::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = taken.local_addr().unwrap().port().to_string();
    let closed = closed_endpoint();
    // Many commands have the same options: each variable once.
    let options: BTreeSet<&String> = commands.iter().flat_map(|(_, options)| options).collect();
    for option in options {
        let variable = option.replace("--", "DPS_").replace('-', "_").to_ascii_uppercase();
        for (what, secret, part) in misplaced() {
            for (name, own) in &commands {
                if !own.contains(option) {
                    continue;
                }
                let mut command = command_of(name);
                command.current_dir(folder.path("."));
                if name == "emulate" {
                    command.args(["--mqtt-port", &taken]);
                }
                command.env("DPS_ID_SCOPE", "0ne1").env("DPS_REGISTRATION_ID", "dev");
                command.env("DPS_ENDPOINT", &closed).env("DPS_TIMEOUT", "2");
                command.env("HTTPS_PROXY", &secret).env(&variable, &secret);
                let ended = run(&mut command);
                assert_ne!(ended.code, 0, "{name} {variable}");
                assert_not_repeated(&format!("{name}: {what} as {variable}"), part, &ended);
            }
        }
    }
}

#[test]
fn a_secret_in_any_key_of_the_emulators_file_is_not_repeated() {
    let example = run(&mut dps(&["emulate", "--example-config"])).stdout;
    let folder = Folder::new();
    let lines: Vec<&str> = example.lines().collect();
    let mut tried = 0;
    for (at, line) in lines.iter().enumerate() {
        let Some((key, _)) = line.split_once(" = ").filter(|(key, _)| !key.starts_with('#')) else {
            continue;
        };
        // Where a key belongs it is taken.
        if ["symmetric-key", "secondary-key", "certificate", "ca", "payload"].contains(&key) {
            continue;
        }
        for (what, secret, part) in misplaced() {
            for value in [
                format!("{key} = \'\'\'{secret}\'\'\'"),
                format!("{key} = {secret}"),
                format!("\"{}\" = 1", secret.replace('\n', "")),
            ] {
                let text =
                    [&lines[..at], &[value.as_str(), "mqtt-port-must-fail = 1"], &lines[at + 1..]]
                        .concat()
                        .join("\n");
                let file = folder.file("emulator.toml", text);
                let ended = run(&mut dps(&["emulate", "--config", &file]));
                assert_eq!(ended.code, 2, "{ended:?}");
                assert_not_repeated(&format!("{what} as {key}"), part, &ended);
                tried += 1;
            }
        }
    }
    assert!(tried > 100, "{tried}");
}

/// The password of a proxy, in all the ways in which people write one.
fn proxies() -> Vec<String> {
    [
        "http://joe:PW@h:1",
        "joe:PW@h:1",
        "JOE\\joe:PW@h",
        "http:/joe:PW@h:1",
        "http:\\joe:PW@h:1",
        "http//joe:PW@h:99999",
        "http//joe:PW@h",
        "joe:PW@h:99999",
        "https://joe:PW@h",
        "http://joe:my PW@h:1",
        "http://joe:PW my@h:1",
        "joe:my PW@h:1",
        "http://joe:my/PW@h/x",
        "http://joe:PW@h:1 # office",
        "joe:PW",
        "http://joe:PW",
    ]
    .map(|form| form.replace("PW", PASSWORD))
    .to_vec()
}

#[test]
fn the_password_of_a_proxy_is_not_repeated_however_it_is_written() {
    let folder = Folder::new();
    folder.file("dev.key", DEVICE_KEY);
    let start =
        "id-scope = \"0ne1\"\nregistration-id = \"dev\"\nsymmetric-key-file = \"dev.key\"\n";
    let file = folder.file("dps.toml", start);
    let (mut refused, mut taken) = (0, 0);
    for proxy in proxies() {
        // In the file, where it does not belong.
        let with = folder.file("with.toml", format!("{start}proxy = '{proxy}'\n"));
        for words in [&["config", "check"][..], &["config", "check", "--json"], &["register"]] {
            let ended = run(dps(words).args(["--config", &with]));
            assert_eq!(ended.code, 2, "{proxy}: {ended:?}");
            assert!(format!("{}{}", ended.stdout, ended.stderr).contains(":4: proxy"), "{ended:?}");
            keeps_quiet(&proxy, &ended);
        }
        // Where it belongs.
        for is_flag in [true, false] {
            let mut command = dps(&["config", "check", "--json", "--config", &file]);
            let ended = match is_flag {
                true => run(command.args(["--proxy", &proxy])),
                false => run(command.env("DPS_PROXY", &proxy)),
            };
            keeps_quiet(&proxy, &ended);
            match ended.code {
                0 => {
                    assert!(ended.stdout.contains("joe:***@h"), "{proxy}: {ended:?}");
                    taken += 1;
                }
                _ => refused += 1,
            }
        }
    }
    assert!(taken >= 6 && refused >= 16, "{taken} and {refused}");
}

#[test]
fn a_secret_in_any_key_of_the_devices_file_is_not_repeated() {
    let folder = Folder::new();
    folder.file("dev.key", DEVICE_KEY);
    let start =
        "id-scope = \"0ne1\"\nregistration-id = \"dev\"\nsymmetric-key-file = \"dev.key\"\n";
    let mut tried = 0;
    for key in dps_client::DeviceFile::keys() {
        let rest: Vec<&str> =
            start.lines().filter(|line| !line.starts_with(&format!("{key} ="))).collect();
        for (what, secret, part) in misplaced() {
            let text = format!("{}\n{key} = '''{secret}'''\n", rest.join("\n"));
            let file = folder.file("dps.toml", text);
            for words in [&["config", "check"][..], &["config", "check", "--json"]] {
                let ended = run(dps(words).arg(&file).current_dir(folder.path(".")));
                assert_not_repeated(&format!("{what} as {key}"), part, &ended);
                tried += 1;
            }
        }
    }
    assert!(tried > 500, "{tried}");
}

#[test]
fn a_secret_in_the_command_of_exec_is_not_repeated() {
    let command = format!("true joe:{PASSWORD}@h http://joe:{PASSWORD}@h; exit 3");
    for json in [true, false] {
        let mut register = dps(&["register", "--emulator", "--exec", &command]);
        register.args(json.then_some("--json"));
        let ended = run(&mut register);
        assert_eq!(ended.code, 11, "{ended:?}");
        assert!(format!("{}{}", ended.stdout, ended.stderr).contains("joe:***@h"), "{ended:?}");
        keeps_quiet("--exec", &ended);
    }
}

#[test]
fn the_placeholder_of_a_hint_stays() {
    let url = proxy("407 Proxy Authentication Required");
    let without = format!("http://{}", url.rsplit('@').next().unwrap());
    let mut command = dps(&["register", "--json", "--proxy", &without]);
    command.args(["--id-scope", "0ne1", "--registration-id", "dev"]);
    let ended = run(command.env("DPS_SYMMETRIC_KEY", DEVICE_KEY));
    let hint = ended.failed("connection")["hint"].as_str().unwrap().to_owned();
    assert_eq!(hint.matches("http://USER:PASSWORD@HOST:PORT").count(), 2, "{hint}");
}
