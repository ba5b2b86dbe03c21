//! What a transport hands up: the service's answer, not yet understood.

use alloc::{
    string::{String, ToString},
    vec::Vec,
};
use core::{fmt, time::Duration};

use serde::{Deserialize, Serialize};

use crate::{
    body::{self, Object},
    printable::Printable,
};

/// The service's answer to one request, whatever it says.
#[derive(Clone, Default)]
#[non_exhaustive]
pub struct Response {
    /// The status as HTTP counts it: the HTTP status itself, the status in an MQTT topic, an AMQP error code
    /// divided by 1000; 200 for an AMQP message, 401 for a credential refused by CONNACK or SASL.
    pub status: u16,
    /// The body as it came.
    pub body: Vec<u8>,
    /// How long the service asked to wait, already parsed (see `retry_after`).
    pub retry_after: Option<Duration>,
    /// The result metadata.
    pub protocol_result: ProtocolResult,
    /// What happened, when the answer has no body to say so, for example `CONNACK 5: not authorized`.
    pub reason: Option<String>,
    /// What to do about it, where the transport knows more than the status says.
    pub hint: Option<String>,
    /// Which of the device's credentials it answers to, counted from 0 (see [`Fallback`](crate::Fallback)).
    pub credential: usize,
    /// Which of several transports brought it (see [`Race`](crate::Race)).
    pub transport: Option<&'static str>,
}

impl Response {
    /// An answer with the given status and body.
    #[must_use]
    pub fn new(status: u16, body: impl Into<Vec<u8>>) -> Self {
        Self { status, body: body.into(), ..Self::default() }
    }

    /// A refusal by the protocol itself, without a body.
    #[must_use]
    pub fn refusal(status: u16, reason: impl Into<String>) -> Self {
        Self { status, reason: Some(reason.into()), ..Self::default() }
    }

    /// The service's own error code in the body; the outer `None` when the body is no JSON object. It is read as
    /// leniently as a refusal is.
    #[must_use]
    pub fn error_code(&self) -> Option<Option<u32>> {
        let text = body::text(&self.body);
        Object::read(&text).ok().map(|body| body.code("errorCode"))
    }

    /// Whether it says no to the device's credential: by its status 401, or by an error code, be it its own, that of a
    /// registration that has failed after it was accepted, or one of an error within the message.
    #[must_use]
    pub fn refuses_credential(&self) -> bool {
        crate::service_error::refuses_credential(self.status, &self.body)
    }

    /// The challenge to a TPM in the body of a 401: the key, in base64, that the TPM must sign with. A refusal has an
    /// error code instead.
    ///
    /// See <https://learn.microsoft.com/azure/iot-dps/concepts-tpm-attestation#detailed-attestation-process>.
    #[must_use]
    pub fn tpm_challenge(&self) -> Option<String> {
        let text = body::text(&self.body);
        let body = Object::read(&text).ok().filter(|_| self.status == 401)?;
        let refused = body.get("errorCode").is_some();
        body.text("authenticationKey").filter(|key| !refused && !key.is_empty())
    }

    /// The key for the assigned hub in an answer that says "assigned", in base64; the outer `None` when it does not say
    /// that.
    #[must_use]
    pub fn tpm_hub_key(&self) -> Option<Option<String>> {
        let text = body::text(&self.body);
        let body = Object::read(&text).ok().filter(|_| (200..300).contains(&self.status))?;
        let status = body.text("status")?;
        let tpm = body.object("registrationState").object("tpm");
        let key = tpm.text("authenticationKey").filter(|key| !key.is_empty());
        status.eq_ignore_ascii_case("assigned").then_some(key)
    }

    /// Sets how long the service asked to wait.
    #[must_use]
    pub fn retry_after(mut self, retry_after: Option<Duration>) -> Self {
        self.retry_after = retry_after;
        self
    }

    /// Sets the result metadata.
    #[must_use]
    pub fn protocol_result(mut self, protocol_result: ProtocolResult) -> Self {
        self.protocol_result = protocol_result;
        self
    }

    /// Sets what to do about a refusal.
    #[must_use]
    pub fn hint(mut self, hint: Option<String>) -> Self {
        self.hint = hint;
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Response")
            .field("status", &self.status)
            .field("body", &Printable::brief(&self.body))
            .field("retry_after", &self.retry_after)
            .field("protocol_result", &self.protocol_result)
            .field("reason", &self.reason.as_ref().map(Printable::brief))
            .field("hint", &self.hint.as_ref().map(Printable::brief))
            .field("credential", &self.credential)
            .field("transport", &self.transport)
            .finish()
    }
}

/// The result metadata, as names and values: HTTP's status and headers, MQTT's topic, AMQP's properties.
///
/// It is one type for every transport, so that errors and results need no type parameter and a transport can be chosen
/// at run time.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ProtocolResult(Vec<(String, String)>);

impl ProtocolResult {
    /// The first value of the given name, without regard to case.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&str> {
        self.iter().find(|(key, _)| key.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }

    /// All names and values in the order in which they came.
    pub fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(name, value)| (name.as_str(), value.as_str()))
    }
}

impl fmt::Debug for ProtocolResult {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let shown = |text| Printable::brief(text);
        f.debug_map().entries(self.iter().map(|(name, value)| (shown(name), shown(value)))).finish()
    }
}

impl<N: ToString, V: ToString> FromIterator<(N, V)> for ProtocolResult {
    fn from_iter<I: IntoIterator<Item = (N, V)>>(entries: I) -> Self {
        Self(entries.into_iter().map(|(n, v)| (n.to_string(), v.to_string())).collect())
    }
}
