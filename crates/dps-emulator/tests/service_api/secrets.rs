//! What is recorded of calls of the service API.

use serde_json::json;

use crate::{
    misplaced::{misplaced, percent, tokens},
    support::connect,
    tool::Tool,
};

#[tokio::test]
async fn no_event_of_the_service_api_has_a_secret_whatever_field_it_stood_in() {
    let tool = Tool::start().await;
    let request = |method: &str, path: &str, authorization: &str, headers: &str, body: &str| {
        format!(
            "{method} {path} HTTP/1.1\r\nHost: localhost\r\nAuthorization: {authorization}\r\n\
             Content-Type: application/json\r\nConnection: close\r\nContent-Length: {}\r\n\
             {headers}\r\n{body}",
            body.len()
        )
    };
    let version = "?api-version=2021-10-01";
    for secret in misplaced() {
        let (text, encoded) = (&secret.text, percent(&secret.text));
        let right = &tool.authorization;
        let put = |path: String, headers: String, record: serde_json::Value| {
            request("PUT", &path, right, &headers, &record.to_string())
        };
        let path = format!("/enrollments/dev-1{version}");
        let keys = |name: &str| {
            let keys = json!({ name: text });
            json!({ "registrationId": "dev-1", "attestation": { "type": "symmetricKey", "symmetricKey": keys } })
        };
        let none = String::new;
        let mut cases = vec![
            ("id", put(format!("/enrollments/{encoded}{version}"), none(), keys("primaryKey"))),
            ("id in the body", put(path.clone(), none(), json!({ "registrationId": text }))),
            ("key", put(path.clone(), none(), keys("primaryKey"))),
            ("name of a field", put(path.clone(), none(), keys(text))),
            ("If-Match", put(path.clone(), format!("If-Match: {text}\r\n"), keys("primaryKey"))),
            (
                "api-version",
                put(format!("/enrollments/dev-1?api-version={encoded}"), none(), keys("x")),
            ),
            ("path", request("GET", &format!("/registrations/a/{encoded}"), right, "", "")),
        ];
        for token in tokens(text) {
            cases.push(("token", request("PUT", &path, &token, "", "{}")));
        }
        for (field, request) in cases {
            let since = tool.emulator.events().len();
            let mut connection = connect(&tool.emulator).await.unwrap();
            connection.send(&request).await;
            connection.answer().await;
            drop(connection);
            secret.assert_hidden(&tool.emulator, since, field).await;
        }
    }
}
