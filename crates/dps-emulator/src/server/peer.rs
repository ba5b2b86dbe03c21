//! The other end of a connection, as every transport knows it.

use std::sync::Arc;

use rustls::pki_types::CertificateDer;

use super::{Control, Shared};
use crate::{
    behavior::ConnectionFault,
    events::{EventKind, Operation, Transport},
    service::{Reply, ServiceError},
};

/// The other end of a connection.
#[derive(Clone)]
pub(crate) struct Peer {
    pub(crate) id: u64,
    pub(crate) transport: Transport,
    pub(crate) shared: Arc<Shared>,
    pub(crate) control: Arc<Control>,
    /// What it showed in the TLS handshake.
    pub(crate) certificates: Arc<[CertificateDer<'static>]>,
    /// What goes wrong with the connection, as far as the transport is concerned.
    pub(crate) fault: ConnectionFault,
}

impl Peer {
    /// The service's no to what is no request: a connection, a link.
    pub(crate) fn refuse(&self, registration_id: &str, error: &ServiceError) -> Reply {
        let reply = self.shared.service().refuse(self.shared.now(), error);
        self.record(Operation::Unknown, registration_id, &reply);
        reply
    }

    /// Notes an answer.
    pub(crate) fn record(&self, operation: Operation, registration_id: &str, reply: &Reply) {
        self.shared.recorder.record(
            self.id,
            EventKind::Answer {
                transport: self.transport,
                operation,
                registration_id: registration_id.to_owned(),
                status: reply.status,
                registration_status: reply.registration_status.clone(),
                error_code: reply.error_code,
                tracking_id: reply.tracking_id.clone(),
                retry_after: reply.retry_after.clone(),
                body_bytes: reply.body.len(),
                delivery: reply.delivery,
            },
        );
    }
}
