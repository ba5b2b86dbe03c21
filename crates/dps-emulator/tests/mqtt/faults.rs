//! Everything that can be made to go wrong on an MQTT connection.

use std::time::{Duration, Instant};

use dps_emulator::{
    Behavior, Body, ConnectionFault, Delivery, Emulator, Fault, MqttFault, RetryAfter,
};
use mqtt_proto::{QoS, v3::Packet};

use crate::device::*;

async fn faulty(fault: MqttFault) -> Emulator {
    started(Behavior::new(), |c| c.connection_faults([ConnectionFault::Mqtt(fault)])).await
}

async fn on_register(fault: Fault) -> Emulator {
    behaving(Behavior::new().on_register(fault)).await
}

/// All that a device hears when it sends its three packets at once and the other side closes.
async fn heard(emulator: &Emulator) -> Vec<u8> {
    let mut device = reach(emulator).await;
    device.send([connect(emulator).into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
    device.bytes(usize::MAX).await
}

#[tokio::test]
async fn connect_is_refused_with_any_code() {
    for code in [1, 2, 3, 4, 5, 99] {
        let emulator = faulty(MqttFault::RefuseConnect { code }).await;
        assert_eq!(heard(&emulator).await, [0x20, 2, 0, code]);
        // The next connection is none of its business.
        ready(&emulator).await;
    }
}

#[tokio::test]
async fn a_connection_is_cut_before_each_answer() {
    let expected: [&[u8]; 4] = [
        b"",
        b"\x20\x02\x00\x00",
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x01",
        b"\x20\x02\x00\x00\x90\x03\x00\x01\x01\x40\x02\x00\x02",
    ];
    for (packets, expected) in (1..=3).zip(expected) {
        let emulator = faulty(MqttFault::CutAfter { packets }).await;
        assert_eq!(heard(&emulator).await, expected, "{packets}");
        assert_eq!(closed(&emulator).await, "scripted");
    }
}

#[tokio::test]
async fn a_flight_is_cut_where_one_packet_at_a_time_is_wanted() {
    let emulator = faulty(MqttFault::RefusePipelining).await;
    assert_eq!(heard(&emulator).await, b"");
    emulator.set_connection_faults([ConnectionFault::Mqtt(MqttFault::RefusePipelining)]);
    let mut patient = reach(&emulator).await;
    patient.send([connect(&emulator).into()]).await;
    assert_eq!(patient.bytes(4).await, b"\x20\x02\x00\x00");
    patient.send([subscribe(ANSWERS, QoS::Level1), register("1")]).await;
    assert!(patient.answer().await.is_some());
}

#[tokio::test]
async fn the_subscription_is_refused() {
    let emulator = faulty(MqttFault::RefuseSubscribe).await;
    let mut device = reach(&emulator).await;
    device.send([connect(&emulator).into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
    assert_eq!(device.bytes(4).await, b"\x20\x02\x00\x00");
    assert_eq!(device.bytes(5).await, b"\x90\x03\x00\x01\x80");
    device.send([Packet::Pingreq]).await;
    assert_eq!(device.bytes(6).await, b"\x40\x02\x00\x02\xd0\x00", "and nothing is delivered");
}

#[tokio::test]
async fn the_first_answer_goes_astray_and_the_next_one_is_right() {
    for (fault, topic) in [
        (MqttFault::WrongTopic, "$dps/registrations/elsewhere/200/?$rid=1"),
        (MqttFault::NoStatus, "$dps/registrations/res/none/?$rid=1"),
    ] {
        let emulator = faulty(fault).await;
        let mut device = ready(&emulator).await;
        device.send([register("1"), register("2")]).await;
        assert_eq!(device.answer().await.unwrap().topic, topic);
        let right = device.answer().await.unwrap();
        assert_eq!(right.topic, "$dps/registrations/res/200/?$rid=2");
    }
    let emulator = faulty(MqttFault::AnswerFirst).await;
    let mut device = ready(&emulator).await;
    device.send([register("1")]).await;
    assert!(matches!(device.packet().await, Some(Packet::Publish(_))));
    assert_eq!(device.packet().await, Some(Packet::Puback(mqtt_proto::Pid::try_from(2).unwrap())));
}

#[tokio::test]
async fn something_else_comes_than_an_answer() {
    let emulator = faulty(MqttFault::Garbage).await;
    let mut device = ready(&emulator).await;
    device.send([register("1")]).await;
    assert_eq!(device.bytes(5).await, b"\x40\x02\x00\x02\xff");
    let emulator = faulty(MqttFault::Disconnect).await;
    let mut device = ready(&emulator).await;
    device.send([register("1")]).await;
    assert_eq!(device.bytes(100).await, b"\x40\x02\x00\x02\xe0\x00");
    let emulator = faulty(MqttFault::IgnorePings).await;
    let mut device = ready(&emulator).await;
    device.send([Packet::Pingreq, register("1")]).await;
    assert_eq!(device.bytes(4).await, b"\x40\x02\x00\x02");
}

#[tokio::test]
async fn answers_have_the_wrong_id_or_come_twice() {
    let emulator = on_register(Fault::none().wrong_id().twice()).await;
    let mut device = ready(&emulator).await;
    device.send([register("1"), register("2")]).await;
    for _ in 0..2 {
        let wrong = device.answer().await.unwrap();
        assert_eq!(wrong.topic, "$dps/registrations/res/200/?$rid=another-1");
    }
    assert!(device.answer().await.unwrap().topic.ends_with("?$rid=2"));
}

#[tokio::test]
async fn refusals_bodies_and_retry_after_come_as_scripted() {
    let behavior = Behavior::new()
        .on_register(Fault::refuse(429).retry_after(RetryAfter::Seconds(1)))
        .on_register(
            Fault::refuse(503).retry_after(RetryAfter::Raw(vec!["-1".into(), "a+b#c".into()])),
        )
        .on_register(Fault::with_body(Body::Html).status(502))
        .on_register(Fault::with_body(Body::Empty))
        .on_register(Fault::with_body(Body::Oversized(2 << 20)));
    let emulator = behaving(behavior).await;
    let mut device = ready(&emulator).await;
    let res = "$dps/registrations/res";
    for (topic, size) in [
        ("429/?$rid=1&retry-after=1", None),
        ("503/?$rid=1&retry-after=-1&retry-after=a%2Bb%23c", None),
        ("502/?$rid=1", None),
        ("200/?$rid=1", Some(0)),
        ("200/?$rid=1", Some(2 << 20)),
    ] {
        device.send([register("1")]).await;
        let answer = device.answer().await.unwrap();
        assert_eq!(answer.topic, format!("{res}/{topic}"));
        assert!(size.is_none_or(|size| size == answer.body.len()));
    }
}

#[tokio::test]
async fn answers_are_delivered_as_scripted() {
    let emulator = on_register(Fault::deliver(Delivery::Never)).await;
    let mut device = ready(&emulator).await;
    device.send([register("1"), Packet::Pingreq]).await;
    assert_eq!(device.bytes(6).await, b"\x40\x02\x00\x02\xd0\x00", "the session lives on");

    let emulator = on_register(Fault::deliver(Delivery::CloseBefore)).await;
    let mut device = ready(&emulator).await;
    device.send([register("1")]).await;
    assert!(device.is_closed().await);

    let emulator = on_register(Fault::deliver(Delivery::CloseAfter)).await;
    let mut device = ready(&emulator).await;
    device.send([register("1")]).await;
    assert!(device.answer().await.is_some());
    assert!(device.is_closed().await);

    for sent in [0, 10, usize::MAX] {
        let emulator = on_register(Fault::deliver(Delivery::CloseMid(sent))).await;
        let mut device = ready(&emulator).await;
        device.send([register("1")]).await;
        assert_eq!(device.bytes(4).await, b"\x40\x02\x00\x02");
        let rest = device.bytes(usize::MAX).await;
        let [0x32, low, high, ..] = rest[..] else { panic!("{rest:x?}") };
        let announced = usize::from(low & 0x7f) + 128 * usize::from(high) + 3;
        assert!(rest.len() < announced, "{} of {announced}", rest.len());
        if sent != usize::MAX {
            let head = 3 + 2 + "$dps/registrations/res/200/?$rid=1".len() + 2;
            assert_eq!(rest.len(), head + sent);
        }
    }

    let drip = Delivery::Drip { bytes: 40, every: Duration::from_millis(5) };
    let emulator = on_register(Fault::deliver(drip)).await;
    let mut device = ready(&emulator).await;
    let begun = Instant::now();
    device.send([register("1")]).await;
    let answer = device.answer().await.unwrap();
    assert_eq!(answer.json()["status"], "assigned");
    let pauses = u32::try_from(answer.body.len() / 40).unwrap();
    assert!(begun.elapsed() >= Duration::from_millis(5) * pauses, "{pauses} pauses at least");
}

#[tokio::test]
async fn what_is_answered_before_a_slow_answer_is_not_slow() {
    let drip = Delivery::Drip { bytes: 1, every: Duration::from_secs(3600) };
    let emulator = on_register(Fault::deliver(drip)).await;
    let mut device = reach(&emulator).await;
    device.send([connect(&emulator).into(), subscribe(ANSWERS, QoS::Level1), register("1")]).await;
    let prompt = b"\x20\x02\x00\x00\x90\x03\x00\x01\x01\x40\x02\x00\x02\x32";
    assert_eq!(device.bytes(prompt.len()).await, prompt);
}
