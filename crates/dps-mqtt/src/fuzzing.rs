//! The inside of the transport, for the fuzz targets only: a session without a socket.

use bytes::BytesMut;
use dps_connect::{Config, Io, internal::failure::Peer};
use dps_state_machine::{Error, OperationId, Progress, RegistrationRequest, Response};

use crate::{
    codec,
    connection::Connection,
    handler::{Exchange, Request},
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
    let mut connection = Connection::new(Box::new(io), id.clone(), 60, connect);
    let peer = Peer::of(config, codec::PROTOCOL.tls_port)?;
    let mut answers = Vec::new();
    let mut next = Request::Register(request);
    for _ in 0..4 {
        let exchange = Exchange {
            request: next,
            request_id: "rid",
            peer: &peer,
            progress: &Progress::default(),
        };
        if answers.is_empty() {
            exchange.append_subscribe(&mut connection)?;
        }
        match exchange.ask(&mut connection).await {
            Ok(response) => answers.push(response),
            Err(error) => return Ok((answers, Some(error))),
        }
        if connection.refused || connection.has_ended().await {
            break;
        }
        next = Request::Status(request, operation);
    }
    connection.close().await;
    Ok((answers, None))
}
