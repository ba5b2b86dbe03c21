//! Which protocol a connection speaks.

use tokio::io::{AsyncRead, AsyncWrite};

use super::{amqp, conversation, http, mqtt, peer::Connection};
use crate::core::events::Transport;

/// Serves one connection until it is over; says why it is.
pub(crate) async fn serve<S>(connection: Connection<S>) -> String
where
    S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
{
    if connection.peer.caller.transport != Transport::Http {
        return converse(connection).await;
    }
    match http::serve(connection).await {
        http::Served::Over(reason) => reason,
        http::Served::Upgraded(connection) => converse(*connection).await,
    }
}

async fn converse<S: AsyncRead + AsyncWrite + Unpin>(connection: Connection<S>) -> String {
    match connection.peer.caller.transport {
        Transport::Amqp | Transport::AmqpWs => {
            conversation::serve::<amqp::Conversation, _>(connection).await
        }
        _ => conversation::serve::<mqtt::Conversation, _>(connection).await,
    }
}
