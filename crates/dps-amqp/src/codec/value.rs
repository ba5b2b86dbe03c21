//! Values of the AMQP type system, read from bytes of a peer that is not trusted.
//!
//! The library's own decoder is not used for what comes in: it follows nested values without a bound, so that one
//! frame of a hostile peer overflows the stack, and it wants symbols where some services send strings.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html#section-encodings>.

use std::{borrow::Cow, fmt, fmt::Write};

/// Bytes that are not what they should be, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A value, read one level deep: what a list, a map or a described value holds is read when somebody asks for it, so that
/// odd bytes in a part that nobody reads do no harm, and no depth of nesting costs memory. It borrows from what it was
/// read from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Value<'a> {
    /// Nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An unsigned integer of any width.
    Unsigned(u64),
    /// A signed integer of any width, or a timestamp: milliseconds since 1970.
    Signed(i64),
    /// A UUID.
    Uuid([u8; 16]),
    /// Bytes.
    Binary(&'a [u8]),
    /// A string or a symbol: peers take one for the other. It should be UTF-8.
    Text(&'a [u8]),
    /// A list or an array.
    List(Elements<'a>),
    /// Keys and values in turn, in the order in which they came.
    Map(Elements<'a>),
    /// A value with its descriptor, as its numeric code; 0 for an unknown descriptor.
    Described(u64, Encoded<'a>),
    /// A value of a type that nothing here is made of: a floating-point number, a decimal, a character.
    Other,
}

/// The bytes of one whole value.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Encoded<'a>(&'a [u8]);

/// The elements of a list, an array or a map, read one by one. They end early where no further one can be read
/// from what follows, and after 4096.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Elements<'a> {
    rest: &'a [u8],
    left: u32,
    /// The constructor that all elements of an array share.
    shared: Option<u8>,
}

/// How many elements of a list are read. It bounds the time and memory that a few bytes can claim: the elements of an
/// array may take no bytes at all.
const MAX_ELEMENTS: u32 = 4096;

impl<'a> Value<'a> {
    /// Reads one value and moves `bytes` to what comes after it.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes end too early or begin with no constructor.
    pub fn read(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        Encoded::take(bytes).map(Encoded::read)
    }

    /// The text, if it is one. Bytes that are no UTF-8 are replaced.
    #[must_use]
    pub fn as_text(&self) -> Option<Cow<'a, str>> {
        match self {
            Self::Text(text) => Some(String::from_utf8_lossy(text)),
            _ => None,
        }
    }

    /// The number, if it is one and not negative.
    #[must_use]
    pub fn as_u64(&self) -> Option<u64> {
        match self {
            Self::Unsigned(number) => Some(*number),
            Self::Signed(number) => u64::try_from(*number).ok(),
            _ => None,
        }
    }

    /// A list's elements; a single value counts as a list of one, nothing as an empty one.
    pub(crate) fn into_list(self) -> impl Iterator<Item = Self> {
        let (elements, single) = match self {
            Self::List(elements) => (elements, None),
            Self::Null => (Elements::default(), None),
            single => (Elements::default(), Some(single)),
        };
        single.into_iter().chain(elements)
    }

    /// A map's pairs whose keys are text; empty for anything else.
    pub(crate) fn into_named(self) -> impl Iterator<Item = (Cow<'a, str>, Self)> {
        let mut elements = match self {
            Self::Map(elements) => elements,
            _ => Elements::default(),
        };
        std::iter::from_fn(move || Some((elements.next()?, elements.next()?)))
            .filter_map(|(key, value)| Some((key.as_text()?, value)))
    }

    /// The value without descriptors around it.
    fn undescribed(mut self) -> Self {
        while let Self::Described(_, inner) = self {
            self = inner.read();
        }
        self
    }

    /// Reads what follows a constructor; `data` is all of it.
    fn of_code(code: u8, data: &'a [u8]) -> Self {
        let unsigned = data.iter().take(8).fold(0_u64, |sum, byte| sum << 8 | u64::from(*byte));
        match code {
            0x40 => Self::Null,
            0x41 => Self::Bool(true),
            0x42 => Self::Bool(false),
            0x56 => Self::Bool(unsigned != 0),
            0x43 | 0x44 | 0x50 | 0x52 | 0x53 | 0x60 | 0x70 | 0x80 => Self::Unsigned(unsigned),
            0x51 | 0x54 | 0x55 | 0x61 | 0x71 | 0x81 | 0x83 => {
                let unused = 64 - 8 * u32::try_from(data.len()).unwrap_or(8);
                Self::Signed((unsigned << unused).cast_signed() >> unused)
            }
            0x98 => data.try_into().map_or(Self::Other, Self::Uuid),
            0xa0 | 0xb0 => Self::Binary(data),
            0xa1 | 0xa3 | 0xb1 | 0xb3 => Self::Text(data),
            0x45 => Self::List(Elements::default()),
            0xc0 | 0xd0 => Self::List(Elements::of_list(code, data)),
            0xc1 | 0xd1 => Self::Map(Elements::of_list(code, data)),
            0xe0 | 0xf0 => Self::List(Elements::of_array(code, data)),
            _ => Self::Other,
        }
    }
}

/// The value as a person or a parser of text reads it; nothing for what has no such form.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.undescribed() {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Uuid(bytes) => f.write_str(&uuid_text(&bytes)),
            Self::Binary(bytes) | Self::Text(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            _ => Ok(()),
        }
    }
}

