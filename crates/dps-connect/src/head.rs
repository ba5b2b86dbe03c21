//! The head of an HTTP answer: a proxy's to CONNECT, or a server's to the upgrade to WebSocket.
//!
//! It is read by the parser that the HTTP transport has underneath (hyper uses httparse too), with the same switches,
//! so that the same bytes mean the same on every transport. As
//! <https://www.rfc-editor.org/rfc/rfc9112> and <https://www.rfc-editor.org/rfc/rfc9110> ask of a client: any byte
//! from 0x80 on may stand in a reason phrase or in a field's value, a field may be folded over several lines, a line may
//! end with a bare LF, a line that is no field is left out, and interim answers (status 1xx) come before the final one.

use std::fmt;

use httparse::{EMPTY_HEADER, Error, ParserConfig, Status};

/// A head with more fields is not read; hyper has the same limit.
const MAX_FIELDS: usize = 100;

/// So many interim answers may come before the final one.
const MAX_INTERIM: usize = 100;

/// The head of the final answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Head {
    pub(crate) status: u16,
    pub(crate) version: &'static str,
    /// The status line after the version: the status and the reason phrase.
    pub(crate) line: String,
    pub(crate) fields: Vec<(String, String)>,
}

/// Why a head can't be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Unreadable {
    NotHttp,
    TooLong,
    OnlyInterim,
}

impl fmt::Display for Unreadable {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::NotHttp => "its answer is not HTTP",
            Self::TooLong => "its answer is too long",
            Self::OnlyInterim => "100 interim answers (1xx) came and no final one",
        })
    }
}

impl Head {
    /// The head of the final answer, and how many bytes it takes along with the interim ones before it; `None` while
    /// more is to come. What can't become HTTP any more is refused at once, and so is a head of more than `limit` bytes.
    pub(crate) fn parse(answer: &[u8], limit: usize) -> Result<Option<(Self, usize)>, Unreadable> {
        let mut start = 0;
        for _ in 0..MAX_INTERIM {
            let rest = answer.get(start..).unwrap_or_default();
            match Self::parse_one(rest)? {
                Some((head, length)) if head.is_interim() => start += length,
                Some((head, length)) => return Ok(Some((head, start + length))),
                None if answer.len() >= limit => return Err(Unreadable::TooLong),
                None => return Ok(None),
            }
        }
        Err(Unreadable::OnlyInterim)
    }

    fn parse_one(bytes: &[u8]) -> Result<Option<(Self, usize)>, Unreadable> {
        let mut fields = [EMPTY_HEADER; MAX_FIELDS];
        let mut response = httparse::Response::new(&mut fields);
        let parsed = ParserConfig::default()
            .allow_obsolete_multiline_headers_in_responses(true)
            .allow_spaces_after_header_name_in_responses(true)
            .ignore_invalid_headers_in_responses(true)
            .parse_response(&mut response, bytes);
        let length = match parsed {
            Ok(Status::Complete(length)) => length,
            Ok(Status::Partial) => return Ok(None),
            Err(Error::TooManyHeaders) => return Err(Unreadable::TooLong),
            Err(_) => return Err(Unreadable::NotHttp),
        };
        let status = response.code.filter(|code| *code >= 100).ok_or(Unreadable::NotHttp)?;
        let version = if response.version == Some(0) { "HTTP/1.0" } else { "HTTP/1.1" };
        let fields = response.headers.iter();
        let fields = fields.map(|field| (field.name.to_owned(), unfolded(field.value))).collect();
        Ok(Some((Self { status, version, line: status_line(bytes), fields }, length)))
    }

    /// Whether another answer follows. See <https://www.rfc-editor.org/rfc/rfc9110#section-15.2>.
    fn is_interim(&self) -> bool {
        matches!(self.status, 100..=199) && self.status != 101
    }

    /// The values of all fields of that name.
    pub(crate) fn named(&self, name: &str) -> impl Iterator<Item = &str> {
        let named = move |field: &&(String, String)| field.0.eq_ignore_ascii_case(name);
        self.fields.iter().filter(named).map(|(_, value)| value.as_str())
    }

    /// What a field lists, without the empty elements that a list may have.
    /// See <https://www.rfc-editor.org/rfc/rfc9110#section-5.6.1.2>.
    pub(crate) fn values(&self, name: &str) -> impl Iterator<Item = &str> {
        let elements = self.named(name).flat_map(|value| value.split(',').map(str::trim));
        elements.filter(|element| !element.is_empty())
    }

    #[cfg(feature = "websocket")]
    pub(crate) fn has(&self, name: &str, token: &str) -> bool {
        self.values(name).any(|value| value.eq_ignore_ascii_case(token))
    }
}

/// Whether an answer begins as HTTP does, whatever follows.
pub(crate) fn begins_http(answer: &[u8]) -> bool {
    answer.trim_ascii_start().starts_with(b"HTTP/")
}

/// The parser keeps no reason phrase that has other bytes than ASCII, so the line is taken from what it has accepted.
fn status_line(head: &[u8]) -> String {
    let line = head.trim_ascii_start().split(|byte| *byte == b'\n').next().unwrap_or_default();
    let line = line.splitn(2, |byte| *byte == b' ').nth(1).unwrap_or_default();
    String::from_utf8_lossy(line.trim_ascii()).into_owned()
}

