//! The lookup of a registration's state, at the emulator.

use dps_attestation::SymmetricKey;
use dps_client::emulator::{Attestation, Emulator, Enrollment};
use dps_connect::{Config, Roots};
use dps_http::HttpTransport;
use dps_state_machine::{
    Progress, RegistrationId, RegistrationRequest, Settings, StateMachine, serde_json,
};

#[tokio::test]
async fn the_state_is_that_of_the_registration_and_asking_changes_nothing() {
    let (key, wrong) = (SymmetricKey::random().unwrap(), SymmetricKey::random().unwrap());
    let id: RegistrationId = "pump-17".parse().unwrap();
    let known = Attestation::symmetric_key(key.clone());
    let enrollment = Enrollment::individual(id.clone(), known);
    let emulator = Emulator::builder().enrollment(enrollment).start().await.unwrap();
    let config = |key: &SymmetricKey| {
        let mut config = Config::new(emulator.id_scope().clone(), key.clone().into());
        config.endpoint = format!("localhost:{}", emulator.https_port()).parse().unwrap();
        config.roots = Roots::empty().with_pem(emulator.ca_pem().as_bytes()).unwrap();
        config
    };
    let state = async |key: &SymmetricKey| {
        let mut transport = HttpTransport::new(config(key)).unwrap();
        transport.registration_state(&id, &Progress::default()).await.unwrap()
    };
    assert_eq!(state(&key).await.status, 404, "not registered");
    assert_eq!(state(&wrong).await.status, 401, "another key");
    assert_eq!(state(&key).await.status, 404, "asking has registered nothing");
    let client = StateMachine::new(HttpTransport::new(config(&key)).unwrap(), Settings::default());
    client.register(RegistrationRequest::new(id.clone())).await.unwrap();
    let answer = state(&key).await;
    let body: serde_json::Value = serde_json::from_slice(&answer.body).unwrap();
    assert_eq!((answer.status, body["status"].as_str()), (200, Some("assigned")), "{body}");
    assert_eq!(body["registrationId"], "pump-17", "{body}");
}