impl<'a> Encoded<'a> {
    /// Takes one value off the front of the bytes. Nothing inside of it is looked at, and no recursion is needed: each
    /// type says how many bytes follow, one that nobody knows too
    /// ([1.2](https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html#section-encodings)).
    fn take(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        let mut rest = *bytes;
        // A descriptor is a value, and a value follows it.
        let mut values = 1_usize;
        while values > 0 {
            match take_code(&mut rest)? {
                0 => values += 1,
                code => {
                    take_data(code, &mut rest)?;
                    values -= 1;
                }
            }
        }
        let (value, _) = bytes.split_at_checked(bytes.len() - rest.len()).unwrap_or_default();
        *bytes = rest;
        Ok(Self(value))
    }

    /// Reads the value.
    #[must_use]
    pub fn read(self) -> Value<'a> {
        let Self(mut rest) = self;
        match take_code(&mut rest) {
            Ok(0) => {
                let Ok(descriptor) = Self::take(&mut rest) else { return Value::Other };
                Value::Described(descriptor.code(), Self(rest))
            }
            Ok(code) => match take_data(code, &mut rest) {
                Ok(data) => Value::of_code(code, data),
                Err(_) => Value::Other,
            },
            Err(_) => Value::Other,
        }
    }

    /// The numeric code of a descriptor.
    fn code(self) -> u64 {
        let Self(bytes) = self;
        // A described descriptor is none that anybody knows.
        match bytes.first() {
            Some(0) | None => 0,
            _ => match self.read() {
                Value::Unsigned(code) => code,
                Value::Text(name) => code_of(name),
                _ => 0,
            },
        }
    }
}

impl<'a> Elements<'a> {
    fn of_list(code: u8, mut data: &'a [u8]) -> Self {
        let left = take_size(code, &mut data).unwrap_or(0).min(MAX_ELEMENTS);
        Self { rest: data, left, shared: None }
    }

    /// One constructor for all elements. Where they are described, nobody reads them.
    fn of_array(code: u8, data: &'a [u8]) -> Self {
        let list = Self::of_list(code, data);
        match list.rest.split_first() {
            Some((shared @ 1.., rest)) => Self { rest, shared: Some(*shared), ..list },
            _ => Self::default(),
        }
    }
}

impl<'a> Iterator for Elements<'a> {
    type Item = Value<'a>;

