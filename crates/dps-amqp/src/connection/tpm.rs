//! The SASL mechanism `TPM`, by which the service challenges a TPM.
//!
//! The service asks for the storage root key first, and then sends the challenge in pieces. Each piece begins with a byte
//! that says whether it is the last one, and in its low bits which one it is.

use dps_connect::internal::TpmLogin;
use dps_state_machine::{Error, IdScope, RegistrationId};
use zeroize::Zeroizing;

use super::{
    Broken,
    sasl::{Answer, Mechanism},
};
use crate::codec::Malformed;

/// Set in the first byte of each piece of a challenge.
const PIECE: u8 = 0x80;
/// Set in the first byte of the last piece.
const LAST: u8 = 0x40;
/// The number of the piece, modulo 4.
const NUMBER: u8 = 0x03;
/// More than any challenge has; those of the service have less than 1 KiB.
const MAX_CHALLENGE_BYTES: usize = 16 * 1024;

/// One login of a TPM.
pub(crate) struct Tpm {
    login: TpmLogin,
    registration_id: RegistrationId,
    initial: Zeroizing<Vec<u8>>,
    storage_root_key: Vec<u8>,
    challenge: Vec<u8>,
    pieces: u8,
}

impl Tpm {
    /// Asks the TPM for its public keys.
    ///
    /// # Errors
    /// [`Error::Credential`] with the TPM's words.
    pub(crate) async fn new(
        login: TpmLogin,
        id_scope: &IdScope,
        registration_id: &RegistrationId,
    ) -> Result<Self, Error> {
        let keys = login.keys().await?;
        let (scope, id) = (id_scope.as_str().as_bytes(), registration_id.as_str().as_bytes());
        let initial = [b"\0", scope, b"\0", id, b"\0", keys.endorsement_key_bytes()].concat();
        Ok(Self {
            login,
            registration_id: registration_id.clone(),
            initial: Zeroizing::new(initial),
            storage_root_key: keys.storage_root_key_bytes().to_vec(),
            challenge: Vec::new(),
            pieces: 0,
        })
    }

    /// Takes in one piece; whether the challenge is whole.
    fn take(&mut self, control: u8, piece: &[u8]) -> Result<bool, Malformed> {
        if control & PIECE == 0 {
            return Err(Malformed::new("a SASL challenge that is none of the mechanism TPM"));
        }
        if control & NUMBER != self.pieces & NUMBER {
            return Err(Malformed::new("the pieces of a SASL challenge do not follow one another"));
        }
        if self.challenge.len() + piece.len() > MAX_CHALLENGE_BYTES {
            return Err(Malformed::new("a SASL challenge without an end"));
        }
        self.challenge.extend(piece);
        self.pieces = self.pieces.wrapping_add(1);
        Ok(control & LAST != 0)
    }

    async fn answer(&mut self, challenge: &[u8]) -> Result<Zeroizing<Vec<u8>>, Broken> {
        let plain = |bytes: &[u8]| Zeroizing::new([b"\0", bytes].concat());
        match challenge {
            [] | [0] => Ok(plain(&self.storage_root_key)),
            [control, piece @ ..] if !self.take(*control, piece)? => Ok(plain(&[])),
            _ => {
                let token = self.login.answer(&self.challenge, &self.registration_id).await;
                Ok(plain(token.map_err(Broken::Credential)?.expose().as_bytes()))
            }
        }
    }
}

impl Mechanism for Tpm {
    fn name(&self) -> &'static str {
        "TPM"
    }

    /// Left out: a frame of SASL has at most 512 bytes, of which the endorsement key takes most, and the service does
    /// not look at it.
    fn hostname(&self) -> &str {
        ""
    }

    fn initial_response(&mut self) -> Zeroizing<Vec<u8>> {
        std::mem::take(&mut self.initial)
    }

    fn respond<'a>(&'a mut self, challenge: &'a [u8]) -> Answer<'a> {
        Box::pin(self.answer(challenge))
    }
}

#[cfg(test)]
mod tests {
    use std::{future::ready, sync::Arc};

    use dps_attestation::{
        Attestation, CredentialError, SasSigner, SymmetricKey, TpmAnswer, TpmAttestation, TpmKeys,
    };
    use dps_connect::Config;
    use dps_state_machine::Progress;

    use super::*;

