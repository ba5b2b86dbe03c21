//! The keys that the service sends: taken in, used to sign, kept for the hub.

use tpm2_protocol::{
    constant::MAX_BUFFER_SIZE,
    data::{TpmCc, TpmRh},
};
use zeroize::Zeroizing;

use crate::{
    AuthenticationKey, TpmError,
    frame::Command,
    keys::{ENDORSEMENT, OWNER},
    session::{Session, name_password},
    template,
};

/// An HMAC-SHA256.
pub(crate) type Signature = Zeroizing<[u8; 32]>;

/// A key that the TPM took in and handed out again, encrypted under its storage root key: it lives outside of the
/// TPM, which it needs for each signature.
#[derive(Clone)]
pub(crate) struct ImportedKey {
    /// TPM2B_PRIVATE without its length.
    private: Vec<u8>,
    /// TPMT_PUBLIC.
    public: Vec<u8>,
}

impl Session<'_> {
    /// Takes in a key from the service. Nothing of it stays in the TPM.
    pub(crate) fn import(&mut self, key: &AuthenticationKey) -> Result<ImportedKey, TpmError> {
        let inner_key = self.activate(key)?;
        let parent = self.config.storage_handle;
        let AuthenticationKey { public, duplicate, seed, .. } = key;
        let command = Command::import(parent, &inner_key, public, duplicate, seed);
        let answer = self.send(command).map_err(foreign)?;
        let private = answer.parameters(0).and_then(|mut reader| reader.sized());
        let private = self.read(TpmCc::Import, private)?.to_vec();
        Ok(ImportedKey { private, public: public.clone() })
    }

    /// The inner key, which only the TPM with the endorsement key can decrypt, for a storage root key that it has too.
    fn activate(&mut self, key: &AuthenticationKey) -> Result<Zeroizing<Vec<u8>>, TpmError> {
        let config = self.config;
        let (session, _) = self.load(Command::start_policy_session())?;
        let password = config.endorsement_password.bytes();
        let command = Command::policy_secret(TpmRh::Endorsement, password, session);
        self.send(command).map_err(name_password(ENDORSEMENT))?;
        let (object, endorsement) = (config.storage_handle, config.endorsement_handle);
        let AuthenticationKey { credential, secret, .. } = key;
        let command =
            Command::activate_credential(object, endorsement, session, credential, secret);
        let answer = self.send(command).map_err(foreign)?;
        self.is_gone(session); // it ended with the command that it authorized
        let inner_key = answer.parameters(0).and_then(|mut reader| reader.sized());
        let inner_key = inner_key.filter(|key| matches!(key.len(), 16 | 32));
        inner_key
            .map(|key| Zeroizing::new(key.to_vec()))
            .ok_or(TpmError::DamagedKey { reason: "its inner key has neither 16 nor 32 bytes" })
    }

    fn load_imported(&mut self, key: &ImportedKey) -> Result<u32, TpmError> {
        let parent = self.config.storage_handle;
        Ok(self.load(Command::load(parent, &key.private, &key.public))?.0)
    }

    pub(crate) fn sign_with(
        &mut self,
        key: &ImportedKey,
        text: &[u8],
    ) -> Result<Signature, TpmError> {
        let object = self.load_imported(key)?;
        self.hmac(object, text)
    }

    /// Signs with the key that is kept for the hub.
    pub(crate) fn sign_stored(&mut self, text: &[u8]) -> Result<Signature, TpmError> {
        let handle = self.config.identity_handle;
        if !self.has_identity_key()? {
            return Err(TpmError::NoKey { handle });
        }
        self.hmac(handle, text)
    }

    fn hmac(&mut self, key: u32, text: &[u8]) -> Result<Signature, TpmError> {
        if text.len() > MAX_BUFFER_SIZE {
            return Err(TpmError::TooLong { length: text.len(), most: MAX_BUFFER_SIZE });
        }
        let answer = self.send(Command::hmac_sha256(key, text))?;
        let hmac = answer.parameters(0).and_then(|mut reader| reader.sized()?.try_into().ok());
        self.read(TpmCc::Hmac, hmac).map(Zeroizing::new)
    }

    /// Keeps a key from the service as the one for the hub, in place of the former one. That lives until the new one
    /// is loaded, so that it is lost only between the two commands that exchange them.
    pub(crate) fn store(&mut self, key: &AuthenticationKey) -> Result<(), TpmError> {
        let replaces = self.has_identity_key()?;
        let key = self.import(key)?;
        let object = self.load_imported(&key)?;
        self.exchange_identity_key(object, replaces)
            .or_else(|error| self.judge_exchange(error, &key, replaces))
    }

    fn exchange_identity_key(&mut self, object: u32, replaces: bool) -> Result<(), TpmError> {
        let handle = self.config.identity_handle;
        if replaces {
            let password = self.config.owner_password.bytes();
            let command = Command::evict_control(password, handle, handle);
            self.send(command).map_err(name_password(OWNER))?;
        }
        self.persist(object, handle)
    }

    /// Looks what became of the keys when exchanging them failed. The connection may be what failed, after the TPM had
    /// done what it should.
    fn judge_exchange(
        &mut self,
        error: TpmError,
        key: &ImportedKey,
        replaces: bool,
    ) -> Result<(), TpmError> {
        let handle = self.config.identity_handle;
        match self.reconnect().and_then(|()| self.read_public(handle)) {
            Ok(Some(public)) if public == key.public => Ok(()),
            Ok(Some(_)) => Err(error),
            _ if replaces => Err(TpmError::KeyLost { handle, source: error.into() }),
            _ => Err(error),
        }
    }

    /// Whether there is a key for the hub; another program's key is an error.
    fn has_identity_key(&mut self) -> Result<bool, TpmError> {
        let handle = self.config.identity_handle;
        let Some(public) = self.read_public(handle)? else { return Ok(false) };
        match template::read(&public).map(|public| template::kind(&public)) {
            Some(kind) if kind == "an HMAC key" => Ok(true),
            found => Err(TpmError::WrongKey {
                handle,
                expected: "the HMAC key for the hub",
                found: found.unwrap_or_else(|| "something of an unknown kind".into()),
            }),
        }
    }
}

/// Whatever a TPM says against a key from the service, it means that the key was made for another TPM: what a damaged
/// one gives depends on where the damage is.
fn foreign(error: TpmError) -> TpmError {
    match error {
        TpmError::Refused { command, code } if code.is_about_a_parameter() => {
            TpmError::ForeignKey { command, code }
        }
        _ => error,
    }
}
