//! A manifest is held whole and read before anyone gets it: its text decides its lifetime.

use std::io::Read;

use bytes::{Bytes, BytesMut};
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};

use crate::media::{Facts, Kind, ManifestError, read_manifest};
use crate::origin::{Failure, Inflow};

/// Why a manifest is a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Origin(#[from] Failure),
    #[error(transparent)]
    Text(#[from] ManifestError),
    #[error("manifest is larger than the limit")]
    TooLarge,
    #[error("fills hold too much already")]
    NoRoom,
    #[error("manifest's gzip coding is broken")]
    Coding,
}

/// Reads a body to its proven end, up to a bound, and as long as `reserve` finds room for it.
pub(super) async fn whole(
    inflow: &mut Inflow,
    bytes_max: u64,
    reserve: impl Fn(u64) -> bool,
) -> Result<Bytes, Unfit> {
    let mut whole = BytesMut::new();
    while let Some(bytes) = inflow.next().await {
        let bytes = bytes?;
        if (whole.len() + bytes.len()) as u64 > bytes_max {
            return Err(Unfit::TooLarge);
        }
        if !reserve(bytes.len() as u64) {
            return Err(Unfit::NoRoom);
        }
        whole.extend_from_slice(&bytes);
    }
    Ok(whole.freeze())
}

/// What a manifest says, seen through its content coding. The shield asks for none but gzip; a manifest
/// in another coding goes unread.
pub(super) fn facts(
    kind: Kind,
    headers: &HeaderMap,
    body: &Bytes,
    bytes_max: u64,
) -> Result<Option<Facts>, Unfit> {
    let coding = headers.get(header::CONTENT_ENCODING);
    match coding.map(|coding| coding.as_bytes().to_ascii_lowercase()) {
        None => Ok(Some(read_manifest(kind, body)?)),
        Some(coding) if coding == b"identity" => Ok(Some(read_manifest(kind, body)?)),
        Some(coding) if coding == b"gzip" || coding == b"x-gzip" => {
            let mut text = Vec::new();
            // One byte more than allowed tells that there is more.
            MultiGzDecoder::new(body.as_ref())
                .take(bytes_max + 1)
                .read_to_end(&mut text)
                .map_err(|_| Unfit::Coding)?;
            if text.len() as u64 > bytes_max {
                return Err(Unfit::TooLarge);
            }
            Ok(Some(read_manifest(kind, &text)?))
        }
        Some(_) => Ok(None),
    }
}
