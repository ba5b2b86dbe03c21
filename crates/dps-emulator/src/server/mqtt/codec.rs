//! Bytes to packets and packets to bytes. The client under test has another codec: they share no bugs.

use mqtt_proto::{
    Error, Pid, Protocol, QosPid, TopicName,
    v3::{Connack, ConnectReturnCode, Packet, Publish},
};

/// One packet at the front of some bytes.
#[derive(Debug)]
pub(super) struct Framed {
    pub(super) packet: Result<Packet, Malformed>,
    /// How many bytes it has.
    pub(super) size: usize,
}

/// What is no packet.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Malformed {
    /// CONNECT of another version of MQTT.
    OtherVersion,
    /// The reason, in words.
    Other(String),
}

impl Malformed {
    fn other(reason: &str) -> Self {
        Self::Other(reason.to_owned())
    }
}

/// Whether CONNECT can begin with these bytes, however many have come.
/// See <https://docs.oasis-open.org/mqtt/mqtt/v3.1.1/mqtt-v3.1.1.html#_Toc398718028>.
pub(super) fn may_be_connect(bytes: &[u8]) -> bool {
    let Some((first, rest)) = bytes.split_first() else { return true };
    let length = rest.iter().take(4).position(|byte| byte & 0x80 == 0);
    let name = length.and_then(|last| rest.get(last + 1..)).unwrap_or_default();
    *first == 0x10
        && [&b"\x00\x04MQTT"[..], b"\x00\x06MQIsdp"]
            .into_iter()
            .any(|known| name.iter().zip(known).all(|(byte, known)| byte == known))
}

/// Reads the packet at the front, of `max` bytes at most; `None` when it is not whole.
pub(super) fn read(bytes: &[u8], max: usize) -> Option<Framed> {
    let broken = |reason| Some(Framed { packet: Err(reason), size: bytes.len() });
    let (first, rest) = bytes.split_first()?;
    // Refused at once: there may be no packet of this kind that ever ends.
    if !matches!(first >> 4, 1..=14) {
        return broken(Malformed::other("there is no packet of this kind"));
    }
    let mut length = 0_usize;
    let mut shift = 0_u32;
    let mut header = 1;
    for byte in rest.iter().take(4) {
        header += 1;
        length |= usize::from(byte & 0x7f) << shift;
        shift += 7;
        if byte & 0x80 == 0 {
            let size = header + length;
            if size > max {
                return broken(Malformed::Other(format!("a packet of {size} bytes is too large")));
            }
            let packet = bytes.get(..size)?;
            return Some(Framed { packet: decode(packet), size });
        }
    }
    if header == 5 { broken(Malformed::other("its length is malformed")) } else { None }
}

fn decode(packet: &[u8]) -> Result<Packet, Malformed> {
    match Packet::decode(packet) {
        Ok(Some(packet)) => Ok(packet),
        Ok(None) => Err(Malformed::other("it is longer inside than outside")),
        Err(Error::UnexpectedProtocol(_) | Error::InvalidProtocol(..)) => {
            Err(Malformed::OtherVersion)
        }
        Err(error) => Err(Malformed::Other(error.to_string())),
    }
}

/// Whether CONNECT is of the one version that the service speaks.
pub(super) fn is_spoken(protocol: Protocol) -> bool {
    protocol == Protocol::V311
}

/// Appends the answer to CONNECT; any byte goes.
pub(super) fn put_connack(out: &mut Vec<u8>, code: u8) {
    let accepted = Packet::from(Connack::new(false, ConnectReturnCode::Accepted));
    put(out, &accepted);
    if let Some(last) = out.last_mut() {
        *last = code;
    }
}

