//! Starting, stopping, and what is recorded of the time between.

use std::{
    io::Write,
    sync::{Arc, Mutex},
};

use crate::support::{PATIENCE, Requests, connect, counted, event_names};
use dps_emulator::{
    Attestation, Behavior, Config, Delivery, Emulator, Enrollment, EventKind, Fault, SymmetricKey,
};
use serde_json::Value;
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpListener, TcpStream},
};

const KEY: &str = "c29tZSBkZXZpY2UncyBrZXk=";

fn key() -> SymmetricKey {
    KEY.parse().unwrap()
}

fn with_one_device() -> Config {
    let attestation = Attestation::symmetric_key(key());
    Emulator::builder().enrollment(Enrollment::individual("dev-1".parse().unwrap(), attestation))
}

#[derive(Clone, Default)]
struct Lines(Arc<Mutex<Vec<u8>>>);

impl Write for Lines {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        Write::write(&mut *self.0.lock().unwrap(), bytes)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

/// In HTTP/1.0, whose answers come in one piece.
async fn get(port: u16, path: &str) -> (String, String) {
    let mut stream = TcpStream::connect(("127.0.0.1", port)).await.unwrap();
    let request = format!("GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    tokio::time::timeout(PATIENCE, stream.read_to_string(&mut answer)).await.unwrap().unwrap();
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    (head.lines().next().unwrap().to_owned(), body.to_owned())
}

#[tokio::test]
async fn events_tell_the_story_and_no_secret() {
    let lines = Lines::default();
    let emulator = with_one_device().events_to(lines.clone()).start().await.unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    let mut device = connect(&emulator).await.unwrap();
    let body = "{\"registrationId\":\"dev-1\",\"payload\":{\"modelId\":\"dtmi:a;1\"}}";
    device.ask(&requests.register_with(body)).await.unwrap();
    drop(device);
    let log = emulator.events();
    let over = log.wait_for(|event| matches!(event.kind, EventKind::Closed { .. })).await.unwrap();
    assert_eq!(over.connection, 1);
    let expected = ["connected", "tls-established", "request", "authenticated", "answer", "closed"];
    assert_eq!(event_names(&emulator), expected);
    let EventKind::Closed { received, sent, .. } = over.kind else { unreachable!() };
    assert!(received > 100 && sent > 100, "{received} {sent}");

    emulator.stop().await;
    let written = String::from_utf8(lines.0.lock().unwrap().clone()).unwrap();
    let events: Vec<Value> = written.lines().map(|l| serde_json::from_str(l).unwrap()).collect();
    let written_names: Vec<_> = events.iter().map(|event| &event["event"]).collect();
    assert_eq!(written_names, expected);
    assert!(events.iter().enumerate().all(|(index, event)| event["sequence"] == index));
    assert!(events.iter().all(|event| event["elapsedMs"].is_u64() && event["time"].is_string()));
    let request = &events[2];
    assert_eq!(request["transport"], "http");
    assert_eq!(request["operation"], "register");
    assert_eq!(request["registrationId"], "dev-1");
    assert_eq!(request["apiVersion"], "2021-06-01");
    assert_eq!(request["headers"]["user-agent"], "bytes/1");
    assert_eq!(request["payload"]["modelId"], "dtmi:a;1");
    let answer = &events[4];
    assert_eq!(
        (&answer["status"], &answer["registrationStatus"]),
        (&200.into(), &"assigned".into())
    );
    assert_eq!(answer["delivery"], "whole");
    let token = requests.authorization.unwrap();
    let signature = token.split_once("sig=").unwrap().1.split('&').next().unwrap();
    assert!(!written.contains(signature) && !written.contains(KEY), "a secret in {written}");
}

#[tokio::test]
async fn the_reason_of_a_refusal_is_shown_to_whoever_runs_the_emulator() {
    let emulator = with_one_device().start().await.unwrap();
    let other = SymmetricKey::random().unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &other);
    let answer = connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
    assert_eq!(answer.json()["message"], "Unauthorized");
    let log = emulator.events();
    let failed = log
        .wait_for(|event| matches!(event.kind, EventKind::AuthenticationFailed { .. }))
        .await
        .unwrap();
    let EventKind::AuthenticationFailed { error_code, reason, .. } = failed.kind else {
        unreachable!()
    };
    assert_eq!(
        (error_code, reason.as_str()),
        (401_002, "the token is not signed with the right key")
    );
}

#[tokio::test]
async fn the_admin_port_serves_health_and_events() {
    let emulator = with_one_device().admin_port(0).start().await.unwrap();
    let port = emulator.admin_port().unwrap();
    let requests = Requests::with_key(&emulator, "dev-1", &key());
    connect(&emulator).await.unwrap().ask(&requests.register()).await.unwrap();
    let (status, body) = get(port, "/health").await;
    assert_eq!(status, "HTTP/1.0 200 OK");
    assert_eq!(serde_json::from_str::<Value>(&body).unwrap()["status"], "ok");
    let (_, lines) = get(port, "/events").await;
    let names: Vec<_> = lines
        .lines()
        .map(|line| serde_json::from_str::<Value>(line).unwrap()["event"].clone())
        .collect();
    assert!(names.contains(&"answer".into()), "{lines}");
    let (_, rest) = get(port, "/events?since=3").await;
    assert!(rest.lines().next().is_some_and(|line| line.contains("\"sequence\":3")), "{rest}");
    assert!(get(port, "/events?since=x").await.0.contains("400"));
    assert!(get(port, "/nope").await.0.contains("404"));
    assert_eq!(with_one_device().start().await.unwrap().admin_port(), None);
}

#[tokio::test]
async fn stopping_closes_everything_and_frees_the_ports() {
    let never = Behavior::new().on_register(Fault::deliver(Delivery::Never).forever());
    let emulator = with_one_device().admin_port(0).start().await.unwrap();
    emulator.set_behavior("dev-1", never).unwrap();
    let ports = [emulator.https_port(), emulator.admin_port().unwrap()];
    let log = emulator.events();
    let mut idle = connect(&emulator).await.unwrap();
    let mut waiting = connect(&emulator).await.unwrap();
    waiting.send(Requests::with_key(&emulator, "dev-1", &key()).register()).await;
    log.wait_for(|event| matches!(event.kind, EventKind::Answer { .. })).await.unwrap();

    tokio::time::timeout(PATIENCE, emulator.stop()).await.unwrap();
    for port in ports {
        assert!(TcpListener::bind(("127.0.0.1", port)).await.is_ok());
    }
    assert!(idle.is_closed().await && waiting.is_closed().await);
    assert_eq!(log.wait_for(|_| false).await, None, "nothing more will happen");
    let names: Vec<_> = log.snapshot().into_iter().map(|event| event.kind).collect();
    let ends = names.iter().filter(|kind| matches!(kind, EventKind::Closed { .. })).count();
    assert_eq!(ends, 2, "the log outlives the emulator and tells every end: {names:?}");
}

#[tokio::test]
async fn dropping_closes_everything() {
    let emulator = with_one_device().start().await.unwrap();
    let mut device = connect(&emulator).await.unwrap();
    let log = emulator.events();
    drop(emulator);
    assert!(device.is_closed().await);
    assert_eq!(tokio::time::timeout(PATIENCE, log.wait_for(|_| false)).await.unwrap(), None);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_devices_register_at_once() {
    let emulator =
        Arc::new(Config::new().with_any_device(None, None).unwrap().start().await.unwrap());
    let group = emulator.group_key().unwrap().clone();
    let devices: Vec<_> = (0..64)
        .map(|number| {
            let emulator = emulator.clone();
            let id: &'static str = format!("dev-{number}").leak();
            let key = group.derive(&id.parse().unwrap());
            tokio::spawn(async move {
                let requests = Requests::with_key(&emulator, id, &key);
                let mut device = connect(&emulator).await.unwrap();
                device.ask(&requests.register()).await.unwrap().json()["status"].clone()
            })
        })
        .collect();
    for device in devices {
        assert_eq!(device.await.unwrap(), "assigned");
    }
    let names = event_names(&emulator);
    let counts = counted(&names);
    assert_eq!((counts["connected"], counts["authenticated"], counts["answer"]), (64, 64, 64));
}