    fn next(&mut self) -> Option<Value<'a>> {
        self.left = self.left.checked_sub(1)?;
        match self.shared {
            None => Value::read(&mut self.rest).ok(),
            Some(code) => Some(Value::of_code(code, take_data(code, &mut self.rest).ok()?)),
        }
    }
}

fn take_code(rest: &mut &[u8]) -> Result<u8, Malformed> {
    take(1, rest)?.first().copied().ok_or_else(too_short)
}

/// What follows a constructor, without a size in front of it.
fn take_data<'a>(code: u8, rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let width = match code >> 4 {
        0x4 => 0,
        0x5 => 1,
        0x6 => 2,
        0x7 => 4,
        0x8 => 8,
        0x9 => 16,
        0xa..=0xf => usize::try_from(take_size(code, rest)?).unwrap_or(usize::MAX),
        _ => return Err(Malformed::new(format!("0x{code:02x} is no type"))),
    };
    take(width, rest)
}

/// A size or a count, of one byte or four: 0xb, 0xd and 0xf have wide ones, 0xa, 0xc and 0xe narrow ones.
fn take_size(code: u8, rest: &mut &[u8]) -> Result<u32, Malformed> {
    let width = if code & 0x10 == 0 { 1 } else { 4 };
    Ok(take(width, rest)?.iter().fold(0, |sum, byte| sum << 8 | u32::from(*byte)))
}

fn take<'a>(count: usize, rest: &mut &'a [u8]) -> Result<&'a [u8], Malformed> {
    let (head, tail) = rest.split_at_checked(count).ok_or_else(too_short)?;
    *rest = tail;
    Ok(head)
}

fn too_short() -> Malformed {
    Malformed::new("a value is longer than what holds it")
}

/// The usual form of a UUID: `xxxxxxxx-xxxx-xxxx-xxxx-xxxxxxxxxxxx`.
pub(crate) fn uuid_text(bytes: &[u8; 16]) -> String {
    let mut text = String::with_capacity(36);
    for (index, byte) in bytes.iter().enumerate() {
        if matches!(index, 4 | 6 | 8 | 10) {
            text.push('-');
        }
        // Writing to a String does not fail.
        let _ = write!(text, "{byte:02x}");
    }
    text
}

/// The numeric code of a descriptor that is given by name; 0 for one that means nothing here.
fn code_of(name: &[u8]) -> u64 {
    const NAMES: [(&str, u64); 26] = [
        ("amqp:open:list", 0x10),
        ("amqp:begin:list", 0x11),
        ("amqp:attach:list", 0x12),
        ("amqp:flow:list", 0x13),
        ("amqp:transfer:list", 0x14),
        ("amqp:disposition:list", 0x15),
        ("amqp:detach:list", 0x16),
        ("amqp:end:list", 0x17),
        ("amqp:close:list", 0x18),
        ("amqp:error:list", 0x1d),
        ("amqp:accepted:list", 0x24),
        ("amqp:rejected:list", 0x25),
        ("amqp:released:list", 0x26),
        ("amqp:modified:list", 0x27),
        ("amqp:sasl-mechanisms:list", 0x40),
        ("amqp:sasl-challenge:list", 0x42),
        ("amqp:sasl-outcome:list", 0x44),
        ("amqp:header:list", 0x70),
        ("amqp:delivery-annotations:map", 0x71),
        ("amqp:message-annotations:map", 0x72),
        ("amqp:properties:list", 0x73),
        ("amqp:application-properties:map", 0x74),
        ("amqp:data:binary", 0x75),
        ("amqp:amqp-sequence:list", 0x76),
        ("amqp:amqp-value:*", 0x77),
        ("amqp:footer:map", 0x78),
    ];
    NAMES.into_iter().find(|(known, _)| known.as_bytes() == name).map_or(0, |(_, code)| code)
}

#[cfg(test)]
mod tests;
