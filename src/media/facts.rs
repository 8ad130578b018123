//! What does a manifest say about itself? Bytes in, [`Facts`] out; never panics.

use std::time::Duration;

use super::{Kind, dash, hls};

/// Is the stream still being written?
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Liveness {
    /// New versions of this manifest are expected.
    Live,
    /// The manifest says that it will not change any more.
    Ended,
}

/// What a manifest's own text says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Live or ended.
    pub liveness: Liveness,
    /// HLS target duration (absent when zero), or the DASH minimum update period (zero is a
    /// statement there: look again at once).
    pub target_duration: Option<Duration>,
    /// HLS part target duration: present for low-latency playlists.
    pub part_target: Option<Duration>,
    /// The number of the last segment listed (HLS media sequence + count - 1), those that a delta
    /// update leaves out included.
    pub last_sequence: Option<u64>,
    /// A multivariant playlist: lists renditions and no segments. Its text cannot say whether the
    /// stream has ended, so it counts as live.
    pub multivariant: bool,
}

/// Why a body that claimed to be a manifest is a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ManifestError {
    /// Nothing there.
    #[error("manifest is empty")]
    Empty,
    /// Not text.
    #[error("manifest is not UTF-8")]
    NotText,
    /// It lacks its first or last marker (`#EXTM3U`, `</MPD>`), or ends inside a line.
    #[error("manifest is cut off or is something else: {0}")]
    Broken(&'static str),
}

/// Reads a whole, uncompressed manifest. Every kind but [`Kind::Dash`] is read as HLS.
pub fn read_manifest(kind: Kind, body: &[u8]) -> Result<Facts, ManifestError> {
    // A file that was allotted and not yet written is full of zeros, which UTF-8 permits.
    if body.contains(&0) {
        return Err(ManifestError::NotText);
    }
    let text = std::str::from_utf8(body).map_err(|_| ManifestError::NotText)?;
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.trim().is_empty() {
        return Err(ManifestError::Empty);
    }
    match kind {
        Kind::Dash => dash::read(text),
        _ => hls::read(text),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn what_is_no_text_is_refused() {
        for kind in [Kind::Hls, Kind::Dash] {
            for nothing in ["", " \r\n\t", "\u{feff}", "\u{feff}\n"] {
                let read = read_manifest(kind, nothing.as_bytes());
                assert_eq!(read, Err(ManifestError::Empty));
            }
            for bytes in [
                &b"#EXTM3U\n\xff"[..],
                b"#EXTM3U\na.ts\n\0\0",
                b"\x1f\x8b\x08",
            ] {
                assert_eq!(read_manifest(kind, bytes), Err(ManifestError::NotText));
            }
            let page = b"<!DOCTYPE html><html><body>Not now</body></html>";
            let read = read_manifest(kind, page);
            assert!(matches!(read, Err(ManifestError::Broken(_))));
        }
    }

    #[test]
    fn a_byte_order_mark_is_passed_over() {
        let playlist = "\u{feff}#EXTM3U\n#EXT-X-TARGETDURATION:6\n";
        assert!(read_manifest(Kind::Hls, playlist.as_bytes()).is_ok());
        assert!(read_manifest(Kind::Dash, "\u{feff}<MPD></MPD>".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn no_body_panics(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in Kind::ALL {
                let _ = read_manifest(kind, &body);
            }
        }
    }
}
