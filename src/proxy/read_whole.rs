//! A body that is no use in pieces: read to its proven end, within bounds.

use bytes::Bytes;

use crate::upstream::{Failure, UpstreamBody};

/// Why there is no whole body.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadWholeError {
    #[error(transparent)]
    Origin(#[from] Failure),
    #[error("it is larger than the limit")]
    TooLarge,
    #[error("fills hold too much already")]
    NoRoom,
}

/// Reads a body up to a bound, and as long as `reserve` finds room for it.
pub(super) async fn whole(
    inflow: &mut UpstreamBody,
    bytes_max: u64,
    reserve: impl Fn(u64) -> bool,
) -> Result<Bytes, ReadWholeError> {
    let mut whole = Vec::new();
    while let Some(bytes) = inflow.next().await {
        let bytes = bytes?;
        if (whole.len() + bytes.len()) as u64 > bytes_max {
            return Err(ReadWholeError::TooLarge);
        }
        if !reserve(bytes.len() as u64) {
            return Err(ReadWholeError::NoRoom);
        }
        whole.extend_from_slice(&bytes);
    }
    // It may be held for long: of exactly its size.
    Ok(whole.into_boxed_slice().into())
}
