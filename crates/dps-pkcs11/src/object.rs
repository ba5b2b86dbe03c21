//! Finding a private key in a token, and what the token says of it.

use cryptoki::{
    mechanism::MechanismType,
    object::{Attribute, AttributeType, KeyType, ObjectClass, ObjectHandle},
    session::Session,
};
use dps_attestation::internal::positive_numbers;
use rustls::{
    pki_types::{SubjectPublicKeyInfoDer, alg_id},
    sign::public_key_to_spki,
};

use crate::{
    Pkcs11Error,
    token::Token,
    uri::{OF_KEY, Pkcs11Uri, pairs},
};

/// A private key, in one session.
pub(crate) struct PrivateKey {
    pub(crate) handle: ObjectHandle,
    pub(crate) kind: Kind,
    /// Its public half; `None` when the token does not say.
    pub(crate) public: Option<SubjectPublicKeyInfoDer<'static>>,
    /// Whether the PIN is given for each signature.
    pub(crate) always_authenticate: bool,
    /// The only mechanisms that it may be used with, unless empty.
    pub(crate) mechanisms: Vec<MechanismType>,
    /// As a URI names it.
    pub(crate) name: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    Rsa,
    P256,
    P384,
}

const TAKEN: &str = "give an RSA key of 2048 to 4096 bits, or one on P-256 or P-384";

impl PrivateKey {
    /// The one that the URI wants.
    pub(crate) fn find(
        session: &Session,
        token: &Token,
        uri: &Pkcs11Uri,
    ) -> Result<Self, Pkcs11Error> {
        let failed = |failure| token.failed(&failure);
        let private = Attribute::Class(ObjectClass::PRIVATE_KEY);
        let mut template = vec![private.clone()];
        template.extend(uri.bytes("object").map(|label| Attribute::Label(label.to_vec())));
        template.extend(uri.bytes("id").map(|id| Attribute::Id(id.to_vec())));
        let found = session.find_objects(&template).map_err(failed)?;
        let (wanted, label) = (uri.part(OF_KEY), token.label.clone());
        let names = |handles: &[ObjectHandle]| -> Result<Vec<String>, Pkcs11Error> {
            let of = |handle: &ObjectHandle| Ok(Facts::read(session, token, *handle)?.name());
            handles.iter().map(of).collect()
        };
        match found.as_slice() {
            [handle] => Self::examine(session, token, *handle),
            [] => {
                let all = session.find_objects(&[private]).map_err(failed)?;
                Err(Pkcs11Error::NoKey { token: label, wanted, found: names(&all)? })
            }
            several => {
                Err(Pkcs11Error::SeveralKeys { token: label, wanted, found: names(several)? })
            }
        }
    }

    fn examine(
        session: &Session,
        token: &Token,
        handle: ObjectHandle,
    ) -> Result<Self, Pkcs11Error> {
        let facts = Facts::read(session, token, handle)?;
        let unusable = |reason: String| Pkcs11Error::UnusableKey {
            token: token.label.clone(),
            key: facts.name(),
            reason,
        };
        if !facts.may_sign {
            return Err(unusable("it may not sign (CKA_SIGN is false)".to_owned()));
        }
        let public = facts.public_half(session, token)?;
        let public = public.as_ref().unwrap_or(&facts);
        // The private object need not have them.
        let of_either = |get: fn(&Facts) -> &[u8]| Some(get(&facts)).filter(|it| !it.is_empty());
        let (kind, spki) = if facts.kind == Some(KeyType::RSA) {
            let modulus = of_either(|it| &it.modulus).unwrap_or(&public.modulus);
            let bits = 8 * modulus.iter().skip_while(|byte| **byte == 0).count();
            if !modulus.is_empty() && !(2048..=4096).contains(&bits) {
                return Err(unusable(format!("it is an RSA key of {bits} bits; {TAKEN}")));
            }
            (Kind::Rsa, public.rsa())
        } else if facts.kind == Some(KeyType::EC) {
            let curve = of_either(|it| &it.curve).unwrap_or(&public.curve);
            let kind = curve_of(curve).ok_or_else(|| {
                unusable(format!("it is on another curve than P-256 and P-384; {TAKEN}"))
            })?;
            (kind, public.ec(kind))
        } else {
            return Err(unusable(format!(
                "it is neither an RSA nor an elliptic-curve key; {TAKEN}"
            )));
        };
        Ok(Self {
            handle,
            kind,
            public: spki.or_else(|| facts.info()),
            always_authenticate: facts.always_authenticate,
            name: facts.name(),
            mechanisms: facts.mechanisms,
        })
    }
}

/// What a token says of an object; what it does not say is empty.
#[derive(Default)]
struct Facts {
    label: Vec<u8>,
    id: Vec<u8>,
    kind: Option<KeyType>,
    may_sign: bool,
    always_authenticate: bool,
    mechanisms: Vec<MechanismType>,
    modulus: Vec<u8>,
    exponent: Vec<u8>,
    /// CKA_EC_PARAMS.
    curve: Vec<u8>,
    /// CKA_EC_POINT.
    point: Vec<u8>,
    /// CKA_PUBLIC_KEY_INFO.
    info: Vec<u8>,
}

