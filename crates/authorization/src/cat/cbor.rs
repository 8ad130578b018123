//! Reads CBOR (RFC 8949). It knows nothing of tokens. What a token says about its own lengths is
//! not believed: nothing is allocated before its bytes were seen, and nesting has a limit.

use std::borrow::Cow;

/// Deeper nesting is an error. The deepest claim here (`catu`) needs three levels.
const DEPTH_MAX: usize = 8;

/// A data item.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum CborValue<'a> {
    /// An integer; CBOR has 65 bits.
    Integer(i128),
    Bytes(Cow<'a, [u8]>),
    Text(Cow<'a, str>),
    Array(Vec<CborValue<'a>>),
    Map(Vec<(CborValue<'a>, CborValue<'a>)>),
    Tagged(u64, Box<CborValue<'a>>),
    Float(f64),
    /// `false`, `true`, `null`, `undefined` and unassigned ones, by their number.
    Simple(u8),
}

/// The input ended, or is not CBOR, or is nested too deeply.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct CborError;

type CborResult<T> = Result<T, CborError>;

/// The major types of RFC 8949, section 3.1.
pub(super) mod major {
    pub(in super::super) const UNSIGNED: u8 = 0;
    pub(in super::super) const NEGATIVE: u8 = 1;
    pub(in super::super) const BYTES: u8 = 2;
    pub(in super::super) const TEXT: u8 = 3;
    pub(in super::super) const ARRAY: u8 = 4;
    pub(in super::super) const MAP: u8 = 5;
    pub(in super::super) const TAG: u8 = 6;
}

/// The additional information that means "until a break" for strings, arrays and maps.
const INDEFINITE: u8 = 31;
const BREAK: u8 = 0xff;

/// Reads items from the front of the input.
#[derive(Clone, Copy, Debug)]
pub(super) struct CborReader<'a> {
    rest: &'a [u8],
}

/// What an item begins with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Head {
    major: u8,
    info: u8,
    argument: u64,
}

impl<'a> CborReader<'a> {
    pub(super) fn new(bytes: &'a [u8]) -> CborReader<'a> {
        CborReader { rest: bytes }
    }

    pub(super) fn is_at_end(&self) -> bool {
        self.rest.is_empty()
    }

    /// What was not read yet.
    pub(super) fn rest(&self) -> &'a [u8] {
        self.rest
    }

    /// The argument of a head of this type in its shortest form. Otherwise nothing is read.
    pub(super) fn read_shortest(&mut self, major: u8) -> Option<u64> {
        let mut reader = *self;
        let head = reader.read_head().ok()?;
        let is_shortest = match head.info {
            24 => head.argument >= 24,
            25 => head.argument > 0xff,
            26 => head.argument > 0xffff,
            27 => head.argument > 0xffff_ffff,
            info => info < 24,
        };
        (head.major == major && is_shortest).then(|| {
            *self = reader;
            head.argument
        })
    }

    /// A byte string of known length, with the shortest head.
    pub(super) fn read_bytes(&mut self) -> CborResult<&'a [u8]> {
        let length = self.read_shortest(major::BYTES).ok_or(CborError)?;
        self.take(length)
    }

    /// The number of entries of the map that begins here. `None`: up to a break.
    pub(super) fn read_map_head(&mut self) -> CborResult<Option<u64>> {
        let head = self.read_head()?;
        if head.major != major::MAP {
            return Err(CborError);
        }
        Ok((head.info != INDEFINITE).then_some(head.argument))
    }

    /// Whether a break comes next, which is then read.
    pub(super) fn read_break(&mut self) -> bool {
        let rest = self.rest.strip_prefix(&[BREAK]);
        self.rest = rest.unwrap_or(self.rest);
        rest.is_some()
    }

    pub(super) fn read_item(&mut self) -> CborResult<CborValue<'a>> {
        self.read_nested(DEPTH_MAX)
    }

    fn read_nested(&mut self, depth: usize) -> CborResult<CborValue<'a>> {
        let depth = depth.checked_sub(1).ok_or(CborError)?;
        let head = self.read_head()?;
        let count = (head.info != INDEFINITE).then_some(head.argument);
        Ok(match head.major {
            major::UNSIGNED => CborValue::Integer(head.argument.into()),
            major::NEGATIVE => CborValue::Integer(-1 - i128::from(head.argument)),
            major::BYTES => CborValue::Bytes(self.read_string(major::BYTES, count)?),
            major::TEXT => CborValue::Text(match self.read_string(major::TEXT, count)? {
                Cow::Borrowed(bytes) => std::str::from_utf8(bytes).map_err(|_| CborError)?.into(),
                Cow::Owned(bytes) => String::from_utf8(bytes).map_err(|_| CborError)?.into(),
            }),
            major::ARRAY => CborValue::Array(self.repeat(count, |it| it.read_nested(depth))?),
            major::MAP => CborValue::Map(self.repeat(count, |it| {
                Ok((it.read_nested(depth)?, it.read_nested(depth)?))
            })?),
            major::TAG => CborValue::Tagged(head.argument, Box::new(self.read_nested(depth)?)),
            _ => read_simple(head)?,
        })
    }

    /// Grows with what is there, not with what is announced.
    fn repeat<T>(
        &mut self,
        count: Option<u64>,
        mut read: impl FnMut(&mut Self) -> CborResult<T>,
    ) -> CborResult<Vec<T>> {
        let mut items = Vec::new();
        while match count {
            Some(count) => (items.len() as u64) < count,
            None => !self.read_break(),
        } {
            items.push(read(self)?);
        }
        Ok(items)
    }

    fn read_string(&mut self, major: u8, length: Option<u64>) -> CborResult<Cow<'a, [u8]>> {
        if let Some(length) = length {
            return Ok(self.take(length)?.into());
        }
        let mut bytes = Vec::new();
        while !self.read_break() {
            let chunk = self.read_head()?;
            if chunk.major != major || chunk.info == INDEFINITE {
                return Err(CborError);
            }
            bytes.extend_from_slice(self.take(chunk.argument)?);
        }
        Ok(bytes.into())
    }

    fn read_head(&mut self) -> CborResult<Head> {
        let first = self.take(1)?[0];
        let (major, info) = (first >> 5, first & 0x1f);
        let argument = match info {
            0..24 => u64::from(info),
            24..=27 => {
                let bytes = self.take(1 << (info - 24))?;
                let value = |value, &byte: &u8| value << 8 | u64::from(byte);
                bytes.iter().fold(0, value)
            }
            INDEFINITE if matches!(major, major::BYTES..=major::MAP) => 0,
            _ => return Err(CborError),
        };
        Ok(Head {
            major,
            info,
            argument,
        })
    }

    fn take(&mut self, length: u64) -> CborResult<&'a [u8]> {
        let length = usize::try_from(length).map_err(|_| CborError)?;
        let (taken, rest) = self.rest.split_at_checked(length).ok_or(CborError)?;
        self.rest = rest;
        Ok(taken)
    }
}

