//! Changes to messages of the service, each of which keeps its length. They say whether there was something to change.

use crate::peers::find;

/// Makes CONNACK say this code.
pub(super) fn connack(bytes: &mut [u8], code: u8) -> bool {
    set_after(bytes, &[0x20, 0x02, 0x00], code)
}

/// Makes SUBACK a refusal.
pub(super) fn refuse_subscription(bytes: &mut [u8]) -> bool {
    match bytes.last_mut() {
        Some(code) => {
            *code = 0x80;
            true
        }
        None => false,
    }
}

/// Makes the outcome of SASL this code.
pub(super) fn sasl_outcome(bytes: &mut [u8], code: u8) -> bool {
    // A described list of one unsigned byte or more.
    set_after(bytes, &[0x00, 0x53, 0x44, 0xc0, 0x03, 0x01, 0x50], code)
}

fn set_after(bytes: &mut [u8], head: &[u8], code: u8) -> bool {
    let place = find(bytes, head).map(|place| place + head.len());
    match place.and_then(|place| bytes.get_mut(place)) {
        Some(byte) => {
            *byte = code;
            true
        }
        None => false,
    }
}

/// Makes it the answer to another request: another `$rid`, another correlation id.
pub(super) fn misdirect(bytes: &mut [u8]) -> bool {
    let other = |digit: u8| if digit == b'0' { b'1' } else { b'0' };
    if let Some(place) = find(bytes, b"$rid=") {
        if let Some(digit) = bytes.get_mut(place + 5) {
            *digit = other(*digit);
            return true;
        }
        return false;
    }
    let ids: Vec<usize> = bytes
        .windows(36)
        .enumerate()
        .filter(|(_, window)| is_uuid(window))
        .map(|(place, _)| place)
        .collect();
    for place in &ids {
        if let Some(digit) = bytes.get_mut(*place) {
            *digit = other(*digit);
        }
    }
    !ids.is_empty()
}

fn is_uuid(text: &[u8]) -> bool {
    text.iter().enumerate().all(|(place, byte)| match place {
        8 | 13 | 18 | 23 => *byte == b'-',
        _ => byte.is_ascii_hexdigit(),
    })
}
