//! Symmetric keys: the device's own, and a group's, from which device keys are derived.

use std::{fmt, str::FromStr};

use base64::{
    DecodeError, Engine,
    alphabet::STANDARD,
    engine::{GeneralPurpose, GeneralPurposeConfig},
};
use dps_state_machine::{ConfigurationError, Error, Progress, RegistrationId};
use hmac::{Hmac, KeyInit, Mac};
use sha2::{Digest, Sha256};
use zeroize::Zeroizing;

/// The longest text that is read as a key, in bytes: far longer than a key of the service, which makes 88.
const LONGEST_TEXT: usize = 1024;

/// The shortest key, in bytes.
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#symmetric-key-creation>.
const SHORTEST: usize = 16;

/// As the service reads base64: with padding, and whatever the unused bits of the last character are.
pub(crate) const BASE64: GeneralPurpose = GeneralPurpose::new(
    &STANDARD,
    GeneralPurposeConfig::new().with_decode_allow_trailing_bits(true),
);

/// The device's own symmetric key: from its individual enrollment, or derived from a [`GroupKey`].
///
/// It parses from base64, as the service shows it; white space around it is ignored. The service takes keys of
/// 16 to 64 bytes and makes keys of 64; a shorter one is refused here, and of a longer one the service decides. The
/// key is wiped from memory when it is dropped and never printed.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation>.
///
/// ```
/// use dps_client::SymmetricKey;
/// let key: SymmetricKey = " c2VjcmV0IGtleSBvZiBwdW1wLTE3\n".parse().unwrap();
/// assert_eq!(format!("{key:?}"), "SymmetricKey(***)");
///
/// let cut_off = "c2VjcmV0IGtleSBvZiBwdW1wLTE".parse::<SymmetricKey>().unwrap_err();
/// assert!(cut_off.to_string().starts_with("symmetric key: it has 27 characters"));
/// ```
#[derive(Clone)]
pub struct SymmetricKey(Secret);

impl SymmetricKey {
    /// A fresh key of 64 random bytes, as the service makes them.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the system has no randomness to give.
    pub fn random() -> Result<Self, Error> {
        Secret::random("symmetric key").map(Self)
    }

    /// Takes the key's bytes, as they are after base64 was decoded.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there are fewer than 16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Secret::from_bytes("symmetric key", Zeroizing::new(bytes.to_vec())).map(Self)
    }

    /// The key as base64, as enrollments and key files have it. This gives the secret away: keep it out of logs.
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(&*self.0.bytes))
    }

    /// No error of the registration repeats the key.
    #[doc(hidden)]
    pub fn hide(&self, progress: &Progress) {
        progress.hide_key(&self.0.bytes);
    }

    pub(crate) fn mac(&self) -> Hmac<Sha256> {
        self.0.mac()
    }

    /// In bytes.
    pub(crate) fn length(&self) -> usize {
        self.0.bytes.len()
    }
}

impl FromStr for SymmetricKey {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that says what is wrong and where, never what the text was.
    fn from_str(text: &str) -> Result<Self, Error> {
        Secret::from_base64("symmetric key", text).map(Self)
    }
}

impl fmt::Debug for SymmetricKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("SymmetricKey(***)")
    }
}

/// The key of an enrollment group, from which each device's key is derived. It belongs into the factory or the
/// back office and never onto a device: who has it can be any device of the group. So it is a type of its own and
/// signs nothing.
///
/// See <https://learn.microsoft.com/azure/iot-dps/concepts-symmetric-key-attestation#group-enrollments>.
///
/// ```
/// use dps_client::GroupKey;
/// let group: GroupKey = "a2V5IG9mIHRoZSB3aG9sZSBncm91cA==".parse().unwrap();
/// let key = group.derive(&"pump-17".parse().unwrap());
/// println!("{}", *key.expose_base64()); // goes onto pump-17 only
/// ```
///
/// A group key can't be passed where a device key is wanted:
/// ```compile_fail,E0308
/// use dps_client::{GroupKey, IdScope, RegistrationId, SasToken};
/// fn sign(key: &GroupKey, scope: &IdScope, id: &RegistrationId) {
///     SasToken::sign(key, scope, id, std::time::SystemTime::now());
/// }
/// ```
#[derive(Clone)]
pub struct GroupKey(Secret);

impl GroupKey {
    /// A fresh key of 64 random bytes, as the service makes them.
    ///
    /// # Errors
    /// [`Error::Configuration`] when the system has no randomness to give.
    pub fn random() -> Result<Self, Error> {
        Secret::random("group key").map(Self)
    }

