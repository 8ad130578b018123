//! Finds the end of a chunked body, strictly by RFC 9112 §7.1.

/// Hex digits of the largest `u64`.
const DIGITS_MAX: u8 = 16;

/// Tracks the position within a chunked body.
pub(super) struct ChunkParser(ChunkState);

#[derive(Clone, Copy)]
enum ChunkState {
    /// The size of a chunk.
    Size {
        size: u64,
        digits: u8,
    },
    /// Whitespace after the size. No digit may follow: parsers could read different sizes.
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
    /// Remaining bytes of a chunk.
    Data {
        remaining: u64,
    },
    DataCr,
    DataLf,
    /// The beginning of a trailer line or of the final CRLF.
    LineStart,
    Trailer,
    TrailerLf,
    EndLf,
    Complete,
}

/// Whether the value of an extension is within double quotes.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Quote {
    None,
    Open,
    /// Within quotes, after a backslash.
    Escape,
}

impl ChunkParser {
    pub(super) fn new() -> ChunkParser {
        ChunkParser(ChunkState::Size { size: 0, digits: 0 })
    }

    pub(super) fn is_complete(&self) -> bool {
        matches!(self.0, ChunkState::Complete)
    }

    /// Checks bytes to the end of the body, or as far as they have arrived. Returns the number of
    /// bytes read; the error is the number of valid bytes.
    pub(super) fn check(&mut self, bytes: &[u8]) -> Result<usize, usize> {
        let mut read = 0;
        while read < bytes.len() && !self.is_complete() {
            if let ChunkState::Data { remaining } = self.0 {
                let here = (bytes.len() - read) as u64;
                let count = remaining.min(here);
                self.0 = if count == remaining {
                    ChunkState::DataCr
                } else {
                    ChunkState::Data {
                        remaining: remaining - count,
                    }
                };
                // At most the remaining length.
                read += usize::try_from(count).unwrap_or(bytes.len());
                continue;
            }
            self.0 = self.0.step(bytes[read]).ok_or(read)?;
            read += 1;
        }
        Ok(read)
    }
}

impl ChunkState {
    /// The state after one more byte; `None` if the byte is invalid.
    fn step(self, byte: u8) -> Option<ChunkState> {
        let end_of_size = |size| match byte {
            b'\r' => Some(ChunkState::SizeLf { size }),
            b';' => Some(ChunkState::Extension {
                size,
                quote: Quote::None,
            }),
            b' ' | b'\t' => Some(ChunkState::Blanks { size }),
            _ => None,
        };
        match self {
            ChunkState::Size { size, digits } => match hex(byte) {
                Some(digit) if digits < DIGITS_MAX => Some(ChunkState::Size {
                    size: size << 4 | u64::from(digit),
                    digits: digits + 1,
                }),
                None if digits > 0 => end_of_size(size),
                Some(_) | None => None,
            },
            ChunkState::Blanks { size } => end_of_size(size),
            ChunkState::Extension { size, quote } => match (quote, byte) {
                (Quote::None, b'\r') => Some(ChunkState::SizeLf { size }),
                (_, b'\t') => Some(self),
                (_, byte) if byte.is_ascii_control() => None,
                (quote, byte) => Some(ChunkState::Extension {
                    size,
                    quote: quote.after(byte),
                }),
            },
            ChunkState::SizeLf { size } if byte == b'\n' => Some(match size {
                0 => ChunkState::LineStart,
                remaining => ChunkState::Data { remaining },
            }),
            ChunkState::DataCr if byte == b'\r' => Some(ChunkState::DataLf),
            ChunkState::DataLf if byte == b'\n' => Some(ChunkState::Size { size: 0, digits: 0 }),
            ChunkState::LineStart if byte == b'\r' => Some(ChunkState::EndLf),
            ChunkState::Trailer if byte == b'\r' => Some(ChunkState::TrailerLf),
            ChunkState::LineStart | ChunkState::Trailer if byte != b'\n' => {
                Some(ChunkState::Trailer)
            }
            ChunkState::TrailerLf if byte == b'\n' => Some(ChunkState::LineStart),
            ChunkState::EndLf if byte == b'\n' => Some(ChunkState::Complete),
            _ => None,
        }
    }
}

impl Quote {
    fn after(self, byte: u8) -> Quote {
        match (self, byte) {
            (Quote::None, b'"') | (Quote::Escape, _) => Quote::Open,
            (Quote::Open, b'"') => Quote::None,
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
