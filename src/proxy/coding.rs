//! Decodes manifests from their content coding, and encodes them for viewers. The shield requests
//! manifests without a coding, and compresses each version once per coding that viewers accept, on
//! threads of its own ([`compressor`]): no worker thread does it, and a hit waits for it at most
//! [`WAIT_MAX`].

mod compressor;

use std::io::Read;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use flate2::read::MultiGzDecoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};
use tokio::time::timeout;

pub use compressor::CodingStats;
pub(super) use compressor::Compressor;
use compressor::SHORT_BYTES_MAX;

use super::Shield;
use super::read_whole::ReadWholeError;
use seawall_cache::{EncodedBodies, EncodedBodySet, Object};
use seawall_manifest::{Kind, Manifest, ManifestError, read_manifest};
use seawall_policy::encoding::{self, ContentCoding};
use seawall_policy::fields;

/// A shorter text fits into one packet uncompressed.
const CODED_BYTES_MIN: usize = 600;

/// A longer text is sent uncompressed: its codings would take long and need as much memory again.
const CODED_BYTES_MAX: usize = 4 << 20;

/// The first request for a coding of a short text waits at most this long for it.
const WAIT_MAX: Duration = Duration::from_millis(100);

/// Header fields that describe the bytes as the origin sent them.
const DIGESTS: [&str; 3] = ["content-md5", "content-digest", "digest"];

