//! Abuse of HTTP.

use dps_client::Transport;

use super::{
    Abuse, FEW, FLOOD,
    target::{drip, say_without_end, send_without_reading},
};

/// A registration's head, up to its last line.
const HEAD: &str = "PUT /0ne00E4A9D1/registrations/mallory/register?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\n";
const QUERY: &[u8] = b"GET /0ne00E4A9D1/registrations/mallory/operations/1?api-version=2021-06-01 HTTP/1.1\r\nHost: localhost\r\n\r\n";
/// How large a body may be before the service refuses it.
const LARGE_BODY: usize = 96 * 1024;

pub(super) const ABUSES: &[Abuse] = &[
    Abuse::new("slow-loris heads", FLOOD, Transport::Http, |target| {
        Box::pin(async move { drip(target, HEAD.as_bytes(), b"X: y\r\n").await })
    }),
    Abuse::new("slow-loris bodies", FLOOD, Transport::Http, |target| {
        Box::pin(async move {
            let head = format!("{HEAD}Content-Length: 50000\r\n\r\n{{");
            drip(target, head.as_bytes(), b" ").await
        })
    }),
    Abuse::new("heads without end", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let line = format!("X: {}\r\n", "y".repeat(1000));
            say_without_end(target, HEAD.as_bytes(), line.as_bytes()).await
        })
    }),
    Abuse::new("one header without end", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let begin = format!("{HEAD}X: ");
            say_without_end(target, begin.as_bytes(), &[b'y'; 4096]).await
        })
    }),
    Abuse::new("a path without end", FEW, Transport::Http, |target| {
        Box::pin(async move { say_without_end(target, b"PUT /", &[b'y'; 4096]).await })
    }),
    Abuse::new("huge bodies, announced", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let head = format!("{HEAD}Content-Length: 10000000000\r\n\r\n");
            say_without_end(target, head.as_bytes(), &[b' '; 16 * 1024]).await
        })
    }),
    Abuse::new("chunked bodies without end", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
            let chunk = format!("1000\r\n{}\r\n", " ".repeat(0x1000));
            say_without_end(target, head.as_bytes(), chunk.as_bytes()).await
        })
    }),
    Abuse::new("chunks of one byte", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\n");
            let chunks = "1\r\n \r\n".repeat(500);
            say_without_end(target, head.as_bytes(), chunks.as_bytes()).await
        })
    }),
    Abuse::new("one large chunk, dripping", FLOOD, Transport::Http, |target| {
        Box::pin(async move {
            let head = format!("{HEAD}Transfer-Encoding: chunked\r\n\r\nfffffffffffffff\r\n");
            drip(target, head.as_bytes(), b" ").await
        })
    }),
    Abuse::new("pipelined requests", FEW, Transport::Http, |target| {
        Box::pin(async move { say_without_end(target, b"", &QUERY.repeat(50)).await })
    }),
    Abuse::new("pipelined requests, answers unread", FEW, Transport::Http, |target| {
        Box::pin(async move { send_without_reading(target, b"", &QUERY.repeat(50)).await })
    }),
    Abuse::new("large bodies of many small values", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let body = format!("{{\"payload\":{{\"x\":[1{}]}}}}", ",1".repeat(LARGE_BODY / 2 - 20));
            let request = format!("{HEAD}Content-Length: {}\r\n\r\n{body}", body.len());
            say_without_end(target, b"", request.as_bytes()).await
        })
    }),
    Abuse::new("heads of many headers", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let request = format!("{HEAD}User-Agent: {}\r\n\r\n", "y".repeat(7500));
            say_without_end(target, b"", request.as_bytes()).await
        })
    }),
];