    /// Takes the key's bytes, as they are after base64 was decoded.
    ///
    /// # Errors
    /// [`Error::Configuration`] when there are fewer than 16.
    pub fn from_bytes(bytes: &[u8]) -> Result<Self, Error> {
        Secret::from_bytes("group key", Zeroizing::new(bytes.to_vec())).map(Self)
    }

    /// The key of one device of the group: the HMAC-SHA256 of its registration id, exactly as it is written.
    #[must_use]
    pub fn derive(&self, registration_id: &RegistrationId) -> SymmetricKey {
        let mac = self.0.mac().chain_update(registration_id.as_str()).finalize();
        SymmetricKey(Secret { bytes: Zeroizing::new(mac.as_bytes().to_vec()) })
    }

    /// The key as base64, as enrollments and key files have it. This gives the secret away: keep it out of logs.
    #[must_use]
    pub fn expose_base64(&self) -> Zeroizing<String> {
        Zeroizing::new(BASE64.encode(&*self.0.bytes))
    }
}

impl FromStr for GroupKey {
    type Err = Error;

    /// # Errors
    /// [`Error::Configuration`] that says what is wrong and where, never what the text was.
    fn from_str(text: &str) -> Result<Self, Error> {
        Secret::from_base64("group key", text).map(Self)
    }
}

impl fmt::Debug for GroupKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("GroupKey(***)")
    }
}

/// The bytes of a key, never fewer than [`SHORTEST`].
#[derive(Clone)]
struct Secret {
    bytes: Zeroizing<Vec<u8>>,
}

impl Secret {
    fn from_bytes(field: &'static str, bytes: Zeroizing<Vec<u8>>) -> Result<Self, Error> {
        if bytes.is_empty() {
            let reason = "it is empty; give the base64 text of the enrollment's key";
            return Err(ConfigurationError::new(field, "", reason).into());
        }
        if bytes.len() < SHORTEST {
            let reason = format!(
                "it has {} bytes, and the service's keys have {SHORTEST} to 64; {WHOLE_KEY}",
                bytes.len()
            );
            return Err(ConfigurationError::new(field, "", &reason).into());
        }
        Ok(Self { bytes })
    }

    fn random(field: &'static str) -> Result<Self, Error> {
        let mut bytes = Zeroizing::new(vec![0; 64]);
        let provider = rustls::crypto::ring::default_provider();
        provider.secure_random.fill(&mut bytes).map_err(|_| {
            ConfigurationError::new(field, "", "the system has no random numbers to give")
        })?;
        Ok(Self { bytes })
    }

    fn from_base64(field: &'static str, text: &str) -> Result<Self, Error> {
        // Editors put a byte-order mark in front of key files; it is no white space to Rust.
        let text = text.trim_matches(|c: char| c.is_whitespace() || c == '\u{feff}');
        if let Some(what) = no_key(text) {
            return Err(ConfigurationError::new(field, "", &what).into());
        }
        // Decoded in place, so that what was decoded before an error is wiped too.
        let mut bytes = Zeroizing::new(Vec::new());
        match BASE64.decode_vec(text, &mut bytes) {
            Ok(()) => Self::from_bytes(field, bytes),
            Err(error) => {
                Err(ConfigurationError::new(field, "", &what_is_wrong(text, &error)).into())
            }
        }
    }

    fn mac(&self) -> Hmac<Sha256> {
        // How HMAC itself makes a key fit its block (RFC 2104): a longer one is hashed, a shorter one is
        // followed by zeros. Done here since from a whole block it can't fail.
        let mut block = Zeroizing::new([0u8; 64]);
        if self.bytes.len() > block.len() {
            fill(&mut *block, &Sha256::digest(&*self.bytes));
        } else {
            fill(&mut *block, &self.bytes);
        }
        Hmac::new((&*block).into())
    }
}

fn fill(block: &mut [u8], bytes: &[u8]) {
    block.iter_mut().zip(bytes).for_each(|(to, from)| *to = *from);
}

const WHOLE_KEY: &str = "give the base64 text of the enrollment's primary or secondary key";

/// What else people have at hand that they take for the key. Nothing of it is repeated.
fn no_key(text: &str) -> Option<String> {
    let is_digest = matches!(text.len(), 32 | 40 | 64 | 128);
    let what = if text.contains("SharedAccessKey=") {
        "it is a connection string, and what follows SharedAccessKey= is the key of a hub or of a policy"
    } else if text.contains("SharedAccessSignature") || text.contains("sig=") {
        "it is a SAS token, which a key has signed"
    } else if text.contains("-----BEGIN ") {
        "it is PEM text"
    } else if text.starts_with(['"', '\'']) || text.ends_with(['"', '\'']) {
        return Some("it has quotes around it; take those away".into());
    } else if is_digest && text.bytes().all(|byte| byte.is_ascii_hexdigit()) {
        return Some("it is written in hexadecimal digits; give it in base64, as `xxd -r -p FILE | base64 -w0` makes it".into());
    } else if text.len() > LONGEST_TEXT {
        let length = text.len();
        return Some(format!(
            "it has {length} bytes of text; a key has at most 88 characters of base64"
        ));
    } else {
        return None;
    };
    Some(format!("{what}; {WHOLE_KEY}"))
}

