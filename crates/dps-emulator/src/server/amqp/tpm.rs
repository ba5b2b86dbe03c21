//! The SASL mechanism `TPM`: a device says which TPM it has, and signs with the key of a challenge that it alone can take
//! in.

use super::claim::Claim;
use crate::core::{Caller, TpmKeys};

/// How much of a challenge goes into one frame of SASL, as at the service: two for every challenge.
const PIECE_BYTES: usize = 470;
/// The first byte of each piece, with its number in the low bits.
const PIECE: u8 = 0x80;
/// What is added to that of the last one.
const LAST: u8 = 0x40;
const NUMBER: u8 = 0x03;

/// One login, from the first word on.
pub(super) struct TpmLogin {
    id_scope: String,
    registration_id: String,
    endorsement: Vec<u8>,
    /// What is left to send of the challenge, the next piece last; `None` before the storage root key has come.
    pieces: Option<Vec<Vec<u8>>>,
}

/// What follows what a device has sent.
pub(super) enum Progress {
    Challenge(Vec<u8>),
    /// The device has answered; what came of it.
    Answered(Claim),
    Refused,
}

impl TpmLogin {
    /// Reads the first word: ID scope, registration id and endorsement key, a zero byte before each.
    pub(super) fn begin(initial: &[u8]) -> Option<Self> {
        let mut parts = initial.strip_prefix(&[0])?.splitn(3, |byte| *byte == 0);
        let (id_scope, registration_id, endorsement) =
            (parts.next()?, parts.next()?, parts.next()?);
        let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        Some(Self {
            id_scope: text(id_scope),
            registration_id: text(registration_id),
            endorsement: endorsement.to_vec(),
            pieces: None,
        })
    }

    /// Takes a response; each has a zero byte first.
    pub(super) fn take(&mut self, caller: &Caller, response: &[u8]) -> Progress {
        let response = response.strip_prefix(&[0]).unwrap_or(response);
        let Self { id_scope, registration_id, endorsement, pieces } = self;
        match pieces {
            None => {
                let (endorsement, storage) = (endorsement.clone(), response.to_vec());
                let keys = TpmKeys { endorsement, storage };
                match caller.challenge(id_scope, registration_id, &keys) {
                    Ok(challenge) => self.next(pieces_of(&challenge)),
                    Err(_) => Progress::Refused,
                }
            }
            Some(left) if !left.is_empty() => {
                let left = std::mem::take(left);
                self.next(left)
            }
            Some(_) => {
                let token = String::from_utf8_lossy(response);
                Progress::Answered(Claim::check(caller, id_scope, registration_id, Some(&token)))
            }
        }
    }

    fn next(&mut self, mut left: Vec<Vec<u8>>) -> Progress {
        let piece = left.pop();
        self.pieces = Some(left);
        piece.map_or(Progress::Refused, Progress::Challenge)
    }
}

/// The challenge in pieces, the first one last.
fn pieces_of(challenge: &[u8]) -> Vec<Vec<u8>> {
    let pieces = challenge.chunks(PIECE_BYTES).zip((0..=NUMBER).cycle());
    let mut pieces: Vec<_> =
        pieces.map(|(piece, number)| [&[PIECE | number], piece].concat()).collect();
    if let Some(control) = pieces.last_mut().and_then(|piece| piece.first_mut()) {
        *control |= LAST;
    }
    pieces.reverse();
    pieces
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_challenge_of_the_services_length_has_two_pieces() {
        for length in [471, 920, 940] {
            let pieces = pieces_of(&vec![7; length]);
            let controls: Vec<_> = pieces.iter().rev().map(|piece| piece[0]).collect();
            assert_eq!(controls, [0x80, 0xc1], "{length}");
            let sizes: Vec<_> = pieces.iter().rev().map(Vec::len).collect();
            assert_eq!(sizes, [471, length - 469], "{length}");
        }
    }

    #[test]
    fn an_endorsement_key_may_have_zero_bytes() {
        let login = TpmLogin::begin(b"\x000ne1\0pump-17\0\x01\0\0\x02").unwrap();
        assert_eq!((&*login.id_scope, &*login.registration_id), ("0ne1", "pump-17"));
        assert_eq!(login.endorsement, [1, 0, 0, 2]);
        assert!(TpmLogin::begin(b"\x000ne1\0pump-17").is_none());
        assert!(TpmLogin::begin(b"").is_none());
    }
}
