//! What SDKs send, each in its own way.

use dps_emulator::Behavior;
use mqtt_proto::{QoS, v3::Packet};
use tokio::io::AsyncWriteExt as _;

use crate::{
    device::*,
    support::{tls, token},
};

#[tokio::test]
async fn python_keeps_its_session_speaks_tls_1_2_and_names_no_policy() {
    let emulator = behaving(Behavior::new()).await;
    let config = tls(&emulator, &[&rustls::version::TLS12], None);
    let mut device = reach_with(&emulator, config).await;
    let token = token(emulator.id_scope().as_str(), "dev-1", &key());
    let token = token.replace("&skn=registration", "");
    let mut connect = connect_as(&emulator, "dev-1", Some(token));
    connect.clean_session = false;
    device.send([connect.into()]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00", "there is no session to come back to");
    device.send([subscribe(ANSWERS, QoS::Level1)]).await;
    assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x01");
    device.send([register("6d2fb25b-9e4f-4a2c-9f0d-aa30f1f8f2f5")]).await;
    let answer = device.answer().await.unwrap();
    assert!(answer.topic.ends_with("?$rid=6d2fb25b-9e4f-4a2c-9f0d-aa30f1f8f2f5"));
}

#[tokio::test]
async fn bodies_of_every_sdk_are_read() {
    let emulator = behaving(Behavior::new().polls(1)).await;
    let mut device = ready(&emulator).await;
    for body in ["", " ", "{}", BODY, r#"{"registrationId":"DEV-1","payload":{"a":1}}"#] {
        device.send([publish(&format!("{REGISTER}1"), body, Some(2))]).await;
        assert_eq!(device.answer().await.unwrap().json()["status"], "assigning", "{body}");
    }
    let unacknowledged = publish(&format!("{REGISTER}2"), BODY, None);
    device.send([unacknowledged]).await;
    let Some(Packet::Publish(answer)) = device.packet().await else {
        panic!("no PUBACK for QoS 0")
    };
    assert!(answer.topic_name.contains("$rid=2"));
}

#[tokio::test]
async fn user_names_differ_in_order_and_case() {
    let emulator = behaving(Behavior::new()).await;
    let scope = emulator.id_scope();
    for rest in [
        "api-version=2019-03-31&ClientVersion=azure-iot-device-py",
        "api-version=2019-03-31",
        "ClientVersion=x&api-version=2021-06-01",
        "api-version=2019-03-31&clientVersion=azure-iot-provisioning-device%2f1.9",
    ] {
        let mut device = reach(&emulator).await;
        let mut connect = connect(&emulator);
        connect.username = Some(format!("{scope}/registrations/dev-1/{rest}").as_str().into());
        device.send([connect.into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
        let answer = device.answer().await.unwrap();
        assert!(
            answer.topic.starts_with("$dps/registrations/res/200/"),
            "{rest}: {}",
            answer.topic
        );
    }
}

#[tokio::test]
async fn a_device_may_send_its_session_byte_by_byte() {
    let emulator = behaving(Behavior::new()).await;
    let mut device = reach(&emulator).await;
    for packet in [connect(&emulator).into(), subscribe(ANSWERS, QoS::Level1), register("1")] {
        for byte in packet.encode().unwrap().as_ref() {
            device.stream.write_all(&[*byte]).await.unwrap();
            device.stream.flush().await.unwrap();
        }
    }
    assert_eq!(device.answer().await.unwrap().json()["status"], "assigned");
}
