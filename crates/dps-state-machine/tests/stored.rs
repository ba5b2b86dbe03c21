//! What a device stores of its registration is read back as it was, whatever the format.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use dps_state_machine::{
    Error, IssuedCertificates, OperationId, Progress, RegistrationRequest, RegistrationResult,
    Response, Settings, StateMachine, Substatus, TransportHandlers, serde_json,
};

/// Assigns with this in the registration's state.
struct Assigns(String);

impl TransportHandlers for Assigns {
    async fn registration_request(
        &mut self,
        _: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        let state = format!(r#"{{"assignedHub": "h", "deviceId": "d", {}}}"#, self.0);
        Ok(Response::new(200, format!(r#"{{"status": "assigned", "registrationState": {state}}}"#)))
    }

    async fn query_operation_status(
        &mut self,
        _: &RegistrationRequest,
        _: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        Err(Error::InvalidOperation)
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        Ok(())
    }
}

/// The result that an answer gives.
fn answer(state: &str) -> RegistrationResult {
    let machine = StateMachine::new(Assigns(state.to_owned()), Settings::default());
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let request = RegistrationRequest::new("d".parse().unwrap());
    runtime.block_on(machine.register(request)).unwrap()
}

fn results() -> Vec<RegistrationResult> {
    let new = || RegistrationResult::new("contoso.azure-devices.net", "pump-17");
    let mut full = new();
    full.operation_id = OperationId::new("4.d0a671905ea5b2c8.42d78160");
    full.substatus = Some(Substatus::DeviceDataMigrated);
    full.polls = u32::MAX;
    full.body = br#"{"status": "assigned"}"#.to_vec();
    full.protocol_result =
        [("topic", "$dps/registrations/res/200/?$rid=1"), ("a", ""), ("a", "\u{e9}\n")]
            .into_iter()
            .collect();
    let mut results = vec![new(), full.clone()];
    for payload in [
        "null",
        "true",
        "\"\"",
        "1.50",
        "12345678901234567890123",
        "0.123456789012345678",
        "1e400",
        "[ ]",
        r#"{"a": 1, "a": 2, "\u0041": "\ud83d\ude00"}"#,
    ] {
        let mut result = full.clone();
        result.payload = Some(payload.parse().unwrap());
        results.push(result);
    }
    for body in [&b""[..], b"\xff\xfe\x00", "\u{feff}\u{e9}".as_bytes(), &[0; 4096]] {
        let mut result = full.clone();
        result.body = body.to_vec();
        results.push(result);
    }
    for certificates in [
        IssuedCertificates::Missing,
        IssuedCertificates::Issued(vec![vec![0x30, 1, 0xff], vec![]]),
        answer(r#""issuedCertificateChain": [7]"#).certificates,
    ] {
        let mut result = full.clone();
        result.certificates = certificates;
        results.push(result);
    }
    results.push(answer(r#""connectionProfile": "mqttV5""#));
    results.push(answer(r#""connectionProfile": "of tomorrow""#));
    let certificate = r#"{"certificate": "-----BEGIN", "metadata": {"n": 1.50}, "more": null}"#;
    results.push(answer(&format!(
        r#""trustBundle": {{ "id": "default", "etag": "\u0041", "certificates": [{certificate}] }}"#
    )));
    full.substatus = Some(Substatus::from("aWordOfTomorrow".to_owned()));
    results.push(full);
    results
}

#[test]
fn a_result_is_read_back_as_it_was_stored() {
    for result in results() {
        let json = serde_json::to_string(&result).unwrap();
        assert_eq!(serde_json::from_str::<RegistrationResult>(&json).unwrap(), result, "{json}");
        let pretty = serde_json::to_vec_pretty(&result).unwrap();
        assert_eq!(serde_json::from_slice::<RegistrationResult>(&pretty).unwrap(), result);
        let value = serde_json::to_value(&result).unwrap();
        assert_eq!(serde_json::from_value::<RegistrationResult>(value).unwrap(), result);
        let toml = toml::to_string(&result).unwrap();
        assert_eq!(toml::from_str::<RegistrationResult>(&toml).unwrap(), result, "{toml}");
        let bytes = postcard::to_allocvec(&result).unwrap();
        assert_eq!(postcard::from_bytes::<RegistrationResult>(&bytes).unwrap(), result);
    }
}

#[test]
fn a_result_can_be_a_part_of_what_an_application_stores() {
    #[derive(serde::Serialize, serde::Deserialize)]
    struct Stored {
        at: u64,
        #[serde(flatten)]
        result: RegistrationResult,
    }
    for result in results() {
        let json = serde_json::to_string(&Stored { at: 7, result: result.clone() }).unwrap();
        let read: Stored = serde_json::from_str(&json).unwrap();
        assert_eq!((read.at, read.result), (7, result), "{json}");
    }
}

#[test]
fn what_another_version_stored_is_read() {
    let least = r#"{"assignedHub": "h", "deviceId": "d"}"#;
    assert_eq!(
        serde_json::from_str::<RegistrationResult>(least).unwrap(),
        RegistrationResult::new("h", "d")
    );
    let more = r#"{"assignedHub": "h", "deviceId": "d", "ofTomorrow": {"a": 1}}"#;
    assert_eq!(
        serde_json::from_str::<RegistrationResult>(more).unwrap(),
        RegistrationResult::new("h", "d")
    );
    for (broken, says) in [
        ("{}", "missing field `assignedHub`"),
        (r#"{"assignedHub": "h"}"#, "missing field `deviceId`"),
        (r#"{"assignedHub": "h", "deviceId": "d", "payload": "{"}"#, "payload: it is not JSON"),
        (
            r#"{"assignedHub": "h", "deviceId": "d", "operationId": ""}"#,
            "an operation id is not empty",
        ),
        (r#"{"assignedHub": "h", "deviceId": "d", "polls": -1}"#, "-1"),
    ] {
        let error = serde_json::from_str::<RegistrationResult>(broken).unwrap_err().to_string();
        assert!(error.contains(says), "{broken}: {error}");
    }
}
