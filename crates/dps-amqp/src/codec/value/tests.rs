use super::*;
use proptest::prelude::*;

/// A value with all that it holds.
#[derive(Debug, PartialEq)]
enum Tree {
    One(Value<'static>),
    Binary(Vec<u8>),
    Text(String),
    List(Vec<Tree>),
    Map(Vec<Tree>),
    Described(u64, Box<Tree>),
}

fn tree(value: Value<'_>) -> Tree {
    match value {
        Value::Null => Tree::One(Value::Null),
        Value::Bool(value) => Tree::One(Value::Bool(value)),
        Value::Unsigned(value) => Tree::One(Value::Unsigned(value)),
        Value::Signed(value) => Tree::One(Value::Signed(value)),
        Value::Uuid(value) => Tree::One(Value::Uuid(value)),
        Value::Other => Tree::One(Value::Other),
        Value::Binary(bytes) => Tree::Binary(bytes.to_vec()),
        Value::Text(text) => Tree::Text(String::from_utf8_lossy(text).into_owned()),
        Value::List(elements) => Tree::List(elements.map(tree).collect()),
        Value::Map(elements) => Tree::Map(elements.map(tree).collect()),
        Value::Described(code, inner) => Tree::Described(code, Box::new(tree(inner.read()))),
    }
}

fn read(mut bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    let value = Value::read(&mut bytes)?;
    assert!(bytes.is_empty(), "{value:?} left {bytes:?}");
    Ok(value)
}

#[test]
fn every_encoding_of_every_type_is_read() {
    let text = |text: &str| Tree::Text(text.to_owned());
    let list = Tree::List;
    for (bytes, value) in [
        (&[0x40][..], Tree::One(Value::Null)),
        (&[0x41], Tree::One(Value::Bool(true))),
        (&[0x56, 0], Tree::One(Value::Bool(false))),
        (&[0x50, 7], Tree::One(Value::Unsigned(7))),
        (&[0x60, 1, 0], Tree::One(Value::Unsigned(256))),
        (&[0x43], Tree::One(Value::Unsigned(0))),
        (&[0x52, 9], Tree::One(Value::Unsigned(9))),
        (&[0x70, 0, 0, 1, 0], Tree::One(Value::Unsigned(256))),
        (&[0x80, 255, 255, 255, 255, 255, 255, 255, 255], Tree::One(Value::Unsigned(u64::MAX))),
        (&[0x54, 0xff], Tree::One(Value::Signed(-1))),
        (&[0x71, 0xff, 0xff, 0xff, 0xfe], Tree::One(Value::Signed(-2))),
        (&[0x81, 0, 0, 0, 0, 0, 0, 0, 3], Tree::One(Value::Signed(3))),
        (&[0x83, 0, 0, 0, 0, 0, 0, 0, 4], Tree::One(Value::Signed(4))),
        (&[0x72, 0, 0, 0, 0], Tree::One(Value::Other)),
        (&[0xa0, 2, 1, 2], Tree::Binary(vec![1, 2])),
        (&[0xa1, 2, b'h', b'i'], text("hi")),
        (&[0xb3, 0, 0, 0, 1, b's'], text("s")),
        (&[0x45], list(vec![])),
        (
            &[0xc0, 3, 2, 0x40, 0x41],
            list(vec![Tree::One(Value::Null), Tree::One(Value::Bool(true))]),
        ),
        (&[0xd0, 0, 0, 0, 5, 0, 0, 0, 1, 0x42], list(vec![Tree::One(Value::Bool(false))])),
        (
            &[0xc1, 6, 2, 0xa3, 1, b'k', 0x52, 5],
            Tree::Map(vec![text("k"), Tree::One(Value::Unsigned(5))]),
        ),
        (&[0xe0, 6, 2, 0xa3, 1, b'a', 1, b'b'], list(vec![text("a"), text("b")])),
        (&[0, 0x53, 0x24, 0x45], Tree::Described(0x24, Box::new(list(vec![])))),
        (
            &[0, 0xa3, 4, b'n', b'o', b'n', b'e', 0x40],
            Tree::Described(0, Box::new(Tree::One(Value::Null))),
        ),
    ] {
        assert_eq!(read(bytes).map(tree), Ok(value), "{bytes:?}");
    }
}

#[test]
fn a_value_that_is_cut_short_or_has_no_type_is_refused() {
    for (bytes, says) in [
        (&[][..], "longer"),
        (&[0xa1, 5, b'h'], "longer"),
        (&[0xb0, 0xff, 0xff, 0xff, 0xff], "longer"),
        (&[0, 0x53, 0x10], "longer"),
        (&[0x09], "no type"),
        (&[0, 0x39, 0x40], "no type"),
    ] {
        let reason = read(bytes).unwrap_err().to_string();
        assert!(reason.contains(says), "{bytes:?} {says}: {reason}");
    }
}

/// What is odd inside of a value costs only that part of it.
#[test]
fn odd_bytes_inside_of_a_value_cost_no_more_than_the_part_they_stand_in() {
    let one = |value| Tree::One(value);
    for (name, bytes, expected) in [
        ("text that is no UTF-8", &[0xa1, 2, 0xff, b'a'][..], Tree::Text("\u{fffd}a".into())),
        ("a type that nobody knows", &[0x99; 17], one(Value::Other)),
        ("a key without a value", &[0xc1, 2, 1, 0x40], Tree::Map(vec![one(Value::Null)])),
        ("a count that lies", &[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], Tree::List(vec![])),
        ("an array of described values", &[0xe0, 3, 1, 0, 0x53], Tree::List(vec![])),
        ("an empty array without a constructor", &[0xe0, 1, 0], Tree::List(vec![])),
        ("a list without a count", &[0xc0, 0], Tree::List(vec![])),
        (
            "a descriptor that is a flag",
            &[0, 0x41, 0x40],
            Tree::Described(0, Box::new(one(Value::Null))),
        ),
        (
            "an element that is longer than its list",
            &[0xc0, 4, 2, 0x41, 0xa1, 9],
            Tree::List(vec![one(Value::Bool(true))]),
        ),
    ] {
        assert_eq!(read(bytes).map(tree), Ok(expected), "{name}: {bytes:?}");
    }
}

#[test]
fn depth_and_length_cost_no_memory_and_no_stack() {
    let deep_descriptors = [[0, 0x53, 0x10].repeat(20_000), vec![0x41]].concat();
    assert_eq!(read(&deep_descriptors).unwrap().to_string(), "true");
    let described_descriptors = [vec![0; 20_000], vec![0x41; 20_001]].concat();
    assert_eq!(read(&described_descriptors).unwrap().to_string(), "true");
    let deep_lists = (0..10_000_u32).fold(vec![0x40], |inner, _| {
        let size = u32::try_from(inner.len() + 4).unwrap().to_be_bytes();
        [&[0xd0][..], &size, &[0, 0, 0, 1], &inner].concat()
    });
    assert_eq!(read(&deep_lists).unwrap().to_string(), "");
    // Four billion nulls, in ten bytes.
    let endless = [0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40];
    assert_eq!(read(&endless).unwrap().into_list().count(), 4096);
}

#[test]
fn what_has_a_text_shows_it() {
    let uuid = Value::Uuid([0xab; 16]);
    assert_eq!(uuid.to_string(), "abababab-abab-abab-abab-abababababab");
    assert_eq!(Value::Signed(-5).to_string(), "-5");
    assert_eq!(Value::Binary(b"ok").to_string(), "ok");
    assert_eq!(Value::List(Elements::default()).to_string(), "");
}

proptest! {
    #[test]
    fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut rest = &bytes[..];
        let _ = Value::read(&mut rest);
        prop_assert!(rest.len() <= bytes.len());
    }

    /// What the library writes, we read.
    #[test]
    fn the_library_and_we_agree(text in ".{0,300}", number: u64, small: i32, blob: Vec<u8>) {
        let bytes = serde_amqp::to_vec(&(text.clone(), number, small, serde_amqp::primitives::Binary::from(blob.clone()))).unwrap();
        prop_assert_eq!(read(&bytes).map(tree), Ok(Tree::List(vec![
            Tree::Text(text),
            Tree::One(Value::Unsigned(number)),
            Tree::One(Value::Signed(small.into())),
            Tree::Binary(blob),
        ])));
    }
}