impl Facts {
    fn read(session: &Session, token: &Token, handle: ObjectHandle) -> Result<Self, Pkcs11Error> {
        const NEEDED: &[AttributeType] =
            &[AttributeType::KeyType, AttributeType::Label, AttributeType::Id];
        /// Some modules fail when an object can't have such an attribute.
        const OPTIONAL: &[AttributeType] = &[
            AttributeType::Sign,
            AttributeType::AlwaysAuthenticate,
            AttributeType::AllowedMechanisms,
            AttributeType::Modulus,
            AttributeType::PublicExponent,
            AttributeType::EcParams,
            AttributeType::EcPoint,
            AttributeType::PublicKeyInfo,
        ];
        let mut facts = Self { may_sign: true, ..Self::default() };
        let needed =
            session.get_attributes(handle, NEEDED).map_err(|failure| token.failed(&failure))?;
        let one =
            |kind: &AttributeType| session.get_attributes(handle, &[*kind]).unwrap_or_default();
        for attribute in needed.into_iter().chain(OPTIONAL.iter().flat_map(one)) {
            match attribute {
                Attribute::KeyType(kind) => facts.kind = Some(kind),
                Attribute::Label(label) => facts.label = label,
                Attribute::Id(id) => facts.id = id,
                Attribute::Sign(may_sign) => facts.may_sign = may_sign,
                Attribute::AlwaysAuthenticate(always) => facts.always_authenticate = always,
                Attribute::AllowedMechanisms(mechanisms) => facts.mechanisms = mechanisms,
                Attribute::Modulus(modulus) => facts.modulus = modulus,
                Attribute::PublicExponent(exponent) => facts.exponent = exponent,
                Attribute::EcParams(curve) => facts.curve = curve,
                Attribute::EcPoint(point) => facts.point = point,
                Attribute::PublicKeyInfo(info) => facts.info = info,
                _ => {}
            }
        }
        Ok(facts)
    }

    /// The public key beside a private one: it has the same id, or else the same label.
    fn public_half(&self, session: &Session, token: &Token) -> Result<Option<Self>, Pkcs11Error> {
        let mut template = vec![Attribute::Class(ObjectClass::PUBLIC_KEY)];
        template.extend(self.kind.map(Attribute::KeyType));
        template.push(match self.id.is_empty() {
            true => Attribute::Label(self.label.clone()),
            false => Attribute::Id(self.id.clone()),
        });
        let found = session.find_objects(&template).map_err(|failure| token.failed(&failure))?;
        match found.as_slice() {
            [only] => Self::read(session, token, *only).map(Some),
            _ => Ok(None),
        }
    }

    fn name(&self) -> String {
        let named = [("object", self.label.as_slice()), ("id", self.id.as_slice())];
        let name = pairs(named.into_iter().filter(|(_, value)| !value.is_empty()));
        if name.is_empty() { "a key without label and id".to_owned() } else { name }
    }

    fn rsa(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        if self.modulus.is_empty() || self.exponent.is_empty() {
            return None;
        }
        let key = positive_numbers([&self.modulus, &self.exponent]);
        Some(public_key_to_spki(&alg_id::RSA_ENCRYPTION, key))
    }

    fn ec(&self, kind: Kind) -> Option<SubjectPublicKeyInfoDer<'static>> {
        let (algorithm, length) = match kind {
            Kind::P384 => (&alg_id::ECDSA_P384, 97),
            _ => (&alg_id::ECDSA_P256, 65),
        };
        Some(public_key_to_spki(algorithm, uncompressed(&self.point, length)?))
    }

    fn info(&self) -> Option<SubjectPublicKeyInfoDer<'static>> {
        (!self.info.is_empty()).then(|| self.info.clone().into())
    }
}

/// A point of this length, which is DER of an OCTET STRING in the standard, and is bare in some tokens.
fn uncompressed(point: &[u8], length: usize) -> Option<&[u8]> {
    let bare = match point {
        [4, size, bare @ ..] if bare.len() == length && usize::from(*size) == length => bare,
        bare => bare,
    };
    (bare.len() == length && bare.first() == Some(&4)).then_some(bare)
}

/// By the name of a curve as CKA_EC_PARAMS has it: an OBJECT IDENTIFIER, or a PrintableString.
fn curve_of(parameters: &[u8]) -> Option<Kind> {
    match parameters {
        [6, 8, 0x2a, 0x86, 0x48, 0xce, 0x3d, 3, 1, 7]
        | b"\x13\x09secp256r1"
        | b"\x13\x0aprime256v1" => Some(Kind::P256),
        [6, 5, 0x2b, 0x81, 4, 0, 0x22] | b"\x13\x09secp384r1" => Some(Kind::P384),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_point_is_read_with_and_without_its_frame() {
        for length in [65, 97] {
            let mut bare = vec![7; length];
            bare[0] = 4;
            let framed = [&[4, u8::try_from(length).unwrap()], bare.as_slice()].concat();
            assert_eq!(uncompressed(&bare, length), Some(bare.as_slice()));
            assert_eq!(uncompressed(&framed, length), Some(bare.as_slice()));
            // A bare point whose second byte looks like a length.
            let mut like = bare.clone();
            like[1] = u8::try_from(length - 2).unwrap();
            assert_eq!(uncompressed(&like, length), Some(like.as_slice()));
            assert_eq!(uncompressed(&bare[..length - 1], length), None);
            assert_eq!(uncompressed(&[2; 33], length), None);
            assert_eq!(uncompressed(&[], length), None);
        }
    }

    #[test]
    fn a_key_is_named_as_in_a_uri() {
        let facts = Facts { label: b"my key".to_vec(), id: vec![1], ..Facts::default() };
        assert_eq!(facts.name(), "object=my%20key;id=%01");
        assert_eq!(Facts::default().name(), "a key without label and id");
    }
}
