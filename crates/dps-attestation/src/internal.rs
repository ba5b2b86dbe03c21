//! What other crates of ours share. It is no part of the public API, and changes as they need it.

use rustls::SignatureScheme;

use crate::der_writer::{INTEGER, SEQUENCE, value};

/// Files for their owner alone that change at once.
pub mod disk {
    pub use crate::disk::{Failure, Lock, advice, beside, may_pass, replace, try_room};
}

/// Who a certificate in DER is for and by whom; `None` when it can't be read.
#[cfg(feature = "csr")]
#[must_use]
pub fn summary(der: &[u8]) -> Option<crate::CertificateSummary> {
    crate::certificate::Certificate::parse(der).map(Into::into)
}

/// The signatures that an RSA key makes in TLS, in the order in which they are preferred.
pub const RSA: &[SignatureScheme] = &[
    SignatureScheme::RSA_PSS_SHA256,
    SignatureScheme::RSA_PSS_SHA384,
    SignatureScheme::RSA_PSS_SHA512,
    SignatureScheme::RSA_PKCS1_SHA256,
    SignatureScheme::RSA_PKCS1_SHA384,
    SignatureScheme::RSA_PKCS1_SHA512,
];

/// DER of a SEQUENCE of two positive numbers, whatever zeros are in front of them: an ECDSA signature (RFC 3279), or an RSA
/// public key (RFC 8017).
#[must_use]
pub fn positive_numbers(numbers: [&[u8]; 2]) -> Vec<u8> {
    let [first, second] = numbers.map(|number| {
        let zeros = number.iter().take_while(|byte| **byte == 0).count();
        let number = number.get(zeros..).unwrap_or_default();
        // A first bit that is set would make it negative.
        let zero: &[u8] =
            if number.first().is_none_or(|first| *first >= 0x80) { &[0] } else { &[] };
        value(INTEGER, &[zero, number])
    });
    value(SEQUENCE, &[&first, &second]).to_vec()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_der_have_no_zeros_in_front_and_stay_positive() {
        let der = positive_numbers([&[0, 0, 1], &[0x80]]);
        assert_eq!(der, [0x30, 7, 2, 1, 1, 2, 2, 0, 0x80]);
        assert_eq!(positive_numbers([&[0, 0], &[0x7f, 0]]), [0x30, 7, 2, 1, 0, 2, 2, 0x7f, 0]);
    }
}
