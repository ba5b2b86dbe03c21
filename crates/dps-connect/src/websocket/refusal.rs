//! An answer to the upgrade other than 101: the service's own, or that of something in between.

use std::time::{Duration, SystemTime};

use dps_state_machine::{ConnectionError, Response};
use tokio::{
    io::{AsyncRead, AsyncReadExt},
    time::timeout,
};

use super::head::Head;
use crate::failure::{self, Peer};

/// The largest body that is read, in bytes; the service's errors have a few hundred.
const MAX_BODY: usize = 16 * 1024;
/// How long a body may take after its head; some never end. See <https://www.rfc-editor.org/rfc/rfc9112#section-6.3>.
const BODY_TIME: Duration = Duration::from_secs(3);

/// A refusal by the service is an answer, as on every transport: it is busy or in trouble (429 and 5xx, whoever in its
/// name says so), or it says no with an error of its own. `body` is what came of it along with the head.
///
/// # Errors
/// [`ConnectionError`] for any other answer: the service was not reached.
pub(super) async fn refusal(
    stream: &mut (impl AsyncRead + Unpin),
    peer: &Peer,
    head: &Head<'_>,
    mut body: Vec<u8>,
) -> Result<Response, ConnectionError> {
    if (300..600).contains(&head.status) {
        let chunked = head.has("Transfer-Encoding", "chunked");
        let length = head.values("Content-Length").next().filter(|_| !chunked);
        let length = length.and_then(|length| length.parse().ok()).unwrap_or(MAX_BODY);
        let limit = length.min(MAX_BODY);
        let read = async {
            while body.len() < limit
                && !(chunked && unchunk(&body).1)
                && matches!(stream.read_buf(&mut body).await, Ok(1..))
            {}
        };
        // What came until then counts.
        let _ = timeout(BODY_TIME, read).await;
        body.truncate(limit);
        if chunked {
            body = unchunk(&body).0;
        }
        // With an error code it is the service's own.
        // See <https://learn.microsoft.com/rest/api/iot-dps/device/runtime-registration/register-device>.
        let response = head.response(body, SystemTime::now());
        if matches!(head.status, 429 | 500..) || response.error_code().flatten().is_some() {
            return Ok(response);
        }
    }
    Err(failure::websocket_refused(peer, head.status, head.line))
}

/// What is in the chunks that have come, and whether no more will.
/// See <https://www.rfc-editor.org/rfc/rfc9112#section-7.1>.
fn unchunk(mut rest: &[u8]) -> (Vec<u8>, bool) {
    let mut content = Vec::new();
    while let Some(end) = rest.windows(2).position(|bytes| bytes == b"\r\n") {
        let line = rest.get(..end).and_then(|line| str::from_utf8(line).ok()).unwrap_or_default();
        let size = line.split(';').next().unwrap_or_default().trim();
        // One that can't be read ends them as the last one does, whose size is 0.
        let size = usize::from_str_radix(size, 16).unwrap_or(0);
        let chunk = rest.get(end + 2..).unwrap_or_default();
        content.extend(chunk.iter().take(size));
        match chunk.split_at_checked(size) {
            Some(_) if size == 0 => return (content, true),
            Some((_, after)) => rest = after.get(2..).unwrap_or_default(),
            None => break,
        }
    }
    (content, false)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_put_together_up_to_their_end_or_as_far_as_they_came() {
        let cases: &[(&str, &str, bool)] = &[
            ("", "", false),
            ("4", "", false),
            ("4\r\n", "", false),
            ("4\r\nab", "ab", false),
            ("4\r\nabcd", "abcd", false),
            ("4\r\nabcd\r\n", "abcd", false),
            ("4\r\nabcd\r\n1;x=y\r\ne\r\n0\r\n\r\n", "abcde", true),
            ("A\r\n0123456789\r\n0\r\n", "0123456789", true),
            ("2\r\nab\r\nzz\r\nno", "ab", true),
            ("ffffffffffffffff\r\nab", "ab", false),
            ("fffffffffffffffff\r\nab", "", true),
        ];
        for (chunks, content, whole) in cases {
            assert_eq!(
                unchunk(chunks.as_bytes()),
                (content.as_bytes().to_vec(), *whole),
                "{chunks}"
            );
        }
    }
}
