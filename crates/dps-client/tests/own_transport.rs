//! A transport of the application's own, like the fake in its tests, needs this crate alone.
#![expect(clippy::unwrap_used, reason = "a test may fail")]

use std::{
    sync::{Arc, Mutex},
    time::{Duration, SystemTime},
};

use dps_client::{
    BoxTransport, Client, ConnectionError, Error, OperationId, Progress, ProtocolError,
    ProtocolResult, RegistrationRequest, Response, Settings, Stage, StateMachine,
    TransportHandlers, retry_after,
    serde_json::{Value, json},
};

/// Assigns at the first poll, to the hub that the payload asks for.
#[derive(Clone, Default)]
struct Fake {
    calls: Arc<Mutex<Vec<String>>>,
}

impl Fake {
    fn called(&self, call: impl Into<String>) {
        self.calls.lock().unwrap().push(call.into());
    }
}

impl TransportHandlers for Fake {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        _: &Progress,
    ) -> Result<Response, Error> {
        let payload = request.payload_json().map_or("none", |payload| payload.get());
        self.called(format!("{} {payload} {}", request.registration_id(), request.is_forced()));
        let wait = retry_after::parse(["0"], SystemTime::now());
        let beside: ProtocolResult = [("status", 202)].into_iter().collect();
        let body = json!({ "operationId": "op-1", "status": "assigning" }).to_string();
        Ok(Response::new(202, body).retry_after(wait).protocol_result(beside))
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        _: &Progress,
    ) -> Result<Response, Error> {
        self.called(operation_id.as_str());
        let payload = request.payload_json().and_then(|payload| payload.read::<Value>().ok());
        let fields = payload.ok_or_else(|| {
            Error::from(ProtocolError::unreadable(Stage::Query, "nothing to choose a hub by"))
        })?;
        let hub = fields.get("hub").ok_or_else(|| {
            Error::from(ConnectionError::lost(Stage::Query, "the fake went away").permanent())
        })?;
        let state = json!({ "assignedHub": hub, "deviceId": request.registration_id().as_str() });
        let body = json!({ "status": "assigned", "registrationState": state }).to_string();
        Ok(Response::new(200, body))
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        self.called("end_of_session");
        Ok(())
    }
}

#[tokio::test]
async fn a_device_registers_over_a_transport_of_the_applications_own() -> Result<(), Error> {
    let fake = Fake::default();
    let mut settings = Settings::default();
    settings.poll_floor = Duration::ZERO;
    let client: Client = StateMachine::new(BoxTransport::new(fake.clone()), settings);
    let request = RegistrationRequest::new("pump-17".parse()?)
        .payload(json!({ "hub": "hub.example" }))?
        .model_id("dtmi:example:Pump;1")
        .force_registration(true);
    let device = client.register(request).await?;
    assert_eq!((device.assigned_hub.as_str(), device.polls), ("hub.example", 1));
    client.end_session().await?;
    let calls = fake.calls.lock().unwrap();
    let registered = r#"pump-17 {"hub":"hub.example","modelId":"dtmi:example:Pump;1"} true"#;
    assert_eq!(*calls, [registered, "op-1", "end_of_session"]);
    Ok(())
}
