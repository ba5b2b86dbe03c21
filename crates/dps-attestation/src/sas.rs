//! SAS tokens: what a device with a symmetric key sends as its password.

use std::{
    fmt::{self, Write},
    time::{SystemTime, UNIX_EPOCH},
};

use base64::Engine;
use dps_state_machine::{CredentialError, IdScope, RegistrationId};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};
use zeroize::Zeroizing;

use crate::{
    key::{BASE64, SymmetricKey},
    signer::{SasSignature, SasSigner},
};

/// Everything but the unreserved characters of RFC 3986.
const ENCODED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// A signed, short-lived proof that the device has its key: the `Authorization` header over HTTP, the password
/// over MQTT and AMQP.
///
/// It is wiped from memory when it is dropped and never printed: until it expires it is as good as the key.
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#detailed-attestation-process>.
#[derive(Clone)]
pub struct SasToken(Zeroizing<String>);

impl SasToken {
    /// Signs a token for one device of one ID scope that is good until `expiry`, in whole seconds; a time before
    /// 1970 counts as 1970. No clock is read: an expiry that is past already makes a token that nobody takes.
    #[must_use]
    pub fn sign(
        key: &SymmetricKey,
        id_scope: &IdScope,
        registration_id: &RegistrationId,
        expiry: SystemTime,
    ) -> Self {
        let unsigned = Unsigned::new(id_scope, registration_id, expiry);
        unsigned.token(&key.signature(&unsigned.text()))
    }

    /// Does what [`sign`](Self::sign) does, with a key that may be outside of the process.
    ///
    /// # Errors
    /// The signer's.
    ///
    /// # Cancel safety
    /// Dropping the future drops that of the signer; see [`SasSigner`].
    pub async fn sign_with(
        signer: &dyn SasSigner,
        id_scope: &IdScope,
        registration_id: &RegistrationId,
        expiry: SystemTime,
    ) -> Result<Self, CredentialError> {
        let unsigned = Unsigned::new(id_scope, registration_id, expiry);
        let signature = signer.sign(&unsigned.text()).await?;
        Ok(unsigned.token(&signature))
    }

    /// A token for the device's hub, which takes it as the password of the device.
    ///
    /// See <https://learn.microsoft.com/azure/iot-hub/authenticate-authorize-sas#sas-token-structure>.
    ///
    /// # Errors
    /// The signer's.
    ///
    /// # Cancel safety
    /// Dropping the future drops that of the signer; see [`SasSigner`].
    pub async fn sign_for_hub(
        signer: &dyn SasSigner,
        hub: &str,
        device_id: &str,
        expiry: SystemTime,
    ) -> Result<Self, CredentialError> {
        let unsigned = Unsigned::of(&format!("{hub}/devices/{device_id}"), None, expiry);
        let signature = signer.sign(&unsigned.text()).await?;
        Ok(unsigned.token(&signature))
    }

    /// The token as it is sent. Keep it out of logs.
    #[must_use]
    pub fn expose(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for SasToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SasToken(***)")
    }
}

/// What a token says before it is signed.
struct Unsigned {
    /// URL-encoded.
    resource: String,
    /// In seconds since 1970.
    expiry: u64,
    /// The name of the key, where the service wants one.
    policy: Option<&'static str>,
}

impl Unsigned {
    fn new(id_scope: &IdScope, registration_id: &RegistrationId, expiry: SystemTime) -> Self {
        let resource = format!("{id_scope}/registrations/{registration_id}");
        Self::of(&resource, Some("registration"), expiry)
    }

