//! The inside of the transport, for the fuzz targets only: a session without a socket.

use std::time::SystemTime;

use dps_connect::{Config, Io};
use dps_state_machine::{OperationId, Progress, RegistrationRequest, Response};

use crate::{
    codec::message,
    connection::{Asked, Broken, Connection, Login, Started},
};

/// Starts a session over the stream, registers, asks for the status until nothing more comes, and ends the session.
/// All requests have the correlation id `id`. Returns the answers and, in words, how it ended.
pub async fn session(
    io: impl Io + 'static,
    config: &Config,
    request: &RegistrationRequest,
    operation: &OperationId,
    pipelined: bool,
    offered: bool,
) -> (Vec<Response>, String) {
    let mut answers = Vec::new();
    let id = request.registration_id();
    let login = match Login::of(config, id, &Progress::default()).await {
        _ if offered => Login::Offered,
        Ok(login) => login,
        Err(error) => return (answers, error.to_string()),
    };
    let mut connection = match Connection::start(Box::new(io), config, id, login, pipelined).await {
        Ok(Started::Ready(connection)) => connection,
        Ok(Started::Refused(response)) => return (vec![response], "refused".into()),
        Ok(Started::WantsSasl) => return (answers, "it wants SASL".into()),
        Err(broken) => return (answers, words(&broken)),
    };
    let mut message = message::register(request, "id");
    for _ in 0..4 {
        match connection.ask(message, "id", &Progress::default()).await {
            Ok(Asked::Answer(answer)) => answers.push(answer.into_response(SystemTime::now())),
            Ok(Asked::Refused(response)) => answers.push(response),
            Err(broken) => return (answers, words(&broken)),
        }
        if !connection.is_usable().await {
            return (answers, "it can't be used again".into());
        }
        message = message::query(operation, "id");
    }
    let end = connection.end().await;
    (answers, format!("{end:?}"))
}

fn words(broken: &Broken) -> String {
    match broken {
        Broken::Lost(error) => error.to_string(),
        Broken::Dismissed(what) => what.clone(),
        Broken::Nonsense(reason) | Broken::Unfit(reason) => reason.to_string(),
        Broken::AnotherProtocol(heard) => heard.escape_ascii().to_string(),
        Broken::Credential(error) => error.to_string(),
    }
}

/// The frames by which the client sends a message of this content.
pub fn frames(payload: &[u8], max_frame_size: u32) -> Vec<u8> {
    let mut out = Vec::new();
    let mut rest = payload;
    let mut first = true;
    while first || !rest.is_empty() {
        rest = crate::codec::transfer(&mut out, 0, first, rest, max_frame_size);
        first = false;
    }
    out
}
