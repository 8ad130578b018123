//! Reads a complete body into memory, within limits.

use bytes::Bytes;

use seawall_upstream::{Failure, UpstreamBody};

/// Why the body could not be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum ReadWholeError {
    #[error(transparent)]
    Origin(#[from] Failure),
    #[error("it is larger than the limit")]
    TooLarge,
    #[error("no fill memory is left")]
    NoRoom,
}

/// Reads a body of at most `bytes_max`, while `reserve` grants its memory.
pub(super) async fn read_whole(
    upstream_body: &mut UpstreamBody,
    bytes_max: u64,
    reserve: impl Fn(u64) -> bool,
) -> Result<Bytes, ReadWholeError> {
    let mut whole = Vec::new();
    while let Some(bytes) = upstream_body.next().await {
        let bytes = bytes?;
        if (whole.len() + bytes.len()) as u64 > bytes_max {
            return Err(ReadWholeError::TooLarge);
        }
        if !reserve(bytes.len() as u64) {
            return Err(ReadWholeError::NoRoom);
        }
        whole.extend_from_slice(&bytes);
    }
    // An exact allocation, because it may be stored for long.
    Ok(whole.into_boxed_slice().into())
}
