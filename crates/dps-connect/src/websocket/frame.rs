//! Frames, as bytes: those of a client, which are masked, are written, and those of a server, which are not, are read.
//! See <https://www.rfc-editor.org/rfc/rfc6455#section-5.2>.

use super::MAX_MESSAGE_BYTES;
use crate::failure::Violation;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opcode {
    Continuation = 0,
    Binary = 2,
    Close = 8,
    Ping = 9,
    Pong = 10,
}

/// A control frame's payload is no longer, in bytes.
pub(super) const MAX_CONTROL: usize = 125;

/// What stands before a payload.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    /// Whether its message ends with it.
    pub(super) is_last: bool,
    pub(super) opcode: Opcode,
    /// The payload's length in bytes.
    pub(super) length: usize,
}

impl Header {
    /// The header that the bytes begin with, and its length; `None` while more is to come.
    pub(super) fn parse(bytes: &[u8]) -> Result<Option<(Self, usize)>, Violation> {
        let [first, second, rest @ ..] = bytes else { return Ok(None) };
        if first & 0x70 != 0 {
            return Err(Violation::new("a frame of an extension that was not asked for"));
        }
        let opcode = match first & 0x0f {
            0 => Opcode::Continuation,
            1 => return Err(Violation::new("a text message where bytes belong")),
            2 => Opcode::Binary,
            8 => Opcode::Close,
            9 => Opcode::Ping,
            10 => Opcode::Pong,
            other => return Err(Violation::new(format!("a frame of the unknown kind {other}"))),
        };
        let is_last = first & 0x80 != 0;
        if second & 0x80 != 0 {
            return Err(Violation::new("a masked frame from a server"));
        }
        let short = usize::from(second & 0x7f);
        if matches!(opcode, Opcode::Close | Opcode::Ping | Opcode::Pong)
            && (!is_last || short > MAX_CONTROL)
        {
            return Err(Violation::new("a control frame that is too long or in pieces"));
        }
        let (length, rest) = match (short, rest) {
            (126, [high, low, rest @ ..]) => (usize::from(u16::from_be_bytes([*high, *low])), rest),
            (127, [a, b, c, d, e, f, g, h, rest @ ..]) => {
                let length = u64::from_be_bytes([*a, *b, *c, *d, *e, *f, *g, *h]);
                (usize::try_from(length).unwrap_or(usize::MAX), rest)
            }
            (126 | 127, _) => return Ok(None),
            _ => (short, rest),
        };
        if length > MAX_MESSAGE_BYTES {
            return Err(too_large());
        }
        Ok(Some((Self { is_last, opcode, length }, bytes.len() - rest.len())))
    }
}

pub(super) fn too_large() -> Violation {
    Violation::new(format!("a message of more than {MAX_MESSAGE_BYTES} bytes"))
}

/// Appends a whole frame.
pub(super) fn append(to: &mut Vec<u8>, opcode: Opcode, payload: &[u8], mask: [u8; 4]) {
    to.reserve(payload.len() + 14);
    to.push(0x80 | opcode as u8);
    match (u8::try_from(payload.len()), u16::try_from(payload.len())) {
        (Ok(length @ 0..=125), _) => to.push(0x80 | length),
        (_, Ok(length)) => {
            to.push(0x80 | 126);
            to.extend_from_slice(&length.to_be_bytes());
        }
        _ => {
            to.push(0x80 | 127);
            to.extend_from_slice(&(payload.len() as u64).to_be_bytes());
        }
    }
    to.extend_from_slice(&mask);
    to.extend(payload.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask));
}

/// What a close frame is answered with: the same, or nothing where that must not be sent.
pub(super) fn close_reply(payload: &[u8]) -> &[u8] {
    let code = payload.first_chunk().map(|code| u16::from_be_bytes(*code));
    match code {
        Some(1000..=1003 | 1007..=1014 | 3000..=4999) => payload,
        _ => &[],
    }
}

/// What a close frame's payload says: nothing, or a code and perhaps words. Whatever it is, the connection is lost:
/// codes that are never to be sent, and damaged ones, are shown as they are
/// (<https://www.rfc-editor.org/rfc/rfc6455#section-7.4>).
pub(super) fn close_reason(payload: &[u8]) -> Option<String> {
    match payload {
        [] => None,
        [half] => Some(format!("half a code, 0x{half:02x}")),
        [high, low, words @ ..] => {
            let code = u16::from_be_bytes([*high, *low]);
            match &*String::from_utf8_lossy(words) {
                "" => Some(code.to_string()),
                words => Some(format!("{code} ({words:.128})")),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6455, section 5.7, with bytes instead of text.
    #[test]
    fn the_examples_of_the_rfc_are_read_and_written() {
        let (header, length) = Header::parse(b"\x82\x05Hello").unwrap().unwrap();
        let expected = Header { is_last: true, opcode: Opcode::Binary, length: 5 };
        assert_eq!((header, length), (expected, 2));
        let mut masked = Vec::new();
        append(&mut masked, Opcode::Binary, b"Hello", [0x37, 0xfa, 0x21, 0x3d]);
        assert_eq!(masked, b"\x82\x85\x37\xfa\x21\x3d\x7f\x9f\x4d\x51\x58");
    }

    #[test]
    fn lengths_are_written_and_read_in_their_three_forms() {
        for length in [0, 1, 125, 126, 127, 65_535, 65_536, MAX_MESSAGE_BYTES] {
            let mut written = Vec::new();
            append(&mut written, Opcode::Binary, &vec![7; length], [0; 4]);
            // As a server would send it: without the mask, which is the header's end.
            let start = written.len() - length;
            written[1] &= 0x7f;
            let header = &written[..start - 4];
            let (read, size) = Header::parse(header).unwrap().unwrap();
            assert_eq!((read.length, size), (length, header.len()), "{length:?}");
            for cut in 0..header.len() {
                assert_eq!(Header::parse(&header[..cut]), Ok(None), "{length}, {cut}");
            }
        }
    }

    #[test]
    fn frames_that_break_the_rules_are_named() {
        let huge = [&b"\x82\x7f"[..], &u64::MAX.to_be_bytes()].concat();
        let cases: [(&[u8], &str); 9] = [
            (b"\x81\x02hi", "text"),
            (b"\xc2\x02hi", "extension"),
            (b"\x92\x02hi", "extension"),
            (b"\x83\x02hi", "unknown kind 3"),
            (b"\x8b\x02hi", "unknown kind 11"),
            (b"\x82\x82\0\0\0\0hi", "masked frame from a server"),
            (b"\x09\x02hi", "control frame"),
            (b"\x89\x7e\0\x80", "control frame"),
            (&huge, "more than"),
        ];
        for (bytes, says) in cases {
            let violation = Header::parse(bytes).unwrap_err().to_string();
            assert!(violation.contains(says), "{bytes:x?}: {violation}");
        }
    }

    #[test]
    fn a_close_says_its_code_and_words() {
        for (payload, says) in [
            (&b""[..], None),
            (b"\x03\xe8", Some("1000")),
            (b"\x03\xf0busy", Some("1008 (busy)")),
            (b"\x03", Some("half a code, 0x03")),
            (b"\0\0", Some("0")),
            (b"\x03\xed", Some("1005")),
            (b"\x03\xee", Some("1006")),
            (b"\xff\xff", Some("65535")),
            (b"\x03\xe8\xff", Some("1000 (\u{fffd})")),
        ] {
            assert_eq!(close_reason(payload).as_deref(), says, "{payload:x?}");
        }
    }
}