/// Appends the answer to SUBSCRIBE, one byte for each filter. By hand: the codec writes 3 for 128.
pub(super) fn put_suback(out: &mut Vec<u8>, id: Pid, codes: &[u8]) {
    out.push(0x90);
    let mut length = codes.len() + 2;
    while length > 0x7f {
        out.push(u8::try_from(length & 0x7f).unwrap_or_default() | 0x80);
        length >>= 7;
    }
    out.push(u8::try_from(length).unwrap_or_default());
    out.extend(id.value().to_be_bytes());
    out.extend(codes);
}

/// Appends a publication. `false` when no topic has this name.
pub(super) fn put_publication(
    out: &mut Vec<u8>,
    topic: &str,
    body: &[u8],
    at_least_once: Option<Pid>,
) -> bool {
    let Ok(topic) = TopicName::try_from(topic) else { return false };
    let qos = at_least_once.map_or(QosPid::Level0, QosPid::Level1);
    put(out, &Publish::new(qos, topic, body.to_vec().into()).into());
    true
}

/// Appends a packet.
pub(super) fn put(out: &mut Vec<u8>, packet: &Packet) {
    // Only a length past 256 MiB fails, and bodies end at 64.
    if let Ok(bytes) = packet.encode() {
        out.extend(bytes.as_ref());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packets_are_read_one_at_a_time() {
        let bytes = b"\xc0\x00\xe0\x00";
        let first = read(bytes, 100).unwrap();
        assert_eq!((first.packet.unwrap(), first.size), (Packet::Pingreq, 2));
        assert_eq!(read(&bytes[2..], 100).unwrap().packet.unwrap(), Packet::Disconnect);
        for partial in [&b""[..], b"\x30", b"\x30\x80", b"\x30\x03\x00\x01"] {
            assert!(read(partial, 100).is_none(), "{partial:x?}");
        }
    }

    #[test]
    fn what_is_no_packet_is_refused_at_once() {
        for (bytes, says) in [
            (&b"\x00"[..], "no packet of this kind"),
            (b"\xf0", "no packet of this kind"),
            (b"\x30\xff\xff\xff\xff", "length is malformed"),
            (b"\x30\x7f", "129 bytes is too large"),
            (b"\x32\x05\x00\x01a\x00\x00", "identifier is 0"),
            (b"\x30\x02\x00\x05", "longer inside"),
            (b"\x82\x02\x00\x01", "empty subscription"),
            (b"\xc1\x00", "invalid header"),
        ] {
            let Err(Malformed::Other(reason)) = read(bytes, 100).unwrap().packet else {
                panic!("{bytes:x?}")
            };
            assert!(reason.contains(says), "{bytes:x?}: {reason}");
        }
        for other in [
            &b"\x10\x0d\x00\x04MQTT\x05\x02\x00\x3c\x00\x00\x00"[..],
            b"\x10\x0c\x00\x04XQTT\x04\x02\x00\x3c\x00\x00",
        ] {
            assert_eq!(read(other, 100).unwrap().packet, Err(Malformed::OtherVersion));
        }
    }

    #[test]
    fn answers_are_written_to_the_byte() {
        let mut out = Vec::new();
        put_connack(&mut out, 0);
        put_connack(&mut out, 5);
        put_suback(&mut out, Pid::try_from(0x0102).unwrap(), &[1, 0x80]);
        assert!(put_publication(&mut out, "a", b"b", None));
        assert!(put_publication(&mut out, "a", b"b", Some(Pid::try_from(3).unwrap())));
        assert!(!put_publication(&mut out, "a+", b"b", None));
        let expected = [
            &b"\x20\x02\x00\x00\x20\x02\x00\x05\x90\x04\x01\x02\x01\x80"[..],
            b"\x30\x04\x00\x01ab\x32\x06\x00\x01a\x00\x03b",
        ];
        assert_eq!(out, expected.concat());
        let mut long = Vec::new();
        put_suback(&mut long, Pid::try_from(1).unwrap(), &[0; 200]);
        assert!(long.starts_with(b"\x90\xca\x01\x00\x01") && long.len() == 205);
    }
}
