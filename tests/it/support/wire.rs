//! A buffered duplex stream, used by both sides of the shield.

use bytes::{Bytes, BytesMut};
use tokio::io::{self, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

/// Any stream that can carry HTTP.
pub trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A longer head is a bug in the scenario or in the shield.
const HEAD_BYTES_MAX: usize = 256 << 10;

/// The most bytes that one read returns.
const READ_BYTES: usize = 64 << 10;

/// A connection and the bytes that were read but not yet consumed.
pub struct Wire<S = Box<dyn Duplex>> {
    stream: S,
    buffer: BytesMut,
}

impl<S: Duplex> Wire<S> {
    /// Wraps a connected stream.
    pub fn over(stream: S) -> Wire<S> {
        Wire {
            stream,
            buffer: BytesMut::new(),
        }
    }

    /// The stream itself.
    pub fn stream(&self) -> &S {
        &self.stream
    }

    /// Writes all bytes, exactly as given.
    pub async fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.stream.write_all(bytes).await?;
        self.stream.flush().await
    }

    /// Reads once more from the stream; 0 is its end. Loses nothing when dropped half-way.
    pub async fn fill(&mut self) -> io::Result<usize> {
        self.buffer.reserve(READ_BYTES);
        self.stream.read_buf(&mut self.buffer).await
    }

    /// All bytes up to and including `mark`; `None` when the stream ends before it.
    pub async fn read_through(&mut self, mark: &[u8]) -> io::Result<Option<Bytes>> {
        loop {
            let found = self.buffer.windows(mark.len()).position(|w| w == mark);
            if let Some(start) = found {
                return Ok(Some(self.buffer.split_to(start + mark.len()).freeze()));
            }
            assert!(self.buffer.len() < HEAD_BYTES_MAX, "an endless head");
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
    }

    /// At least one byte and at most `most` (never 0); `None` at the stream's end.
    pub async fn read_some(&mut self, most: usize) -> io::Result<Option<Bytes>> {
        if self.buffer.is_empty() && self.fill().await? == 0 {
            return Ok(None);
        }
        let length = self.buffer.len().min(most);
        Ok(Some(self.buffer.split_to(length).freeze()))
    }

    /// Exactly `length` bytes; `None` when the stream ends before.
    pub async fn read_exactly(&mut self, length: usize) -> io::Result<Option<Bytes>> {
        while self.buffer.len() < length {
            if self.fill().await? == 0 {
                return Ok(None);
            }
        }
        Ok(Some(self.buffer.split_to(length).freeze()))
    }
}

/// Header fields in the order of arrival.
#[derive(Clone, Debug, Default)]
pub struct Fields(pub Vec<(String, String)>);

impl Fields {
    /// Reads the lines of a head after its first.
    pub fn parse<'a>(lines: impl Iterator<Item = &'a str>) -> Fields {
        let field = |line: &str| {
            let (name, value) = line.split_once(':')?;
            Some((name.to_ascii_lowercase(), value.trim().to_owned()))
        };
        Fields(lines.filter_map(field).collect())
    }

    /// The first value of a field.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.all(name).first().copied()
    }

    /// Every value of a field.
    pub fn all(&self, name: &str) -> Vec<&str> {
        let named = |(given, _): &&(String, String)| given.eq_ignore_ascii_case(name);
        let fields = self.0.iter().filter(named);
        fields.map(|(_, value)| value.as_str()).collect()
    }

    /// The field as a number.
    pub fn number(&self, name: &str) -> Option<u64> {
        self.get(name)?.parse().ok()
    }
}

impl From<&http::HeaderMap> for Fields {
    fn from(map: &http::HeaderMap) -> Fields {
        let text = |value: &http::HeaderValue| String::from_utf8_lossy(value.as_bytes()).into();
        let pair = |(name, value): (&http::HeaderName, _)| (name.to_string(), text(value));
        Fields(map.iter().map(pair).collect())
    }
}

/// Header fields in HTTP/1.1 form.
pub fn head_lines(fields: &[(String, String)]) -> String {
    let line = |(name, value): &(String, String)| format!("{name}: {value}\r\n");
    fields.iter().map(line).collect()
}
