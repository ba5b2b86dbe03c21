//! Certificates that the service issues: what a device asks for, and what an answer brings.

use alloc::{
    format,
    string::{String, ToString},
    vec::Vec,
};
use core::fmt;

use base64::{Engine, engine::general_purpose::STANDARD};
use serde::{Deserialize, Serialize};
use serde_json::value::RawValue;

use crate::{
    body::Object,
    error::{ConfigurationError, Error},
    json::Json,
    printable::Printable,
    stored,
};

/// A certificate signing request: PKCS#10 in DER, whose common name is the registration id.
///
/// See <https://www.rfc-editor.org/rfc/rfc2986>.
#[derive(Clone, PartialEq, Eq)]
pub struct CertificateRequest(Vec<u8>);

impl CertificateRequest {
    /// Takes DER. Only its outermost frame is looked at here: the service judges the rest.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the bytes are PEM, are cut short or have something behind them.
    pub fn from_der(der: impl Into<Vec<u8>>) -> Result<Self, Error> {
        let der = der.into();
        let wrong = |reason: &str| ConfigurationError::new("certificate request", "", reason);
        if der.starts_with(b"-----BEGIN") {
            return Err(wrong("it is PEM; give the DER that its base64 stands for").into());
        }
        match framed(&der) {
            Some(length) if length == der.len() => Ok(Self(der)),
            Some(length) => {
                let reason = format!("its DER says {length} bytes and {} are there", der.len());
                Err(wrong(&reason).into())
            }
            None => Err(wrong("it is no PKCS#10 request in DER").into()),
        }
    }

    /// The DER.
    #[must_use]
    pub fn der(&self) -> &[u8] {
        &self.0
    }

    /// As the body of a request has it: base64 of the DER, in one line and without armor.
    #[doc(hidden)]
    #[must_use]
    pub fn to_base64(&self) -> String {
        STANDARD.encode(&self.0)
    }
}

impl fmt::Debug for CertificateRequest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "CertificateRequest({} bytes)", self.0.len())
    }
}

/// How many bytes a DER sequence says that it has, its head among them.
fn framed(der: &[u8]) -> Option<usize> {
    let (&tag, rest) = der.split_first()?;
    let (&first, rest) = rest.split_first()?;
    if tag != 0x30 {
        return None;
    }
    if first < 0x80 {
        return Some(2 + usize::from(first));
    }
    let count = usize::from(first & 0x7f);
    let digits = rest.get(..count).filter(|_| (1..=3).contains(&count))?;
    let length = digits.iter().fold(0, |length, digit| length << 8 | usize::from(*digit));
    Some(2 + count + length)
}

/// What came of the request for a certificate.
#[derive(Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
#[non_exhaustive]
pub enum IssuedCertificates {
    /// None was asked for, and none came.
    #[default]
    NotRequested,
    /// The chain, each certificate in DER, in the order of the answer. The service's contract defines no order: tell
    /// the certificates apart by their keys and signatures.
    Issued(#[serde(with = "stored::certificates")] Vec<Vec<u8>>),
    /// The device is assigned, and the certificate that it asked for did not come: the enrollment has no policy for
    /// issuing any.
    Missing,
    /// The device is assigned, and what came in the place of the chain can't be read.
    Unreadable {
        /// What is wrong with it.
        reason: String,
    },
}

impl IssuedCertificates {
    pub(crate) fn read(state: &Object<'_>) -> Self {
        Self::read_field(state, "issuedCertificateChain")
    }

    /// The chain in the answer of a hub.
    #[doc(hidden)]
    #[must_use]
    pub fn from_hub(body: &[u8]) -> Self {
        let text = String::from_utf8_lossy(body);
        match Self::read_field(&Object::read(&text).unwrap_or_default(), "certificates") {
            Self::NotRequested => Self::Missing,
            other => other,
        }
    }

