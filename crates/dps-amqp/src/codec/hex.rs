//! Golden bytes in tests.

/// The bytes of hexadecimal digits; spaces are for whoever reads them.
pub(crate) fn bytes(text: &str) -> Vec<u8> {
    let digits: Vec<_> = text.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap()).collect()
}
