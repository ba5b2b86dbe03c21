//! Answers of the service that refuse, in all the ways in which bytes can be odd or missing. What the HTTP transport
//! makes of them, an upgrade to WebSocket must make of them too.

use std::net::SocketAddr;

use dps_state_machine::Response;
use rustls::ServerConfig;
use tokio::io::AsyncWriteExt;

use super::{head, listen_tls, swallow};

pub const JSON: &str = r#"{"errorCode":429001,"trackingId":"t-1","message":"Too many"}"#;
pub const RETRY_AFTER: u64 = 7;

/// One refusal with status 429, a Retry-After of [`RETRY_AFTER`] and [`JSON`] for a body, in all the ways in which a
/// client should take it.
pub fn odd_heads() -> Vec<Vec<u8>> {
    let length = format!("Content-Length: {}", JSON.len());
    let heads = [
        format!("HTTP/1.1 429 Busy\r\nRetry-After: 7\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429\r\nRetry-After: 7\r\n{length}\r\n\r\n"),
        "HTTP/1.0 429 Busy\r\nRetry-After: 7\r\n\r\n".to_owned(),
        format!("HTTP/1.1 429 Busy\nRetry-After: 7\n{length}\n\n"),
        format!("\r\nHTTP/1.1 429 Busy\r\nRetry-After:7\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429 Überlastet\r\nServer: é\r\nRetry-After: 7\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429 Busy\r\nRetry-After:\r\n 7\r\nVia: a,\r\n\tb\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429 Busy\r\nno field\r\nRetry-After: 7\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429 Busy\r\n: x\r\na b: x\r\nRetry-After : 7\r\n{length}\r\n\r\n"),
        format!("HTTP/1.1 429 Busy\r\n folded\r\nRetry-After: 7\r\n{length}\r\n\r\n"),
        format!(
            "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 102 Wait\r\n\r\nHTTP/1.1 103 Hints\r\nLink: a\r\n\r\nHTTP/1.1 429 Busy\r\nRetry-After: 7\r\n{length}\r\n\r\n"
        ),
    ];
    let mut odd: Vec<_> = heads.iter().map(|head| [head, JSON].concat().into_bytes()).collect();
    let latin =
        [b"HTTP/1.1 429 \xdcberlastet\r\nServer: \xe9\r\nRetry-After: 7\r\n", length.as_bytes()];
    odd.push([&latin.concat()[..], b"\r\n\r\n", JSON.as_bytes()].concat());
    odd
}

/// What becomes of the connection where a body ends too early.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Cut {
    /// It is closed.
    Closed,
    /// It stays, and nothing more comes.
    Silent,
    /// What comes is not what should.
    Broken,
}

/// Each refusing status with a body of JSON that does not come whole.
pub fn cut_bodies() -> Vec<(u16, Cut, Vec<u8>)> {
    let mut cuts = Vec::new();
    for status in [401, 403, 404, 409, 429, 500, 503] {
        let head =
            format!("HTTP/1.1 {status} No\r\nContent-Type: application/json\r\nRetry-After: 7\r\n");
        for sent in ["", "{", &JSON[..30], &JSON[..JSON.len() - 1]] {
            let cut = format!("{head}Content-Length: {}\r\n\r\n{sent}", JSON.len());
            cuts.push((status, Cut::Closed, cut.clone().into_bytes()));
            cuts.push((status, Cut::Silent, cut.into_bytes()));
            let size = sent.len();
            let chunk = if size == 0 { String::new() } else { format!("{size:x}\r\n{sent}\r\n") };
            let chunked = format!("{head}Transfer-Encoding: chunked\r\n\r\n{chunk}");
            cuts.push((status, Cut::Closed, chunked.clone().into_bytes()));
            cuts.push((status, Cut::Broken, format!("{chunked}zz\r\n").into_bytes()));
        }
    }
    cuts
}

/// A server that answers each request with these bytes.
pub async fn answering(tls: ServerConfig, bytes: Vec<u8>, cut: Cut) -> SocketAddr {
    listen_tls(tls, move |mut tls| {
        let bytes = bytes.clone();
        async move {
            head(&mut tls).await;
            let _ = tls.write_all(&bytes).await;
            let _ = tls.flush().await;
            match cut {
                Cut::Closed => {
                    let _ = tls.shutdown().await;
                }
                Cut::Silent | Cut::Broken => swallow(tls).await,
            }
        }
    })
    .await
}

/// What every refusal keeps.
pub fn is_kept(response: &Response, status: u16, shown: &[u8]) {
    let shown = String::from_utf8_lossy(shown);
    assert_eq!(response.status, status, "{shown}");
    assert_eq!(response.retry_after.map(|time| time.as_secs()), Some(RETRY_AFTER), "{shown}");
    assert_eq!(response.protocol_result.get("status"), Some(&*status.to_string()), "{shown}");
}
