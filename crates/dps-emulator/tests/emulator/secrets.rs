//! What is recorded of HTTPS requests.

use dps_emulator::{Attestation, Emulator, Enrollment, SymmetricKey};

use crate::{
    misplaced::{misplaced, percent, tokens},
    support::{connect, token},
};

#[tokio::test]
async fn no_event_of_https_has_a_secret_whatever_field_it_stood_in() {
    let key: SymmetricKey = "c29tZSBkZXZpY2UncyBrZXk=".parse().unwrap();
    let attestation = Attestation::symmetric_key(key.clone());
    let enrollment = Enrollment::individual("dev-1".parse().unwrap(), attestation);
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    let scope = emulator.id_scope().to_string();
    let right = token(&scope, "dev-1", &key);
    let version = "?api-version=2021-06-01";
    let register = format!("/{scope}/registrations/dev-1/register{version}");
    let request = |method: &str, path: &str, authorization: &str, headers: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
             Connection: close\r\nContent-Length: {}\r\n{headers}\r\n{body}",
            body.len()
        )
    };
    for secret in misplaced() {
        let (text, encoded) = (&secret.text, percent(&secret.text));
        let get = |path: String| request("GET", &path, &right, "", "");
        let put = |path: String| request("PUT", &path, &right, "", "{}");
        let header =
            |name: &str| request("PUT", &register, &right, &format!("{name}: {text}\r\n"), "{}");
        let body =
            |body: serde_json::Value| request("PUT", &register, &right, "", &body.to_string());
        let mut cases = vec![
            ("ID scope", put(format!("/{encoded}/registrations/dev-1/register{version}"))),
            ("registration id", put(format!("/{scope}/registrations/{encoded}/register{version}"))),
            (
                "operation",
                get(format!("/{scope}/registrations/dev-1/operations/{encoded}{version}")),
            ),
            (
                "api-version",
                put(format!("/{scope}/registrations/dev-1/register?api-version={encoded}")),
            ),
            ("path", get(format!("/{encoded}"))),
            ("user-agent", header("User-Agent")),
            ("content-type", header("Content-Type")),
            ("accept", header("Accept")),
            ("expect", header("Expect")),
            (
                "payload",
                body(serde_json::json!({ "registrationId": "dev-1", "payload": { "a": [text] } })),
            ),
            (
                "name in the payload",
                body(serde_json::json!({ "registrationId": "dev-1", "payload": { text: 1 } })),
            ),
            ("registration id in the body", body(serde_json::json!({ "registrationId": text }))),
            ("host", register_with_host(&register, &right, text)),
        ];
        for token in tokens(text) {
            cases.push(("token", request("PUT", &register, &token, "", "{}")));
            let both = format!("User-Agent: {text}\r\n");
            cases.push(("token and user-agent", request("PUT", &register, &token, &both, "{}")));
        }
        for (field, request) in cases {
            let since = emulator.events().len();
            let mut device = connect(&emulator).await.unwrap();
            device.send(&request).await;
            device.answer().await;
            drop(device);
            secret.assert_hidden(&emulator, since, field).await;
        }
    }
}

fn register_with_host(path: &str, authorization: &str, host: &str) -> String {
    format!(
        "PUT {path} HTTP/1.1\r\nHost: {host}\r\nAuthorization: {authorization}\r\n\
         Connection: close\r\nContent-Length: 2\r\n\r\n{{}}"
    )
}
