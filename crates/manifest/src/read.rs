//! Reads a manifest of any kind: bytes in, a [`Manifest`] out. Never panics.

use super::info::{Manifest, ManifestError};
use super::{Kind, dash, hls};

/// Parses a whole, uncompressed manifest. Every kind but [`Kind::Dash`] is parsed as HLS.
pub fn read_manifest(kind: Kind, body: &[u8]) -> Result<Manifest, ManifestError> {
    // A file that is allocated and not yet written contains zero bytes, which UTF-8 permits.
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
    fn rejects_empty_binary_or_html_bodies() {
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
    fn byte_order_mark_is_skipped() {
        let playlist = "\u{feff}#EXTM3U\n#EXT-X-TARGETDURATION:6\n";
        assert!(read_manifest(Kind::Hls, playlist.as_bytes()).is_ok());
        assert!(read_manifest(Kind::Dash, "\u{feff}<MPD></MPD>".as_bytes()).is_ok());
    }

    proptest! {
        #[test]
        fn arbitrary_body_does_not_panic(body in proptest::collection::vec(any::<u8>(), 0..300)) {
            for kind in Kind::ALL {
                let _ = read_manifest(kind, &body);
            }
        }
    }
}
