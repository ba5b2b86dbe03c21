//! The inside of the transport, for the fuzz targets only: a session without a socket.

use bytes::BytesMut;
use dps_connect::{Config, Io, failure::Peer};
use dps_state_machine::{Error, OperationId, Progress, RegistrationRequest, Response};

use crate::{
    codec,
    handler::{Question, Talk},
    link::Link,
};

/// Starts a session over the stream, registers, asks for the status until nothing more comes, and ends the session.
/// All requests have the `$rid` `rid`. Returns the answers and how it ended.
///
/// # Errors
/// What the transport makes of a configuration or a request that can't be sent.
pub async fn session(
    io: impl Io + 'static,
    config: &Config,
    request: &RegistrationRequest,
    operation: &OperationId,
) -> Result<(Vec<Response>, Option<Error>), Error> {
    let id = request.registration_id();
    let token = config.sas_token(id, &Progress::default()).await?;
    let password = token.as_ref().map(|token| token.expose());
    let mut connect = BytesMut::new();
    codec::connect(&mut connect, config, id, 60, password)?;
    let mut link = Link::new(Box::new(io), id.clone(), 60, connect);
    let peer = Peer::of(config, codec::PROTOCOL.tls_port)?;
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
