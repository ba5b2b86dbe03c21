//! The service's reasons, and what they mean as an answer.

use std::time::SystemTime;

use dps_state_machine::{ProtocolResult, Response, retry_after};

use super::{Fields, Value};

/// Why the service refused a message, a link, a session or a connection.
/// See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#type-error>.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// The kind, for example `amqp:not-found`.
    pub condition: String,
    /// The service's words: most often its JSON error.
    pub description: Option<String>,
    /// What it adds, as names and values.
    pub info: Vec<(String, String)>,
}

impl Failure {
    pub(crate) fn read(value: Value<'_>) -> Option<Self> {
        let Value::Described(0x1d, fields) = value else { return None };
        let fields = Fields::of(fields.read());
        let info = fields.get(2).map(Value::into_named);
        Some(Self {
            condition: fields.get(0).map(|value| value.to_string()).unwrap_or_default(),
            description: fields.get(1).map(|value| value.to_string()),
            info: info
                .into_iter()
                .flatten()
                .map(|(name, value)| (name.into_owned(), value.to_string()))
                .collect(),
        })
    }

    /// A reason of which only the words are known.
    pub(crate) fn said(words: String) -> Self {
        Self { condition: String::new(), description: Some(words), info: Vec::new() }
    }

    /// Whether it is about the connection, the session or the link, and refuses nothing: the service restarts or moves,
    /// or somebody has taken the link.
    pub(crate) fn is_loss(&self) -> bool {
        let of_the_connection = ["amqp:connection:", "amqp:session:", "amqp:link:"]
            .iter()
            .any(|kind| self.condition.starts_with(kind));
        // This one is about the message, and the same message has the same size again.
        let about_the_message = self.condition == "amqp:link:message-size-exceeded";
        self.error_code().is_none() && of_the_connection && !about_the_message
    }

    /// Whether it may be about how a connection was started rather than about who wants it.
    pub(crate) fn may_concern_the_start(&self) -> bool {
        self.error_code().is_none() && matches!(self.status(), 400 | 403)
    }

    /// The answer that it is. The service's own code decides, where it sends one; otherwise the condition.
    #[must_use]
    pub fn into_response(self, now: SystemTime) -> Response {
        let code = self.error_code().and_then(|code| u16::try_from(code / 1000).ok());
        let status = code.filter(|code| (300..600).contains(code)).unwrap_or_else(|| self.status());
        let asked = self.info.iter().filter(|(name, _)| name.eq_ignore_ascii_case("retry-after"));
        let retry_after = retry_after::parse(asked.map(|(_, value)| value.as_str()), now);
        let mut response = match &self.description {
            Some(words) if said(words).is_some() => Response::new(status, words.clone()),
            _ => Response::refusal(status, self.to_string()),
        };
        response = response.retry_after(retry_after);
        response.protocol_result(self.into_protocol_result())
    }

    /// Where a redirect leads to
    /// ([2.8.16](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-transport-v1.0-os.html#type-connection-error)).
    fn redirect(&self) -> Option<String> {
        if !self.condition.ends_with(":redirect") {
            return None;
        }
        let named = |name| self.info.iter().find(|(key, _)| key == name).map(|(_, value)| value);
        let host = named("network-host").or_else(|| named("hostname"))?;
        Some(match named("port") {
            Some(port) => format!("{host}:{port}"),
            None => host.clone(),
        })
    }

    fn error_code(&self) -> Option<u32> {
        let description = self.description.as_deref()?;
        // A bare number stands for itself: the property of OPEN may be one.
        if let Ok(code) = description.parse() {
            return Some(code);
        }
        said(description)?
    }

    fn status(&self) -> u16 {
        match self.condition.as_str() {
            "amqp:unauthorized-access" => 401,
            "amqp:not-allowed" => 403,
            "amqp:not-found" => 404,
            "amqp:resource-locked" => 409,
            "com.microsoft:device-container-throttled" => 429,
            "amqp:internal-error" => 500,
            "com.microsoft:server-busy" => 503,
            "com.microsoft:timeout" => 504,
            _ => 400,
        }
    }

