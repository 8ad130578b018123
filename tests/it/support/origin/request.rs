//! A request from the shield, as read from the connection.

use bytes::Bytes;
use tokio::io;

use crate::support::wire::{Duplex, Fields, Wire};

/// A request as the origin got it.
#[derive(Clone, Debug)]
pub struct Request {
    /// Method.
    pub method: String,
    /// Target as sent (HTTP/2: path and query).
    pub target: String,
    /// Header fields; names in lower case.
    pub fields: Fields,
    /// Body.
    pub body: Bytes,
    /// The number of the origin's connection that it arrived on, counted from 1.
    pub connection: usize,
}

impl Request {
    /// The first value of a header field.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.fields.get(name)
    }

    /// The target without its query.
    pub fn path(&self) -> &str {
        let end = self.target.find('?').unwrap_or(self.target.len());
        &self.target[..end]
    }

    /// The one requested range, as start and end (exclusive), of an object of this length.
    pub fn range(&self, length: usize) -> Option<(usize, usize)> {
        let (from, to) = self
            .header("range")?
            .strip_prefix("bytes=")?
            .split_once('-')?;
        let start = from.parse().ok()?;
        let end = to
            .parse()
            .map_or(length, |last: usize| length.min(last + 1));
        (start < end).then_some((start, end))
    }

    /// Reads the next request; `None` when the connection ends first.
    pub(super) async fn read<S: Duplex>(
        wire: &mut Wire<S>,
        connection: usize,
    ) -> io::Result<Option<Request>> {
        let Some(head) = wire.read_through(b"\r\n\r\n").await? else {
            return Ok(None);
        };
        let head = String::from_utf8_lossy(&head).into_owned();
        let mut lines = head.split("\r\n");
        let mut words = lines.next().unwrap_or_default().split(' ');
        let method = words.next().unwrap_or_default().to_owned();
        let target = words.next().unwrap_or_default().to_owned();
        let fields = Fields::parse(lines);
        let body = match fields.number("content-length") {
            Some(length) => {
                wire.read_exactly(usize::try_from(length).expect("a small body"))
                    .await?
            }
            None if fields.get("transfer-encoding").is_some() => read_chunks(wire).await?,
            None => Some(Bytes::new()),
        };
        Ok(body.map(|body| Request {
            method,
            target,
            fields,
            body,
            connection,
        }))
    }
}

async fn read_chunks<S: Duplex>(wire: &mut Wire<S>) -> io::Result<Option<Bytes>> {
    let mut body = Vec::new();
    loop {
        let Some(line) = wire.read_through(b"\r\n").await? else {
            return Ok(None);
        };
        let digits = String::from_utf8_lossy(&line);
        let length = usize::from_str_radix(digits.trim(), 16).expect("a chunk size");
        let Some(chunk) = wire.read_exactly(length + 2).await? else {
            return Ok(None);
        };
        if length == 0 {
            return Ok(Some(body.into()));
        }
        body.extend_from_slice(&chunk[..length]);
    }
}
