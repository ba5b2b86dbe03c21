//! The keys that are made from the seed of a TPM: what they look like, and what else was found in their place.

use tpm2_protocol::{
    TpmResult, TpmSized, TpmUnmarshal,
    basic::{TpmUint16, TpmUint32},
    data::{
        Tpm2bDigest, Tpm2bPublicKeyRsa, TpmAlgId, TpmEccCurve, TpmaObject, TpmsEccParms,
        TpmsRsaParms, TpmtPublic, TpmtSymDef, TpmuPublicId, TpmuPublicParms, TpmuSymKeyBits,
        TpmuSymMode,
    },
};

/// PolicySecret of the endorsement hierarchy: who knows its password may use the key.
const ENDORSEMENT_POLICY: [u8; 32] = [
    0x83, 0x71, 0x97, 0x67, 0x44, 0x84, 0xb3, 0xf8, 0x1a, 0x90, 0xcc, 0x8d, 0x46, 0xa5, 0xd7, 0x24,
    0xfd, 0x52, 0xd7, 0x6e, 0x06, 0x52, 0x0b, 0x64, 0xf2, 0xa1, 0xda, 0x1b, 0x33, 0x14, 0x69, 0xaa,
];

/// The endorsement key of the TCG EK Credential Profile, template L-1, which the manufacturer's certificate is for.
/// Its `unique` is 256 zero bytes: with an empty one the TPM makes another key.
///
/// See <https://trustedcomputinggroup.org/resource/tcg-ek-credential-profile-for-tpm-family-2-0/>.
pub(crate) fn endorsement_key() -> TpmResult<TpmtPublic> {
    let attributes = storage_attributes() | TpmaObject::ADMIN_WITH_POLICY;
    Ok(TpmtPublic {
        object_attributes: attributes,
        auth_policy: Tpm2bDigest::try_from(&ENDORSEMENT_POLICY[..])?,
        ..rsa_storage_key(&[0; 256])?
    })
}

/// The storage root key of the TCG TPM v2.0 Provisioning Guidance.
pub(crate) fn storage_root_key() -> TpmResult<TpmtPublic> {
    let attributes = storage_attributes() | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA;
    Ok(TpmtPublic { object_attributes: attributes, ..rsa_storage_key(&[0; 256])? })
}

/// The primary key under which a `TSS2 PRIVATE KEY` file stands when it names a hierarchy as its parent.
///
/// See <https://www.hansenpartnership.com/draft-bottomley-tpm2-keys.html>.
pub(crate) fn key_file_parent() -> TpmtPublic {
    let attributes = storage_attributes() | TpmaObject::USER_WITH_AUTH | TpmaObject::NO_DA;
    TpmtPublic {
        object_type: TpmAlgId::Ecc,
        name_alg: TpmAlgId::Sha256,
        object_attributes: attributes,
        auth_policy: Tpm2bDigest::default(),
        parameters: TpmuPublicParms::Ecc(TpmsEccParms {
            symmetric: aes_128_cfb(),
            curve_id: TpmEccCurve::NistP256,
            ..TpmsEccParms::default()
        }),
        unique: TpmuPublicId::Ecc(tpm2_protocol::data::TpmsEccPoint::default()),
    }
}

fn storage_attributes() -> TpmaObject {
    TpmaObject::FIXED_TPM
        | TpmaObject::FIXED_PARENT
        | TpmaObject::SENSITIVE_DATA_ORIGIN
        | TpmaObject::RESTRICTED
        | TpmaObject::DECRYPT
}

fn rsa_storage_key(unique: &[u8]) -> TpmResult<TpmtPublic> {
    Ok(TpmtPublic {
        object_type: TpmAlgId::Rsa,
        name_alg: TpmAlgId::Sha256,
        object_attributes: TpmaObject::default(),
        auth_policy: Tpm2bDigest::default(),
        parameters: TpmuPublicParms::Rsa(TpmsRsaParms {
            symmetric: aes_128_cfb(),
            key_bits: TpmUint16::new(2048),
            exponent: TpmUint32::new(0),
            ..TpmsRsaParms::default()
        }),
        unique: TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::try_from(unique)?),
    })
}

fn aes_128_cfb() -> TpmtSymDef {
    TpmtSymDef {
        algorithm: TpmAlgId::Aes,
        key_bits: TpmuSymKeyBits::Aes(TpmUint16::new(128)),
        mode: TpmuSymMode::Aes(TpmAlgId::Cfb),
    }
}

/// Reads a whole TPMT_PUBLIC.
pub(crate) fn read(public: &[u8]) -> Option<TpmtPublic> {
    match TpmtPublic::unmarshal(public) {
        Ok((public, [])) => Some(public),
        _ => None,
    }
}

