//! Where does a chunked body end? RFC 9112 §7.1, to the letter.

/// More digits than the largest size needs.
const DIGITS_MAX: u8 = 16;

/// Where in a chunked body its reader is.
pub(super) struct Chunks(At);

#[derive(Clone, Copy)]
enum At {
    /// A chunk's size.
    Size {
        size: u64,
        digits: u8,
    },
    /// Blanks behind it: another digit would be another size.
    Blanks {
        size: u64,
    },
    Extension {
        size: u64,
        quote: Quote,
    },
    SizeLf {
        size: u64,
    },
    /// So many bytes of a chunk are still to come.
    Data {
        left: u64,
    },
    DataCr,
    DataLf,
    /// The beginning of a trailer, or of the end.
    Line,
    Trailer,
    TrailerLf,
    EndLf,
    Over,
}

/// Whether an extension's value is within quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    Shut,
    Open,
    /// Behind a backslash.
    Escape,
}

impl Chunks {
    pub(super) fn new() -> Chunks {
        Chunks(At::Size { size: 0, digits: 0 })
    }

    pub(super) fn is_over(&self) -> bool {
        matches!(self.0, At::Over)
    }

    /// Follows bytes to the end of the body, or of what came. Says how many bytes that were, or how
    /// many of them are right.
    pub(super) fn follow(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let mut read = 0;
        while read < bytes.len() && !self.is_over() {
            if let At::Data { left } = self.0 {
                let here = (bytes.len() - read) as u64;
                let count = left.min(here);
                self.0 = if count == left {
                    At::DataCr
                } else {
                    At::Data { left: left - count }
                };
                // Not more than is here.
                read += usize::try_from(count).unwrap_or(bytes.len());
                continue;
            }
            self.0 = self.0.step(bytes[read]).ok_or(read)?;
            read += 1;
        }
        Ok(read)
    }
}

impl At {
    /// Where one more byte leads; `None` where it is wrong.
    fn step(self, byte: u8) -> Option<At> {
        let end_of_size = |size| match byte {
            b'\r' => Some(At::SizeLf { size }),
            b';' => Some(At::Extension {
                size,
                quote: Quote::Shut,
            }),
            b' ' | b'\t' => Some(At::Blanks { size }),
            _ => None,
        };
        match self {
            At::Size { size, digits } => match hex(byte) {
                Some(digit) if digits < DIGITS_MAX => Some(At::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }),
                None if digits > 0 => end_of_size(size),
                Some(_) | None => None,
            },
            At::Blanks { size } => end_of_size(size),
            At::Extension { size, quote } => match (quote, byte) {
                (Quote::Shut, b'\r') => Some(At::SizeLf { size }),
                (_, b'\t') => Some(self),
                (_, byte) if byte.is_ascii_control() => None,
                (quote, byte) => Some(At::Extension {
                    size,
                    quote: quote.after(byte),
                }),
            },
            At::SizeLf { size } if byte == b'\n' => Some(match size {
                0 => At::Line,
                left => At::Data { left },
            }),
            At::DataCr if byte == b'\r' => Some(At::DataLf),
            At::DataLf if byte == b'\n' => Some(At::Size { size: 0, digits: 0 }),
            At::Line if byte == b'\r' => Some(At::EndLf),
            At::Trailer if byte == b'\r' => Some(At::TrailerLf),
            At::Line | At::Trailer if byte != b'\n' => Some(At::Trailer),
            At::TrailerLf if byte == b'\n' => Some(At::Line),
            At::EndLf if byte == b'\n' => Some(At::Over),
            _ => None,
        }
    }
}

impl Quote {
    fn after(self, byte: u8) -> Quote {
        match (self, byte) {
            (Quote::Shut, b'"') | (Quote::Escape, _) => Quote::Open,
            (Quote::Open, b'"') => Quote::Shut,
            (Quote::Open, b'\\') => Quote::Escape,
            (quote, _) => quote,
        }
    }
}

fn hex(byte: u8) -> Option<u8> {
    match byte {
        b'0'..=b'9' => Some(byte - b'0'),
        b'a'..=b'f' => Some(byte - b'a' + 10),
        b'A'..=b'F' => Some(byte - b'A' + 10),
        _ => None,
    }
}
