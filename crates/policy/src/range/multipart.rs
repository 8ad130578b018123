//! Frames several ranges as one `multipart/byteranges` body (RFC 9110 §14.6). The caller supplies
//! the bytes of the ranges.

use bytes::Bytes;
use http::HeaderValue;

use super::{ByteSpan, printed};

/// The framing of a `multipart/byteranges` body.
pub struct Multipart {
    /// The response's `Content-Type`.
    pub content_type: HeaderValue,
    /// The text before each range's bytes, in order, and the closing delimiter as the last element.
    pub delimiters: Vec<Bytes>,
    /// Length of the whole body in bytes.
    pub length: u64,
}

/// Builds the framing. `boundary` must not be guessable from the content (the caller chooses it at
/// random) and has 1 to 70 letters and digits (RFC 2046 §5.1.1).
pub fn multipart(
    spans: &[ByteSpan],
    length: u64,
    part_type: Option<&HeaderValue>,
    boundary: &str,
) -> Multipart {
    let mut delimiters = Vec::with_capacity(spans.len() + 1);
    for (place, span) in spans.iter().enumerate() {
        let mut head = Vec::with_capacity(160);
        // The line break before a boundary belongs to the boundary; there is none before the first.
        if place > 0 {
            head.extend_from_slice(b"\r\n");
        }
        head.extend_from_slice(format!("--{boundary}\r\n").as_bytes());
        if let Some(part_type) = part_type {
            head.extend_from_slice(b"Content-Type: ");
            head.extend_from_slice(part_type.as_bytes());
            head.extend_from_slice(b"\r\n");
        }
        let last = span.end.saturating_sub(1);
        let range = format!(
            "Content-Range: bytes {}-{last}/{length}\r\n\r\n",
            span.start
        );
        head.extend_from_slice(range.as_bytes());
        delimiters.push(Bytes::from(head));
    }
    delimiters.push(Bytes::from(format!("\r\n--{boundary}--\r\n")));

    let framing = delimiters.iter().map(|text| text.len() as u64).sum::<u64>();
    let content: u64 = spans.iter().map(|span| span.length()).sum();
    Multipart {
        content_type: printed(format!("multipart/byteranges; boundary={boundary}")),
        delimiters,
        length: framing + content,
    }
}
