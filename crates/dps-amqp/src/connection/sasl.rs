//! How a device authenticates before AMQP begins.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-security-v1.0-os.html#section-sasl>.

use std::{fmt, future::ready, pin::Pin};

use dps_connect::{Config, internal::TpmLogin};
use dps_state_machine::{Error, Progress, RegistrationId, Response};
use zeroize::Zeroizing;

use super::{Broken, tpm::Tpm};
use crate::codec::Malformed;

/// What a mechanism answers to a challenge, once it has made it.
pub(crate) type Answer<'a> =
    Pin<Box<dyn Future<Output = Result<Zeroizing<Vec<u8>>, Broken>> + Send + 'a>>;

/// One SASL mechanism.
pub(crate) trait Mechanism: Send {
    /// Its registered name.
    fn name(&self) -> &'static str;

    /// The host that the device wants to reach, as the mechanism defines it.
    fn hostname(&self) -> &str;

    /// The initial response.
    fn initial_response(&mut self) -> Zeroizing<Vec<u8>>;

    /// What it answers to a challenge.
    ///
    /// # Errors
    /// [`Broken::Unfit`] or [`Broken::Nonsense`] when the mechanism has no such challenge, [`Broken::Credential`] when the device can't answer.
    fn respond<'a>(&'a mut self, challenge: &'a [u8]) -> Answer<'a>;
}

/// What to do about SASL when a connection starts.
pub(crate) enum Login {
    /// There is no SASL: the certificate of the TLS handshake authenticates the device.
    None,
    /// This mechanism, whatever the service offers: so it need not be waited for.
    Known(Box<dyn Mechanism>),
    /// What the service offers of those that leave it to the certificate.
    Offered,
}

impl Login {
    /// A SAS token is signed here, for one connection; a TPM is asked for its public keys.
    ///
    /// # Errors
    /// [`Error::Credential`] when the signer fails.
    pub(crate) async fn of(
        config: &Config,
        registration_id: &RegistrationId,
        progress: &Progress,
    ) -> Result<Self, Error> {
        if let Some(tpm) = TpmLogin::of(config, progress) {
            let tpm = Tpm::new(tpm, &config.id_scope, registration_id).await?;
            return Ok(Self::Known(Box::new(tpm)));
        }
        let Some(token) = config.sas_token(registration_id, progress).await? else {
            return Ok(Self::None);
        };
        let user = format!("{}/registrations/{registration_id}", config.id_scope);
        let hostname = config.endpoint.host().to_owned();
        // Neither the user nor the token can have a NUL in it. Room for all at once: growing leaves copies behind.
        let mut response =
            Zeroizing::new(Vec::with_capacity(user.len() + token.expose().len() + 2));
        response.push(0);
        response.extend(user.as_bytes());
        response.push(0);
        response.extend(token.expose().as_bytes());
        Ok(Self::Known(Box::new(Plain { hostname, response })))
    }
}

impl fmt::Debug for Login {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::None => "no SASL",
            Self::Known(mechanism) => mechanism.name(),
            Self::Offered => "what is offered",
        })
    }
}

/// User and password. See <https://www.rfc-editor.org/rfc/rfc4616>.
struct Plain {
    hostname: String,
    response: Zeroizing<Vec<u8>>,
}

impl Mechanism for Plain {
    fn name(&self) -> &'static str {
        "PLAIN"
    }

    fn hostname(&self) -> &str {
        &self.hostname
    }

    fn initial_response(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.response)
    }

    fn respond<'a>(&'a mut self, _challenge: &'a [u8]) -> Answer<'a> {
        let wrong = Malformed::new("a SASL challenge, where PLAIN has none");
        Box::pin(ready(Err(Broken::Unfit(wrong))))
    }
}

/// EXTERNAL or ANONYMOUS: the certificate of the TLS handshake authenticates the device.
/// See <https://www.rfc-editor.org/rfc/rfc4422#appendix-A>.
struct Certificate {
    name: &'static str,
    hostname: String,
}

