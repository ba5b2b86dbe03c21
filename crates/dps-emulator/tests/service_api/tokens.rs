//! Who may use the service API.

use dps_emulator::{Emulator, ServicePolicy, ServiceRight};
use serde_json::json;

use crate::{
    misplaced::percent,
    tool::{OWNER_KEY, Tool, later, refused, sign, token},
};

const OWNER: &str = "provisioningserviceowner";
const READER_KEY: &str = "dGhlIGtleSBvZiBzb21lYm9keSB3aG8gcmVhZHM=";

/// The answer to a query with this token.
async fn shown(tool: &Tool, token: &str) -> crate::support::Answer {
    let headers = [("Authorization", token)];
    tool.send("POST", "/enrollments/query", &headers, r#"{"query":"*"}"#).await
}

#[tokio::test]
async fn tokens_are_taken_in_every_form_that_tools_send() {
    let tool = Tool::start().await;
    let port = tool.emulator.https_port();
    for host in ["localhost".to_owned(), "LOCALHOST".to_owned(), format!("localhost:{port}")] {
        for sr in [host.clone(), percent(&host)] {
            for se in [later(60), later(60) * 1000] {
                let sig = percent(&sign(OWNER_KEY, &format!("{sr}\n{se}")));
                let fields = [
                    format!("sr={sr}"),
                    format!("sig={sig}"),
                    format!("skn={OWNER}"),
                    format!("se={se}"),
                ];
                for order in [[0, 1, 2, 3], [3, 2, 1, 0], [1, 0, 3, 2]] {
                    let fields = order.map(|place| fields[place].as_str()).join("&");
                    let answer = shown(&tool, &format!("SharedAccessSignature {fields}")).await;
                    assert_eq!(answer.status, 200, "{fields}: {}", answer.json());
                }
            }
        }
    }
}

#[tokio::test]
async fn wrong_tokens_are_refused_and_the_reason_stays_here() {
    let tool = Tool::start().await;
    let soon = later(60);
    for wrong in [
        String::new(),
        "Bearer x".to_owned(),
        token("localhost", OWNER, READER_KEY, soon),
        token("localhost", "nobody", OWNER_KEY, soon),
        token("elsewhere", OWNER, OWNER_KEY, soon),
        token("localhost", OWNER, OWNER_KEY, 1_591_921_306),
        token("localhost", OWNER, OWNER_KEY, 1_591_921_306_000),
        token("localhost", OWNER, OWNER_KEY, soon).replace("&skn=", "&skm="),
    ] {
        refused(&shown(&tool, &wrong).await, 401_002, "Unauthorized");
    }
    let mut none = crate::support::connect(&tool.emulator).await.unwrap();
    let request = "GET /enrollments/a?api-version=2021-10-01 HTTP/1.1\r\nHost: localhost\r\n\r\n";
    refused(&none.ask(request).await.unwrap(), 401_000, "Unauthorized");
    // By the emulator's clock.
    tool.emulator.set_clock_ahead(std::time::Duration::from_secs(7200));
    refused(&tool.get("/enrollments/a").await, 401_002, "Unauthorized");
}

#[tokio::test]
async fn each_call_needs_its_right() {
    use ServiceRight::*;
    let record =
        json!({ "registrationId": "a", "attestation": { "type": "symmetricKey" } }).to_string();
    let query = r#"{"query":"*"}"#.to_owned();
    let bulk = json!({ "mode": "create", "enrollments": [{ "registrationId": "b", "attestation": { "type": "symmetricKey" } }] });
    let calls = [
        ("GET", "/enrollments/a", String::new(), EnrollmentRead),
        ("POST", "/enrollments/query", query.clone(), EnrollmentRead),
        ("POST", "/enrollments/a/attestationmechanism", String::new(), EnrollmentRead),
        ("PUT", "/enrollments/a", record, EnrollmentWrite),
        ("POST", "/enrollments", bulk.to_string(), EnrollmentWrite),
        ("DELETE", "/enrollments/a", String::new(), EnrollmentWrite),
        ("GET", "/registrations/a", String::new(), RegistrationStatusRead),
        ("POST", "/registrations/g/query", query, RegistrationStatusRead),
        ("DELETE", "/registrations/a", String::new(), RegistrationStatusWrite),
    ];
    for right in ServiceRight::ALL {
        let policy = ServicePolicy::new("some", READER_KEY.parse().unwrap(), [right]);
        let tool = Tool::at(Emulator::builder().service_policy(policy)).await;
        let some = token("localhost", "some", READER_KEY, later(60));
        for (method, path, body, needs) in &calls {
            let answer = tool.send(method, path, &[("Authorization", &some)], body).await;
            if right == *needs {
                assert_ne!(answer.status, 401, "{method} {path} with {right:?}");
            } else {
                refused(&answer, 401_002, &format!("lacks the right {needs:?}"));
            }
        }
    }
}

#[tokio::test]
async fn the_connection_string_is_enough() {
    let emulator = Emulator::builder().start().await.unwrap();
    let string = emulator.service_connection_string();
    let parts: Vec<_> = string.split(';').map(|part| part.split_once('=').unwrap()).collect();
    let [("HostName", host), ("SharedAccessKeyName", policy), ("SharedAccessKey", key)] = parts[..]
    else {
        panic!("{string}");
    };
    assert_eq!(host, emulator.endpoint(dps_emulator::Transport::Http));
    let authorization = token(host, policy, key, later(60));
    let tool = Tool { emulator, authorization, api_version: "2021-10-01" };
    refused(&tool.get("/enrollments/a").await, 404_201, "not found");
}
