//! What does a manifest say? It is read before anyone gets it: its text decides its lifetime.

use std::io::Read;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, header};

use super::whole::Unread;
use crate::media::{Facts, Kind, ManifestError, read_manifest};

/// Why a manifest is a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unfit {
    #[error(transparent)]
    Body(#[from] Unread),
    #[error(transparent)]
    Text(#[from] ManifestError),
    #[error("its gzip coding is broken")]
    Coding,
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
                return Err(Unread::TooLarge.into());
            }
            Ok(Some(read_manifest(kind, &text)?))
        }
        Some(_) => Ok(None),
    }
}
