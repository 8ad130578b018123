//! Reads a response piece by piece: its status, where it came from, the length of its body, and the
//! first bytes of it. Keeps no body, and allocates only for a head that arrives in several pieces.
//! Knows no socket.

use std::mem;

/// The kept beginning of a body.
const START_BYTES: usize = 64;
/// More header fields than any measured server sends.
const FIELDS_MAX: usize = 48;

/// What `Cache-Status` says of a response.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Source {
    /// From memory, without a wait.
    Memory,
    /// It joined the fetch of another request.
    Joined,
    /// Anything else: above all, it was fetched.
    #[default]
    Other,
}

/// The response is not HTTP/1.1, or ended where it must not.
#[derive(Debug, PartialEq, Eq)]
pub struct Malformed;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Head,
    Body {
        left: u64,
    },
    ChunkSize {
        size: u64,
        ends: bool,
    },
    ChunkBody {
        left: u64,
    },
    /// The line end after a chunk.
    ChunkEnd,
    /// The lines after the last chunk; whether the current one is empty so far.
    Trailer {
        is_empty: bool,
    },
    Whole,
}

/// The reader of one connection, for one response after another.
pub struct ResponseReader {
    stage: Stage,
    /// A head of which a part has arrived.
    head: Vec<u8>,
    status: u16,
    source: Source,
    closes: bool,
    body_bytes: u64,
    start: [u8; START_BYTES],
}

impl Default for ResponseReader {
    fn default() -> ResponseReader {
        ResponseReader {
            stage: Stage::Head,
            head: Vec::new(),
            status: 0,
            source: Source::Other,
            closes: false,
            body_bytes: 0,
            start: [0; START_BYTES],
        }
    }
}

impl ResponseReader {
    /// Begins with the next response.
    pub fn begin(&mut self) {
        self.stage = Stage::Head;
        self.head.clear();
        self.body_bytes = 0;
    }

    pub fn is_whole(&self) -> bool {
        self.stage == Stage::Whole
    }

    /// Whether a part of the body is missing.
    pub fn is_in_body(&self) -> bool {
        !matches!(self.stage, Stage::Head | Stage::Whole)
    }

    pub fn status(&self) -> u16 {
        self.status
    }

    pub fn source(&self) -> Source {
        self.source
    }

    /// Whether the server ends the connection after this response.
    pub fn closes(&self) -> bool {
        self.closes
    }

    /// The bytes of the body so far, without the framing of chunks.
    pub fn body_bytes(&self) -> u64 {
        self.body_bytes
    }

    /// The first bytes of the body.
    pub fn start(&self) -> &[u8] {
        let bytes = usize::try_from(self.body_bytes).unwrap_or(START_BYTES);
        &self.start[..bytes.min(START_BYTES)]
    }

    /// Reads what has arrived.
    pub fn read(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        if self.stage == Stage::Head {
            if self.head.is_empty() {
                let Some(end) = self.read_head(bytes)? else {
                    self.head.extend(bytes);
                    return Ok(());
                };
                bytes = &bytes[end..];
            } else {
                self.head.extend(bytes);
                let head = mem::take(&mut self.head);
                let Some(end) = self.read_head(&head)? else {
                    self.head = head;
                    return Ok(());
                };
                return self.read_body(&head[end..]);
            }
        }
        self.read_body(bytes)
    }

    /// The length of the head; `None` if it is not complete.
    fn read_head(&mut self, bytes: &[u8]) -> Result<Option<usize>, Malformed> {
        let mut fields = [httparse::EMPTY_HEADER; FIELDS_MAX];
        let mut head = httparse::Response::new(&mut fields);
        let httparse::Status::Complete(end) = head.parse(bytes).map_err(|_| Malformed)? else {
            return Ok(None);
        };
        self.status = head.code.ok_or(Malformed)?;
        self.source = Source::Other;
        self.closes = false;
        let mut stage = None;
        for field in head.headers.iter() {
            let name = field.name;
            if name.eq_ignore_ascii_case("content-length") {
                let length = std::str::from_utf8(field.value).ok();
                let left = length.and_then(|length| length.parse().ok());
                stage = Some(Stage::Body {
                    left: left.ok_or(Malformed)?,
                });
            } else if name.eq_ignore_ascii_case("transfer-encoding") {
                stage = Some(Stage::ChunkSize {
                    size: 0,
                    ends: false,
                });
            } else if name.eq_ignore_ascii_case("cache-status") {
                self.source = source(field.value);
            } else if name.eq_ignore_ascii_case("connection") {
                self.closes = field.value.eq_ignore_ascii_case(b"close");
            }
        }
        self.stage = stage.ok_or(Malformed)?;
        if self.stage == (Stage::Body { left: 0 }) {
            self.stage = Stage::Whole;
        }
        Ok(Some(end))
    }