    fn read_field(object: &Object<'_>, field: &str) -> Self {
        let Some(chain) = object.get(field) else { return Self::NotRequested };
        let wrong = |reason: String| Self::Unreadable { reason };
        let Ok(chain) = serde_json::from_str::<Vec<String>>(chain.get()) else {
            return wrong(format!("{field} is no list of texts"));
        };
        let decoded = chain.iter().map(|text| STANDARD.decode(text)).collect::<Result<Vec<_>, _>>();
        match decoded {
            Ok(chain) if chain.is_empty() => Self::NotRequested,
            Ok(chain) => Self::Issued(chain),
            Err(_) => wrong(format!("a certificate of {field} is no base64")),
        }
    }

    /// The certificates that came, each in DER; none where none came.
    #[must_use]
    pub fn chain(&self) -> &[Vec<u8>] {
        match self {
            Self::Issued(chain) => chain,
            _ => &[],
        }
    }
}

/// The certificates by their number.
impl fmt::Debug for IssuedCertificates {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NotRequested => f.write_str("NotRequested"),
            Self::Issued(chain) => write!(f, "Issued({} certificates)", chain.len()),
            Self::Missing => f.write_str("Missing"),
            Self::Unreadable { reason } => write!(f, "Unreadable({reason:?})"),
        }
    }
}

/// The certificates that the device is to trust, as the api-version `2021-11-01-preview` has them.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustBundle {
    /// Its name.
    pub id: Option<String>,
    /// The version of its content.
    pub etag: Option<String>,
    /// When it was made, as the service writes it.
    pub created: Option<String>,
    /// When it was changed last, as the service writes it.
    pub last_modified: Option<String>,
    /// The certificates.
    pub certificates: Vec<TrustedCertificate>,
    /// The whole of it to the letter, with all that this type doesn't know.
    pub json: Json,
}

/// One certificate of a [`TrustBundle`].
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub struct TrustedCertificate {
    /// The certificate in PEM.
    pub pem: String,
    /// What the service says of it.
    pub metadata: Option<Json>,
}

impl TrustBundle {
    pub(crate) fn read(json: &RawValue) -> Self {
        let bundle = Object::read(json.get()).unwrap_or_default();
        let certificates = bundle.get("certificates");
        let certificates: Vec<&RawValue> =
            certificates.and_then(|list| serde_json::from_str(list.get()).ok()).unwrap_or_default();
        let certificates = certificates.into_iter().filter_map(|certificate| {
            let certificate = Object::read(certificate.get()).ok()?;
            let metadata = certificate.get("metadata").map(Json::from);
            Some(TrustedCertificate { pem: certificate.text("certificate")?, metadata })
        });
        Self {
            id: bundle.text("id"),
            etag: bundle.text("etag"),
            created: bundle.text("createdDateTime"),
            last_modified: bundle.text("lastModifiedDateTime"),
            certificates: certificates.collect(),
            json: json.into(),
        }
    }
}

/// How the device is to connect to its hub. An answer without one means [`Classic`](Self::Classic). New words may
/// appear.
#[derive(Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
#[non_exhaustive]
pub enum ConnectionProfile {
    /// `classic`
    Classic,
    /// `mqttV5`
    MqttV5,
    /// What this version doesn't know: a word as the service wrote it, or the JSON of what is no word.
    Other(String),
}

impl ConnectionProfile {
    const KNOWN: [Self; 2] = [Self::Classic, Self::MqttV5];

    /// The word as the service writes it.
    #[must_use]
    pub fn as_str(&self) -> &str {
        match self {
            Self::Classic => "classic",
            Self::MqttV5 => "mqttV5",
            Self::Other(word) => word,
        }
    }

    pub(crate) fn read(state: &Object<'_>) -> Option<Self> {
        const NAME: &str = "connectionProfile";
        let json = state.get(NAME)?;
        let word = state.text(NAME).unwrap_or_else(|| json.get().to_string());
        Some(word.into())
    }
}

impl From<String> for ConnectionProfile {
    fn from(word: String) -> Self {
        let known = Self::KNOWN.into_iter().find(|known| word.eq_ignore_ascii_case(known.as_str()));
        known.unwrap_or(Self::Other(word))
    }
}

