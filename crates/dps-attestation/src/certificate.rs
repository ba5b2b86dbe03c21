//! The few fields of a certificate that matter before it is sent: names, dates and public key. Whether it is
//! trusted is the service's to say, so whatever is of no concern here may be as it likes.

use std::fmt;

use der::{
    DateTime, Tag, Tagged,
    asn1::{AnyRef, BitStringRef, GeneralizedTime, ObjectIdentifier, UtcTime},
};
use dps_state_machine::Printable;

use crate::shape::{Fields, whole};

/// What is read of a certificate (RFC 5280, version 1 or 3).
#[derive(Debug)]
pub(crate) struct Certificate {
    pub(crate) subject: Name,
    pub(crate) issuer: Name,
    pub(crate) not_before: DateTime,
    pub(crate) not_after: DateTime,
    /// The bits of the public key, without its algorithm.
    pub(crate) public_key: Vec<u8>,
}

impl Certificate {
    /// `None` when the bytes are no certificate, or not only one.
    pub(crate) fn parse(der: &[u8]) -> Option<Self> {
        let mut fields = Self::fields(Fields::of(whole(der)?).next()?);
        let _serial_number = fields.next()?;
        let _signature_algorithm = fields.next()?;
        let issuer = Name::parse(fields.next()?)?;
        let mut validity = Fields::of(fields.next()?);
        let not_before = date(validity.next()?)?;
        let not_after = date(validity.next()?)?;
        let subject = Name::parse(fields.next()?)?;
        let public_key = public_key_bits(fields.next()?)?;
        Some(Self { subject, issuer, not_before, not_after, public_key })
    }

    /// The fields of what is signed, from the serial number on: the version, which is there when it isn't 1, is skipped.
    pub(crate) fn fields(content: AnyRef<'_>) -> impl Iterator<Item = AnyRef<'_>> {
        let mut fields = Fields::of(content).peekable();
        fields.next_if(|field| matches!(field.tag(), Tag::ContextSpecific { .. }));
        fields
    }

    pub(crate) fn is_self_signed(&self) -> bool {
        self.issuer.is(&self.subject)
    }
}

/// The key's bits out of a SubjectPublicKeyInfo.
pub(crate) fn public_key_bits(info: AnyRef<'_>) -> Option<Vec<u8>> {
    let bits: BitStringRef<'_> = Fields::of(info).nth(1)?.decode_as().ok()?;
    Some(bits.raw_bytes().to_vec())
}

fn date(value: AnyRef<'_>) -> Option<DateTime> {
    match value.tag() {
        Tag::UtcTime => value.decode_as::<UtcTime>().ok().map(|time| time.to_date_time()),
        _ => value.decode_as::<GeneralizedTime>().ok().map(|time| time.to_date_time()),
    }
}

/// A distinguished name: its attributes in order.
#[derive(Debug)]
pub(crate) struct Name(Vec<(ObjectIdentifier, String)>);

impl Name {
    const COMMON_NAME: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.4.3");

    fn parse(name: AnyRef<'_>) -> Option<Self> {
        if name.tag() != Tag::Sequence {
            return None;
        }
        let attributes = Fields::of(name).flat_map(Fields::of).map(|attribute| {
            let mut parts = Fields::of(attribute);
            Some((parts.next()?.decode_as().ok()?, text(parts.next()?)))
        });
        attributes.collect::<Option<_>>().map(Self)
    }

    /// The first common name.
    pub(crate) fn common_name(&self) -> Option<&str> {
        self.common_names().next()
    }

    pub(crate) fn common_names(&self) -> impl Iterator<Item = &str> {
        let of_kind = self.0.iter().filter(|(kind, _)| *kind == Self::COMMON_NAME);
        of_kind.map(|(_, text)| text.as_str())
    }

    /// What is wrong when the common name isn't the registration id, without regard to case.
    pub(crate) fn common_name_fault(&self, registration_id: &str) -> Option<String> {
        match self.common_name() {
            Some(name) if name.eq_ignore_ascii_case(registration_id) => None,
            Some(_) => Some(format!(
                "its common name must be the registration id, which is {registration_id:?}"
            )),
            None => Some(format!(
                "it has no common name; that must be the registration id, {registration_id:?}"
            )),
        }
    }

    /// Whether both name the same one: string types, case and runs of spaces aside (RFC 5280, section 7.1).
    pub(crate) fn is(&self, other: &Self) -> bool {
        let folded = |name: &Self| {
            let fold =
                |text: &str| text.to_lowercase().split_whitespace().collect::<Vec<_>>().join(" ");
            name.0.iter().map(|(kind, text)| (*kind, fold(text))).collect::<Vec<_>>()
        };
        folded(self) == folded(other)
    }
}

impl fmt::Display for Name {
    /// The common name, or else all there is, in one line.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(common_name) = self.common_name() {
            return write!(f, "CN={}", Printable::whole(common_name));
        }
        if self.0.is_empty() {
            return f.write_str("an empty name");
        }
        for (index, (kind, text)) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}={}", short(*kind), Printable::whole(text))?;
        }
        Ok(())
    }
}

fn short(kind: ObjectIdentifier) -> String {
    match kind.to_string().as_str() {
        "2.5.4.5" => "serialNumber".into(),
        "2.5.4.6" => "C".into(),
        "2.5.4.7" => "L".into(),
        "2.5.4.8" => "ST".into(),
        "2.5.4.10" => "O".into(),
        "2.5.4.11" => "OU".into(),
        other => other.into(),
    }
}

fn text(value: AnyRef<'_>) -> String {
    let bytes = value.value();
    match value.tag() {
        Tag::BmpString => {
            let units = bytes
                .chunks(2)
                .map(|pair| pair.iter().fold(0u16, |unit, byte| unit << 8 | u16::from(*byte)));
            char::decode_utf16(units).map(|c| c.unwrap_or(char::REPLACEMENT_CHARACTER)).collect()
        }
        // In practice Latin-1, whose codes are Unicode's.
        Tag::TeletexString => bytes.iter().copied().map(char::from).collect(),
        _ => String::from_utf8_lossy(bytes).into_owned(),
    }
}
