//! The other end of a connection, as the core knows it, and what it asks for.

use std::{
    collections::BTreeMap,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::SystemTime,
};

use rustls::pki_types::CertificateDer;

use crate::hub::{Arrival, NotAdmitted};

use super::{
    ApiReply, ApiRequest, Core, HubDevice, ServiceGuard, Session,
    events::{EventKind, Method, Operation, Transport},
    service::{
        ApiVersion, Authenticated, Credential, Registration, Reply, ServiceError, TpmKeys,
        challenge_reply,
    },
};

/// What a device asks for, whatever the transport that it came by.
pub(crate) struct DeviceRequest<'a> {
    pub(crate) operation: Operation,
    /// As written.
    pub(crate) registration_id: String,
    /// The operation that a query asks about.
    pub(crate) operation_id: Option<String>,
    pub(crate) api_version: Option<String>,
    pub(crate) force: bool,
    /// The headers or properties that tell one client from another; never the credential.
    pub(crate) headers: BTreeMap<String, String>,
    pub(crate) body: &'a [u8],
    /// How the device proves who it is.
    pub(crate) proof: Proof<'a>,
    /// What the server found wrong when it read the request; it is then answered with this refusal.
    pub(crate) malformed: Option<ServiceError>,
}

/// How a device proves who it is.
pub(crate) enum Proof<'a> {
    /// With its request: for an ID scope, by a SAS token or else by the certificate of the connection.
    Shown { id_scope: String, token: Option<&'a str> },
    /// Before, when the connection or the link began. This is what came of it.
    Checked(Result<&'a Authenticated, &'a ServiceError>),
}

/// The other end of a connection.
#[derive(Clone)]
pub(crate) struct Caller {
    core: Arc<Core>,
    pub(crate) connection: u64,
    pub(crate) transport: Transport,
    /// What it showed in the TLS handshake.
    certificates: Arc<[CertificateDer<'static>]>,
    is_known: Arc<AtomicBool>,
}

impl Caller {
    pub(crate) fn new(
        core: Arc<Core>,
        connection: u64,
        transport: Transport,
        certificates: Arc<[CertificateDer<'static>]>,
        is_known: Arc<AtomicBool>,
    ) -> Self {
        Self { core, connection, transport, certificates, is_known }
    }

    /// The time of the service, which its settings may move.
    pub(crate) fn now(&self) -> SystemTime {
        self.core.clock().now()
    }

    pub(crate) fn has_certificate(&self) -> bool {
        !self.certificates.is_empty()
    }

    /// Checks who the device is, by its SAS token or else by the certificate of the connection, and records what came
    /// of it.
    pub(crate) fn authenticate(
        &self,
        id_scope: &str,
        registration_id: &str,
        token: Option<&str>,
    ) -> Result<Authenticated, ServiceError> {
        self.conceal(token);
        self.check(id_scope, registration_id, token)
    }

    fn check(
        &self,
        id_scope: &str,
        registration_id: &str,
        token: Option<&str>,
    ) -> Result<Authenticated, ServiceError> {
        let credential = self.credential(token);
        let now = self.core.clock().now();
        let checked = self.core.service().authenticate(now, id_scope, registration_id, credential);
        match &checked {
            Ok(who) => {
                self.is_known.store(true, Ordering::Relaxed);
                let method = if who.has_tpm() { Method::Tpm } else { credential.method() };
                let (registration_id, enrollment) =
                    (registration_id.to_owned(), who.enrollment_name.clone());
                let event = EventKind::Authenticated { registration_id, enrollment, method };
                self.core.record(self.connection, event);
            }
            Err(error) => self.record_failure(registration_id, credential.method(), error),
        }
        checked
    }

    fn credential<'a>(&'a self, token: Option<&'a str>) -> Credential<'a> {
        match token {
            Some(token) => Credential::Sas(token),
            None if self.has_certificate() => Credential::Certificates(&self.certificates),
            None => Credential::None,
        }
    }

    /// Checks a device that connects to its hub, and records what came of it.
    pub(crate) fn admit(&self, arrival: Arrival<'_>) -> Result<HubDevice, NotAdmitted> {
        let Arrival { hub, device_id, token, api_version, client_type } = arrival;
        self.conceal(token);
        let (credential, now) = (self.credential(token), self.now());
        let admitted = self.service().admit(now, hub, device_id, credential);
        let method = credential.method();
        let (transport, hub) = (self.transport, hub.to_owned());
        self.record(match &admitted {
            Ok(device) => {
                self.is_known.store(true, Ordering::Relaxed);
                let registration_id = device.registration_id.to_string();
                let device_id = device.device_id.clone();
                EventKind::HubConnected {
                    transport,
                    registration_id,
                    hub,
                    device_id,
                    method,
                    api_version,
                    client_type,
                }
            }
            Err(NotAdmitted { reason, .. }) => EventKind::HubRefused {
                transport,
                hub,
                device_id: device_id.to_owned(),
                method,
                reason: reason.clone(),
            },
        });
        admitted
    }

    pub(crate) fn service(&self) -> ServiceGuard<'_> {
        self.core.service()
    }

    pub(crate) fn record(&self, event: EventKind) {
        self.core.record(self.connection, event);
    }

    /// What stands in the place of a token or a password is in no event of this connection.
    fn conceal(&self, token: Option<&str>) {
        token.into_iter().for_each(|token| self.core.conceal(self.connection, token));
    }