/// Why a manifest cannot be decoded or parsed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum DecodeError {
    #[error(transparent)]
    Body(#[from] ReadWholeError),
    #[error(transparent)]
    Text(#[from] ManifestError),
    #[error("its content coding is broken")]
    Coding,
}

/// More codings applied to one body than any real server uses.
const CODINGS_MAX: usize = 4;

/// Parses a manifest after decoding it. `None`: it has an unsupported coding.
pub(super) fn decode_and_parse(
    kind: Kind,
    headers: &HeaderMap,
    body: &Bytes,
    bytes_max: u64,
) -> Result<Option<Manifest>, DecodeError> {
    match decoded_text(headers, body, bytes_max)? {
        Some(text) => Ok(Some(read_manifest(kind, &text)?)),
        None => Ok(None),
    }
}

/// The text without its codings. `None`: one of them is unsupported.
pub(super) fn decoded_text(
    headers: &HeaderMap,
    body: &Bytes,
    bytes_max: u64,
) -> Result<Option<Bytes>, DecodeError> {
    let Some(codings) = encoding::content_codings(headers, CODINGS_MAX) else {
        return Ok(None);
    };
    let mut text = body.clone();
    for coding in codings.into_iter().rev() {
        text = decode(coding, &text, bytes_max)?.into();
    }
    Ok(Some(text))
}

fn decode(coding: ContentCoding, body: &[u8], bytes_max: u64) -> Result<Vec<u8>, DecodeError> {
    /// The window that RFC 9659 §3 requires every HTTP client to support, and no larger.
    const ZSTD_WINDOW_LOG_MAX: u32 = 23;
    const BUFFER_BYTES: usize = 4096;
    let mut text = Vec::new();
    // One byte above the limit shows that the text is too large.
    let read_max = bytes_max.saturating_add(1);
    let read = match coding {
        ContentCoding::Gzip => MultiGzDecoder::new(body)
            .take(read_max)
            .read_to_end(&mut text),
        ContentCoding::Brotli => brotli::Decompressor::new(body, BUFFER_BYTES)
            .take(read_max)
            .read_to_end(&mut text),
        ContentCoding::Zstd => zstd::Decoder::new(body).and_then(|mut decoder| {
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            decoder.take(read_max).read_to_end(&mut text)
        }),
    };
    read.map_err(|_| DecodeError::Coding)?;
    if text.len() as u64 > bytes_max {
        return Err(ReadWholeError::TooLarge.into());
    }
    Ok(text)
}

/// In which coding a stored object is sent to a viewer.
pub(super) enum EncodingChoice<'o> {
    /// In this one.
    Ready(&'o Arc<Object>),
    /// In a better one, which is being made and will be ready in a moment.
    InProgress(&'o Arc<EncodedBodySet>, ContentCoding),
}

impl Shield {
    /// Makes a manifest available in other codings, if that is worthwhile. Starts the codings in
    /// which the previous version was requested.
    pub(super) fn with_encodings(&self, mut object: Object, before: Option<&Object>) -> Object {
        let mut headers = object.head.headers.to_map();
        let is_codable = object.head.status == StatusCode::OK
            && !headers.contains_key(header::CONTENT_ENCODING)
            && !forbids_transform(&headers)
            && (CODED_BYTES_MIN..=CODED_BYTES_MAX).contains(&object.body.len());
        if !is_codable {
            return object;
        }
        if !fields::lists(&headers, header::VARY, b"accept-encoding") {
            headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
            object.head.headers = headers.into();
        }
        let mut codable = Object::new(object.head, object.body);
        let before = before.and_then(Object::encodings);
        let (codings, to_encode) = EncodedBodies::of_next_version(before);
        for coding in to_encode {
            self.compressor
                .enqueue(&codable.body, coding, codings.bodies());
        }
        codable.set_encodings(Some(codings));
        codable
    }

    /// The stored object in the best available coding that the viewer accepts. Starts the best
    /// accepted coding on a compressor thread; for a short text, the viewer should wait for it.
    pub(super) fn choose_encoding<'o>(
        &self,
        object: &'o Arc<Object>,
        viewer: &HeaderMap,
    ) -> EncodingChoice<'o> {
        let Some(codings) = object.encodings() else {
            return EncodingChoice::Ready(object);
        };
        let mut accepted = encoding::accepted(viewer);
        let Some(best) = accepted.next() else {
            return EncodingChoice::Ready(object);
        };
        let bodies = codings.bodies();
        if bodies.request(best) {
            self.compressor.enqueue(&object.body, best, bodies);
        }
        if object.body.len() <= SHORT_BYTES_MAX && bodies.is_being_made(best) {
            return EncodingChoice::InProgress(bodies, best);
        }
        EncodingChoice::Ready(best_available(object, codings, best, accepted))
    }

    /// Waits until the best coding is ready, at most [`WAIT_MAX`].
    pub(super) async fn wait_for_encoding(&self, object: &Arc<Object>, viewer: &HeaderMap) {
        if let EncodingChoice::InProgress(bodies, coding) = self.choose_encoding(object, viewer) {
            // After the timeout, another coding is served.
            let _ = timeout(WAIT_MAX, bodies.wait_until_made(coding)).await;
        }
    }
}

/// The object in the best coding that is ready and that the viewer accepts; else uncompressed.
pub(super) fn best_encoding<'o>(object: &'o Arc<Object>, viewer: &HeaderMap) -> &'o Arc<Object> {
    let mut accepted = encoding::accepted(viewer);
    match object.encodings().zip(accepted.next()) {
        Some((codings, best)) => best_available(object, codings, best, accepted),
        None => object,
    }
}

fn best_available<'o>(
    object: &'o Arc<Object>,
    codings: &'o EncodedBodies,
    best: ContentCoding,
    others: impl Iterator<Item = ContentCoding>,
) -> &'o Arc<Object> {
    let encoded = |coding| move |body| in_coding(object, coding, body);
    let mut accepted = std::iter::once(best).chain(others);
    let coded = accepted.find_map(|coding| codings.in_coding(coding, encoded(coding)));
    coded.unwrap_or(object)
}

/// The same object with a compressed body.
fn in_coding(object: &Object, coding: ContentCoding, body: Bytes) -> Object {
    let mut head = object.head.clone();
    let mut headers = head.headers.to_map();
    let name = HeaderValue::from_static(coding.as_str());
    headers.insert(header::CONTENT_ENCODING, name);
    let tag = headers.get(header::ETAG);
    if let Some(tag) = tag.and_then(|tag| tag_with_coding(tag, coding)) {
        headers.insert(header::ETAG, tag);
    }
    for digest in DIGESTS {
        headers.remove(digest);
    }
    head.headers = headers.into();
    object.with_encoded_body(head, body)
}

