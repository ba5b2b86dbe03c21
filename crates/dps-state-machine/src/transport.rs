//! What a transport must do. The names are the requirement's: registrationRequest, queryOperationStatus, endSession.

use alloc::boxed::Box;
use core::{
    fmt,
    future::{Future, ready},
    pin::Pin,
};

use crate::{
    error::Error, ids::OperationId, progress::Progress, request::RegistrationRequest,
    response::Response,
};

/// One transport, as the state machine sees it.
///
/// A transport says *what the service said* and no more: whatever the service answered, a refusal of the
/// connection's credential among it, is `Ok(`[`Response`]`)`; what it means is decided once, in the machine.
/// `Err` is for when nothing was answered ([`Error::Connection`]), when the answer could not be read
/// ([`Error::Protocol`]) or when the request can't go over this transport at all ([`Error::Configuration`],
/// before any I/O).
///
/// The [`Progress`] that comes with a request is that of the registration that the request belongs to. A transport that
/// makes a connection says each [`Step`](crate::Step) of it there, [`Step::Connected`](crate::Step::Connected) at the end:
/// so a timeout can name where it struck. One that has no steps may leave it alone.
///
/// # Cancel safety
/// The machine bounds every call and may drop its future at any await point. An implementation must be usable
/// afterwards: it drops a connection whose exchange was cut short and makes a new one at the next call.
pub trait TransportHandlers: Send + 'static {
    /// Makes the connection (TCP, proxy, TLS, WebSocket) over which [`registration_request`](Self::registration_request)
    /// is to go, and asks nothing over it; with a connection that stands it does nothing. Nobody has to call it: a
    /// registration connects by itself. [`Race`](crate::Race) learns by it which of several transports gets through.
    ///
    /// An upgrade to WebSocket that the service refuses is [`Error::Connection`] here. By default there is nothing to do.
    fn connect(
        &mut self,
        _request: &RegistrationRequest,
        _progress: &Progress,
    ) -> impl Future<Output = Result<(), Error>> + Send {
        ready(Ok(()))
    }

    /// Connects if need be and sends the registration.
    fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Asks how far the operation is; connects anew, once, if the connection was lost since the last call.
    fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Ends the session and drops the connection. Without a connection it does nothing.
    fn end_session(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A transport chosen at run time: any [`TransportHandlers`] behind one type.
pub struct BoxTransport(Box<dyn DynTransportHandlers>);

impl BoxTransport {
    /// Takes the transport.
    #[must_use]
    pub fn new(transport: impl TransportHandlers) -> Self {
        Self(Box::new(transport))
    }
}

impl fmt::Debug for BoxTransport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("BoxTransport")
    }
}

impl TransportHandlers for BoxTransport {
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.0.connect_dyn(request, progress).await
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.0.registration_request_dyn(request, progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.0.query_operation_status_dyn(request, operation_id, progress).await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        self.0.end_session_dyn().await
    }
}

pub(crate) type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TransportHandlers`] in a form that can stand behind a pointer.
trait DynTransportHandlers: Send + 'static {
    fn connect_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<(), Error>>;

    fn registration_request_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Response, Error>>;

    fn query_operation_status_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        operation_id: &'a OperationId,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Response, Error>>;

    fn end_session_dyn(&mut self) -> BoxFuture<'_, Result<(), Error>>;
}

impl<T: TransportHandlers> DynTransportHandlers for T {
    fn connect_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<(), Error>> {
        Box::pin(self.connect(request, progress))
    }

    fn registration_request_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Response, Error>> {
        Box::pin(self.registration_request(request, progress))
    }

    fn query_operation_status_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        operation_id: &'a OperationId,
        progress: &'a Progress,
    ) -> BoxFuture<'a, Result<Response, Error>> {
        Box::pin(self.query_operation_status(request, operation_id, progress))
    }

    fn end_session_dyn(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end_session())
    }
}