    /// Challenges the device's TPM, and records it if that is refused.
    pub(crate) fn challenge(
        &self,
        id_scope: &str,
        registration_id: &str,
        keys: &TpmKeys,
    ) -> Result<Vec<u8>, ServiceError> {
        let now = self.core.clock().now();
        let challenge = self.core.service().challenge(now, id_scope, registration_id, keys);
        if let Err(error) = &challenge {
            self.record_failure(registration_id, Method::Tpm, error);
        }
        challenge
    }

    /// Begins the only session of this name, which tells a device from all others; the one that it had is over.
    pub(crate) fn begin_session(&self, name: String) -> Session {
        self.core.sessions.begin(name)
    }

    fn record_failure(&self, registration_id: &str, method: Method, error: &ServiceError) {
        let event = EventKind::AuthenticationFailed {
            registration_id: registration_id.to_owned(),
            method,
            error_code: error.error_code,
            reason: error.reason.to_string(),
        };
        self.core.record(self.connection, event);
    }

    /// Answers a request, and records both.
    pub(crate) fn ask(&self, mut request: DeviceRequest<'_>) -> Reply {
        if let Proof::Shown { token, .. } = &request.proof {
            self.conceal(*token);
        }
        let event = EventKind::Request {
            transport: self.transport,
            operation: request.operation,
            registration_id: request.registration_id.clone(),
            operation_id: request.operation_id.clone(),
            api_version: request.api_version.clone(),
            force: request.force,
            headers: std::mem::take(&mut request.headers),
            body_bytes: request.body.len(),
            payload: Registration::peek_payload(request.body),
        };
        self.core.record(self.connection, event);
        let answered = self.answer(&request);
        let reply = answered.unwrap_or_else(|error| self.refusal(&error));
        self.record_answer(request.operation, &request.registration_id, &reply);
        reply
    }

    /// Answers a call of the service API, and records it.
    pub(crate) fn call(&self, method: &str, path: &str, request: &ApiRequest<'_>) -> ApiReply {
        self.conceal(request.token);
        let answer = self.core.service().call(self.now(), request);
        if answer.policy.is_some() {
            self.is_known.store(true, Ordering::Relaxed);
        }
        let event = EventKind::ServiceCall {
            method: method.to_owned(),
            path: path.to_owned(),
            policy: answer.policy.clone(),
            status: answer.reply.status,
            error_code: answer.reply.error_code,
            tracking_id: answer.reply.tracking_id.clone(),
        };
        self.core.record(self.connection, event);
        answer
    }

    /// Refuses what is no request: a connection, a link.
    pub(crate) fn refuse(&self, registration_id: &str, error: &ServiceError) -> Reply {
        let reply = self.refusal(error);
        self.record_answer(Operation::Unknown, registration_id, &reply);
        reply
    }

    fn answer(&self, request: &DeviceRequest<'_>) -> Result<Reply, ServiceError> {
        if let Some(error) = &request.malformed {
            return Err(error.clone());
        }
        let version = ApiVersion::find(request.api_version.as_deref())?;
        let id = &request.registration_id;
        if let Some((id_scope, keys)) = self.asks_for_challenge(request) {
            return self.challenge(id_scope, id, &keys).map(|key| challenge_reply(&key));
        }
        let who = match &request.proof {
            Proof::Shown { id_scope, token } => self.check(id_scope, id, *token)?,
            Proof::Checked(checked) => checked.cloned().map_err(Clone::clone)?,
        };
        let now = self.core.clock().now();
        match (request.operation, &request.operation_id) {
            (Operation::Register, _) => {
                let registration = Registration::read(request.body, id, version, request.force);
                Ok(self.core.service().register(now, &who, registration))
            }
            (Operation::Query, Some(operation_id)) => {
                Ok(self.core.service().query(now, &who, version, operation_id))
            }
            (Operation::Query, None) => {
                Err(ServiceError::bad_request("The operation ID is missing"))
            }
            (Operation::Lookup, _) => {
                Registration::check_lookup(request.body, id, version)?;
                Ok(self.core.service().look_up(now, &who, version))
            }
            (
                Operation::OnboardingUpdate | Operation::SoftwareUpdate | Operation::UpdateStatus,
                _,
            ) => {
                let (operation, body) = (request.operation, request.body);
                Ok(self.core.service().update(now, &who, operation, version, body))
            }
            (Operation::Unknown, _) => {
                Err(ServiceError::bad_request("The operation type is missing or unknown"))
            }
        }
    }

    /// The ID scope and the keys of a device that has nothing to show yet but which TPM it has.
    fn asks_for_challenge<'a>(&self, request: &'a DeviceRequest<'_>) -> Option<(&'a str, TpmKeys)> {
        match (&request.proof, request.operation) {
            (Proof::Shown { id_scope, token: None }, Operation::Register | Operation::Lookup)
                if !self.has_certificate() =>
            {
                Some((id_scope, Registration::peek_tpm(request.body)?))
            }
            _ => None,
        }
    }

    fn refusal(&self, error: &ServiceError) -> Reply {
        self.core.service().refuse(self.core.clock().now(), error)
    }

    fn record_answer(&self, operation: Operation, registration_id: &str, reply: &Reply) {
        let event = EventKind::Answer {
            transport: self.transport,
            operation,
            registration_id: registration_id.to_owned(),
            status: reply.status,
            registration_status: reply.registration_status.clone(),
            error_code: reply.error_code.or(reply.failure),
            tracking_id: reply.tracking_id.clone(),
            retry_after: reply.retry_after.clone(),
            body_bytes: reply.body.len(),
            delivery: reply.delivery,
        };
        self.core.record(self.connection, event);
    }
}
