//! A certificate with its signature, and what it says of itself as an authority.

use std::time::SystemTime;

use der::{
    Tag, TagNumber, Tagged,
    asn1::{AnyRef, BitStringRef, ObjectIdentifier},
};
use dps_state_machine::{ConfigurationError, Error};
use webpki::ALL_VERIFICATION_ALGS;

use crate::{
    certificate::Certificate,
    chain::out_of_date,
    der_writer::{SEQUENCE, value},
    shape::{Fields, whole},
};

/// One of the certificates that came.
pub(super) struct Signed {
    /// Its place among them, for errors: `number 2 of 3`.
    place: String,
    pub(super) der: Vec<u8>,
    pub(super) certificate: Certificate,
    /// The public key with its algorithm, in DER.
    pub(super) public_key_info: Vec<u8>,
    key_algorithm: Vec<u8>,
    /// What the signature is over.
    content: Vec<u8>,
    algorithm: Vec<u8>,
    signature: Vec<u8>,
    authority: Authority,
}

/// What the extensions say (RFC 5280, sections 4.2.1.3 and 4.2.1.9).
#[derive(Default)]
struct Authority {
    is_one: bool,
    /// How many authorities may stand between it and a leaf.
    path_length: Option<u8>,
    /// Without the extension any use is allowed.
    usage_forbids: bool,
}

impl Signed {
    pub(super) fn parse(der: &[u8], place: String) -> Result<Self, Error> {
        Self::read(der, &place).ok_or_else(|| {
            let reason = "it is damaged, cut short, or no certificate in DER at all; register again to get another";
            ConfigurationError::new("issued certificate", &place, reason).into()
        })
    }

    fn read(der: &[u8], place: &str) -> Option<Self> {
        let certificate = Certificate::parse(der)?;
        let mut parts = Fields::of(whole(der)?);
        let (content, algorithm, signature) = (parts.next()?, parts.next()?, parts.next()?);
        let signature: BitStringRef<'_> = signature.decode_as().ok()?;
        // After the serial number, the algorithm, the issuer, the validity and the subject.
        let mut fields = Certificate::fields(content).skip(5);
        let info = fields.next()?;
        let extensions = fields.find(|field| is_explicit(*field, TagNumber(3)));
        Some(Self {
            place: place.to_owned(),
            der: der.to_vec(),
            public_key_info: sequence(info),
            key_algorithm: Fields::of(info).next()?.value().to_vec(),
            content: sequence(content),
            algorithm: algorithm.value().to_vec(),
            signature: signature.raw_bytes().to_vec(),
            authority: extensions.map(Authority::read).unwrap_or_default(),
            certificate,
        })
    }

    pub(super) fn is_signed_by(&self, issuer: &Self) -> bool {
        ALL_VERIFICATION_ALGS.iter().any(|known| {
            known.signature_alg_id().as_ref() == self.algorithm
                && known.public_key_alg_id().as_ref() == issuer.key_algorithm
                && known
                    .verify_signature(
                        &issuer.certificate.public_key,
                        &self.content,
                        &self.signature,
                    )
                    .is_ok()
        })
    }

    /// Why it may not have issued another, with so many authorities between it and the leaf.
    pub(super) fn why_not_issuer(&self, between: usize) -> Option<String> {
        let Authority { is_one, path_length, usage_forbids } = self.authority;
        if !is_one {
            return Some(
                "it issued another one and is no authority's (its basic constraints don't say so)"
                    .into(),
            );
        }
        if usage_forbids {
            return Some("it issued another one, which its key usage doesn't allow".into());
        }
        let allowed = path_length.filter(|allowed| between > usize::from(*allowed))?;
        Some(format!(
            "it allows {allowed} authorities between it and the device, and there are {between}"
        ))
    }

    /// Whether it says that it is an authority.
    pub(super) fn is_authority(&self) -> bool {
        self.authority.is_one
    }

    /// Whether it can be an issuer, as far as it says by itself.
    pub(super) fn is_usable(&self, now: SystemTime) -> bool {
        self.why_not_issuer(0).is_none() && out_of_date(&self.certificate, now).is_none()
    }

    /// An error about it.
    pub(super) fn wrong(&self, reason: &str) -> Error {
        let value = format!("{}, {}", self.place, self.certificate.subject);
        ConfigurationError::new("issued certificate", value, reason).into()
    }
}

impl Authority {
    const BASIC_CONSTRAINTS: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.19");
    const KEY_USAGE: ObjectIdentifier = ObjectIdentifier::new_unwrap("2.5.29.15");

    fn read(extensions: AnyRef<'_>) -> Self {
        let constraints = extension(extensions, Self::BASIC_CONSTRAINTS);
        let mut constraints = constraints.into_iter().flat_map(Fields::of);
        let is_one = constraints.next().and_then(|field| field.decode_as().ok()).unwrap_or(false);
        let path_length = constraints.next().and_then(|field| field.decode_as().ok());
        // The sixth bit is keyCertSign.
        let usage = extension(extensions, Self::KEY_USAGE);
        let may_sign = |usage: AnyRef<'_>| {
            let bits: Option<BitStringRef<'_>> = usage.decode_as().ok();
            bits.and_then(|bits| bits.raw_bytes().first().copied())
                .is_some_and(|byte| byte & 4 != 0)
        };
        Self { is_one, path_length, usage_forbids: !usage.is_none_or(may_sign) }
    }
}

/// The content of an extension.
fn extension(extensions: AnyRef<'_>, wanted: ObjectIdentifier) -> Option<AnyRef<'_>> {
    let mut list = Fields::of(extensions).flat_map(Fields::of);
    let content = list.find_map(|extension| {
        let mut parts = Fields::of(extension);
        let kind: ObjectIdentifier = parts.next()?.decode_as().ok()?;
        // Whether it is critical may stand between.
        (kind == wanted).then(|| parts.last())?
    });
    whole(content?.value())
}

fn is_explicit(field: AnyRef<'_>, wanted: TagNumber) -> bool {
    matches!(field.tag(), Tag::ContextSpecific { number, .. } if number == wanted)
}

/// It in DER, with its head.
fn sequence(read: AnyRef<'_>) -> Vec<u8> {
    value(SEQUENCE, &[read.value()]).to_vec()
}