fn read_simple(head: Head) -> CborResult<CborValue<'static>> {
    let bits = head.argument;
    Ok(match head.info {
        25 => CborValue::Float(half_float(bits)),
        26 => CborValue::Float(f32::from_bits(u32::try_from(bits).map_err(|_| CborError)?).into()),
        27 => CborValue::Float(f64::from_bits(bits)),
        _ => CborValue::Simple(u8::try_from(bits).map_err(|_| CborError)?),
    })
}

/// A number of 16 bits (IEEE 754): a sign, 5 bits of exponent, 10 of fraction.
fn half_float(bits: u64) -> f64 {
    let bits = (bits & 0xffff) as u16;
    let fraction = f64::from(bits & 0x3ff) / 1024.0;
    let magnitude = match (bits >> 10) & 0x1f {
        0 => fraction * 2_f64.powi(-14),
        31 if fraction == 0.0 => f64::INFINITY,
        31 => f64::NAN,
        exponent => (1.0 + fraction) * 2_f64.powi(i32::from(exponent) - 15),
    };
    if bits & 0x8000 == 0 {
        magnitude
    } else {
        -magnitude
    }
}

impl CborValue<'_> {
    pub(super) fn as_integer(&self) -> Option<i64> {
        match self {
            CborValue::Integer(value) => i64::try_from(*value).ok(),
            _ => None,
        }
    }

    pub(super) fn as_text(&self) -> Option<&str> {
        match self {
            CborValue::Text(text) => Some(text),
            _ => None,
        }
    }

    pub(super) fn as_bytes(&self) -> Option<&[u8]> {
        match self {
            CborValue::Bytes(bytes) => Some(bytes),
            _ => None,
        }
    }

    pub(super) fn as_array(&self) -> Option<&[CborValue<'_>]> {
        match self {
            CborValue::Array(items) => Some(items),
            _ => None,
        }
    }

    pub(super) fn as_map(&self) -> Option<&[(CborValue<'_>, CborValue<'_>)]> {
        match self {
            CborValue::Map(entries) => Some(entries),
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests;
