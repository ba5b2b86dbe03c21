//! Values in DER, as completed keys and certificate requests are written. They may hold a secret, so they are wiped.

use zeroize::Zeroizing;

#[cfg(feature = "csr")]
pub(crate) const INTEGER_0: &[u8] = &[2, 1, 0];
pub(crate) const INTEGER: u8 = 2;
pub(crate) const BIT_STRING: u8 = 3;
pub(crate) const OCTET_STRING: u8 = 4;
pub(crate) const SEQUENCE: u8 = 0x30;

/// A value whose content is the parts, one after the other.
pub(crate) fn value(tag: u8, parts: &[&[u8]]) -> Zeroizing<Vec<u8>> {
    let length = parts.iter().map(|part| part.len()).sum::<usize>();
    let digits = length.to_be_bytes();
    let zeros = digits.iter().take_while(|digit| **digit == 0).count();
    // Room for all at once: growing would leave pieces of a key behind.
    let mut value = Zeroizing::new(Vec::with_capacity(2 + digits.len() + length));
    value.push(tag);
    match digits.get(zeros..).unwrap_or_default() {
        [] => value.push(0),
        [digit @ ..0x80] => value.push(*digit),
        digits => {
            value.push(0x80 | u8::try_from(digits.len()).unwrap_or(u8::MAX));
            value.extend_from_slice(digits);
        }
    }
    parts.iter().for_each(|part| value.extend_from_slice(part));
    value
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::shape::whole;

    #[test]
    fn values_of_every_length_are_read_again() {
        for length in [0, 1, 127, 128, 255, 256, 257, 65_535, 65_536, 70_000] {
            let content = vec![7; length];
            let (first, second) = content.split_at(length / 2);
            let written = value(OCTET_STRING, &[first, second]);
            assert_eq!(whole(&written).map(|read| read.value()), Some(&content[..]), "{length}");
        }
    }
}