/// Where the text stops being base64, without a character of it.
fn what_is_wrong(text: &str, error: &DecodeError) -> String {
    let length = text.chars().count();
    match *error {
        DecodeError::InvalidByte(offset, byte) => {
            let position = text.get(..offset).map_or(offset, |before| before.chars().count()) + 1;
            let (what, advice) = match byte {
                b'=' => ("a padding =", "base64 has those at its end only"),
                b'-' | b'_' => ("of the URL-safe alphabet", "the service uses + and / instead"),
                byte if byte.is_ascii_whitespace() => ("white space", "give one line"),
                _ => ("not base64", "use A-Z a-z 0-9 + / ="),
            };
            format!("character {position} of {length} is {what}; {advice}")
        }
        DecodeError::InvalidLength(_) | DecodeError::InvalidPadding => format!(
            "it has {length} characters, which is no whole number of groups of four; its end, often =, may be cut off"
        ),
        DecodeError::InvalidLastSymbol { .. } => "its last character is not base64".into(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const KEY: &str = "c2VjcmV0IGtleSBvZiBwdW1wLTE3";

    fn device(id: &str) -> RegistrationId {
        id.parse().unwrap()
    }

    /// The example of the public how-to on symmetric-key enrollment groups.
    #[test]
    fn the_public_example_derives() {
        let group: GroupKey = "8isrFI1sGsIlvvFSSFRiMfCNzv21fjbE/+ah/lSh3lF8e2YG1Te7w1KpZhJFFXJrqYKi9yegxkqIChbqOS9Egw==".parse().unwrap();
        let key = group.derive(&device("sn-007-888-abc-mac-a1-b2-c3-d4-e5-f6"));
        assert_eq!(*key.expose_base64(), "Jsm0lyGpjaVYVP2g3FnmnmG9dI/9qU24wNoykUmermc=");
    }

    /// Computed with Python's `hmac`: the key is the bytes 0, 1, 2 .. n-1, around the block size of HMAC too.
    #[test]
    fn keys_of_every_length_derive_as_elsewhere() {
        let known = [
            (16, "cSoGNaLG8uuDc0fh4K4gZnh3jJExq462q9c9VV0ZW60="),
            (32, "rQmhp2oy56oBzLpPc7Qn/dg2zGMjNqmapt32YsHmaVM="),
            (64, "1T8Wq+VJBVLICyTnGArAIAZDTt809JtrhWUivDLkkPc="),
            (65, "DvcIddOuo+iaXfaAbBbXsN8z6tVSSr7I09wadRyjPcQ="),
            (200, "DgDdbY4in+21+cmJhFwej0xVIAXQEyKCilwB5QR9lw0="),
        ];
        for (length, derived) in known {
            let bytes: Vec<u8> = (0..length).collect();
            let group = GroupKey::from_bytes(&bytes).unwrap();
            assert_eq!(
                *group.derive(&device("pump-17")).expose_base64(),
                derived,
                "{length} bytes"
            );
        }
    }

    #[test]
    fn a_random_key_is_as_long_as_the_service_makes_them_and_never_the_same() {
        let (one, other) = (SymmetricKey::random().unwrap(), SymmetricKey::random().unwrap());
        assert_eq!((one.length(), other.length()), (64, 64));
        assert_ne!(*one.expose_base64(), *other.expose_base64());
        let group = GroupKey::random().unwrap().expose_base64();
        assert!(group.parse::<GroupKey>().is_ok(), "what it shows, it reads");
    }

    #[test]
    fn the_registration_id_is_taken_as_written() {
        let group = GroupKey::from_bytes(b"the key of a group").unwrap();
        let lower = group.derive(&device("pump-17")).expose_base64();
        assert_ne!(lower, group.derive(&device("Pump-17")).expose_base64());
    }

    #[test]
    fn what_surrounds_a_key_in_a_file_is_ignored() {
        for (before, after) in [("", ""), (" ", "\r\n"), ("\u{feff}", "\n\n"), ("\t", " ")] {
            let key: SymmetricKey = format!("{before}{KEY}{after}").parse().unwrap();
            assert_eq!(*key.expose_base64(), KEY, "{before:?} {after:?}");
        }
    }

    #[test]
    fn a_bad_key_is_described_and_never_shown() {
        let cases = [
            ("", "it is empty"),
            (" \r\n", "it is empty"),
            ("c2Vjcm*0", "character 7 of 8 is not base64"),
            ("é2Vjcm*0", "character 1 of 8 is not base64"),
            ("c2Vj cmV0", "character 5 of 9 is white space"),
            ("c2Vj\ncmV0", "character 5 of 9 is white space"),
            ("c2-jcmV0", "character 3 of 8 is of the URL-safe alphabet"),
            ("c2V=cmV0", "character 4 of 8 is a padding ="),
            ("c2VjcmV0c", "it has 9 characters"),
            ("c2VjcmV0c2U", "it has 11 characters"),
            (
                "HostName=h;DeviceId=d;SharedAccessKey=c2VjcmV0",
                "is the key of a hub or of a policy; give",
            ),
            ("HostName=h;SharedAccessKeyName=n;SharedAccessKey=c2VjcmV0", "connection string"),
            ("SharedAccessSignature sr=a&sig=c2VjcmV0&se=1", "a SAS token"),
            ("sr=a&sig=c2VjcmV0%3D&se=1&skn=registration", "a SAS token"),
            ("-----BEGIN PRIVATE KEY-----", "PEM text; give the base64 text of the enrollment's"),
            ("\"c2VjcmV0\"", "quotes around it"),
            ("'c2VjcmV0'", "quotes around it"),
            ("0123456789abcdef0123456789ABCDEF", "hexadecimal digits; give it in base64"),
            (&"7f".repeat(32), "hexadecimal digits"),
            (&"7f".repeat(64), "hexadecimal digits"),
            (&"c2Vj".repeat(25_000), "it has 100000 bytes of text"),
        ];
        for (text, says) in cases {
            let message = text.parse::<SymmetricKey>().unwrap_err().to_string();
            assert!(message.starts_with("symmetric key: "), "{text:?}: {message}");
            assert!(message.contains(says), "{text:?}: {message}");
            assert!(text.trim().is_empty() || !message.contains(text), "{message}");
            let message = text.parse::<GroupKey>().unwrap_err().to_string();
            assert!(message.starts_with("group key: ") && message.contains(says), "{message}");
        }
    }

    #[test]
    fn no_bytes_are_no_key() {
        assert!(SymmetricKey::from_bytes(&[]).is_err());
        assert!(GroupKey::from_bytes(&[]).is_err());
    }

    #[test]
    fn a_key_is_taken_from_16_bytes_on() {
        for length in 1..=80 {
            let text = BASE64.encode(vec![7; length]);
            let (device, group) = (text.parse::<SymmetricKey>(), text.parse::<GroupKey>());
            if length >= 16 {
                assert!(device.is_ok() && group.is_ok(), "{length}");
                continue;
            }
            let says = format!("it has {length} bytes, and the service's keys have 16 to 64; give");
            for error in
                [device.err(), group.err(), SymmetricKey::from_bytes(&vec![7; length]).err()]
            {
                let message = error.unwrap().to_string();
                assert!(message.contains(&says) && !message.contains(&text), "{message}");
            }
        }
    }

    #[test]
    fn unused_bits_of_the_last_character_are_ignored_as_the_service_does() {
        let key: SymmetricKey = "c2VjcmV0IGtleSBvZiBhIHB1bXA=".parse().unwrap();
        let odd: SymmetricKey = "c2VjcmV0IGtleSBvZiBhIHB1bXB=".parse().unwrap();
        assert_eq!(key.expose_base64(), odd.expose_base64());
    }

    #[test]
    fn keys_are_wiped_when_dropped() {
        fn wiped(_: &impl zeroize::ZeroizeOnDrop) {}
        let SymmetricKey(Secret { bytes }) = KEY.parse().unwrap();
        wiped(&bytes);
        assert_eq!(*bytes, b"secret key of pump-17");
    }

    #[test]
    fn keys_print_as_stars() {
        let key: SymmetricKey = KEY.parse().unwrap();
        let group: GroupKey = KEY.parse().unwrap();
        assert_eq!(format!("{key:?} {group:#?}"), "SymmetricKey(***) GroupKey(***)");
    }

    proptest! {
        #[test]
        fn bytes_survive_base64(bytes in prop::collection::vec(any::<u8>(), 16..200)) {
            let key = SymmetricKey::from_bytes(&bytes).unwrap();
            let again: SymmetricKey = key.expose_base64().parse().unwrap();
            prop_assert_eq!(&*again.0.bytes, &bytes);
        }

        #[test]
        fn any_text_is_a_key_or_an_error_that_keeps_it(text in "\\PC{12,60}") {
            if let Err(error) = text.parse::<SymmetricKey>() {
                prop_assert!(!error.to_string().contains(text.trim()));
            }
        }
    }
}