    fn into_protocol_result(self) -> ProtocolResult {
        let head = [("condition", Some(self.condition)), ("description", self.description)];
        let head = head.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?)));
        let head = head.filter(|(_, value)| !value.is_empty());
        head.chain(self.info).collect()
    }
}

impl std::fmt::Display for Failure {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match (self.condition.as_str(), self.description.as_deref().unwrap_or_default()) {
            ("", "") => f.write_str("the service gives no reason"),
            (condition, "") => f.write_str(condition),
            ("", description) => f.write_str(description),
            (condition, description) => write!(f, "{condition}: {description}"),
        }?;
        match self.redirect() {
            Some(address) => write!(f, " (it redirects to {address})"),
            None => Ok(()),
        }
    }
}

/// The error code in the service's JSON; the outer `None` when it is none.
fn said(words: &str) -> Option<Option<u32>> {
    Response::new(0, words).error_code()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    fn answer(condition: &str, description: Option<&str>, info: &[(&str, &str)]) -> Response {
        let info = info.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned()));
        let description = description.map(str::to_owned);
        let failure =
            Failure { condition: condition.to_owned(), description, info: info.collect() };
        failure.into_response(SystemTime::UNIX_EPOCH)
    }

    #[test]
    fn the_error_code_decides_over_the_condition() {
        for (json, status) in [
            (r#"{"errorCode":404201,"message":"no"}"#, 404),
            (r#"{"errorCode":"429001"}"#, 429),
            (r#"{"errorCode":503000,"trackingId":"t"}"#, 503),
            // No status: the condition decides.
            (r#"{"errorCode":7}"#, 500),
            (r#"{"errorCode":-404201}"#, 500),
            (r#"{"errorCode":99999999999999}"#, 500),
            (r#"{"message":"no code"}"#, 500),
        ] {
            let response = answer("amqp:internal-error", Some(json), &[]);
            assert_eq!(response.status, status, "{json}");
            assert_eq!(response.body, json.as_bytes(), "{json:?}");
            assert_eq!(
                response.protocol_result.get("condition"),
                Some("amqp:internal-error"),
                "{json:?}"
            );
        }
    }

    #[test]
    fn the_condition_decides_without_json() {
        for (condition, status) in [
            ("amqp:internal-error", 500),
            ("com.microsoft:device-container-throttled", 429),
            ("amqp:not-found", 404),
            ("amqp:unauthorized-access", 401),
            ("amqp:not-allowed", 403),
            ("amqp:decode-error", 400),
            ("", 400),
        ] {
            for description in [None, Some("words"), Some("[1]"), Some("<html>")] {
                let response = answer(condition, description, &[]);
                assert_eq!(response.status, status, "{condition}");
                let reason = response.reason.unwrap();
                assert!(reason.contains(condition), "{reason}");
                assert!(reason.contains(description.unwrap_or_default()), "{reason}");
                assert!(response.body.is_empty(), "{description:?}");
            }
        }
    }

    #[test]
    fn retry_after_is_read_in_either_spelling() {
        let seconds = |n| Some(Duration::from_secs(n));
        for (info, expected) in [
            (&[("retry-after", "5")][..], seconds(5)),
            (&[("Retry-After", "6")], seconds(6)),
            (&[("retry-after", "5"), ("Retry-After", "6")], seconds(6)),
            (&[("retry-after", "-1")], None),
            (&[("other", "5")], None),
        ] {
            assert_eq!(answer("amqp:internal-error", None, info).retry_after, expected, "{info:?}");
        }
    }

    #[test]
    fn a_forced_end_is_no_refusal_unless_it_has_an_error_code() {
        let forced = |description: Option<&str>| Failure {
            condition: "amqp:connection:forced".into(),
            description: description.map(str::to_owned),
            info: vec![],
        };
        assert!(forced(None).is_loss() && forced(Some("restarting")).is_loss());
        assert!(!forced(Some(r#"{"errorCode":401002}"#)).is_loss());
    }
}