impl From<ConnectionProfile> for String {
    fn from(profile: ConnectionProfile) -> Self {
        profile.as_str().to_string()
    }
}

impl fmt::Debug for ConnectionProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        Printable::brief(self.as_str()).fmt(f)
    }
}

impl fmt::Display for ConnectionProfile {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use alloc::vec;

    #[test]
    fn a_request_is_one_whole_der_sequence() {
        let long = [&[0x30, 0x81, 0x80][..], &[0; 0x80]].concat();
        for good in [vec![0x30, 0], vec![0x30, 1, 7], long] {
            assert_eq!(CertificateRequest::from_der(good.clone()).unwrap().der(), good);
        }
        for (bad, says) in [
            (&b""[..], "no PKCS#10"),
            (&b"-----BEGIN CERTIFICATE REQUEST-----"[..], "it is PEM"),
            (&[0x31, 0], "no PKCS#10"),
            (&[0x30, 0x80, 0, 0], "no PKCS#10"),
            (&[0x30, 0x84, 0, 0, 0, 0], "no PKCS#10"),
            (&[0x30, 2, 0], "says 4 bytes and 3"),
            (&[0x30, 0, 0], "says 2 bytes and 3"),
        ] {
            let error = CertificateRequest::from_der(bad).unwrap_err().to_string();
            assert!(error.starts_with("certificate request: ") && error.contains(says), "{error}");
        }
    }

    #[test]
    fn a_chain_is_a_list_of_base64() {
        use IssuedCertificates::{Issued, NotRequested, Unreadable};
        let list = "issuedCertificateChain is no list of texts";
        let base64 = "a certificate of issuedCertificateChain is no base64";
        let unreadable = |reason: &str| Unreadable { reason: reason.to_string() };
        for (json, read) in [
            ("{}", NotRequested),
            (r#"{"issuedCertificateChain":null}"#, NotRequested),
            (r#"{"issuedCertificateChain":[]}"#, NotRequested),
            (
                r#"{"issuedCertificateChain":["MAA=","MAEH"]}"#,
                Issued(vec![vec![0x30, 0], vec![0x30, 1, 7]]),
            ),
            (r#"{"issuedCertificateChain":"MAA="}"#, unreadable(list)),
            (r#"{"issuedCertificateChain":["MAA=",5]}"#, unreadable(list)),
            (r#"{"issuedCertificateChain":["MAA=","MAA"]}"#, unreadable(base64)),
        ] {
            assert_eq!(IssuedCertificates::read(&Object::read(json).unwrap()), read, "{json}");
        }
    }

    #[test]
    fn profiles_and_bundles_keep_what_is_unknown() {
        let profile = |json: &str| {
            ConnectionProfile::read(&Object::read(json).unwrap()).map(|p| p.to_string())
        };
        for (json, read) in [
            ("{}", None),
            (r#"{"connectionProfile":null}"#, None),
            (r#"{"connectionProfile":"CLASSIC"}"#, Some("classic")),
            (r#"{"connectionProfile":"mqttV5"}"#, Some("mqttV5")),
            (r#"{"connectionProfile":"mqttV9"}"#, Some("mqttV9")),
            (r#"{"connectionProfile":{"a": 1}}"#, Some(r#"{"a": 1}"#)),
        ] {
            assert_eq!(profile(json).as_deref(), read, "{json}");
        }
        let json = r#"{"id":"b","etag":5,"new": [1],"certificates":[{"certificate":"PEM","metadata":{"a": 1}},7,{}]}"#;
        let bundle = TrustBundle::read(serde_json::from_str(json).unwrap());
        assert_eq!((bundle.id.as_deref(), bundle.etag.as_deref()), (Some("b"), None));
        assert_eq!(bundle.json.get(), json);
        let [only] = &bundle.certificates[..] else { panic!("{bundle:?}") };
        assert_eq!(only.pem, "PEM");
        assert_eq!(only.metadata.as_ref().unwrap().get(), r#"{"a": 1}"#);
    }
}