/// Writes a TPMT_PUBLIC.
#[cfg(test)]
pub(crate) fn write(public: &TpmtPublic) -> TpmResult<Vec<u8>> {
    use tpm2_protocol::{TpmMarshal, TpmWriter};
    let mut bytes = vec![0; public.len()];
    public.marshal(&mut TpmWriter::new(&mut bytes))?;
    Ok(bytes)
}

/// How a key differs from its template, whatever the key itself is; `None` when it doesn't.
pub(crate) fn difference(found: &[u8], template: &TpmtPublic) -> Option<String> {
    let Some(key) = read(found) else { return Some("something of an unknown kind".into()) };
    if key.object_type != template.object_type
        || (TpmtPublic { unique: template.unique.clone(), ..key.clone() }) != *template
        || key.unique.len() != template.unique.len()
    {
        return Some(describe(&key, template));
    }
    None
}

fn describe(key: &TpmtPublic, template: &TpmtPublic) -> String {
    let kind = kind(key);
    if kind != self::kind(template) {
        return kind;
    }
    if key.name_alg != template.name_alg {
        format!("{kind} with the hash {}", key.name_alg)
    } else if key.auth_policy != template.auth_policy {
        format!("{kind} with another policy")
    } else if key.object_attributes != template.object_attributes {
        format!("{kind} with the attributes {:#010x}", key.object_attributes.bits())
    } else {
        format!("{kind} with other parameters")
    }
}

/// A key in a few words.
pub(crate) fn kind(key: &TpmtPublic) -> String {
    match &key.parameters {
        TpmuPublicParms::Rsa(rsa) => format!("an RSA key of {} bits", rsa.key_bits.value()),
        TpmuPublicParms::Ecc(ecc) if ecc.curve_id == TpmEccCurve::NistP256 => {
            "an ECC key on P-256".into()
        }
        TpmuPublicParms::Ecc(ecc) => format!("an ECC key ({})", ecc.curve_id),
        TpmuPublicParms::KeyedHash(_)
            if key.object_attributes.contains(TpmaObject::SIGN_ENCRYPT) =>
        {
            "an HMAC key".into()
        }
        TpmuPublicParms::KeyedHash(_) => "sealed data".into(),
        TpmuPublicParms::SymCipher(_) => "a symmetric cipher key".into(),
        TpmuPublicParms::Null => "no key".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    /// As they go to the service (Microsoft's SDKs, and TCG's profile).
    #[test]
    fn the_templates_are_those_of_the_tcg() {
        let key = hex(&write(&endorsement_key().unwrap()).unwrap());
        let expected = "0001000b000300b20020837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa00060080004300100800000000000100";
        assert!(key.starts_with(expected), "{key}");
        assert_eq!(key.len(), 2 * 314);
        let key = hex(&write(&storage_root_key().unwrap()).unwrap());
        assert!(key.starts_with("0001000b00030472000000060080004300100800000000000100"), "{key}");
        assert_eq!(key.len(), 2 * 282);
        let key = hex(&write(&key_file_parent()).unwrap());
        assert_eq!(key, "0023000b000304720000000600800043001000030010".to_owned() + "00000000");
    }

    #[test]
    fn what_differs_from_the_template_is_named() {
        let template = endorsement_key().unwrap();
        let said = |key: TpmtPublic| difference(&write(&key).unwrap(), &template);
        assert_eq!(said(template.clone()), None);
        assert_eq!(said(key_file_parent()).unwrap(), "an ECC key on P-256");
        let policy = Tpm2bDigest::default();
        let other = TpmtPublic { auth_policy: policy, ..template.clone() };
        assert_eq!(said(other).unwrap(), "an RSA key of 2048 bits with another policy");
        let other = storage_root_key().unwrap();
        let message = difference(&write(&other).unwrap(), &template).unwrap();
        assert_eq!(message, "an RSA key of 2048 bits with another policy");
        let other = TpmtPublic { object_attributes: storage_attributes(), ..template.clone() };
        assert_eq!(said(other).unwrap(), "an RSA key of 2048 bits with the attributes 0x00030032");
        let mut parameters =
            TpmsRsaParms { key_bits: TpmUint16::new(3072), ..TpmsRsaParms::default() };
        parameters.symmetric = aes_128_cfb();
        let parameters = TpmuPublicParms::Rsa(parameters);
        let other = TpmtPublic { parameters, ..template.clone() };
        assert_eq!(said(other).unwrap(), "an RSA key of 3072 bits");
        assert_eq!(difference(&[1, 2], &template).unwrap(), "something of an unknown kind");
    }

    #[test]
    fn a_key_of_another_length_than_it_says_is_no_such_key() {
        let template = endorsement_key().unwrap();
        let unique = TpmuPublicId::Rsa(Tpm2bPublicKeyRsa::try_from(&[1; 128][..]).unwrap());
        let other = TpmtPublic { unique, ..template.clone() };
        let message = difference(&write(&other).unwrap(), &template).unwrap();
        assert_eq!(message, "an RSA key of 2048 bits with other parameters");
    }
}
