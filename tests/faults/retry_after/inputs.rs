//! What services and proxies put into `retry-after`, and what it means.

use std::time::{Duration, SystemTime};

/// Some values of `retry-after`, each on its own, and how long they ask to wait; `None` for junk.
pub(crate) struct Input {
    pub(crate) name: &'static str,
    pub(crate) key: &'static str,
    pub(crate) values: &'static [Value],
    pub(crate) asks: Option<Duration>,
}

/// A value, as text or as one of AMQP's numbers.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) enum Value {
    Text(&'static str),
    Int(i32),
    Long(i64),
    Ulong(u64),
    SmallUint(u8),
    Double(f64),
    Bool(bool),
}

/// The time by which all dates are read: Sunday, 6 November 1994, 08:49:37.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(784_111_777)
}

const LONGEST: u64 = u64::MAX;

use Value::{Bool, Double, Int, Long, SmallUint, Text, Ulong};

const fn input(name: &'static str, values: &'static [Value], asks: Option<u64>) -> Input {
    let asks = match asks {
        Some(seconds) => Some(Duration::from_secs(seconds)),
        None => None,
    };
    Input { name, key: "retry-after", values, asks }
}

const fn spelt(
    name: &'static str,
    key: &'static str,
    values: &'static [Value],
    asks: u64,
) -> Input {
    Input { key, ..input(name, values, Some(asks)) }
}

pub(crate) const INPUTS: &[Input] = &[
    input("absent", &[], None),
    input("0", &[Text("0")], Some(0)),
    input("1", &[Text("1")], Some(1)),
    input("2", &[Text("2")], Some(2)),
    input("3", &[Text("3")], Some(3)),
    input("5", &[Text("5")], Some(5)),
    input("10", &[Text("10")], Some(10)),
    input("30", &[Text("30")], Some(30)),
    input("49", &[Text("49")], Some(49)),
    input("59", &[Text("59")], Some(59)),
    input("60", &[Text("60")], Some(60)),
    input("61", &[Text("61")], Some(61)),
    input("600", &[Text("600")], Some(600)),
    input("3600", &[Text("3600")], Some(3600)),
    input("86400", &[Text("86400")], Some(86_400)),
    input("-1", &[Text("-1")], None),
    input("-0", &[Text("-0")], None),
    input("-600", &[Text("-600")], None),
    input("a sign", &[Text("+5")], Some(5)),
    input("two signs", &[Text("++5")], None),
    input("a sign alone", &[Text("+")], None),
    input("leading zeros", &[Text("007")], Some(7)),
    input("zeros", &[Text("0000")], Some(0)),
    input("1.5", &[Text("1.5")], None),
    input("2.0", &[Text("2.0")], None),
    input("1e3", &[Text("1e3")], None),
    input("0x10", &[Text("0x10")], None),
    input("1_000", &[Text("1_000")], None),
    input("a unit", &[Text("5s")], None),
    input("soon", &[Text("soon")], None),
    input("NaN", &[Text("NaN")], None),
    input("inf", &[Text("inf")], None),
    input("empty", &[Text("")], None),
    input("a space", &[Text(" ")], None),
    input("space before", &[Text(" 5")], Some(5)),
    input("space after", &[Text("5 ")], Some(5)),
    input("space inside", &[Text("5 0")], None),
    input("joined", &[Text("5, 7")], Some(7)),
    input("joined, larger first", &[Text("7,5")], Some(7)),
    input("joined, one junk", &[Text("soon, 4")], Some(4)),
    input("joined, all junk", &[Text("soon, -4,")], None),
    input("joined and twice", &[Text("1, 3"), Text("2")], Some(3)),
    input("digits of another script", &[Text("\u{0665}")], None),
    input("2^31", &[Text("2147483648")], Some(1 << 31)),
    input("2^32", &[Text("4294967296")], Some(1 << 32)),
    input("2^63", &[Text("9223372036854775808")], Some(1 << 63)),
    input("2^64 - 1", &[Text("18446744073709551615")], Some(LONGEST)),
    input("2^64", &[Text("18446744073709551616")], Some(LONGEST)),
    input(
        "sixty digits",
        &[Text("999999999999999999999999999999999999999999999999999999999999")],
        Some(LONGEST),
    ),
    input("date in 10 s", &[Text("Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
    input("date in 10 s, RFC 850", &[Text("Sunday, 06-Nov-94 08:49:47 GMT")], Some(10)),
    input("date in 10 s, asctime", &[Text("Sun Nov  6 08:49:47 1994")], Some(10)),
    input("date: now", &[Text("Sun, 06 Nov 1994 08:49:37 GMT")], Some(0)),
    input("date: past", &[Text("Sat, 05 Nov 1994 08:49:37 GMT")], Some(0)),
    input("date: in an hour", &[Text("Sun, 06 Nov 1994 09:49:37 GMT")], Some(3600)),
    input("date: no such hour", &[Text("Sun, 06 Nov 1994 25:49:37 GMT")], None),
    input("date: no such month", &[Text("Sun, 06 Nox 1994 08:49:47 GMT")], None),
    input("date: not GMT", &[Text("Sun, 06 Nov 1994 08:49:47 CET")], None),
    input("date: ISO 8601", &[Text("1994-11-06T08:49:47Z")], None),
    input("twice", &[Text("3"), Text("7")], Some(7)),
    input("twice, larger first", &[Text("7"), Text("3")], Some(7)),
    input("twice, one junk", &[Text("soon"), Text("4")], Some(4)),
    input("twice, one negative", &[Text("-9"), Text("0")], Some(0)),
    input("twice, one a date", &[Text("4"), Text("Sun, 06 Nov 1994 08:49:47 GMT")], Some(10)),
    spelt("Retry-After", "Retry-After", &[Text("5")], 5),
    spelt("RETRY-AFTER", "RETRY-AFTER", &[Text("5")], 5),
    spelt("rEtRy-aFtEr", "rEtRy-aFtEr", &[Text("5")], 5),
    input("int 5", &[Int(5)], Some(5)),
    input("int -5", &[Int(-5)], None),
    input("long 600", &[Long(600)], Some(600)),
    input("ulong 2^64 - 1", &[Ulong(u64::MAX)], Some(LONGEST)),
    input("smalluint 7", &[SmallUint(7)], Some(7)),
    input("double 1.5", &[Double(1.5)], None),
    input("bool", &[Bool(true)], None),
    input("int and text", &[Int(3), Text("9")], Some(9)),
];

impl Input {
    /// Whether only AMQP can carry it: elsewhere all values are text.
    pub(crate) fn is_typed(&self) -> bool {
        self.values.iter().any(|value| !matches!(value, Text(_)))
    }

    pub(crate) fn texts(&self) -> impl Iterator<Item = &'static str> {
        self.values.iter().filter_map(|value| match value {
            Text(text) => Some(*text),
            _ => None,
        })
    }
}
