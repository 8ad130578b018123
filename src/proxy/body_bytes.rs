//! Cuts and counts the bytes of a body.

use bytes::Bytes;

use seawall_cache::BodyTruncated;
use seawall_policy::range::ByteSpan;

/// The bytes of a span of a body in memory, shared.
pub(super) fn bytes_of(body: &Bytes, span: ByteSpan) -> Bytes {
    body.slice(to_usize(span.start)..to_usize(span.end))
}

fn to_usize(offset: u64) -> usize {
    usize::try_from(offset).unwrap_or(usize::MAX)
}

/// Counts the remaining length down; an earlier end is a truncated body.
pub(super) fn count_down(
    next: Option<Result<Bytes, BodyTruncated>>,
    remaining: &mut Option<u64>,
) -> Option<Result<Bytes, BodyTruncated>> {
    let Some(promised) = remaining else {
        return next;
    };
    match next {
        None if *promised > 0 => Some(Err(BodyTruncated::Origin)),
        Some(Ok(bytes)) => match promised.checked_sub(bytes.len() as u64) {
            Some(rest) => {
                *promised = rest;
                Some(Ok(bytes))
            }
            None => Some(Err(BodyTruncated::Origin)),
        },
        other => other,
    }
}
