//! Abuse of MQTT.

use dps_client::Transport;

use super::{
    Abuse, FEW, FLOOD,
    target::{drip, say_and_wait, say_without_end, send_without_reading},
};

/// CONNECT, clean session, client id `x`, without a user name.
const CONNECT: &[u8] = &[0x10, 13, 0, 4, b'M', b'Q', b'T', b'T', 4, 2, 0, 60, 0, 1, b'x'];
const PINGREQ: &[u8] = &[0xc0, 0];
/// SUBSCRIBE to `#`.
const SUBSCRIBE: &[u8] = &[0x82, 6, 0, 1, 0, 1, b'#', 0];
/// A PUBLISH whose remaining length is the largest there is, 256 MiB.
const HUGE: &[u8] = &[0x30, 0xff, 0xff, 0xff, 0x7f];

pub(super) const ABUSES: &[Abuse] = &[
    Abuse::new("MQTT: TLS and then silence", FLOOD, Transport::Mqtt, |target| {
        Box::pin(async move { say_and_wait(target, b"").await })
    }),
    Abuse::new("MQTT: CONNECT without a credential", FLOOD, Transport::Mqtt, |target| {
        Box::pin(async move { say_and_wait(target, CONNECT).await })
    }),
    Abuse::new("MQTT: half a CONNECT, dripping", FLOOD, Transport::Mqtt, |target| {
        // The largest CONNECT, a byte at a time.
        Box::pin(async move { drip(target, &[0x10, 0xff, 0xff, 0xff, 0x7f, 0, 4], b"M").await })
    }),
    Abuse::new("MQTT: a huge packet first", FEW, Transport::Mqtt, |target| {
        Box::pin(async move { say_without_end(target, HUGE, &[b'x'; 16 * 1024]).await })
    }),
    Abuse::new("MQTT: a huge packet after CONNECT", FEW, Transport::Mqtt, |target| {
        Box::pin(async move {
            say_without_end(target, &[CONNECT, HUGE].concat(), &[b'x'; 16 * 1024]).await
        })
    }),
    Abuse::new("MQTT: a length without end", FEW, Transport::Mqtt, |target| {
        Box::pin(async move { say_without_end(target, &[0x10], &[0xff; 4096]).await })
    }),
    Abuse::new("MQTT: pings and subscriptions, answers unread", FEW, Transport::Mqtt, |target| {
        Box::pin(async move {
            let many = [PINGREQ, SUBSCRIBE].concat().repeat(200);
            send_without_reading(target, CONNECT, &many).await
        })
    }),
    Abuse::new("MQTT: noise", FEW, Transport::Mqtt, |target| {
        Box::pin(async move { say_without_end(target, b"", &[0xa5; 4096]).await })
    }),
];
