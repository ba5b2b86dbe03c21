//! Abuse of AMQP and SASL.

use dps_client::Transport;

use super::{
    Abuse, FEW, FLOOD,
    target::{drip, say_and_wait, say_without_end, send_without_reading},
};

const SASL_HEADER: &[u8] = b"AMQP\x03\x01\x00\x00";
const AMQP_HEADER: &[u8] = b"AMQP\x00\x01\x00\x00";
/// A frame of 4 GiB.
const HUGE: &[u8] = &[0xff, 0xff, 0xff, 0xff, 2, 1, 0, 0];
/// A frame that is shorter than its own head.
const SHORT: &[u8] = &[0, 0, 0, 4, 2, 1, 0, 0];
/// An empty frame: what keeps an AMQP connection alive.
const EMPTY: &[u8] = &[0, 0, 0, 8, 2, 0, 0, 0];
/// A SASL frame of 32 KiB.
const NESTED_HEAD: &[u8] = &[0, 0, 0x80, 0, 2, 1, 0, 0];

pub(super) const ABUSES: &[Abuse] = &[
    Abuse::new("AMQP: TLS and then silence", FLOOD, Transport::Amqp, |target| {
        Box::pin(async move { say_and_wait(target, b"").await })
    }),
    Abuse::new("AMQP: SASL header and then silence", FLOOD, Transport::Amqp, |target| {
        Box::pin(async move { say_and_wait(target, SASL_HEADER).await })
    }),
    Abuse::new("AMQP: no SASL and no certificate", FLOOD, Transport::Amqp, |target| {
        Box::pin(async move { say_and_wait(target, AMQP_HEADER).await })
    }),
    Abuse::new("AMQP: a header, dripping", FLOOD, Transport::Amqp, |target| {
        Box::pin(async move { drip(target, b"AM", b"").await })
    }),
    Abuse::new("AMQP: a huge frame", FEW, Transport::Amqp, |target| {
        Box::pin(async move {
            say_without_end(target, &[SASL_HEADER, HUGE].concat(), &[0; 16 * 1024]).await
        })
    }),
    Abuse::new("AMQP: a huge frame, dripping", FLOOD, Transport::Amqp, |target| {
        Box::pin(async move { drip(target, &[SASL_HEADER, HUGE].concat(), &[0]).await })
    }),
    Abuse::new("AMQP: frames too short for their head", FEW, Transport::Amqp, |target| {
        Box::pin(async move { say_without_end(target, SASL_HEADER, SHORT).await })
    }),
    Abuse::new("AMQP: empty frames without end", FEW, Transport::Amqp, |target| {
        Box::pin(async move { send_without_reading(target, SASL_HEADER, &EMPTY.repeat(500)).await })
    }),
    Abuse::new("AMQP: descriptors of descriptors", FEW, Transport::Amqp, |target| {
        Box::pin(async move {
            // Each zero begins a described value, whose descriptor is one again.
            let begin = [SASL_HEADER, NESTED_HEAD, &[0; 0x8000 - 8]].concat();
            say_and_wait(target, &begin).await
        })
    }),
    Abuse::new("AMQP: lists of lists", FEW, Transport::Amqp, |target| {
        Box::pin(async move {
            // Each is a list of one element, as long as it says, which is a list again.
            let mut lists = vec![0x00, 0x53, 0x41];
            let depth: u32 = (0x8000 - 8 - 3) / 9;
            for level in (1..=depth).rev() {
                lists.push(0xd0);
                lists.extend((level * 9 - 5).to_be_bytes());
                lists.extend(1_u32.to_be_bytes());
            }
            lists.resize(0x8000 - 8, 0x45);
            let begin = [SASL_HEADER, NESTED_HEAD, &lists].concat();
            say_and_wait(target, &begin).await
        })
    }),
    Abuse::new("AMQP: noise", FEW, Transport::Amqp, |target| {
        Box::pin(async move { say_without_end(target, b"", &[0xa5; 4096]).await })
    }),
];
