//! How much memory `dps emulate` takes, whatever comes.

use std::{fs, io::Write, net::TcpStream};

use dps_client::{
    Attestation, Config, GroupKey, RegistrationRequest, Roots, Settings, Transport, client,
    serde_json::json,
};

use crate::support::{Emulator, KEY, text};

/// The most that it may have, in bytes.
const MOST: usize = 64 * 1024 * 1024;
/// How many readers an admin port has at once.
const READERS: usize = 64;

/// What a process has in memory that is its own, and that of its program.
fn resident(process: &str) -> (usize, usize) {
    let status = fs::read_to_string(format!("/proc/{process}/status")).unwrap();
    let kilobytes = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).unwrap();
        line.trim().strip_suffix(" kB").unwrap().parse::<usize>().unwrap() * 1024
    };
    (kilobytes("RssAnon:"), kilobytes("RssFile:"))
}

#[tokio::test]
async fn memory_stays_bounded_with_a_full_log_and_readers_that_do_not_read() {
    let emulator = Emulator::configured(&format!(
        "[[enrollment]]\ngroup = \"factory\"\nsymmetric-key = \"{KEY}\"\npayload = \"echo\"\n"
    ));
    let group: GroupKey = KEY.parse().unwrap();
    let roots = fs::read(text(&emulator.ready, "caFile")).unwrap();
    let roots = Roots::empty().with_pem(&roots).unwrap();
    let payload = json!({ "text": "payload ".repeat(7700) });
    // Larger together than the log and than all that is kept of devices.
    for number in 0..60 {
        let id: dps_client::RegistrationId = format!("device-{number}").parse().unwrap();
        let attestation = Attestation::from(group.derive(&id));
        let scope = text(&emulator.ready, "idScope").parse().unwrap();
        let mut config = Config::new(scope, attestation);
        config.endpoint = emulator.endpoint().parse().unwrap();
        config.roots = roots.clone();
        let client = client(Transport::Http, config, Settings::default()).unwrap();
        let request = RegistrationRequest::new(id).payload(payload.clone()).unwrap();
        for _ in 0..5 {
            assert!(client.register(request.clone()).await.unwrap().payload.is_some());
        }
    }
    let port = u16::try_from(emulator.ready["adminPort"].as_u64().unwrap()).unwrap();
    let mut readers = Vec::new();
    for _ in 0..READERS {
        let mut reader = TcpStream::connect(("127.0.0.1", port)).unwrap();
        reader.write_all(b"GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n").unwrap();
        readers.push(reader);
    }
    // Each has its first bytes, so that each answer has begun.
    for reader in &readers {
        assert!(reader.peek(&mut [0; 16]).unwrap() > 0);
    }
    let (own, program) = resident(&emulator.running.id());
    eprintln!("{own} bytes of its own, {program} of its program");
    assert!(own + program <= MOST, "{own} bytes of its own, {program} of its program");
}
