//! Values of the AMQP type system, read from bytes of a peer that is not trusted.
//!
//! The library's own decoder is not used for what comes in: it follows nested values without a bound, so that one
//! frame of a hostile peer overflows the stack, and it wants symbols where some services send strings.
//! See <https://docs.oasis-open.org/amqp/core/v1.0/os/amqp-core-types-v1.0-os.html#section-encodings>.

use std::{fmt, fmt::Write};

/// Bytes that are not what they should be, with the reason.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Malformed(pub(crate) String);

impl Malformed {
    pub(crate) fn new(reason: impl Into<String>) -> Self {
        Self(reason.into())
    }
}

/// A value. It borrows texts and bytes from what it was read from.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// A string or a symbol: peers take one for the other.
    Text(&'a str),
    /// A list or an array.
    List(Vec<Value<'a>>),
    /// Pairs, in the order in which they came.
    Map(Vec<(Value<'a>, Value<'a>)>),
    /// A value with its descriptor, as its numeric code.
    Described(u64, Box<Value<'a>>),
    /// A value of a type that nothing here is made of: a floating-point number, a decimal, a character.
    Other,
}

/// How deep values may nest. What the protocol itself sends nests half as deep.
const MAX_DEPTH: u8 = 16;
/// How many values one may be made of; it bounds the memory that a few bytes can claim.
const MAX_VALUES: u16 = 4096;

impl<'a> Value<'a> {
    /// Reads one value and moves `bytes` to what comes after it.
    ///
    /// # Errors
    /// [`Malformed`] when the bytes end too early, have a code that is none, nest too deep or hold too many values.
    pub fn read(bytes: &mut &'a [u8]) -> Result<Self, Malformed> {
        Reader { rest: bytes, values_left: &mut { MAX_VALUES } }.value(MAX_DEPTH)
    }

    /// The text, if it is one.
    #[must_use]
    pub fn as_text(&self) -> Option<&'a str> {
        match self {
            Self::Text(text) => Some(text),
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
    pub(crate) fn into_list(self) -> Vec<Self> {
        match self {
            Self::List(values) => values,
            Self::Null => Vec::new(),
            single => vec![single],
        }
    }

    /// A map's pairs with their keys as text; empty for anything else.
    pub(crate) fn into_named(self) -> impl Iterator<Item = (&'a str, Self)> {
        let pairs = match self {
            Self::Map(pairs) => pairs,
            _ => Vec::new(),
        };
        pairs.into_iter().filter_map(|(key, value)| Some((key.as_text()?, value)))
    }
}

/// The value as a person or a parser of text reads it; nothing for what has no such form.
impl fmt::Display for Value<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Bool(value) => value.fmt(f),
            Self::Unsigned(value) => value.fmt(f),
            Self::Signed(value) => value.fmt(f),
            Self::Uuid(bytes) => f.write_str(&uuid_text(bytes)),
            Self::Binary(bytes) => f.write_str(&String::from_utf8_lossy(bytes)),
            Self::Text(text) => f.write_str(text),
            Self::Described(_, value) => value.fmt(f),
            Self::Null | Self::List(_) | Self::Map(_) | Self::Other => Ok(()),
        }
    }
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

struct Reader<'r, 'a> {
    rest: &'r mut &'a [u8],
    values_left: &'r mut u16,
}

impl<'a> Reader<'_, 'a> {
    fn value(&mut self, depth: u8) -> Result<Value<'a>, Malformed> {
        match self.u8()? {
            0 => {
                let deeper = deeper(depth)?;
                let descriptor = match self.value(deeper)? {
                    Value::Unsigned(code) => code,
                    Value::Text(name) => code_of(name),
                    _ => return Err(Malformed::new("a descriptor is neither code nor name")),
                };
                Ok(Value::Described(descriptor, Box::new(self.value(deeper)?)))
            }
            code => self.of_code(code, depth),
        }
    }

    /// Reads a value whose constructor has been read.
    fn of_code(&mut self, code: u8, depth: u8) -> Result<Value<'a>, Malformed> {
        *self.values_left = self
            .values_left
            .checked_sub(1)
            .ok_or_else(|| Malformed::new(format!("more than {MAX_VALUES} values in one")))?;
        Ok(match code {
            0x40 => Value::Null,
            0x41 => Value::Bool(true),
            0x42 => Value::Bool(false),
            0x56 => Value::Bool(self.u8()? != 0),
            0x43 | 0x44 => Value::Unsigned(0),
            0x50 | 0x52 | 0x53 => Value::Unsigned(self.u8()?.into()),
            0x60 => Value::Unsigned(u16::from_be_bytes(self.array()?).into()),
            0x70 => Value::Unsigned(self.u32()?.into()),
            0x80 => Value::Unsigned(u64::from_be_bytes(self.array()?)),
            0x51 | 0x54 | 0x55 => Value::Signed(i8::from_be_bytes(self.array()?).into()),
            0x61 => Value::Signed(i16::from_be_bytes(self.array()?).into()),
            0x71 => Value::Signed(i32::from_be_bytes(self.array()?).into()),
            0x81 | 0x83 => Value::Signed(i64::from_be_bytes(self.array()?)),
            0x98 => Value::Uuid(self.array()?),
            0x72..=0x74 => self.other(4)?,
            0x82 | 0x84 => self.other(8)?,
            0x94 => self.other(16)?,
            0xa0 | 0xb0 => Value::Binary(self.variable(code)?),
            0xa1 | 0xa3 | 0xb1 | 0xb3 => Value::Text(
                std::str::from_utf8(self.variable(code)?)
                    .map_err(|_| Malformed::new("a text is no UTF-8"))?,
            ),
            0x45 => Value::List(Vec::new()),
            0xc0 | 0xd0 => Value::List(self.compound(code, depth)?),
            0xc1 | 0xd1 => Value::Map(pairs(self.compound(code, depth)?)?),
            0xe0 | 0xf0 => Value::List(self.elements(code, depth)?),
            code => return Err(Malformed::new(format!("0x{code:02x} is no type"))),
        })
    }

    fn compound(&mut self, code: u8, depth: u8) -> Result<Vec<Value<'a>>, Malformed> {
        let deeper = deeper(depth)?;
        let mut inside = self.variable(code)?;
        let mut reader = Reader { rest: &mut inside, values_left: self.values_left };
        let count = reader.size(code)?;
        // Each value takes at least a byte, so that a count that lies ends with the bytes.
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(reader.value(deeper)?);
        }
        Ok(values)
    }

    /// An array: one constructor for all. Elements may take no bytes at all; the bound on values holds them.
    fn elements(&mut self, code: u8, depth: u8) -> Result<Vec<Value<'a>>, Malformed> {
        let deeper = deeper(depth)?;
        let mut inside = self.variable(code)?;
        let mut reader = Reader { rest: &mut inside, values_left: self.values_left };
        let count = reader.size(code)?;
        let element = match reader.u8()? {
            0 => return Err(Malformed::new("an array of described values")),
            element => element,
        };
        let mut values = Vec::new();
        for _ in 0..count {
            values.push(reader.of_code(element, deeper)?);
        }
        Ok(values)
    }

    /// What follows a size; the size takes one byte or four, as the code says.
    fn variable(&mut self, code: u8) -> Result<&'a [u8], Malformed> {
        let size = self.size(code)?;
        self.take(usize::try_from(size).unwrap_or(usize::MAX))
    }

    fn size(&mut self, code: u8) -> Result<u32, Malformed> {
        // 0xb, 0xd and 0xf have wide sizes, 0xa, 0xc and 0xe narrow ones.
        if code & 0x10 == 0 { self.u8().map(u32::from) } else { self.u32() }
    }

    fn other(&mut self, width: usize) -> Result<Value<'a>, Malformed> {
        self.take(width).map(|_| Value::Other)
    }

    fn u8(&mut self) -> Result<u8, Malformed> {
        self.array().map(|[byte]| byte)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (head, rest) = self.rest.split_first_chunk().ok_or_else(too_short)?;
        *self.rest = rest;
        Ok(*head)
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Malformed> {
        let (head, rest) = self.rest.split_at_checked(count).ok_or_else(too_short)?;
        *self.rest = rest;
        Ok(head)
    }
}

fn too_short() -> Malformed {
    Malformed::new("a value is longer than what holds it")
}

fn deeper(depth: u8) -> Result<u8, Malformed> {
    depth.checked_sub(1).ok_or_else(|| Malformed::new("values nest too deep"))
}

fn pairs(values: Vec<Value<'_>>) -> Result<Vec<(Value<'_>, Value<'_>)>, Malformed> {
    let mut pairs = Vec::with_capacity(values.len() / 2);
    let mut values = values.into_iter();
    while let Some(key) = values.next() {
        let value = values.next().ok_or_else(|| Malformed::new("a map's last key has no value"))?;
        pairs.push((key, value));
    }
    Ok(pairs)
}

/// The numeric code of a descriptor that is given by name; 0 for one that means nothing here.
fn code_of(name: &str) -> u64 {
    const NAMES: [(&str, u64); 25] = [
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
        ("amqp:value:*", 0x77),
        ("amqp:footer:map", 0x78),
    ];
    NAMES.into_iter().find(|(known, _)| *known == name).map_or(0, |(_, code)| code)
}

#[cfg(test)]
mod tests;
