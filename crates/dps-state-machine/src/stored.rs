//! How serde stores what has no form of its own there. Any format reads back what it wrote.

use alloc::{borrow::Cow, string::String, vec::Vec};

use serde::{Deserialize, Deserializer, Serialize, Serializer, de::Error as _};

/// JSON as its text: the numbers stay as they are written, whatever the format makes of numbers.
pub(crate) mod json {
    use super::*;
    use crate::json::Json;

    pub(crate) fn serialize<S: Serializer>(json: &Option<Json>, to: S) -> Result<S::Ok, S::Error> {
        json.as_ref().map(|json| json.get()).serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<Json>, D::Error> {
        let text = Option::<Cow<'de, str>>::deserialize(from)?;
        text.map(|text| text.parse().map_err(D::Error::custom)).transpose()
    }
}

/// A trust bundle as its JSON.
pub(crate) mod trust_bundle {
    use super::*;
    use crate::certificates::TrustBundle;

    pub(crate) fn serialize<S: Serializer>(
        bundle: &Option<TrustBundle>,
        to: S,
    ) -> Result<S::Ok, S::Error> {
        json::serialize(&bundle.as_ref().map(|bundle| bundle.json.clone()), to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Option<TrustBundle>, D::Error> {
        Ok(json::deserialize(from)?.map(|json| TrustBundle::read(&json)))
    }
}

/// Certificates as base64 of their DER.
pub(crate) mod certificates {
    use base64::{Engine as _, engine::general_purpose::STANDARD};

    use super::*;

    pub(crate) fn serialize<S: Serializer>(
        certificates: &[Vec<u8>],
        to: S,
    ) -> Result<S::Ok, S::Error> {
        let texts: Vec<String> = certificates.iter().map(|der| STANDARD.encode(der)).collect();
        texts.serialize(to)
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(
        from: D,
    ) -> Result<Vec<Vec<u8>>, D::Error> {
        let texts = Vec::<String>::deserialize(from)?;
        texts.iter().map(|text| STANDARD.decode(text).map_err(D::Error::custom)).collect()
    }
}

/// Bytes as a text where they are one and people may read it, otherwise as numbers.
pub(crate) mod body {
    use super::*;

    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Body {
        Text(String),
        Bytes(Vec<u8>),
    }

    pub(crate) fn serialize<S: Serializer>(body: &[u8], to: S) -> Result<S::Ok, S::Error> {
        match core::str::from_utf8(body) {
            Ok(text) if to.is_human_readable() => text.serialize(to),
            _ => body.serialize(to),
        }
    }

    pub(crate) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Vec<u8>, D::Error> {
        if !from.is_human_readable() {
            return Vec::deserialize(from);
        }
        Ok(match Body::deserialize(from)? {
            Body::Text(text) => text.into_bytes(),
            Body::Bytes(bytes) => bytes,
        })
    }
}
