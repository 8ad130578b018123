//! A response as a viewer got it: head, body, and how the body ended.

use std::collections::VecDeque;
use std::fmt;

use ::h2::{Reason, RecvStream};
use bytes::Bytes;
use tokio::io;

use super::ask::Ask;
use super::h2::Connection;
use crate::support::content::{Fingerprint, Press};
use crate::support::patience::within;
use crate::support::wire::{Fields, Wire};

/// How a body ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// By its framing: length reached, last chunk, `END_STREAM`, or no body.
    Whole,
    /// The connection ended (or the framing broke) before the body did.
    Cut,
    /// HTTP/2 `RST_STREAM`.
    Reset(Reason),
}

/// Status and fields.
pub struct Head {
    pub(super) status: u16,
    pub(super) fields: Fields,
}

/// A whole response, or the part of it that arrived.
pub struct Response {
    /// Status code.
    pub status: u16,
    /// Header fields; names in lower case.
    pub fields: Fields,
    /// All body bytes that arrived.
    pub body: Bytes,
    /// How the body ended.
    pub end: End,
}

impl Response {
    pub(super) fn new(head: Head, body: Bytes, end: End) -> Response {
        Response {
            status: head.status,
            fields: head.fields,
            body,
            end,
        }
    }

    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The body as text.
    pub fn text(&self) -> &str {
        std::str::from_utf8(&self.body).expect("a text body")
    }

    /// `Age`, which every response from memory must have.
    #[track_caller]
    pub fn age(&self) -> u64 {
        let age = self.fields.number("age");
        age.unwrap_or_else(|| panic!("no Age in {self:?}"))
    }

    /// This shield's entry in `Cache-Status`.
    #[track_caller]
    pub fn cache_status(&self) -> CacheStatus {
        let said = self.header("cache-status");
        CacheStatus(
            said.unwrap_or_else(|| panic!("no Cache-Status in {self:?}"))
                .to_owned(),
        )
    }

    /// Whether it was served from memory, fresh.
    #[track_caller]
    pub fn is_hit(&self) -> bool {
        self.cache_status().has_parameter("hit")
    }

    /// Fails unless this is a 200 with exactly this body and a clean end.
    #[track_caller]
    pub fn assert_whole(&self, expected: impl AsRef<[u8]>) -> &Response {
        self.assert_is(200, expected)
    }

    /// Fails unless it has this status, exactly this body and a clean end.
    #[track_caller]
    pub fn assert_is(&self, status: u16, expected: impl AsRef<[u8]>) -> &Response {
        let expected = expected.as_ref();
        assert_eq!(self.status, status, "{self:?}");
        assert_eq!(self.end, End::Whole, "{self:?}");
        assert_eq!(self.body.len(), expected.len(), "{self:?}");
        assert!(
            self.body == expected,
            "another body was expected in {self:?}"
        );
        self
    }

    /// The body as text; fails unless it is a 200 with a clean end.
    #[track_caller]
    pub fn assert_200_text(&self) -> &str {
        assert_eq!((self.status, self.end), (200, End::Whole), "{self:?}");
        self.text()
    }

    /// Fails unless the body is a prefix of `whole` and was visibly cut.
    #[track_caller]
    pub fn assert_cut(&self, whole: impl AsRef<[u8]>) -> &Response {
        assert_ne!(
            self.end,
            End::Whole,
            "a clean end of a broken body: {self:?}"
        );
        assert!(
            whole.as_ref().starts_with(&self.body),
            "other bytes in {self:?}"
        );
        self
    }
}

impl fmt::Debug for Response {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(
            f,
            "{} ({:?} after {} bytes)",
            self.status,
            self.end,
            self.body.len()
        )?;
        for (name, value) in &self.fields.0 {
            writeln!(f, "  {name}: {value}")?;
        }
        let start = &self.body[..self.body.len().min(120)];
        write!(f, "  {:?}", String::from_utf8_lossy(start))
    }
}

/// The `Cache-Status` field (RFC 9211), as far as scenarios read it.
#[derive(Debug)]
pub struct CacheStatus(String);

impl CacheStatus {
    /// Whether this parameter is present, with any value.
    pub fn has_parameter(&self, parameter: &str) -> bool {
        self.value(parameter).is_some()
    }

    /// A parameter's value; empty for one without a value.
    pub fn value(&self, parameter: &str) -> Option<&str> {
        self.0.split(';').map(str::trim).find_map(|part| {
            let rest = part.strip_prefix(parameter)?;
            if rest.is_empty() {
                Some("")
            } else {
                rest.strip_prefix('=')
            }
        })
    }

    /// The name of the cache.
    pub fn cache(&self) -> &str {
        self.0.split(';').next().unwrap_or_default().trim()
    }
}

/// A response whose head has arrived and whose body the scenario reads. Dropping it leaves:
/// HTTP/1.1 closes the connection, HTTP/2 resets the stream.
pub struct Arriving {
    /// Status code.
    pub status: u16,
    /// Header fields.
    pub fields: Fields,
    source: Source,
    taken: Vec<u8>,
    early: VecDeque<Bytes>,
}

pub(super) enum Source {
    H1(Box<Wire>, Framing),
    H2 {
        stream: RecvStream,
        /// Driven while this response is read.
        _connection: Connection,
    },
}

impl Arriving {
    pub(super) fn new(head: Head, source: Source) -> Arriving {
        Arriving {
            status: head.status,
            fields: head.fields,
            source,
            taken: Vec::new(),
            early: VecDeque::new(),
        }
    }

