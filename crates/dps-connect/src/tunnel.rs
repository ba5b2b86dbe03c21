//! The tunnel through an HTTP proxy.

use std::io;

use dps_state_machine::ConnectionError;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use zeroize::Zeroizing;

use crate::{
    failure::{self, Peer},
    first_bytes::{describe, greeting},
    head::{Head, begins_http},
    proxy::Proxy,
};

/// The largest head of a proxy's answer that is read, in bytes; hyper's proxy client has the same limit.
const MAX_HEAD: usize = 8 * 1024;

/// Why there is no tunnel.
#[derive(Debug)]
pub struct NoTunnel {
    /// What the proxy answered: a status of HTTP; `None` when nothing came or it is no HTTP.
    pub status: Option<u16>,
    /// All of it in words.
    pub error: ConnectionError,
}

/// Asks the proxy for a tunnel to the peer; `authorization` is the value of `Proxy-Authorization`. When it returns, the
/// next byte of the stream is the peer's.
///
/// See <https://www.rfc-editor.org/rfc/rfc9110#name-connect>.
pub(crate) async fn open(
    stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    proxy: &Proxy,
    peer: &Peer,
    user_agent: &str,
    authorization: Option<&str>,
) -> Result<(), NoTunnel> {
    let no = |error: ConnectionError| NoTunnel { status: None, error };
    let broke =
        |error: io::Error| no(failure::because(failure::proxy_unreachable(proxy, &error), error));
    let refused = |reason: &str| no(failure::proxy_refused(proxy, peer, reason));
    stream
        .write_all(request(&peer.address(), user_agent, authorization).as_bytes())
        .await
        .map_err(broke)?;
    stream.flush().await.map_err(broke)?;
    let mut answer = Vec::new();
    loop {
        // One byte at a time: what comes after the head is TLS's.
        match stream.read_u8().await {
            Ok(byte) => answer.push(byte),
            Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => {
                return Err(refused("it closed the connection without an answer"));
            }
            Err(error) => return Err(broke(error)),
        }
        let head = match Head::parse(&answer, MAX_HEAD) {
            Ok(head) => head,
            Err(_) if !begins_http(&answer) => {
                let heard = describe(&greeting(stream, &answer).await);
                return Err(refused(&format!("its answer is not HTTP: {heard}")));
            }
            Err(error) => return Err(refused(&error.to_string())),
        };
        let Some((head, _)) = head else { continue };
        return match head.status {
            200..=299 => Ok(()),
            407 => {
                let error = failure::proxy_authentication(proxy, &schemes(&head));
                Err(NoTunnel { status: Some(407), error })
            }
            status => {
                let NoTunnel { error, .. } = refused(&format!("it answered {:.128?}", head.line));
                Err(NoTunnel { status: Some(status), error })
            }
        };
    }
}

/// The authentication schemes that the proxy offers.
/// See <https://www.rfc-editor.org/rfc/rfc9110#section-11.6.1>.
fn schemes(head: &Head) -> Vec<&str> {
    // What follows a scheme are its parameters, `name=value`, in the same list.
    let first_words =
        head.values("Proxy-Authenticate").filter_map(|element| element.split(' ').next());
    first_words.filter(|word| !word.contains(['=', '"'])).collect()
}

fn request(target: &str, user_agent: &str, authorization: Option<&str>) -> Zeroizing<String> {
    let authorization =
        authorization.map(|value| Zeroizing::new(format!("Proxy-Authorization: {value}\r\n")));
    Zeroizing::new(format!(
        "CONNECT {target} HTTP/1.1\r\nHost: {target}\r\nUser-Agent: {user_agent}\r\n{}\r\n",
        authorization.as_ref().map_or("", |line| line.as_str())
    ))
}
