//! What a DER file is, recognized by its outermost shape: which format a private key has, and what a file is that was
//! given in place of another.

use std::fmt;

use der::{Reader, SliceReader, Tag, Tagged, asn1::AnyRef};

/// What DER bytes look like from outside. Nothing is promised about what is inside.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Shape {
    /// A certificate, a certificate request or a revocation list.
    Signed,
    /// A public key alone.
    PublicKey,
    /// A private key of any kind (RFC 5958).
    Pkcs8,
    /// An RSA private key (RFC 8017).
    Pkcs1,
    /// An elliptic-curve private key (RFC 5915).
    Sec1,
    /// A private key of any kind, encrypted (RFC 5958).
    EncryptedPkcs8,
    /// Keys and certificates together, mostly encrypted (RFC 7292).
    Pkcs12,
    /// A bundle of certificates (RFC 2315).
    Pkcs7,
}

impl Shape {
    /// `None` when it is not DER or like nothing known here.
    pub(crate) fn of(bytes: &[u8]) -> Option<Self> {
        let mut fields = Fields::of(whole(bytes)?);
        let mut next = || fields.next().map(|field| field.tag());
        match (next()?, next()?, next()) {
            (Tag::Sequence, Tag::Sequence, Some(Tag::BitString)) => Some(Self::Signed),
            (Tag::Sequence, Tag::BitString, None) => Some(Self::PublicKey),
            (Tag::Sequence, Tag::OctetString, None) => Some(Self::EncryptedPkcs8),
            (Tag::Integer, Tag::Sequence, Some(Tag::OctetString)) => Some(Self::Pkcs8),
            (Tag::Integer, Tag::Integer, Some(Tag::Integer)) => Some(Self::Pkcs1),
            (Tag::Integer, Tag::OctetString, _) => Some(Self::Sec1),
            (Tag::Integer, Tag::Sequence, _) => Some(Self::Pkcs12),
            (Tag::ObjectIdentifier, Tag::ContextSpecific { .. }, None) => Some(Self::Pkcs7),
            _ => None,
        }
    }
}

impl fmt::Display for Shape {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Signed => "a certificate, a certificate request or a revocation list",
            Self::PublicKey => "a public key",
            Self::Pkcs8 | Self::Pkcs1 | Self::Sec1 => "a private key",
            Self::EncryptedPkcs8 => "an encrypted private key",
            Self::Pkcs12 => "a PKCS#12 bundle (.pfx or .p12)",
            Self::Pkcs7 => "a PKCS#7 bundle (.p7b)",
        })
    }
}

/// The one value that the bytes are, with nothing after it.
pub(crate) fn whole(bytes: &[u8]) -> Option<AnyRef<'_>> {
    let mut reader = SliceReader::new(bytes).ok()?;
    let value = reader.decode().ok()?;
    reader.is_finished().then_some(value)
}

/// The values inside of a constructed one, in order, up to the first that can't be read.
pub(crate) struct Fields<'a>(Option<SliceReader<'a>>);

impl<'a> Fields<'a> {
    pub(crate) fn of(value: AnyRef<'a>) -> Self {
        Self(SliceReader::new(value.value()).ok())
    }
}

impl<'a> Iterator for Fields<'a> {
    type Item = AnyRef<'a>;

    fn next(&mut self) -> Option<AnyRef<'a>> {
        self.0.as_mut()?.decode().ok()
    }
}