    fn read_body(&mut self, mut bytes: &[u8]) -> Result<(), Malformed> {
        while let Some((&first, rest)) = bytes.split_first() {
            match self.stage {
                Stage::Head | Stage::Whole => return Err(Malformed),
                Stage::Body { left } => {
                    let taken = self.keep(bytes, left);
                    bytes = &bytes[taken..];
                    let left = left - taken as u64;
                    self.stage = match left {
                        0 => Stage::Whole,
                        left => Stage::Body { left },
                    };
                }
                Stage::ChunkBody { left } => {
                    let taken = self.keep(bytes, left);
                    bytes = &bytes[taken..];
                    let left = left - taken as u64;
                    self.stage = match left {
                        0 => Stage::ChunkEnd,
                        left => Stage::ChunkBody { left },
                    };
                }
                Stage::ChunkSize { .. } | Stage::ChunkEnd | Stage::Trailer { .. } => {
                    self.stage = self.stage.after_framing(first)?;
                    bytes = rest;
                }
            }
        }
        Ok(())
    }

    /// Counts bytes of the body, and keeps the first ones. Returns how many of them belong to it.
    fn keep(&mut self, bytes: &[u8], left: u64) -> usize {
        let taken = usize::try_from(left).map_or(bytes.len(), |left| left.min(bytes.len()));
        let kept = self.start().len();
        let more = taken.min(START_BYTES - kept);
        self.start[kept..kept + more].copy_from_slice(&bytes[..more]);
        self.body_bytes += taken as u64;
        taken
    }
}

impl Stage {
    /// The stage after one byte of the framing of chunks.
    fn after_framing(self, byte: u8) -> Result<Stage, Malformed> {
        Ok(match (self, byte) {
            (Stage::ChunkSize { size: 0, .. }, b'\n') => Stage::Trailer { is_empty: true },
            (Stage::ChunkSize { size, .. }, b'\n') => Stage::ChunkBody { left: size },
            (Stage::ChunkSize { size, ends }, byte) => {
                let digit = char::from(byte).to_digit(16).filter(|_| !ends);
                match digit {
                    Some(digit) => Stage::ChunkSize {
                        size: size.checked_mul(16).ok_or(Malformed)? + u64::from(digit),
                        ends,
                    },
                    // A chunk extension, or the line end.
                    None => Stage::ChunkSize { size, ends: true },
                }
            }
            (Stage::ChunkEnd, b'\r') => Stage::ChunkEnd,
            (Stage::ChunkEnd, b'\n') => Stage::ChunkSize {
                size: 0,
                ends: false,
            },
            (Stage::Trailer { is_empty: true }, b'\n') => Stage::Whole,
            (Stage::Trailer { is_empty }, b'\r') => Stage::Trailer { is_empty },
            (Stage::Trailer { .. }, byte) => Stage::Trailer {
                is_empty: byte == b'\n',
            },
            _ => return Err(Malformed),
        })
    }
}

/// Reads `seawall; hit; ttl=3` or `seawall; fwd=miss; collapsed`.
fn source(cache_status: &[u8]) -> Source {
    let words = cache_status.split(|byte| *byte == b';');
    let mut words = words.map(<[u8]>::trim_ascii);
    let found = words.find_map(|word| match word {
        b"hit" => Some(Source::Memory),
        b"collapsed" => Some(Source::Joined),
        _ => None,
    });
    found.unwrap_or_default()
}
