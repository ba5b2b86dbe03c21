//! A tool for the service API, of bytes.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_emulator::{Config, Emulator, SymmetricKey};
use serde_json::Value;

use crate::{
    misplaced::percent,
    support::{Answer, Requests, connect},
};

pub(crate) const OWNER_KEY: &str = "dGhlIGtleSBvZiB0aGUgb3duZXIgb2YgaXQ=";

/// A tool with the owner's rights at an emulator.
pub(crate) struct Tool {
    pub(crate) emulator: Emulator,
    pub(crate) authorization: String,
    pub(crate) api_version: &'static str,
}

impl Tool {
    pub(crate) async fn start() -> Self {
        Self::at(Emulator::builder()).await
    }

    pub(crate) async fn at(config: Config) -> Self {
        let key: SymmetricKey = OWNER_KEY.parse().unwrap();
        let owner = dps_emulator::ServicePolicy::with_all_rights("provisioningserviceowner", key);
        let emulator = config.service_policy(owner).start().await.unwrap();
        let authorization = token("localhost", "provisioningserviceowner", OWNER_KEY, later(3600));
        Self { emulator, authorization, api_version: "2021-10-01" }
    }

    /// Sends a request with these headers beside the usual ones.
    pub(crate) async fn send(
        &self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Answer {
        let mut head = format!(
            "{method} {path}?api-version={} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n",
            self.api_version,
            body.len()
        );
        let usual = [("Authorization", self.authorization.as_str())];
        let json =
            (!body.is_empty()).then_some(("Content-Type", "application/json; charset=utf-8"));
        let is_given = |name: &str| headers.iter().any(|(given, _)| *given == name);
        let usual = usual.into_iter().chain(json).filter(|(name, _)| !is_given(name));
        for (name, value) in usual.chain(headers.iter().copied()) {
            head += &format!("{name}: {value}\r\n");
        }
        let mut connection = connect(&self.emulator).await.unwrap();
        connection.ask(&format!("{head}\r\n{body}")).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> Answer {
        self.send("GET", path, &[], "").await
    }

    pub(crate) async fn put(&self, path: &str, record: &Value) -> Answer {
        self.send("PUT", path, &[], &record.to_string()).await
    }

    pub(crate) async fn update(&self, path: &str, etag: &str, record: &Value) -> Answer {
        self.send("PUT", path, &[("If-Match", etag)], &record.to_string()).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> Answer {
        self.send("POST", path, &[], &body.to_string()).await
    }

    /// Registers a device with its key; the answer to its first request.
    pub(crate) async fn register(&self, id: &'static str, key: &str) -> Answer {
        let requests = Requests::with_key(&self.emulator, id, &key.parse().unwrap());
        let mut device = connect(&self.emulator).await.unwrap();
        device.ask(&requests.register()).await.unwrap()
    }
}

/// Seconds since the epoch, so many from now.
pub(crate) fn later(seconds: u64) -> u64 {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap();
    now.as_secs() + seconds
}

/// A token as most tools make it.
pub(crate) fn token(host: &str, policy: &str, key: &str, expiry: u64) -> String {
    let host = percent(host);
    let signature = percent(&sign(key, &format!("{host}\n{expiry}")));
    format!("SharedAccessSignature sr={host}&sig={signature}&se={expiry}&skn={policy}")
}

pub(crate) fn sign(key: &str, text: &str) -> String {
    let key = STANDARD.decode(key).unwrap();
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, &key);
    STANDARD.encode(ring::hmac::sign(&key, text.as_bytes()))
}

#[track_caller]
pub(crate) fn refused(answer: &Answer, code: u64, says: &str) {
    let body = answer.json();
    assert_eq!(
        (u64::from(answer.status), &body["errorCode"]),
        (code / 1000, &code.into()),
        "{body}"
    );
    assert!(body["message"].as_str().unwrap().contains(says), "{says}: {body}");
    assert!(!body["trackingId"].as_str().unwrap().is_empty(), "{body}");
    assert!(body["timestampUtc"].as_str().unwrap().ends_with('Z'), "{body}");
    assert_eq!(answer.header("x-ms-error-code"), Some(code.to_string().as_str()));
}