    /// A TPM that takes in the one challenge that it knows.
    struct Known(Vec<u8>);

    impl TpmAttestation for Known {
        fn keys(&self) -> TpmAnswer<'_, TpmKeys> {
            Box::pin(ready(Ok(TpmKeys::from_bytes(vec![1; 316], vec![2; 284]))))
        }

        fn activate<'a>(&'a self, key: &'a [u8]) -> TpmAnswer<'a, Arc<dyn SasSigner>> {
            let signer: SymmetricKey = "c2VjcmV0IGtleSBvZiBwdW1wLTE3".parse().unwrap();
            let known = key == self.0;
            let foreign = || CredentialError::new("the key is of another TPM");
            Box::pin(ready(match known {
                true => Ok(Arc::new(signer) as Arc<dyn SasSigner>),
                false => Err(foreign()),
            }))
        }

        fn store<'a>(&'a self, _: &'a [u8]) -> TpmAnswer<'a, ()> {
            Box::pin(ready(Ok(())))
        }
    }

    /// What the device answers to each challenge, up to the first that it can't answer.
    async fn answers(challenges: &[&[u8]]) -> Vec<Result<Vec<u8>, String>> {
        let attestation = Attestation::from_tpm(Known((0..200).collect()));
        let config = Config::new("0ne1".parse().unwrap(), attestation);
        let login = TpmLogin::of(&config, &Progress::default()).unwrap();
        let id = "pump-17".parse().unwrap();
        let mut tpm = Tpm::new(login, &config.id_scope, &id).await.unwrap();
        assert_eq!(*tpm.initial_response(), [b"\x000ne1\0pump-17\0", &[1; 316][..]].concat());
        let mut answers = Vec::new();
        for challenge in challenges {
            let answer = tpm.respond(challenge).await;
            answers.push(answer.map(|answer| answer.to_vec()).map_err(|e| format!("{e:?}")));
            if answers.last().is_some_and(Result::is_err) {
                break;
            }
        }
        answers
    }

    #[tokio::test]
    async fn a_challenge_is_put_together_from_any_number_of_pieces() {
        let whole: Vec<u8> = (0..200).collect();
        for size in [7, 29, 40, 100, 199, 200] {
            let count = whole.chunks(size).count();
            let pieces = whole.chunks(size).zip(0u8..).map(|(piece, at)| {
                let last = if usize::from(at) + 1 == count { LAST } else { 0 };
                [&[PIECE | last | at & NUMBER], piece].concat()
            });
            let challenges: Vec<Vec<u8>> = std::iter::once(vec![0]).chain(pieces).collect();
            let given: Vec<&[u8]> = challenges.iter().map(Vec::as_slice).collect();
            let answers = answers(&given).await;
            let answers: Vec<Vec<u8>> = answers.into_iter().map(Result::unwrap).collect();
            let [storage_root_key, between @ .., token] = answers.as_slice() else {
                panic!("{size}")
            };
            assert_eq!(*storage_root_key, [&[0], &[2; 284][..]].concat(), "{size}");
            assert!(between.iter().all(|answer| *answer == [0]), "{size}");
            assert!(token.starts_with(b"\0SharedAccessSignature sr=0ne1%2Freg"), "{size}");
        }
    }

    #[tokio::test]
    async fn a_challenge_that_makes_no_sense_is_named() {
        let long = [&[PIECE], &[0; 500][..]].concat();
        let long: Vec<Vec<u8>> = (0..40)
            .map(|at| [&[PIECE | at & NUMBER], long.get(1..).unwrap_or_default()].concat())
            .collect();
        let long: Vec<&[u8]> = long.iter().map(Vec::as_slice).collect();
        let damaged: &[u8] = &[PIECE | LAST, 1, 2, 3];
        for (challenges, says) in [
            (&[&[0][..], &[1, 2, 3]][..], "none of the mechanism TPM"),
            (&[&[0], &[PIECE, 1], &[PIECE, 2]], "do not follow one another"),
            (&[&[0], &[PIECE | 1, 1]], "do not follow one another"),
            (&long, "without an end"),
            (&[&[0], damaged], "the key is of another TPM"),
        ] {
            let answers = answers(challenges).await;
            let error = answers.last().cloned().unwrap().unwrap_err();
            assert!(error.contains(says), "{says}: {error}");
        }
    }
}
