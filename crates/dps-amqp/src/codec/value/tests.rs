use super::*;
use proptest::prelude::*;

fn read(mut bytes: &[u8]) -> Result<Value<'_>, Malformed> {
    let value = Value::read(&mut bytes)?;
    assert!(bytes.is_empty(), "{value:?} left {bytes:?}");
    Ok(value)
}

#[test]
fn every_encoding_of_every_type_is_read() {
    let text = |text| Value::Text(text);
    for (bytes, value) in [
        (&[0x40][..], Value::Null),
        (&[0x41], Value::Bool(true)),
        (&[0x56, 0], Value::Bool(false)),
        (&[0x50, 7], Value::Unsigned(7)),
        (&[0x60, 1, 0], Value::Unsigned(256)),
        (&[0x43], Value::Unsigned(0)),
        (&[0x52, 9], Value::Unsigned(9)),
        (&[0x70, 0, 0, 1, 0], Value::Unsigned(256)),
        (&[0x80, 255, 255, 255, 255, 255, 255, 255, 255], Value::Unsigned(u64::MAX)),
        (&[0x54, 0xff], Value::Signed(-1)),
        (&[0x71, 0xff, 0xff, 0xff, 0xfe], Value::Signed(-2)),
        (&[0x81, 0, 0, 0, 0, 0, 0, 0, 3], Value::Signed(3)),
        (&[0x83, 0, 0, 0, 0, 0, 0, 0, 4], Value::Signed(4)),
        (&[0x72, 0, 0, 0, 0], Value::Other),
        (&[0xa0, 2, 1, 2], Value::Binary(&[1, 2])),
        (&[0xa1, 2, b'h', b'i'], text("hi")),
        (&[0xb3, 0, 0, 0, 1, b's'], text("s")),
        (&[0x45], Value::List(vec![])),
        (&[0xc0, 3, 2, 0x40, 0x41], Value::List(vec![Value::Null, Value::Bool(true)])),
        (&[0xd0, 0, 0, 0, 5, 0, 0, 0, 1, 0x42], Value::List(vec![Value::Bool(false)])),
        (&[0xc1, 6, 2, 0xa3, 1, b'k', 0x52, 5], Value::Map(vec![(text("k"), Value::Unsigned(5))])),
        (&[0xe0, 6, 2, 0xa3, 1, b'a', 1, b'b'], Value::List(vec![text("a"), text("b")])),
        (&[0, 0x53, 0x24, 0x45], Value::Described(0x24, Box::new(Value::List(vec![])))),
        (&[0, 0xa3, 4, b'n', b'o', b'n', b'e', 0x40], Value::Described(0, Box::new(Value::Null))),
    ] {
        assert_eq!(read(bytes), Ok(value), "{bytes:?}");
    }
}

#[test]
fn values_that_lie_are_refused() {
    let endless_descriptors = [0, 0x53, 0x10].repeat(20_000);
    let nested_lists = (0..32).fold(vec![0x40], |inner, _| {
        [&[0xc0, u8::try_from(inner.len() + 1).unwrap(), 1][..], &inner].concat()
    });
    for (bytes, says) in [
        (&[][..], "longer"),
        (&[0xa1, 5, b'h'], "longer"),
        (&[0xb0, 0xff, 0xff, 0xff, 0xff], "longer"),
        (&[0xa1, 1, 0xff], "UTF-8"),
        (&[0x99], "no type"),
        (&[0xc1, 2, 1, 0x40], "no value"),
        // Four billion nulls, in nine bytes.
        (&[0xf0, 0, 0, 0, 5, 0xff, 0xff, 0xff, 0xff, 0x40], "4096 values"),
        (&[0xd0, 0, 0, 0, 4, 0xff, 0xff, 0xff, 0xff], "longer"),
        (&[0xe0, 3, 1, 0, 0x53], "array of described"),
        (&[0, 0x41, 0x40], "descriptor"),
        (&endless_descriptors, "deep"),
        (&nested_lists, "deep"),
    ] {
        let reason = read(bytes).unwrap_err().to_string();
        assert!(reason.contains(says), "{says}: {reason}");
    }
}

#[test]
fn what_has_a_text_shows_it() {
    let uuid = Value::Uuid([0xab; 16]);
    assert_eq!(uuid.to_string(), "abababab-abab-abab-abab-abababababab");
    assert_eq!(Value::Signed(-5).to_string(), "-5");
    assert_eq!(Value::Binary(b"ok").to_string(), "ok");
    assert_eq!(Value::List(vec![]).to_string(), "");
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
        prop_assert_eq!(read(&bytes), Ok(Value::List(vec![
            Value::Text(&text),
            Value::Unsigned(number),
            Value::Signed(small.into()),
            Value::Binary(&blob),
        ])));
    }
}