    /// The next `count` body bytes, as soon as they have arrived. Fails when the body ends before.
    pub async fn read(&mut self, count: usize) -> Bytes {
        let mut read = Vec::with_capacity(count);
        while read.len() < count {
            let mut piece = match self.early.pop_front() {
                Some(piece) => piece,
                None => match within("the next body bytes", self.source.next()).await {
                    Ok(piece) => piece,
                    Err(end) => panic!("{end:?} after {} of {count} bytes", read.len()),
                },
            };
            let rest = piece.split_off(piece.len().min(count - read.len()));
            if !rest.is_empty() {
                self.early.push_front(rest);
            }
            read.extend_from_slice(&piece);
        }
        self.taken.extend_from_slice(&read);
        read.into()
    }

    /// All bytes to the end, with those read before.
    pub async fn finish(mut self) -> Response {
        let mut body = std::mem::take(&mut self.taken);
        let end = self.drain(|piece| body.extend_from_slice(piece)).await;
        let head = Head {
            status: self.status,
            fields: self.fields,
        };
        Response::new(head, body.into(), end)
    }

    /// Reads to the end and keeps only a fingerprint of the whole body.
    pub async fn fingerprint(mut self) -> (Fingerprint, End) {
        let mut press = Press::default();
        press.feed(&self.taken);
        let end = self.drain(|piece| press.feed(piece)).await;
        (press.finish(), end)
    }

    async fn drain(&mut self, mut take: impl FnMut(&[u8])) -> End {
        for piece in self.early.drain(..) {
            take(&piece);
        }
        loop {
            match within("the rest of a body", self.source.next()).await {
                Ok(piece) => take(&piece),
                Err(end) => return end,
            }
        }
    }
}

impl Source {
    /// The next bytes, or how the body ended.
    async fn next(&mut self) -> Result<Bytes, End> {
        match self {
            Source::H1(wire, framing) => framing.next(wire).await,
            Source::H2 { stream, .. } => match stream.data().await {
                None => Err(End::Whole),
                Some(Err(why)) if why.is_reset() && why.is_remote() => {
                    Err(why.reason().map_or(End::Cut, End::Reset))
                }
                Some(Err(_)) => Err(End::Cut),
                Some(Ok(bytes)) => {
                    let returned = stream.flow_control().release_capacity(bytes.len());
                    returned.expect("no more than was received");
                    Ok(bytes)
                }
            },
        }
    }
}

/// The reading position in an HTTP/1.1 body.
pub(super) enum Framing {
    /// The number of missing bytes.
    Length(u64),
    /// The number of missing bytes of the current chunk; 0: its size comes next.
    Chunked(u64),
    /// The body ends with the connection.
    UntilClose,
}

impl Framing {
    fn of(head: &Head, ask: &Ask) -> Framing {
        let bodiless = ask.method == "HEAD" || matches!(head.status, 204 | 304);
        if bodiless {
            return Framing::Length(0);
        }
        if head.fields.get("transfer-encoding").is_some() {
            return Framing::Chunked(0);
        }
        let length = head.fields.number("content-length");
        length.map_or(Framing::UntilClose, Framing::Length)
    }

    /// The next bytes, or how the body ended.
    pub(super) async fn next(&mut self, wire: &mut Wire) -> Result<Bytes, End> {
        match self {
            Framing::Length(0) => Err(End::Whole),
            Framing::Length(left) => read_counted(wire, left).await,
            Framing::UntilClose => match wire.read_some(usize::MAX).await {
                Ok(Some(bytes)) => Ok(bytes),
                Ok(None) => Err(End::Whole),
                Err(_) => Err(End::Cut),
            },
            Framing::Chunked(left) => {
                if *left == 0 {
                    *left = chunk_size(wire).await.ok_or(End::Cut)?;
                }
                if *left == 0 {
                    return Err(trailers(wire).await);
                }
                let bytes = read_counted(wire, left).await?;
                if *left == 0 && line(wire).await.as_deref() != Some("") {
                    return Err(End::Cut);
                }
                Ok(bytes)
            }
        }
    }
}

async fn read_counted(wire: &mut Wire, left: &mut u64) -> Result<Bytes, End> {
    let most = usize::try_from(*left).unwrap_or(usize::MAX);
    let bytes = wire.read_some(most).await.ok().flatten().ok_or(End::Cut)?;
    *left -= bytes.len() as u64;
    Ok(bytes)
}

async fn chunk_size(wire: &mut Wire) -> Option<u64> {
    let line = line(wire).await?;
    let digits = line.split(';').next().unwrap_or_default();
    u64::from_str_radix(digits, 16).ok()
}

async fn trailers(wire: &mut Wire) -> End {
    loop {
        match line(wire).await.as_deref() {
            Some("") => return End::Whole,
            Some(_) => {}
            None => return End::Cut,
        }
    }
}

async fn line(wire: &mut Wire) -> Option<String> {
    let line = wire.read_through(b"\r\n").await.ok()??;
    Some(String::from_utf8_lossy(&line[..line.len() - 2]).into_owned())
}

/// Reads the head of a response; interim responses (1xx) are skipped.
pub(super) async fn read_head(wire: &mut Wire, ask: &Ask) -> io::Result<(Head, Framing)> {
    loop {
        let head = wire.read_through(b"\r\n\r\n").await?;
        let head = head.ok_or_else(|| io::Error::other("the connection was closed"))?;
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let status = lines
            .next()
            .and_then(|line| line.split(' ').nth(1)?.parse().ok());
        let status = status.ok_or_else(|| io::Error::other(format!("not a head: {head}")))?;
        let fields = Fields::parse(lines);
        if status >= 200 {
            let head = Head { status, fields };
            let framing = Framing::of(&head, ask);
            return Ok((head, framing));
        }
    }
}
