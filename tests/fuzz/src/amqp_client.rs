//! What a device hears over AMQP: SASL and AMQP frames, messages, and whole sessions.

use std::{
    sync::LazyLock,
    time::{Duration, SystemTime},
};

use dps_amqp::{
    codec::{
        Body, MAX_FRAME_SIZE, Value, decode,
        message::{Answer, MAX_ANSWER_BYTES},
    },
    fuzzing,
};
use dps_attestation::{Attestation, SymmetricKey};
use dps_connect::Config;
use dps_state_machine::{OperationId, RegistrationRequest};

use crate::stream::{self, Scripted};

static CONFIG: LazyLock<Config> = LazyLock::new(|| {
    let key = SymmetricKey::from_bytes(b"the key of a device").expect("a key");
    Config::new("0ne00AABBCC".parse().expect("a scope"), Attestation::from(key))
});

/// The first byte: `p` when the device sends in few flights, `o` when it takes what SASL offers, `b` for both. Then
/// what the service says, the first byte of which: see [`Scripted`].
pub fn run(data: &[u8]) {
    let (how, data) = data.split_first().unwrap_or((&0, &[]));
    a_session(data, matches!(how, b'p' | b'b'), matches!(how, b'o' | b'b'));
    frames(data);
    a_message(data);
    own_frames(data, u32::from(*how) + 128);
    let mut rest = data;
    if Value::read(&mut rest).is_ok() {
        assert!(rest.len() < data.len() && data.ends_with(rest));
    }
}

fn a_session(data: &[u8], pipelined: bool, offered: bool) {
    let request = RegistrationRequest::new("pump-17".parse().expect("an id"));
    let operation = OperationId::new("4.op").expect("an operation");
    let (stream, _) = Scripted::new(data);
    let session = fuzzing::session(stream, &CONFIG, &request, &operation, pipelined, offered);
    // As the state machine does: half a minute, and the session is dropped.
    if let Some((answers, words)) = stream::run(Duration::from_secs(30), session) {
        assert!(!words.is_empty());
        for answer in answers {
            assert!(answer.body.len() <= MAX_ANSWER_BYTES && answer.status >= 200, "{answer:?}");
        }
    }
}

/// The input as frames: each takes at least its head, and never more than there is.
fn frames(mut data: &[u8]) {
    loop {
        match decode(data) {
            Ok(Some((frame, size))) => {
                assert!((8..=data.len()).contains(&size) && size <= MAX_FRAME_SIZE as usize);
                assert!(!format!("{frame:?}").is_empty());
                data = &data[size..];
            }
            Ok(None) => return,
            Err(error) => {
                assert!(!error.to_string().is_empty());
                return;
            }
        }
    }
}

/// The input as a message.
fn a_message(data: &[u8]) {
    match Answer::read(data) {
        Ok(answer) => {
            let again = Answer::read(data).expect("the same");
            assert!(answer == again);
            let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
            let response = answer.into_response(now);
            assert!(response.body.len() <= data.len() && response.status == 200);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}

/// What we send in frames of any size, we read again.
fn own_frames(payload: &[u8], max_frame_size: u32) {
    let bytes = fuzzing::frames(payload, max_frame_size);
    let (mut rest, mut read) = (bytes.as_slice(), Vec::new());
    loop {
        let (frame, size) = decode(rest).expect("a frame").expect("a whole one");
        assert!(size <= max_frame_size as usize, "{size} of {max_frame_size}");
        let Body::Transfer { payload, more, .. } = frame.body else { panic!("a transfer") };
        read.extend(payload);
        rest = &rest[size..];
        assert_eq!(more, !rest.is_empty());
        if !more {
            break;
        }
    }
    assert_eq!(read, payload);
}
