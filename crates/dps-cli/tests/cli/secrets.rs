//! Nothing that the command says, with `-vv`, holds a secret that it was given: on every transport, with every credential,
//! through success and failure. What `derive-key` and `sas-token` are asked to print is another matter.

use std::{
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
    support::{Emulator, Ended, Folder, closed_endpoint, dps, run, run_with_stdin},
};

const DEVICE_KEY: &str =
    "/FFYLcHGXw8lM9mLOBuQr+6nFx+LGfF4ZPQ6pNHPvdbJGIaemUAcqMr9cYkH2O+ZX2Dx5VfQEUCEPtt5rVOWgA==";
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
    let spoiled = files.file("spoiled.key", format!("{DEVICE_KEY}*"));
    let private = files.file("private.pem", PRIVATE_KEY);
    let half = files.file("half.pem", &PRIVATE_KEY[..PRIVATE_KEY.len() / 2]);
    let toml = files.file("bad.toml", format!("[[enrollment]]\nsymmetric-key = {GROUP_KEY}\n"));
    let device = ["--id-scope", "0ne00AABBCC", "--registration-id", "with-key", "-vv"];
    for credential in [
        ["--symmetric-key-file", &cut, "--endpoint", "localhost:1"],
        ["--symmetric-key-file", &spoiled, "--endpoint", "localhost:1"],
        ["--symmetric-key-file", &private, "--endpoint", "localhost:1"],
        ["--group-key-file", &spoiled, "--endpoint", "localhost:1"],
        ["--cert", &private, "--key", &private],
        ["--cert", &half, "--key", &half],
        ["--ca-file", &private, "--symmetric-key-file", &spoiled],
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