impl Mechanism for Certificate {
    fn name(&self) -> &'static str {
        self.name
    }

    fn hostname(&self) -> &str {
        &self.hostname
    }

    fn initial_response(&mut self) -> Zeroizing<Vec<u8>> {
        Zeroizing::default()
    }

    fn respond<'a>(&'a mut self, _challenge: &'a [u8]) -> Answer<'a> {
        // Some servers ask for what an empty first word has said already.
        Box::pin(ready(Ok(Zeroizing::default())))
    }
}

/// The mechanism for a device with a certificate, of those on offer.
///
/// # Errors
/// [`Malformed`] that names what is on offer, when nothing of it fits.
pub(crate) fn choose(offered: &[String], hostname: &str) -> Result<Box<dyn Mechanism>, Malformed> {
    let name = ["EXTERNAL", "ANONYMOUS"]
        .into_iter()
        .find(|name| check(name, offered).is_ok())
        .ok_or_else(|| {
            unfit(offered, "a device with a certificate can do EXTERNAL or ANONYMOUS")
        })?;
    Ok(Box::new(Certificate { name, hostname: hostname.to_owned() }))
}

/// Checks that a mechanism is among those on offer.
///
/// # Errors
/// [`Malformed`] that names what is on offer.
pub(crate) fn check(name: &str, offered: &[String]) -> Result<(), Malformed> {
    if offered.iter().any(|offer| offer.eq_ignore_ascii_case(name)) {
        return Ok(());
    }
    Err(unfit(offered, &format!("this device does {name}")))
}

fn unfit(offered: &[String], instead: &str) -> Malformed {
    let offer = match offered {
        [] => "no mechanism at all".to_owned(),
        some => format!("{:.256?}", some.join(", ")),
    };
    Malformed::new(format!("it wants SASL and offers {offer}; {instead}"))
}

/// The answer that a SASL outcome other than success is.
pub(crate) fn refusal(code: u8, additional_data: Vec<u8>, offered: &[String]) -> Response {
    let (status, meaning) = match code {
        1 => (401, "the credential was refused"),
        2 => (500, "a system error"),
        // Final: the standard says that it takes an intervention.
        3 => (400, "a system error that will not go away by itself"),
        4 => (503, "a system error that will pass"),
        _ => (401, "an outcome that is not in the standard"),
    };
    let said_json = serde_json::from_slice::<serde_json::Value>(&additional_data)
        .is_ok_and(|value| value.is_object());
    let entries = [
        ("sasl-outcome", code.to_string()),
        ("sasl-server-mechanisms", offered.join(", ")),
        ("additional-data", String::from_utf8_lossy(&additional_data).into_owned()),
    ];
    let mut response = Response::refusal(status, format!("SASL outcome {code}: {meaning}"));
    if said_json {
        response.body = additional_data;
    }
    response.protocol_result(entries.into_iter().filter(|(_, value)| !value.is_empty()).collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn external_comes_before_anonymous_and_nothing_else_will_do() {
        let offer = |names: &[&str]| names.iter().map(ToString::to_string).collect::<Vec<_>>();
        let name = |names: &[&str]| choose(&offer(names), "h").map(|mechanism| mechanism.name());
        assert_eq!(name(&["PLAIN", "ANONYMOUS", "EXTERNAL"]), Ok("EXTERNAL"));
        assert_eq!(name(&["plain", "anonymous"]), Ok("ANONYMOUS"));
        let reason = name(&["PLAIN", "SCRAM-SHA-256"]).unwrap_err().to_string();
        assert!(reason.contains("SCRAM-SHA-256"), "{reason}");
        let reason = name(&[]).unwrap_err().to_string();
        assert!(reason.contains("no mechanism at all"), "{reason}");
    }

    #[test]
    fn outcomes_are_answers() {
        for (code, status) in [(1, 401), (2, 500), (3, 400), (4, 503), (9, 401)] {
            let response = refusal(code, vec![], &["PLAIN".to_owned()]);
            assert_eq!(response.status, status, "{code}");
            assert!(response.body.is_empty(), "{code:?}");
            assert_eq!(
                response.protocol_result.get("sasl-outcome"),
                Some(&*code.to_string()),
                "{code:?}"
            );
        }
        let body = br#"{"errorCode":401002}"#.to_vec();
        assert_eq!(refusal(1, body.clone(), &[]).body, body);
        assert!(refusal(1, b"junk".to_vec(), &[]).body.is_empty());
    }
}
