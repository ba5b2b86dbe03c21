//! What can be seen only from within: the table of routes, and readers that are slow or say nothing.

use std::{collections::BTreeSet, pin::Pin, time::Duration};

use hyper::body::Body as _;
use serde_json::Value;
use tokio::{io::AsyncWriteExt as _, time::Instant};

use super::{
    events::{End, Events, Reader},
    routes::ROUTES,
    *,
};
use crate::{
    config::{Config, Limits, ServerCertificate},
    core::{
        Core, Service,
        clock::Clock,
        events::{EventKind, Recorder, Transport},
    },
    server::Start,
    tls::{ServerCertificates, server_config},
};

fn closed(reason: &str) -> EventKind {
    EventKind::Closed { reason: reason.into(), received: 0, sent: 0 }
}

/// The admin side of an emulator without ports.
fn admin(limits: Limits) -> (Arc<Admin>, watch::Sender<bool>) {
    let seed = [7; 32];
    let now = SystemTime::now();
    let service = Service::new(Config::new().instance().unwrap(), vec![], seed, now).unwrap();
    let core = Arc::new(Core::new(service, Clock::default(), Recorder::new()));
    let certificates =
        ServerCertificates::new(&[], ServerCertificate::Valid, None, core.clone()).unwrap();
    let ca_pem = certificates.ca_pem().to_owned();
    let start = Start {
        enrollments: vec![],
        connection_faults: vec![],
        clock_ahead: 0.0,
        seed: seed.into(),
    };
    let shared = Arc::new(Shared::new(core, limits, server_config(certificates).unwrap(), start));
    let facts = Facts {
        ready: true,
        id_scope: String::new(),
        https_port: 0,
        mqtt_port: 0,
        amqp_port: 0,
        admin_port: 0,
        version: "",
        started_at: String::new(),
        ca_pem,
    };
    let (stop, stopping) = watch::channel(false);
    (Arc::new(Admin::new(shared, facts, Guard::new(vec![], vec![], None), stopping)), stop)
}

#[test]
fn the_document_has_every_route_and_no_other() {
    let document: Value = serde_json::from_str(OPENAPI).unwrap();
    let documented: BTreeSet<(String, String)> = document["paths"]
        .as_object()
        .unwrap()
        .iter()
        .flat_map(|(path, operations)| {
            let methods = operations.as_object().unwrap().keys();
            methods.map(|method| (path.clone(), method.to_uppercase())).collect::<Vec<_>>()
        })
        .collect();
    let served: BTreeSet<_> =
        ROUTES.iter().map(|route| (route.path.to_owned(), route.method.to_string())).collect();
    assert_eq!(documented, served);
    for route in ROUTES {
        let operation = &document["paths"][route.path][route.method.as_str().to_lowercase()];
        let is_open = operation["security"].as_array().is_some_and(|needed| needed.is_empty());
        assert_eq!(is_open, route.is_open(), "{}", route.path);
        assert_eq!(operation["requestBody"].is_object(), route.has_body(), "{}", route.path);
    }
}

#[tokio::test(start_paused = true)]
async fn whoever_leaves_an_answer_unread_or_asks_nothing_is_disconnected() {
    let idle = Duration::from_secs(60);
    let (admin, _running) = admin(Limits { idle_timeout: idle, ..Limits::default() });
    for _ in 0..1000 {
        admin.shared.core.record(1, closed("why"));
    }
    for request in [
        "GET /events HTTP/1.1\r\nHost: localhost\r\n\r\n",
        "GET /events HTTP/1.1\r\nHost: localhost\r\nAccept: text/event-stream\r\n\r\n",
        "GET /ev",
        "PUT /clock HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nContent-Length: 9\r\n\r\n{",
        "",
    ] {
        // Room for a small part of the answer.
        let (mut reader, server) = tokio::io::duplex(1024);
        reader.write_all(request.as_bytes()).await.unwrap();
        let begin = Instant::now();
        let served = tokio::time::timeout(3 * idle, admin.clone().serve(server));
        served.await.expect("it is disconnected");
        assert!(begin.elapsed() >= idle / 2, "{request:?}: {:?}", begin.elapsed());
    }
}

/// All that comes of a reader.
async fn read(reader: Reader) -> Vec<String> {
    let mut events = Events::of(reader);
    let mut portions = Vec::new();
    while let Some(frame) = std::future::poll_fn(|cx| Pin::new(&mut events).poll_frame(cx)).await {
        let bytes = frame.unwrap().into_data().unwrap();
        portions.push(String::from_utf8(bytes.to_vec()).unwrap());
    }
    portions
}

#[tokio::test]
async fn events_come_in_portions_and_end_where_the_log_did() {
    let (admin, _running) = admin(Limits::default());
    let core = &admin.shared.core;
    (0..5).for_each(|_| core.record(1, closed(&"x".repeat(50_000))));
    let end = End::At { end: core.log().len(), until: None };
    let stopping = admin.stopping.clone();
    let reader = Reader { log: core.log(), device: None, next: 1, end, stopping };
    core.record(1, closed("later"));
    let portions = read(reader).await;
    assert!(portions.len() > 1 && portions.iter().all(|portion| portion.len() < 200_000));
    let text = portions.concat();
    assert_eq!(text.lines().count(), 4);
    assert!(!text.contains("later"));
}

#[tokio::test(start_paused = true)]
async fn a_stream_is_never_silent_for_long_tells_of_a_gap_and_ends_with_the_emulator() {
    let (admin, running) = admin(Limits::default());
    let core = &admin.shared.core;
    (0..9).for_each(|_| core.record(1, closed(&"x".repeat(crate::EventLog::CAPACITY_BYTES / 4))));
    let kept = core.log().dropped();
    let stopping = admin.stopping.clone();
    let end = End::Never { begun: true };
    let reader = Reader { log: core.log(), device: None, next: 2, end, stopping };
    let reading = tokio::spawn(read(reader));
    // Paused time goes on only when nothing else is left to do.
    tokio::time::sleep(Duration::from_secs(40)).await;
    core.record(1, closed("the last"));
    tokio::time::sleep(Duration::from_secs(1)).await;
    running.send_replace(true);
    let portions = reading.await.unwrap();
    let gap = format!("data: {{\"event\":\"dropped\",\"count\":{}}}\n\n", kept - 2);
    assert!(portions[0].starts_with(&format!("{gap}id: {kept}\ndata: {{")), "{:.200}", portions[0]);
    assert_eq!(portions.iter().filter(|portion| *portion == ":\n\n").count(), 2);
    assert!(portions.last().unwrap().contains("the last"));
}

#[tokio::test]
async fn a_device_is_found_by_the_id_that_a_hub_refused() {
    let (admin, _running) = admin(Limits::default());
    let core = &admin.shared.core;
    for (connection, device_id) in [(1, "Pump-9"), (2, "pump-90"), (3, "pump-9")] {
        let refused = EventKind::HubRefused {
            transport: Transport::Mqtt,
            hub: "hub.localhost".into(),
            device_id: device_id.into(),
            method: crate::Method::None,
            reason: "unknown".into(),
        };
        core.record(connection, refused);
        core.record(connection, closed("pump-9"));
    }
    let end = End::At { end: core.log().len(), until: None };
    let (device, stopping) = (Some("PUMP-9".to_owned()), admin.stopping.clone());
    let text = read(Reader { log: core.log(), device, next: 0, end, stopping }).await.concat();
    let found: Vec<Value> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let connections: Vec<_> = found.iter().map(|event| event["connection"].as_u64()).collect();
    assert_eq!(connections, [Some(1), Some(3)]);
}
