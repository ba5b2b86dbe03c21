//! Abuse below the protocols: sockets and TLS.

use dps_client::Transport;
use tokio::io::AsyncWriteExt as _;

use super::{
    Abuse, FEW, FLOOD,
    target::{say_and_wait, wait_for_close},
};

pub(super) const ABUSES: &[Abuse] = &[
    Abuse::new("TCP connections that stay silent", FLOOD, Transport::Http, |target| {
        Box::pin(async move { wait_for_close(&mut target.tcp().await?).await })
    }),
    Abuse::new("TCP connections opened and closed", FEW, Transport::Http, |target| {
        Box::pin(async move { target.tcp().await.map(drop) })
    }),
    Abuse::new("half a TLS hello", FLOOD, Transport::Http, |target| {
        Box::pin(async move {
            let hello = target.hello()?;
            let mut tcp = target.tcp().await?;
            tcp.write_all(hello.get(..hello.len() / 2).unwrap_or_default()).await?;
            wait_for_close(&mut tcp).await
        })
    }),
    Abuse::new("a TLS hello and no more", FLOOD, Transport::Http, |target| {
        Box::pin(async move {
            let hello = target.hello()?;
            let mut tcp = target.tcp().await?;
            tcp.write_all(&hello).await?;
            wait_for_close(&mut tcp).await
        })
    }),
    Abuse::new("TLS, closed at once", FEW, Transport::Http, |target| {
        Box::pin(async move { target.tls().await.map(drop) })
    }),
    Abuse::new("no TLS but noise", FEW, Transport::Http, |target| {
        Box::pin(async move {
            let mut tcp = target.tcp().await?;
            tcp.write_all(&[0x16, 0x03, 0x01, 0xff, 0xff]).await?;
            tcp.write_all(&[0x5a; 64 * 1024]).await?;
            wait_for_close(&mut tcp).await
        })
    }),
    Abuse::new("TLS and then silence", FLOOD, Transport::Http, |target| {
        Box::pin(async move { say_and_wait(target, b"").await })
    }),
];
