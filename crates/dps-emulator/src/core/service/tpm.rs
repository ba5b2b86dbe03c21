//! Devices with a TPM: the challenge that only their TPM can answer, and the key for their hub.

use std::{
    collections::{BTreeSet, HashMap},
    time::{Duration, SystemTime},
};

use base64::{Engine as _, engine::general_purpose::STANDARD};
use dps_attestation::SymmetricKey;
use dps_state_machine::RegistrationId;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use zeroize::Zeroizing;

use super::{Reply, Service, ServiceError, key};
use crate::tpm::{NoRandomness, TpmStorageKey, wrap_key};

/// How long the answer to a challenge is taken.
const LIFETIME: Duration = Duration::from_secs(3600);
/// What follows the key is for programs on Windows; it has these sizes at the service.
const CHALLENGE_DATA: [u8; 154] = [0; 154];
const HUB_DATA: [u8; 108] = [0; 108];

/// The public keys by which a device says which TPM it has, as marshaled `TPM2B_PUBLIC`.
pub(crate) struct TpmKeys {
    pub(crate) endorsement: Vec<u8>,
    pub(crate) storage: Vec<u8>,
}

/// What the service keeps for the TPMs of enrolled devices, by their registration ids.
#[derive(Default)]
pub(super) struct Tpms {
    known: HashMap<String, DeviceTpm>,
    /// Those that may be other than when they were written last.
    pub(super) changed: BTreeSet<String>,
}

type Key = Zeroizing<[u8; 32]>;

#[derive(Serialize, Deserialize)]
pub(super) struct DeviceTpm {
    #[serde(with = "as_text")]
    endorsement: TpmStorageKey,
    #[serde(with = "as_text")]
    storage: TpmStorageKey,
    /// Of the last challenge, and when that was.
    #[serde(skip)]
    nonce: Option<(Key, SystemTime)>,
    #[serde(with = "as_base64")]
    hub_key: Key,
}

/// As the configuration file has it.
mod as_text {
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    use crate::tpm::TpmStorageKey;

    pub(super) fn serialize<S: Serializer>(
        key: &TpmStorageKey,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.collect_str(key)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<TpmStorageKey, D::Error> {
        String::deserialize(d)?.parse().map_err(D::Error::custom)
    }
}

mod as_base64 {
    use base64::{Engine as _, engine::general_purpose::STANDARD};
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};
    use zeroize::Zeroizing;

    use super::Key;

    pub(super) fn serialize<S: Serializer>(key: &Key, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(&Zeroizing::new(STANDARD.encode(**key)))
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(d: D) -> Result<Key, D::Error> {
        let text = Zeroizing::new(String::deserialize(d)?);
        let bytes = Zeroizing::new(STANDARD.decode(&*text).map_err(D::Error::custom)?);
        let bytes: &[u8; 32] = bytes.as_slice().try_into().map_err(D::Error::custom)?;
        Ok(Zeroizing::new(*bytes))
    }
}

impl Tpms {
    pub(super) fn get(&self, registration_id: &str) -> Option<&DeviceTpm> {
        self.known.get(&key(registration_id))
    }

    pub(super) fn put(&mut self, key: String, tpm: DeviceTpm) {
        self.changed.insert(key.clone());
        self.known.insert(key, tpm);
    }

    /// Whose TPM is known.
    pub(super) fn names(&self) -> impl Iterator<Item = &String> {
        self.known.keys()
    }

    pub(super) fn forget(&mut self, registration_id: &str) {
        let key = key(registration_id);
        self.known.remove(&key);
        self.changed.insert(key);
    }

    pub(super) fn clear(&mut self) {
        let forgotten = std::mem::take(&mut self.known);
        self.changed.extend(forgotten.into_keys());
    }

    /// The key of the last challenge, while its answer is taken.
    pub(super) fn nonce(&self, registration_id: &str, now: SystemTime) -> Option<SymmetricKey> {
        let (nonce, challenged) = self.get(registration_id)?.nonce.as_ref()?;
        let age = now.duration_since(*challenged).unwrap_or_default();
        SymmetricKey::from_bytes(&**nonce).ok().filter(|_| age <= LIFETIME)
    }

    pub(super) fn hub_key(&self, registration_id: &str) -> Option<SymmetricKey> {
        SymmetricKey::from_bytes(&*self.get(registration_id)?.hub_key).ok()
    }

    /// What the state of an assigned registration says of the TPM: the key for the hub, which the TPM can take in.
    pub(super) fn assigned(&self, registration_id: &str) -> Result<Value, NoRandomness> {
        let Some(tpm) = self.get(registration_id) else { return Ok(json!({})) };
        let hub_key = wrap_key(&tpm.endorsement, &tpm.storage, &*tpm.hub_key, &HUB_DATA)?;
        Ok(json!({ "authenticationKey": STANDARD.encode(hub_key) }))
    }
}

impl Service {
    /// Challenges a TPM: a key that it alone can take in, for whoever is enrolled with its endorsement key. A challenge
    /// ends the one before.
    pub(crate) fn challenge(
        &mut self,
        now: SystemTime,
        id_scope: &str,
        registration_id: &str,
        keys: &TpmKeys,
    ) -> Result<Vec<u8>, ServiceError> {
        let id = self.check_id(id_scope, registration_id)?;
        let enrollment = self.individual(id.as_str()).ok_or(ServiceError::NOT_FOUND)?;
        let enrolled = enrollment
            .tpm()
            .cloned()
            .ok_or_else(|| ServiceError::unauthorized("the enrollment is not for a TPM"))?;
        let given = |name: &str, bytes: &[u8]| {
            TpmStorageKey::from_bytes(bytes).map_err(|error| {
                ServiceError::bad_request(&format!("The {name} can't be read: {error}"))
            })
        };
        let endorsement = given("endorsement key", &keys.endorsement)?;
        let storage = given("storage root key", &keys.storage)?;
        if endorsement != enrolled {
            return Err(ServiceError::unauthorized(
                "the endorsement key is another than the enrollment's",
            ));
        }
        self.make_challenge(now, &id, endorsement, storage).map_err(|_| ServiceError::INTERNAL)
    }

    fn make_challenge(
        &mut self,
        now: SystemTime,
        id: &RegistrationId,
        endorsement: TpmStorageKey,
        storage: TpmStorageKey,
    ) -> Result<Vec<u8>, NoRandomness> {
        let nonce = self.guids.next_key();
        let challenge = wrap_key(&endorsement, &storage, &*nonce, &CHALLENGE_DATA)?;
        // The key for the hub stays the same for as long as the device is known.
        let hub_key = match self.tpms.get(id.as_str()) {
            Some(former) => former.hub_key.clone(),
            None => self.guids.next_key(),
        };
        let nonce = Some((nonce, now));
        let tpm = DeviceTpm { endorsement, storage, nonce, hub_key };
        self.tpms.put(key(id.as_str()), tpm);
        Ok(challenge)
    }
}

/// The answer over HTTP that carries a challenge; that it has no error code tells it from a refusal.
pub(crate) fn challenge_reply(challenge: &[u8]) -> Reply {
    Reply::ok(
        401,
        &json!({
            "message": "Authorization required, resend request using supplied key",
            "authenticationKey": STANDARD.encode(challenge),
            "unencryptedAuthenticationKey": null,
            "keyName": "registration",
        }),
    )
}
