//! Custom allocation by a webhook.

use dps_emulator::{EventKind, Operation};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::TcpListener,
};

use crate::{
    support::{PATIENCE, Requests, connect},
    tool::Tool,
};

const KEY: &str = "MDEyMzQ1Njc4OWFiY2RlZjAxMjM0NTY3ODlhYmNkZWY=";

/// Takes one call; what it said, and the stream to answer it by.
async fn taken(listener: &TcpListener) -> (String, Value, tokio::net::TcpStream) {
    let take = async {
        let (mut stream, _) = listener.accept().await.unwrap();
        let mut text = String::new();
        loop {
            let mut bytes = [0; 4096];
            let count = stream.read(&mut bytes).await.unwrap();
            text += str::from_utf8(&bytes[..count]).unwrap();
            if let Some((head, body)) = text.split_once("\r\n\r\n")
                && let Ok(body) = serde_json::from_str(body)
            {
                return (head.to_owned(), body, stream);
            }
        }
    };
    tokio::time::timeout(PATIENCE, take).await.expect("a call in time")
}

/// Makes the enrollment of `pump`, which asks this URL.
async fn enroll(tool: &Tool, url: &str) {
    let record = json!({
        "registrationId": "pump", "iotHubs": ["one", "two"], "allocationPolicy": "custom",
        "customAllocationDefinition": { "webhookUrl": url, "apiVersion": "2021-10-01" },
        "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } },
    });
    let made = tool.update("/enrollments/pump", "*", &record).await;
    assert_eq!(made.status, 200, "{}", made.json());
}

/// The state at the end of a registration whose webhook has been called.
async fn ended(tool: &Tool, since: u64, operation: &str) -> Value {
    let events = tool.emulator.events();
    let is_answered = |event: &dps_emulator::Event| {
        matches!(event.kind, EventKind::WebhookAnswered { .. })
            && event.registration_id() == Some("pump")
    };
    let answered = events.wait_for_since(since, is_answered);
    tokio::time::timeout(PATIENCE, answered).await.expect("an answer in time").unwrap();
    let requests = Requests::with_key(&tool.emulator, "pump", &KEY.parse().unwrap());
    let mut device = connect(&tool.emulator).await.unwrap();
    device.ask(&requests.query(operation)).await.unwrap().json()
}

async fn begun(tool: &Tool) -> String {
    let requests = Requests::with_key(&tool.emulator, "pump", &KEY.parse().unwrap());
    let mut device = connect(&tool.emulator).await.unwrap();
    let body = json!({ "registrationId": "pump", "payload": { "modelId": "m" } });
    let answer = device.ask(&requests.register_with(&body.to_string())).await.unwrap();
    assert_eq!((answer.status, &answer.json()["status"]), (202, &json!("assigning")));
    answer.json()["operationId"].as_str().unwrap().to_owned()
}

#[tokio::test]
async fn a_webhook_chooses_the_hub_while_others_go_on() {
    let tool = Tool::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/api/choose?code=x", listener.local_addr().unwrap());
    enroll(&tool, &url).await;
    let since = tool.emulator.events().len();
    let operation = begun(&tool).await;
    let (head, asked, mut stream) = taken(&listener).await;
    assert!(head.starts_with("POST /api/choose?code=x HTTP/1.1\r\n"), "{head}");
    assert_eq!(asked["linkedHubs"], json!(["one", "two"]));
    assert_eq!(asked["individualEnrollment"]["registrationId"], "pump");
    assert_eq!(asked["individualEnrollment"]["attestation"]["symmetricKey"], json!({}));
    let context = &asked["deviceRuntimeContext"];
    assert_eq!(
        (&context["registrationId"], &context["payload"]),
        (&json!("pump"), &json!({ "modelId": "m" }))
    );
    // Nobody else waits for it, and asking again calls nobody a second time.
    let other = json!({ "registrationId": "other", "attestation": { "type": "symmetricKey", "symmetricKey": { "primaryKey": KEY } } });
    tool.put("/enrollments/other", &other).await;
    assert_eq!(tool.register("other", KEY).await.json()["status"], "assigned");
    assert_eq!(begun(&tool).await, operation);
    let answer = json!({ "iotHubHostName": "two", "payload": { "color": "blue" }, "initialTwin": { "tags": {} } }).to_string();
    let answer = format!(
        "HTTP/1.1 200 OK\r\nContent-Length: {}\r\nConnection: close\r\n\r\n{answer}",
        answer.len()
    );
    stream.write_all(answer.as_bytes()).await.unwrap();
    let state = ended(&tool, since, &operation).await;
    let state = &state["registrationState"];
    assert_eq!((&state["status"], &state["assignedHub"]), (&json!("assigned"), &json!("two")));
    assert_eq!(state["payload"], json!({ "color": "blue" }));
    let queries = tool.emulator.events().snapshot();
    assert_eq!(queries.iter().filter(|event| event.is_request(Operation::Query)).count(), 1);
}

#[tokio::test]
async fn a_webhook_that_fails_makes_the_registration_fail() {
    let tool = Tool::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    let large = " ".repeat(64 * 1024 + 1);
    for (answer, says) in [
        ("HTTP/1.1 500 Oops\r\nContent-Length: 0\r\n\r\n", "answered 500"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n{}", "iotHubHostName"),
        ("HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnone", "can't be read"),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 26\r\n\r\n{\"iotHubHostName\":\"three\"}",
            "none of the enrollment's hubs",
        ),
        (
            &format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{}", large.len(), large),
            "larger than 64 KiB",
        ),
        (
            "HTTP/1.1 200 OK\r\nContent-Length: 40\r\n\r\n{\"iotHubHostName\":\"one\",\"initialTwin\":7}",
            "initialTwin must be a JSON object",
        ),
        ("what?", "can't be called"),
        ("", "can't be called"),
    ] {
        enroll(&tool, &url).await;
        let since = tool.emulator.events().len();
        let operation = begun(&tool).await;
        let (_, _, mut stream) = taken(&listener).await;
        stream.write_all(answer.as_bytes()).await.unwrap();
        drop(stream);
        let state = ended(&tool, since, &operation).await;
        assert_eq!(state["status"], "failed", "{answer:?}: {state}");
        let state = &state["registrationState"];
        assert_eq!(state["errorCode"], 400_207, "{state}");
        assert!(state["errorMessage"].as_str().unwrap().contains(says), "{says}: {state}");
        let last =
            tool.emulator.events().snapshot().into_iter().rev().find_map(|event| {
                match event.kind {
                    EventKind::Answer { error_code, .. } => Some(error_code),
                    _ => None,
                }
            });
        assert_eq!(last, Some(Some(400_207)), "the event says why");
    }
    drop(listener);
    // No public authority has issued the certificate of the emulator's own port.
    let https = format!("https://localhost:{}/", tool.emulator.https_port());
    for (url, says) in [(url, "can't be called"), (https, "invalid peer certificate")] {
        enroll(&tool, &url).await;
        let since = tool.emulator.events().len();
        let operation = begun(&tool).await;
        let state = ended(&tool, since, &operation).await["registrationState"].take();
        assert!(state["errorMessage"].as_str().unwrap().contains(says), "{says}: {state}");
    }
}
