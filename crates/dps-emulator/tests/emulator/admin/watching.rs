//! Events as they are asked for: of one device, from a number on, with waiting, and as a stream.

use std::time::Duration;

use serde_json::Value;
use tokio::io::AsyncReadExt as _;

use super::{Got, PATIENCE, end, register, started};

fn events(got: &Got) -> Vec<Value> {
    got.body.lines().map(|line| serde_json::from_str(line).unwrap()).collect()
}

/// The first so many numbers of a stream.
async fn numbers(stream: &mut tokio::net::TcpStream, count: usize) -> (Vec<u64>, String) {
    let (mut text, mut numbers) = (String::new(), Vec::new());
    while numbers.len() < count {
        let mut bytes = [0; 4096];
        let read = tokio::time::timeout(PATIENCE, stream.read(&mut bytes)).await.unwrap().unwrap();
        assert!(read > 0, "it ended: {text}");
        text += std::str::from_utf8(&bytes[..read]).unwrap();
        let ids = text.lines().filter_map(|line| line.strip_prefix("id: "));
        numbers = ids.map(|id| id.parse().unwrap()).collect();
    }
    (numbers, text)
}

#[tokio::test]
async fn events_are_those_after_a_number_and_of_one_device() {
    let (emulator, port) = started().await;
    for id in ["pump-17", "Valve:3"] {
        register(&emulator, id).await;
    }
    let all = events(&port.get("/events").await);
    assert_eq!(all[0]["sequence"], 0);
    assert_eq!(events(&port.get("/events?after=2").await)[0]["sequence"], 3);
    assert_eq!(events(&port.get("/events?since=2").await)[0]["sequence"], 2);
    assert_eq!(port.get("/events?after=18446744073709551615").await.body, "");
    for device in ["Valve:3", "VALVE%3A3", "valve:3&after=0"] {
        let of_one = events(&port.get(&format!("/events?device={device}")).await);
        assert!(of_one.len() >= 3, "{of_one:?}");
        assert!(of_one.iter().all(|event| event["registrationId"] == "Valve:3"), "{of_one:?}");
    }
    assert_eq!(port.get("/events?device=nobody").await.body, "");
    assert_eq!(port.get("/events?device=").await.body, "");
    for (query, field, value) in [
        ("since=x", "since", "x"),
        ("after=-1", "after", "-1"),
        ("after=1&since=1", "after", "1"),
        ("after=1&after=2", "after", "2"),
        ("wait=61", "wait", "61"),
        ("wait=-1", "wait", "-1"),
        ("wait=NaN", "wait", "NaN"),
        ("wait=", "wait", ""),
        ("devise=pump-17", "query", "devise"),
        ("device=%ff", "device", "%ff"),
    ] {
        let (status, named, shown, _) = port.get(&format!("/events?{query}")).await.refused();
        assert_eq!((status, named.as_str(), shown.as_str()), (400, field, value), "{query}");
    }
}

#[tokio::test]
async fn a_long_poll_waits_for_the_first_match_and_no_longer_than_it_was_asked_to() {
    let (emulator, port) = started().await;
    let waiting = port.begin("GET /events?device=Valve:3&wait=60", "", "").await;
    register(&emulator, "pump-17").await;
    register(&emulator, "Valve:3").await;
    let got = tokio::time::timeout(PATIENCE, end(waiting)).await.expect("it does not wait on");
    assert!(!got.body.contains("pump-17") && got.body.contains("Valve:3"), "{got:?}");
    let last = emulator.events().len() - 1;
    assert_eq!(port.get(&format!("/events?device=nobody&after={last}&wait=0.01")).await.body, "");
    let some = port.get("/events?wait=60&after=0").await;
    assert!(!some.body.is_empty(), "what is there is not waited for");
}

#[tokio::test]
async fn a_stream_has_numbers_and_goes_on_from_the_last_one() {
    let (emulator, port) = started().await;
    register(&emulator, "pump-17").await;
    let accept = "Accept: text/event-stream\r\n";
    let mut stream = port.begin("GET /events?device=PUMP-17", accept, "").await;
    let (first, text) = numbers(&mut stream, 3).await;
    assert!(text.contains("text/event-stream") && text.contains("retry: 1000\n\n"), "{text}");
    let data = text.lines().find_map(|line| line.strip_prefix("data: ")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(data).unwrap()["sequence"], first[0]);
    register(&emulator, "pump-17").await;
    let (more, _) = numbers(&mut stream, 3).await;
    assert!(more[0] > first[2], "{first:?} {more:?}");

    let headers = format!("{accept}Last-Event-ID: {}\r\n", first[1]);
    let mut again = port.begin("GET /events?device=pump-17&after=0", &headers, "").await;
    assert_eq!(numbers(&mut again, 1).await.0[0], first[2]);
    let of_another_run = format!("{accept}Last-Event-ID: 999999\r\n");
    let mut anew = port.begin("GET /events", &of_another_run, "").await;
    assert_eq!(numbers(&mut anew, 1).await.0[0], 0);
}

#[tokio::test]
async fn readers_that_go_away_free_their_places_and_all_end_when_it_stops() {
    let (emulator, port) = started().await;
    let accept = "Accept: text/event-stream\r\n";
    for _ in 0..3 {
        let mut readers = Vec::new();
        // Those of the round before may still hold their places for a moment.
        while readers.len() < 64 {
            let mut stream = port.begin("GET /events", accept, "").await;
            if stream.read_u8().await.is_ok() {
                readers.push(stream);
            } else {
                tokio::task::yield_now().await;
            }
        }
        let mut refused = port.begin("GET /health", "", "").await;
        assert!(refused.read_u8().await.is_err(), "all places are taken");
    }
    let stream = loop {
        let mut stream = port.begin("GET /events?wait=60", "", "").await;
        if stream.read_u8().await.is_ok() {
            break stream;
        }
        tokio::task::yield_now().await;
    };
    let reading = tokio::spawn(end_of(stream));
    tokio::time::timeout(PATIENCE, emulator.stop()).await.unwrap();
    tokio::time::timeout(Duration::from_secs(20), reading).await.unwrap().unwrap();
    assert!(tokio::net::TcpStream::connect(("127.0.0.1", port.0)).await.is_err());
}

async fn end_of(mut stream: tokio::net::TcpStream) {
    stream.read_to_end(&mut Vec::new()).await.unwrap();
}

#[tokio::test]
async fn what_tells_of_it_has_no_secret() {
    let (emulator, port) = started().await;
    let info = port.get("/info").await.json();
    assert_eq!(info["idScope"], emulator.id_scope().as_str());
    assert_eq!(info["httpsPort"], emulator.https_port());
    assert_eq!(info["adminPort"], port.0);
    assert_eq!(port.get("/ca.pem").await.body, emulator.ca_pem());
    assert_eq!(Some(port.get("/issuing-ca.pem").await.body), emulator.issuing_ca_pem());
    assert_eq!(port.get("/ready").await.json()["ready"], true);
    assert_eq!(port.ask("HEAD /events", "Accept: text/event-stream\r\n", "").await.body, "");
    assert!(!info.to_string().contains("Key"), "{info}");
}
