//! CBOR by the examples of RFC 8949, and input that is not CBOR.

use data_encoding::HEXLOWER;
use proptest::prelude::*;

use super::*;

fn read(hex: &str) -> Result<String, CborError> {
    let bytes = HEXLOWER.decode(hex.as_bytes()).unwrap();
    let mut reader = CborReader::new(&bytes);
    let item = reader.read_item()?;
    if reader.is_at_end() {
        Ok(item.to_string())
    } else {
        Err(CborError)
    }
}

/// Rows of RFC 8949, appendix A.
#[test]
fn reads_the_examples_of_the_standard() {
    for (hex, text) in [
        ("00", "0"),
        ("17", "23"),
        ("1818", "24"),
        ("1903e8", "1000"),
        ("1a000f4240", "1000000"),
        ("1bffffffffffffffff", "18446744073709551615"),
        ("3bffffffffffffffff", "-18446744073709551616"),
        ("20", "-1"),
        ("3903e7", "-1000"),
        ("f90000", "0.0"),
        ("f93c00", "1.0"),
        ("f93e00", "1.5"),
        ("f97bff", "65504.0"),
        ("f90001", "5.960464477539063e-8"),
        ("f90400", "6.103515625e-5"),
        ("f9c400", "-4.0"),
        ("f97c00", "inf"),
        ("f97e00", "NaN"),
        ("fa47c35000", "100000.0"),
        ("fb3ff199999999999a", "1.1"),
        ("f4", "false"),
        ("f5", "true"),
        ("f6", "null"),
        ("f8ff", "simple(255)"),
        ("c11a514b67b0", "1(1363896240)"),
        ("40", "h''"),
        ("4401020304", "h'01020304'"),
        ("60", "\"\""),
        ("62c3bc", "\"ü\""),
        ("8301820203820405", "[1, [2, 3], [4, 5]]"),
        ("a201020304", "{1: 2, 3: 4}"),
        ("5f42010243030405ff", "h'0102030405'"),
        ("7f657374726561646d696e67ff", "\"streaming\""),
        ("9f018202039f0405ffff", "[1, [2, 3], [4, 5]]"),
        ("bf61610161629f0203ffff", "{\"a\": 1, \"b\": [2, 3]}"),
    ] {
        assert_eq!(read(hex).as_deref(), Ok(text), "{hex}");
    }
}

#[test]
fn refuses_what_is_not_well_formed() {
    for hex in [
        "",
        "18",
        "1901",
        "1c",
        "1f",
        "3f",
        "df",
        "ff",
        "41",
        "62c3",
        "61c3",
        "81",
        "8201",
        "a1",
        "a101",
        "9f01",
        "bf01ff",
        "5f",
        "5f01ff",
        "5f6161ff",
        "5f5f4101ffff",
        "7f4161ff",
        "c1",
        "f8",
        "0000",
    ] {
        assert_eq!(read(hex), Err(CborError), "{hex}");
    }
}

#[test]
fn announced_lengths_allocate_nothing() {
    for head in ["5b", "7b", "9b", "bb"] {
        assert_eq!(
            read(&format!("{head}7fffffffffffffff00")),
            Err(CborError),
            "{head}"
        );
    }
}

#[test]
fn nesting_has_a_limit() {
    for open in ["81", "9f", "c1", "a100", "d83d"] {
        let nested = |depth: usize| {
            let mut reader = format!("{}00", open.repeat(depth));
            if open == "9f" {
                reader += &"ff".repeat(depth);
            }
            read(&reader)
        };
        assert!(nested(DEPTH_MAX - 1).is_ok(), "{open}");
        assert_eq!(nested(DEPTH_MAX), Err(CborError), "{open}");
        assert_eq!(nested(100_000), Err(CborError), "{open}");
    }
}

#[test]
fn shortest_heads_are_told_from_others() {
    let shortest = |bytes: &[u8]| CborReader::new(bytes).read_shortest(major::BYTES);
    assert_eq!(shortest(&[0x57]), Some(23));
    assert_eq!(shortest(&[0x58, 24]), Some(24));
    assert_eq!(shortest(&[0x59, 1, 0]), Some(256));
    for longer in [
        &[0x58, 23][..],
        &[0x59, 0, 255],
        &[0x5a, 0, 0, 255, 255],
        &[0x5f],
        &[0x17],
    ] {
        assert_eq!(shortest(longer), None, "{longer:?}");
    }
}

proptest! {
    #[test]
    fn any_bytes_are_read_without_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let mut reader = CborReader::new(&bytes);
        while !reader.is_at_end() && reader.read_item().is_ok() {}
    }
}
