//! What a wire must do. The names are the requirement's: registrationRequest, queryOperationStatus, endSession.

use alloc::boxed::Box;
use core::{future::Future, pin::Pin};

use crate::{error::Error, ids::OperationId, request::RegistrationRequest, response::Response};

/// One wire protocol, as the state machine sees it.
///
/// A wire says *what the service said* and no more: whatever the service answered, a refusal of the
/// connection's credential among it, is `Ok(`[`Response`]`)`; what it means is decided once, in the machine.
/// `Err` is for when nothing was answered ([`Error::Connection`]), when the answer could not be read
/// ([`Error::Protocol`]) or when the request can't go over this wire at all ([`Error::Configuration`],
/// before any I/O).
///
/// # Cancel safety
/// The machine bounds every call and may drop its future at any await point. An implementation must be usable
/// afterwards: it drops a connection whose exchange was cut short and makes a new one at the next call.
pub trait TransportHandlers: Send + 'static {
    /// Connects if need be and sends the registration.
    fn registration_request(
        &mut self,
        request: &RegistrationRequest,
    ) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Asks how far the operation is; connects anew, once, if the connection was lost since the last call.
    fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
    ) -> impl Future<Output = Result<Response, Error>> + Send;

    /// Says goodbye and drops the connection. Without a connection it does nothing.
    fn end_session(&mut self) -> impl Future<Output = Result<(), Error>> + Send;
}

/// A future behind a pointer.
pub type BoxFuture<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// [`TransportHandlers`] behind a pointer, for choosing the wire at run time. Every wire has it.
pub trait DynTransportHandlers: Send + 'static {
    /// See [`TransportHandlers::registration_request`].
    fn registration_request_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
    ) -> BoxFuture<'a, Result<Response, Error>>;

    /// See [`TransportHandlers::query_operation_status`].
    fn query_operation_status_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        operation_id: &'a OperationId,
    ) -> BoxFuture<'a, Result<Response, Error>>;

    /// See [`TransportHandlers::end_session`].
    fn end_session_dyn(&mut self) -> BoxFuture<'_, Result<(), Error>>;
}

impl<T: TransportHandlers> DynTransportHandlers for T {
    fn registration_request_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
    ) -> BoxFuture<'a, Result<Response, Error>> {
        Box::pin(self.registration_request(request))
    }

    fn query_operation_status_dyn<'a>(
        &'a mut self,
        request: &'a RegistrationRequest,
        operation_id: &'a OperationId,
    ) -> BoxFuture<'a, Result<Response, Error>> {
        Box::pin(self.query_operation_status(request, operation_id))
    }

    fn end_session_dyn(&mut self) -> BoxFuture<'_, Result<(), Error>> {
        Box::pin(self.end_session())
    }
}

impl TransportHandlers for Box<dyn DynTransportHandlers> {
    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
    ) -> Result<Response, Error> {
        (**self).registration_request_dyn(request).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
    ) -> Result<Response, Error> {
        (**self).query_operation_status_dyn(request, operation_id).await
    }

    async fn end_session(&mut self) -> Result<(), Error> {
        (**self).end_session_dyn().await
    }
}