/// A value that was folded over several lines, on one.
/// See <https://www.rfc-editor.org/rfc/rfc9112#section-5.2>.
fn unfolded(value: &[u8]) -> String {
    let value = String::from_utf8_lossy(value);
    if !value.contains(['\r', '\n']) {
        return value.into_owned();
    }
    value.lines().map(str::trim).collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(answer: &[u8]) -> (Head, usize) {
        let outcome = Head::parse(answer, 1024);
        let shown = String::from_utf8_lossy(answer);
        outcome.unwrap_or_else(|error| panic!("{shown}: {error}")).unwrap()
    }

    #[test]
    fn a_head_is_read_up_to_its_end_and_no_further() {
        let answer = b"HTTP/1.1 101 Switching Protocols\r\nA:b\r\nC: d , e\r\n\r\nrest";
        let (head, length) = read(answer);
        assert_eq!((head.status, head.line.as_str()), (101, "101 Switching Protocols"));
        assert!(head.named("a").eq(["b"]) && head.named("C").eq(["d , e"]));
        assert!(head.values("c").eq(["d", "e"]));
        assert_eq!(&answer[length..], b"rest");
        for end in 0..length {
            assert_eq!(Head::parse(&answer[..end], 1024), Ok(None), "{end}");
        }
    }

    #[test]
    fn what_a_client_should_take_is_taken() {
        let cases: &[(&[u8], &str, &[&str])] = &[
            (b"HTTP/1.1 429\r\nV: 1\r\n\r\n", "429", &["1"]),
            (b"HTTP/1.0 429 \r\nV: 1\r\n\r\n", "429", &["1"]),
            (b"HTTP/1.1 429 Busy\nV: 1\n\n", "429 Busy", &["1"]),
            (b"\r\nHTTP/1.1 429 Busy\r\nV: 1\r\n\r\n", "429 Busy", &["1"]),
            (b"HTTP/1.1 429 Zu viel\xe4\r\nV: \xe4\r\n\r\n", "429 Zu viel\u{fffd}", &["\u{fffd}"]),
            ("HTTP/1.1 429 é\r\nV: é\r\n\r\n".as_bytes(), "429 é", &["é"]),
            (b"HTTP/1.1 429 Busy\r\nV: 1,\r\n\t 2 ,\r\n 3\r\n\r\n", "429 Busy", &["1", "2", "3"]),
            (b"HTTP/1.1 429 Busy\r\nno field\r\nV: 1\r\n\r\n", "429 Busy", &["1"]),
            (b"HTTP/1.1 429 Busy\r\n: none\r\nb d: x\r\nV \t: 1\r\n\r\n", "429 Busy", &["1"]),
            (b"HTTP/1.1 429 Busy\r\n folded\r\nV: 1\r\n\r\n", "429 Busy", &["1"]),
            (b"HTTP/1.1 429 Busy\r\nV: , 1,, \r\nV:\r\nV: 2\r\n\r\n", "429 Busy", &["1", "2"]),
            (
                b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 P\r\n\r\nHTTP/1.1 103 Hints\r\nV: 0\r\n\r\n\
                  HTTP/1.1 429 Busy\r\nV: 1\r\n\r\n",
                "429 Busy",
                &["1"],
            ),
        ];
        for (answer, line, values) in cases {
            let (head, length) = read(answer);
            assert_eq!(
                (head.status, head.line.as_str(), length),
                (429, *line, answer.len()),
                "{answer:?}"
            );
            assert_eq!(head.values("v").collect::<Vec<_>>(), *values, "{line}");
        }
    }

    #[test]
    fn what_is_no_http_is_refused_at_once_and_what_is_too_long_at_its_limit() {
        let junk: &[&[u8]] = &[
            b"SSH",
            b"HTTP/2",
            b"HTTP/1.1\r\n",
            b"HTTP/1.7 200",
            b"HTTP/1.1 1o1 No",
            b"HTTP/1.1 2000",
            b"HTTP/1.1 +20",
            b"HTTP/1.1 \xff",
            b"HTTP/1.1 099 No\r\n\r\n",
            b"HTTP/1.1 200 OK\r\nA: \0",
            b"HTTP/1.1 100 Continue\r\n\r\n\x15\x03\x03",
        ];
        for answer in junk {
            let shown = String::from_utf8_lossy(answer);
            assert_eq!(Head::parse(answer, 1024), Err(Unreadable::NotHttp), "{shown}");
        }
        let endless = "HTTP/1.1 100 Continue\r\n\r\n".repeat(1024);
        assert_eq!(Head::parse(endless.as_bytes(), endless.len()), Err(Unreadable::OnlyInterim));
        let few = "HTTP/1.1 100 Continue\r\n\r\n".repeat(50);
        assert_eq!(Head::parse(few.as_bytes(), few.len()), Err(Unreadable::TooLong));
        let many = format!("HTTP/1.1 200 OK\r\n{}\r\n", "A: b\r\n".repeat(MAX_FIELDS + 1));
        assert_eq!(Head::parse(many.as_bytes(), 10_000), Err(Unreadable::TooLong));
    }
}
