//! How long a value is, found without trusting it. The library's decoder follows nested values without a bound;
//! nothing reaches it that was not walked through here. Nor does it expect a map whose last key has no value.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html#section-encodings>.

/// How deep values may nest.
const DEPTH: u8 = 24;
/// How many elements an array may have that take no bytes each.
const MAX_EMPTY: usize = 1024;

/// Splits the first value from what comes after it. `None` when it is not whole, nests too deep or is no value.
pub(super) fn split_value(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let rest = skip(bytes, DEPTH)?;
    bytes.split_at_checked(bytes.len() - rest.len())
}

fn skip(bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let depth = depth.checked_sub(1)?;
    let (code, rest) = bytes.split_first()?;
    match code {
        0 => skip(skip(rest, depth)?, depth),
        code => skip_contents(*code, rest, depth),
    }
}

fn skip_contents(code: u8, bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let width = match code >> 4 {
        4 => 0,
        5 => 1,
        6 => 2,
        7 => 4,
        8 => 8,
        9 => 16,
        0xa => return sized::<1>(bytes).map(|(_, rest)| rest),
        0xb => return sized::<4>(bytes).map(|(_, rest)| rest),
        0xc => return compound::<1>(code, bytes, depth),
        0xd => return compound::<4>(code, bytes, depth),
        0xe => return array::<1>(bytes, depth),
        0xf => return array::<4>(bytes, depth),
        _ => return None,
    };
    bytes.get(width..)
}

fn compound<const N: usize>(code: u8, bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let (inside, rest) = sized::<N>(bytes)?;
    let (count, mut inside) = number::<N>(inside)?;
    let is_map = code & 0xf == 1;
    if is_map && count % 2 != 0 {
        return None;
    }
    // Each takes a byte at least: a count that lies ends with the bytes.
    for _ in 0..count {
        inside = skip(inside, depth)?;
    }
    Some(rest)
}

fn array<const N: usize>(bytes: &[u8], depth: u8) -> Option<&[u8]> {
    let (inside, rest) = sized::<N>(bytes)?;
    let (count, inside) = number::<N>(inside)?;
    let (code, mut inside) = inside.split_first()?;
    if count > inside.len() + MAX_EMPTY {
        return None;
    }
    let depth = depth.checked_sub(1)?;
    for _ in 0..count {
        inside = skip_contents(*code, inside, depth)?;
    }
    Some(rest)
}

/// What a size of N bytes spans, and what comes after it.
fn sized<const N: usize>(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (size, rest) = number::<N>(bytes)?;
    rest.split_at_checked(size)
}

fn number<const N: usize>(bytes: &[u8]) -> Option<(usize, &[u8])> {
    let (number, rest) = bytes.split_first_chunk::<N>()?;
    Some((number.iter().fold(0, |sum, byte| sum << 8 | usize::from(*byte)), rest))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_value_ends_where_it_says() {
        for value in [
            &[0x40][..],
            &[0x53, 1],
            &[0x98, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15],
            &[0xa1, 2, b'h', b'i'],
            &[0xb0, 0, 0, 0, 1, 9],
            &[0x45],
            &[0xc0, 3, 2, 0x40, 0x41],
            &[0xc1, 6, 2, 0xa3, 1, b'k', 0x52, 5],
            &[0xe0, 6, 2, 0xa3, 1, b'a', 1, b'b'],
            &[0, 0x53, 0x24, 0x45],
        ] {
            let followed = [value, &[1, 2, 3]].concat();
            assert_eq!(split_value(&followed), Some((value, &[1, 2, 3][..])), "{value:?}");
        }
    }

    #[test]
    fn what_lies_or_nests_without_end_is_no_value() {
        let deep = [0, 0x53, 0x10].repeat(20_000);
        for bytes in [
            &[][..],
            &[0x99],
            &[0x3f],
            &[0xa1, 3, b'h'],
            &[0xb0, 0xff, 0xff, 0xff, 0xff],
            &[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff],
            &[0xc1, 2, 1, 0x40],
            &[0xd1, 0, 0, 0, 7, 0, 0, 0, 3, 0x40, 0x41, 0x42],
            &[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40],
            &deep,
        ] {
            assert_eq!(split_value(bytes), None);
        }
    }
}
