//! Several credentials of one device: the next one when the service refuses the one before.

use alloc::{collections::VecDeque, format, vec::Vec};
use core::{fmt, iter, mem};

use crate::{
    error::Error,
    ids::OperationId,
    progress::{Progress, Step},
    request::RegistrationRequest,
    response::Response,
    transport::TransportHandlers,
};

/// The same transport once for each credential of a device: the primary key and the secondary one, or a newer
/// certificate and the older one.
///
/// A registration begins with the credential that was taken last, the first one at the beginning. Only when the service
/// refuses the *identity* ([`Response::refuses_credential`]: status 401, or an error code of that family, also of a
/// registration that has failed after it was accepted) the next one is tried, each once. Throttling, trouble of the
/// service, a lost connection or a credential that can't sign change nothing: they are as they are with one credential.
/// The registration's time-out holds for all of it together.
///
/// [`RegistrationResult::credential`](crate::RegistrationResult::credential) says which one was taken, and
/// [`Step::CredentialRefused`] which ones were not. When all were refused the error is what the service said of the last.
///
/// A refusal need not mean that the key is wrong for good: the service may keep the keys that it has seen for up to 30
/// minutes, so that a key which was replaced in the enrollment can still be taken, and its successor not yet. Keep both
/// credentials until the new one was taken.
///
/// ```
/// # async fn example(primary: dps_client::SymmetricKey, secondary: dps_client::SymmetricKey) -> Result<(), dps_client::Error> {
/// use dps_client::{Config, RegistrationRequest, Settings, Transport, client_with_fallback};
///
/// let config = Config::new("0ne00AABBCC".parse()?, primary.into());
/// let client = client_with_fallback(Transport::Mqtt, config, [secondary.into()], Settings::default())?;
/// let device = client.register(RegistrationRequest::new("pump-17".parse()?)).await?;
/// if device.credential > 0 {
///     println!("{} needs its primary key replaced", device.device_id);
/// }
/// # Ok(())
/// # }
/// ```
pub struct Fallback<T> {
    current: Numbered<T>,
    others: VecDeque<Numbered<T>>,
    /// So many credentials were refused one after the other.
    refused: usize,
    /// Whether the current credential has no operation yet: what another one has begun is not its to ask about.
    must_register: bool,
}

struct Numbered<T> {
    number: usize,
    transport: T,
}

impl<T: TransportHandlers> Fallback<T> {
    /// Takes a transport for each credential, in the order in which they are tried.
    #[must_use]
    pub fn new(first: T, others: impl IntoIterator<Item = T>) -> Self {
        let others = others.into_iter().zip(1..);
        Self {
            current: Numbered { number: 0, transport: first },
            others: others.map(|(transport, number)| Numbered { number, transport }).collect(),
            refused: 0,
            must_register: false,
        }
    }

    async fn register(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        loop {
            let transport = &mut self.current.transport;
            let response = transport.registration_request(request, progress).await?;
            if let Some(response) = self.judged(response, progress) {
                self.must_register &= !(200..300).contains(&response.status);
                return Ok(response);
            }
        }
    }

    /// The answer to hand on; `None` when the next credential is to be tried.
    fn judged(&mut self, mut response: Response, progress: &Progress) -> Option<Response> {
        response.credential = self.current.number;
        if !response.refuses_credential() {
            self.refused = 0;
            return Some(response);
        }
        let Some(next) = self.others.pop_front() else { return Some(response) };
        let former = mem::replace(&mut self.current, next);
        let credential = former.number;
        self.others.push_back(former);
        self.must_register = true;
        self.refused += 1;
        let all = self.others.len() + 1;
        if self.refused < all {
            progress.enter(&Step::CredentialRefused { credential });
            return None;
        }
        self.refused = 0;
        let each = format!("each of the {all} credentials was refused");
        response.hint = Some(match response.hint {
            Some(hint) => format!("{each}; of the last: {hint}"),
            None => each,
        });
        Some(response)
    }
}

impl<T: TransportHandlers> TransportHandlers for Fallback<T> {
    /// With the credential that a registration begins with.
    async fn connect(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<(), Error> {
        self.current.transport.connect(request, progress).await
    }

    async fn registration_request(
        &mut self,
        request: &RegistrationRequest,
        progress: &Progress,
    ) -> Result<Response, Error> {
        self.refused = 0;
        self.register(request, progress).await
    }

    async fn query_operation_status(
        &mut self,
        request: &RegistrationRequest,
        operation_id: &OperationId,
        progress: &Progress,
    ) -> Result<Response, Error> {
        if !self.must_register {
            let transport = &mut self.current.transport;
            let response =
                transport.query_operation_status(request, operation_id, progress).await?;
            if let Some(response) = self.judged(response, progress) {
                return Ok(response);
            }
        }
        self.register(request, progress).await
    }

    /// Of each credential's connection, the one that is in use first. All are ended whatever becomes of one; the error
    /// is that of the first that failed.
    async fn end_session(&mut self) -> Result<(), Error> {
        let mut outcome = Ok(());
        for Numbered { transport, .. } in iter::once(&mut self.current).chain(&mut self.others) {
            outcome = outcome.and(transport.end_session().await);
        }
        outcome
    }
}

impl<T> fmt::Debug for Fallback<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let others: Vec<usize> = self.others.iter().map(|other| other.number).collect();
        f.debug_struct("Fallback")
            .field("current", &self.current.number)
            .field("others", &others)
            .finish()
    }
}