    fn of(resource: &str, policy: Option<&'static str>, expiry: SystemTime) -> Self {
        let resource = utf8_percent_encode(resource, ENCODED).to_string();
        let expiry = expiry.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs());
        Self { resource, expiry, policy }
    }

    /// What is signed.
    fn text(&self) -> String {
        format!("{}\n{}", self.resource, self.expiry)
    }

    fn token(&self, signature: &SasSignature) -> SasToken {
        let Self { resource, expiry, policy } = self;
        let signature = Zeroizing::new(BASE64.encode(signature.expose()));
        let signature = utf8_percent_encode(&signature, ENCODED);
        // Room for all at once: growing would leave pieces of the token behind.
        let mut token = Zeroizing::new(String::with_capacity(resource.len() + 256));
        // Writing to a String does not fail.
        let _ = write!(token, "SharedAccessSignature sr={resource}&sig={signature}&se={expiry}");
        if let Some(policy) = policy {
            let _ = write!(token, "&skn={policy}");
        }
        SasToken(token)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::fuzzing::{signature, verify_signature};
    use proptest::prelude::*;
    use std::time::Duration;

    const KEY: &str = "c2VjcmV0IGtleSBvZiBwdW1wLTE3";

    fn key(text: &str) -> SymmetricKey {
        text.parse().unwrap()
    }

    fn token(key: &SymmetricKey, scope: &str, id: &str, expiry: SystemTime) -> String {
        SasToken::sign(key, &scope.parse().unwrap(), &id.parse().unwrap(), expiry)
            .expose()
            .to_string()
    }

    #[test]
    fn the_known_answer_of_the_service() {
        let key = key("O+H9VTcdJP0Tqkl7bh4nVG0OJNrAataMpuWB54D0VEc=");
        let resource = "0ne000EEBBD%2fregistrations%2fFirstDevice";
        let expected = "hwgBlMB6G2Zg5ZcYtwmtLVKRbifiSCPfUMyscbVWa8o=";
        assert_eq!(*signature(&key, resource, "1591921306"), expected);
        assert!(verify_signature(&key, resource, "1591921306", expected));
    }

    /// Computed with Python's `hmac`: the key is the bytes 0, 1, 2 .. n-1.
    #[test]
    fn keys_of_every_length_sign_as_elsewhere() {
        let known = [
            (16, "57JfW5O4KVWfHkJNuER3VC/M9tGo1IL6OMc0vCx7Lwc="),
            (32, "3L7ksM4MS/TI7+ZRXV7n6DrYAZwF4nAXrIdjZVknvz8="),
            (64, "YigIpDaz4B8CaC0uULfATAWm5yQRX538UzhddR00dQY="),
            (65, "RXrOWngzSwOJjEeus2zTmHsn5DT4c1YZbFKq1+Wh/B4="),
            (200, "4l60KMavv2ktzekHwfVkVn92y57DH27/8zybDEEQpZQ="),
        ];
        let expiry = UNIX_EPOCH + Duration::from_millis(1_700_000_000_999);
        for (length, expected) in known {
            let bytes: Vec<u8> = (0..length).collect();
            let key = SymmetricKey::from_bytes(&bytes).unwrap();
            let encoded = expected.replace('+', "%2B").replace('/', "%2F").replace('=', "%3D");
            assert_eq!(
                token(&key, "0ne00AABBCC", "pump-17", expiry),
                format!(
                    "SharedAccessSignature sr=0ne00AABBCC%2Fregistrations%2Fpump-17&sig={encoded}&se=1700000000&skn=registration"
                )
            );
        }
    }

    #[test]
    fn a_colon_in_the_registration_id_is_encoded() {
        let token = token(&key(KEY), "0ne1", "urn:dev.1_a-b", UNIX_EPOCH);
        assert!(token.contains("sr=0ne1%2Fregistrations%2Furn%3Adev.1_a-b&"), "{token}");
    }

    #[test]
    fn an_expiry_before_1970_is_the_start_of_1970() {
        let before = UNIX_EPOCH - Duration::from_secs(86_400);
        let key = key(KEY);
        let early = token(&key, "0ne1", "d", before);
        assert!(early.contains("&se=0&"), "{early}");
        assert_eq!(early, token(&key, "0ne1", "d", UNIX_EPOCH));
    }

    #[test]
    fn only_the_very_signature_verifies() {
        let key = key(KEY);
        let right = signature(&key, "r", "1");
        let cut = right.get(..right.len() - 4).unwrap();
        for wrong in ["", "AAAA", "not base64", cut, &signature(&key, "r", "2")] {
            assert!(!verify_signature(&key, "r", "1", wrong), "{wrong}");
        }
        assert!(!verify_signature(
            &SymmetricKey::from_bytes(b"the key of another").unwrap(),
            "r",
            "1",
            &right
        ));
        assert!(verify_signature(&key, "r", "1", &right));
    }

    #[test]
    fn a_token_prints_as_stars() {
        let (scope, id) = ("0ne1".parse().unwrap(), "d".parse().unwrap());
        let token = SasToken::sign(&key(KEY), &scope, &id, UNIX_EPOCH);
        assert_eq!(format!("{token:?}"), "SasToken(***)");
    }

    proptest! {
        /// What a server does: split, decode, sign again, compare.
        #[test]
        fn any_token_can_be_taken_apart_and_verifies(
            bytes in prop::collection::vec(any::<u8>(), 16..100),
            scope in "[0-9A-Za-z]{1,20}",
            id in "[0-9A-Za-z][-._:0-9A-Za-z]{0,60}[0-9A-Za-z]",
            seconds in 0..u64::from(u32::MAX),
        ) {
            let key = SymmetricKey::from_bytes(&bytes).unwrap();
            let token = token(&key, &scope, &id, UNIX_EPOCH + Duration::from_secs(seconds));
            let fields: Vec<_> = token
                .strip_prefix("SharedAccessSignature ").unwrap()
                .split('&')
                .map(|field| field.split_once('=').unwrap())
                .collect();
            let [("sr", resource), ("sig", sig), ("se", expiry), ("skn", "registration")] = fields[..] else {
                return Err(TestCaseError::fail(token));
            };
            let decode = |text| percent_encoding::percent_decode_str(text).decode_utf8().unwrap();
            prop_assert_eq!(decode(resource), format!("{scope}/registrations/{id}"));
            prop_assert_eq!(expiry, seconds.to_string());
            prop_assert!(verify_signature(&key, resource, expiry, &decode(sig)));
        }
    }
}
