//! The head of the answer to the upgrade.

use std::time::SystemTime;

use dps_state_machine::{ProtocolResult, Response, retry_after};

/// The head of the answer to the upgrade.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Head<'a> {
    pub(super) status: u16,
    version: &'a str,
    /// The line after the version.
    pub(super) line: &'a str,
    fields: Vec<(&'a str, &'a str)>,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) struct NotHttp;

impl<'a> Head<'a> {
    /// The head and its length; `None` while more is to come.
    pub(super) fn parse(answer: &'a [u8]) -> Result<Option<(Self, usize)>, NotHttp> {
        const VERSION: &[u8] = b"HTTP/1.";
        if !VERSION.iter().zip(answer).all(|(expected, byte)| expected == byte) {
            return Err(NotHttp);
        }
        let Some(end) = answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") else {
            return Ok(None);
        };
        let text = answer.get(..end).and_then(|head| str::from_utf8(head).ok()).ok_or(NotHttp)?;
        let mut lines = text.split("\r\n");
        let (version, line) = lines.next().and_then(|line| line.split_once(' ')).ok_or(NotHttp)?;
        let code = line.split(' ').next().filter(|code| code.len() == 3);
        let status = code.and_then(|code| code.parse().ok()).ok_or(NotHttp)?;
        let fields = lines
            .map(|line| line.split_once(':').map(|(name, value)| (name, value.trim())))
            .collect::<Option<_>>()
            .ok_or(NotHttp)?;
        Ok(Some((Self { status, version, line, fields }, end + 4)))
    }

    fn fields(&self, name: &str) -> impl Iterator<Item = &'a str> {
        let named = move |field: &&(&str, &str)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| *value)
    }

    /// What a field lists.
    pub(super) fn values(&self, name: &str) -> impl Iterator<Item = &'a str> {
        self.fields(name).flat_map(|value| value.split(',').map(str::trim))
    }

    pub(super) fn has(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }

    /// The answer, as the state machine takes it: beside the body `status`, `version`, then every field.
    /// `now` is what a retry-after date counts from.
    pub(super) fn response(&self, body: Vec<u8>, now: SystemTime) -> Response {
        let status = self.status.to_string();
        let first = [("status", status.as_str()), ("version", self.version)];
        let protocol_result: ProtocolResult =
            first.into_iter().chain(self.fields.iter().copied()).collect();
        Response::new(self.status, body)
            .retry_after(retry_after::parse(self.fields("Retry-After"), now))
            .protocol_result(protocol_result)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_head_is_read_up_to_its_end_and_no_further() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nA:b\r\nC: d , e\r\n\r\nrest";
        let (head, length) = Head::parse(answer).unwrap().unwrap();
        assert_eq!((head.status, head.line), (101, "101 Switching Protocols"));
        assert_eq!(head.fields, [("A", "b"), ("C", "d , e")]);
        assert!(head.values("c").eq(["d", "e"]) && head.has("c", "E") && !head.has("A", "c"));
        assert_eq!(&answer[length..], b"rest");
        for partial in ["", "HT", "HTTP/1.1 101", "HTTP/1.1 101 Sure\r\nA: b\r\n"] {
            assert_eq!(Head::parse(partial.as_bytes()), Ok(None), "{partial}");
        }
        for junk in [
            "SSH-2.0",
            "HTTP/1.1\r\n\r\n",
            "HTTP/1.1 1o1 No\r\n\r\n",
            "HTTP/1.1 200 OK\r\nA\r\n\r\n",
        ] {
            assert_eq!(Head::parse(junk.as_bytes()), Err(NotHttp), "{junk}");
        }
    }
}
