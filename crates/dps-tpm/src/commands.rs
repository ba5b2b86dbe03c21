//! The commands that are needed (TPM 2.0 Library, Part 3), each as it is sent.

use tpm2_protocol::{
    TpmMarshal, TpmResult,
    basic::{TpmInt32, TpmUint16, TpmUint32},
    data::{TpmAlgId, TpmCap, TpmCc, TpmRh, TpmSe, TpmtPublic, TpmtSigScheme},
};

use crate::frame::{Auth, Command, sized};

/// What `GetCapability` may bring at once.
const MANY: u32 = 254;

impl Command {
    pub(crate) fn flush(handle: u32) -> TpmResult<Self> {
        // Not in the handle area, unlike everywhere else.
        Self::new(TpmCc::FlushContext, &[], &[], |to| TpmUint32::new(handle).marshal(to))
    }

    pub(crate) fn handles(first: u32) -> TpmResult<Self> {
        Self::new(TpmCc::GetCapability, &[], &[], |to| {
            TpmCap::Handles.marshal(to)?;
            TpmUint32::new(first).marshal(to)?;
            TpmUint32::new(MANY).marshal(to)
        })
    }

    pub(crate) fn read_public(handle: u32) -> TpmResult<Self> {
        Self::new(TpmCc::ReadPublic, &[handle], &[], |_| Ok(()))
    }

    pub(crate) fn create_primary(
        hierarchy: TpmRh,
        password: &[u8],
        template: &TpmtPublic,
    ) -> TpmResult<Self> {
        let auth = [Auth::Password(password)];
        Self::new(TpmCc::CreatePrimary, &[hierarchy.value()], &auth, |to| {
            TpmUint16::new(4).marshal(to)?; // the size of what follows: no password for the key, no data
            sized(to, &[])?;
            sized(to, &[])?;
            tpm2_protocol::data::Tpm2bPublic { inner: template.clone() }.marshal(to)?;
            sized(to, &[])?;
            TpmUint32::new(0).marshal(to) // no PCR
        })
    }

    pub(crate) fn evict_control(password: &[u8], object: u32, persistent: u32) -> TpmResult<Self> {
        let handles = [TpmRh::Owner.value(), object];
        Self::new(TpmCc::EvictControl, &handles, &[Auth::Password(password)], |to| {
            TpmUint32::new(persistent).marshal(to)
        })
    }

    /// A policy session without salt: it authorizes by what it proves, and no secret goes over it.
    pub(crate) fn start_policy_session() -> TpmResult<Self> {
        let none = TpmRh::Null.value();
        Self::new(TpmCc::StartAuthSession, &[none, none], &[], |to| {
            sized(to, &[0; 32])?; // the nonce enters HMACs only, and this session makes none
            sized(to, &[])?;
            TpmSe::Policy.marshal(to)?;
            TpmAlgId::Null.marshal(to)?;
            TpmAlgId::Sha256.marshal(to)
        })
    }

    pub(crate) fn policy_secret(
        hierarchy: TpmRh,
        password: &[u8],
        session: u32,
    ) -> TpmResult<Self> {
        let handles = [hierarchy.value(), session];
        Self::new(TpmCc::PolicySecret, &handles, &[Auth::Password(password)], |to| {
            sized(to, &[])?;
            sized(to, &[])?;
            sized(to, &[])?;
            TpmInt32::new(0).marshal(to)
        })
    }

    pub(crate) fn activate_credential(
        object: u32,
        key: u32,
        session: u32,
        credential: &[u8],
        secret: &[u8],
    ) -> TpmResult<Self> {
        let auths = [Auth::Password(&[]), Auth::Policy(session)];
        Self::new(TpmCc::ActivateCredential, &[object, key], &auths, |to| {
            sized(to, credential)?;
            sized(to, secret)
        })
    }

    pub(crate) fn import(
        parent: u32,
        inner_key: &[u8],
        public: &[u8],
        duplicate: &[u8],
        seed: &[u8],
    ) -> TpmResult<Self> {
        Self::new(TpmCc::Import, &[parent], &[Auth::Password(&[])], |to| {
            sized(to, inner_key)?;
            sized(to, public)?;
            sized(to, duplicate)?;
            sized(to, seed)?;
            TpmAlgId::Aes.marshal(to)?;
            let bits = inner_key.len().saturating_mul(8);
            TpmUint16::new(u16::try_from(bits).unwrap_or_default()).marshal(to)?;
            TpmAlgId::Cfb.marshal(to)
        })
    }

    pub(crate) fn load(parent: u32, private: &[u8], public: &[u8]) -> TpmResult<Self> {
        Self::new(TpmCc::Load, &[parent], &[Auth::Password(&[])], |to| {
            sized(to, private)?;
            sized(to, public)
        })
    }

    pub(crate) fn hmac_sha256(key: u32, text: &[u8]) -> TpmResult<Self> {
        Self::new(TpmCc::Hmac, &[key], &[Auth::Password(&[])], |to| {
            sized(to, text)?;
            TpmAlgId::Sha256.marshal(to)
        })
    }

    pub(crate) fn sign(
        key: u32,
        password: &[u8],
        digest: &[u8],
        scheme: &TpmtSigScheme,
    ) -> TpmResult<Self> {
        Self::new(TpmCc::Sign, &[key], &[Auth::Password(password)], |to| {
            sized(to, digest)?;
            scheme.marshal(to)?;
            // An empty ticket: only restricted keys need to know that the TPM made the digest.
            tpm2_protocol::data::TpmSt::HashCheck.marshal(to)?;
            TpmRh::Null.marshal(to)?;
            sized(to, &[])
        })
    }
}