/// No intermediary may change the coding (RFC 9110 §7.7).
fn forbids_transform(headers: &HeaderMap) -> bool {
    fields::lists(headers, header::CACHE_CONTROL, b"no-transform")
}

/// Two codings of one text are two representations and need different strong tags (RFC 9110
/// §8.8.3.3).
fn tag_with_coding(tag: &HeaderValue, coding: ContentCoding) -> Option<HeaderValue> {
    let inner = tag.as_bytes().strip_suffix(b"\"")?;
    let strong = inner.starts_with(b"\"");
    let coded = [inner, b"-", coding.as_str().as_bytes(), b"\""].concat();
    strong
        .then(|| HeaderValue::from_bytes(&coded).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_cache::StoredHead;

    #[test]
    fn strong_etag_gets_coding_suffix_and_weak_one_stays() {
        let tag = |text| tag_with_coding(&HeaderValue::from_static(text), ContentCoding::Brotli);
        assert_eq!(tag("\"v1\""), Some(HeaderValue::from_static("\"v1-br\"")));
        assert_eq!(tag("W/\"v1\""), None);
    }

    fn object() -> Object {
        let head = StoredHead {
            headers: HeaderMap::from_iter([(header::ETAG, HeaderValue::from_static("\"v1\""))])
                .into(),
            ..StoredHead::plain(Kind::Hls)
        };
        let text = "#EXTINF:4.00000,\nsegment.ts\n".repeat(100);
        let mut object = Object::new(head, text.into());
        object.set_encodings(Some(EncodedBodies::of_next_version(None).0));
        object
    }

    fn accepting(codings: &'static str) -> HeaderMap {
        HeaderMap::from_iter([(header::ACCEPT_ENCODING, HeaderValue::from_static(codings))])
    }

    #[tokio::test]
    async fn compressed_manifest_decodes_to_the_original() {
        let (object, compressor) = (Arc::new(object()), Compressor::default());
        for coding in ContentCoding::ALL {
            let viewer = accepting(coding.as_str());
            assert!(
                Arc::ptr_eq(best_encoding(&object, &viewer), &object),
                "not there yet"
            );
            let bodies = object.encodings().unwrap().bodies();
            assert!(bodies.request(coding));
            compressor.enqueue(&object.body, coding, bodies);
            bodies.wait_until_made(coding).await;
            let coded = best_encoding(&object, &viewer);
            let stated = coded.head.headers.get(&header::CONTENT_ENCODING);
            assert_eq!(stated.unwrap(), coding.as_str().as_bytes());
            assert!(coded.body.len() < object.body.len() / 2, "{coding:?}");
            let mut read = Vec::new();
            match coding {
                ContentCoding::Gzip => {
                    drop(MultiGzDecoder::new(&coded.body[..]).read_to_end(&mut read));
                }
                ContentCoding::Brotli => {
                    brotli::BrotliDecompress(&mut &coded.body[..], &mut read).unwrap();
                }
                ContentCoding::Zstd => read = zstd::bulk::decompress(&coded.body, 1 << 20).unwrap(),
            }
            assert_eq!(read, object.body);
        }
        assert!(Arc::ptr_eq(
            best_encoding(&object, &HeaderMap::new()),
            &object
        ));
        assert_eq!(compressor.read().made.map(|(_, made)| made), [1; 3]);
    }

    #[test]
    fn serves_another_accepted_coding_until_the_best_is_ready() {
        let object = Arc::new(object());
        let bodies = object.encodings().unwrap().bodies();
        bodies.set_made(ContentCoding::Gzip, Some("small".into()));
        assert_eq!(best_encoding(&object, &accepting("br, gzip")).body, "small");
        assert!(Arc::ptr_eq(
            best_encoding(&object, &accepting("br, zstd")),
            &object
        ));
    }
}
