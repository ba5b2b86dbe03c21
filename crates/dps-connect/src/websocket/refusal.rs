//! An answer to the upgrade other than 101: the service's own, or that of something in between.

use std::time::SystemTime;

use dps_state_machine::{ConnectionError, ProtocolResult, Response, retry_after};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use crate::{
    failure::{self, Peer},
    head::Head,
    internal::REFUSAL_BODY_TIME,
};

/// The largest body that is read, in bytes; the service's errors have a few hundred.
const MAX_BODY: usize = 16 * 1024;

/// A refusal by the service is an answer, as on every transport: it is busy or in trouble (429 and 5xx, whoever in its
/// name says so), or it refuses with an error of its own. `body` is what came of it along with the head.
///
/// # Errors
/// [`ConnectionError`] for any other answer: the service was not reached.
pub(super) async fn refusal(
    stream: &mut (impl AsyncRead + Unpin),
    peer: &Peer,
    head: &Head,
    body: Vec<u8>,
) -> Result<Response, ConnectionError> {
    if (300..600).contains(&head.status) {
        let body = Body::read(stream, head, body).await;
        // With an error code it is the service's own.
        // See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
        let may_be_cut_error = !body.is_whole && body.is_json(head);
        let response = response(head, body.content, SystemTime::now());
        let is_services_own = may_be_cut_error || response.error_code().flatten().is_some();
        if matches!(head.status, 429 | 500..) || is_services_own {
            return Ok(response);
        }
    }
    Err(failure::websocket_refused(peer, head.status, &head.line))
}

/// The answer, as the state machine takes it: beside the body `status`, `version`, then every field.
/// `now` is what a retry-after date counts from.
fn response(head: &Head, body: Vec<u8>, now: SystemTime) -> Response {
    let status = head.status.to_string();
    let first = [("status", status.as_str()), ("version", head.version)];
    let fields = head.fields.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    let protocol_result: ProtocolResult = first.into_iter().chain(fields).collect();
    Response::new(head.status, body)
        .retry_after(retry_after::parse(head.named("Retry-After"), now))
        .protocol_result(protocol_result)
}

/// What came of a refusal's body.
struct Body {
    content: Vec<u8>,
    is_whole: bool,
}

impl Body {
    /// Reads to the body's end, for [`REFUSAL_BODY_TIME`] at most. What came until then counts: the status has been
    /// read, and a connection that breaks does not take it back.
    async fn read(stream: &mut (impl AsyncRead + Unpin), head: &Head, came: Vec<u8>) -> Self {
        let mut body = came;
        let chunked = head.has("Transfer-Encoding", "chunked");
        let length = head.values("Content-Length").next().filter(|_| !chunked);
        let length = length.and_then(|length| length.parse::<usize>().ok());
        let limit = length.unwrap_or(MAX_BODY).min(MAX_BODY);
        let read = async {
            while body.len() < limit && !(chunked && unchunk(&body).1 != Chunks::ToCome) {
                match stream.read_buf(&mut body).await {
                    Ok(1..) => {}
                    end => return end.is_ok(),
                }
            }
            false
        };
        let ended = timeout(REFUSAL_BODY_TIME, read).await.unwrap_or(false);
        body.truncate(limit);
        if chunked {
            let (content, chunks) = unchunk(&body);
            return Self { content, is_whole: chunks == Chunks::Ended };
        }
        let is_whole = length.map_or(ended, |length| body.len() == length);
        Self { content: body, is_whole }
    }

    /// Whether it is said to be JSON, or begins like a JSON object.
    fn is_json(&self, head: &Head) -> bool {
        let said = head.named("Content-Type").any(|kind| kind.contains("json"));
        said || self.content.trim_ascii_start().starts_with(b"{")
    }
}

/// Whether more chunks belong to a body.
#[derive(Debug, PartialEq, Eq)]
enum Chunks {
    ToCome,
    Ended,
    /// What follows is no chunk.
    Broken,
}

/// What is in the chunks that have come.
/// See <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, Chunks) {
    let mut content = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let line = rest.get(..end).and_then(|line| str::from_utf8(line).ok()).unwrap_or_default();
        let size = line.split(';').next().unwrap_or_default().trim();
        let Ok(size) = usize::from_str_radix(size, 16) else { return (content, Chunks::Broken) };
        let chunk = rest.get(end + 2..).unwrap_or_default();
        content.extend(chunk.iter().take(size));
        match chunk.split_at_checked(size) {
            Some(_) if size == 0 => return (content, Chunks::Ended),
            Some((_, after)) => rest = after.get(2..).unwrap_or_default(),
            None => break,
        }
    }
    (content, Chunks::ToCome)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_up_to_their_end_or_as_far_as_they_came() {
        let cases: &[(&str, &str, Chunks)] = &[
            ("", "", Chunks::ToCome),
            ("4", "", Chunks::ToCome),
            ("4\r\n", "", Chunks::ToCome),
            ("4\r\nab", "ab", Chunks::ToCome),
            ("4\r\nabcd", "abcd", Chunks::ToCome),
            ("4\r\nabcd\r\n", "abcd", Chunks::ToCome),
            ("4\r\nabcd\r\n1;x=y\r\ne\r\n0\r\n\r\n", "abcde", Chunks::Ended),
            ("A\r\n0123456789\r\n0\r\n", "0123456789", Chunks::Ended),
            ("2\r\nab\r\nzz\r\nno", "ab", Chunks::Broken),
            ("ffffffffffffffff\r\nab", "ab", Chunks::ToCome),
            ("fffffffffffffffff\r\nab", "", Chunks::Broken),
        ];
        for (chunks, content, end) in cases {
            let (read, is) = unchunk(chunks.as_bytes());
            assert_eq!((read.as_slice(), &is), (content.as_bytes(), end), "{chunks}");
        }
    }
}
