//! The inside of the wire, for the fuzz targets only: a session without a socket.

use std::{
    pin::Pin,
    task::{Context, Poll},
};

use bytes::BytesMut;
use dps_connect::{Config, failure::Peer};
use dps_state_machine::{Error, OperationId, RegistrationRequest, Response};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::{
    codec,
    handler::{Question, Talk},
    link::{Io, Link},
};

/// Starts a session over the stream, registers, asks for the status until nothing more comes, and says goodbye.
/// All requests have the `$rid` `rid`. Returns the answers and how it ended.
///
/// # Errors
/// What the wire makes of a configuration or a request that can't be sent.
pub async fn session(
    io: impl AsyncRead + AsyncWrite + Send + Unpin + 'static,
    config: &Config,
    request: &RegistrationRequest,
    operation: &OperationId,
) -> Result<(Vec<Response>, Option<Error>), Error> {
    let id = request.registration_id();
    let token = config.sas_token(id);
    let password = token.as_ref().map(|token| token.expose());
    let mut connect = BytesMut::new();
    codec::connect(&mut connect, config, id, 60, password)?;
    let mut link = Link::new(Box::new(Raw(io)), id.clone(), 60, connect);
    let peer = Peer::of(config, codec::DEFAULT_PORT)?;
    let mut answers = Vec::new();
    let mut question = Question::Register(request);
    for _ in 0..4 {
        let talk = Talk { question, request_id: "rid", peer: &peer };
        if answers.is_empty() {
            talk.append_subscribe(&mut link)?;
        }
        match talk.ask(&mut link).await {
            Ok(response) => answers.push(response),
            Err(error) => return Ok((answers, Some(error))),
        }
        if link.refused || link.has_ended().await {
            break;
        }
        question = Question::Status(request, operation);
    }
    link.close().await;
    Ok((answers, None))
}

struct Raw<S>(S);

impl<S: AsyncRead + AsyncWrite + Send + Unpin> Io for Raw<S> {}

impl<S: AsyncRead + Unpin> AsyncRead for Raw<S> {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buffer)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Raw<S> {
    fn poll_write(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<std::io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, bytes)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<std::io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}
