//! What does a manifest say, through its content coding? And how is it coded for viewers? The shield asks
//! for plain text, and compresses each version once, when somebody takes it so.

use std::io::{Read, Write};
use std::sync::Arc;

use brotli::enc::BrotliEncoderParams;
use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::whole::Unread;
use crate::cache::{Codings, Object};
use crate::media::{Kind, Manifest, ManifestError, read_manifest};
use crate::policy::encoding::{self, Coding};
use crate::policy::fields;

/// Text shorter than this fits a packet as it is.
const CODED_BYTES_MIN: usize = 600;

/// How hard is tried: about where more takes much longer and makes texts hardly any smaller.
const GZIP_LEVEL: u32 = 4;
const BROTLI_QUALITY: i32 = 5;
const ZSTD_LEVEL: i32 = 3;

/// What tells of the bytes as the origin sent them.
const DIGESTS: [&str; 3] = ["content-md5", "content-digest", "digest"];

/// Why a manifest is a failed fetch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Unreadable {
    #[error(transparent)]
    Body(#[from] Unread),
    #[error(transparent)]
    Text(#[from] ManifestError),
    #[error("its gzip coding is broken")]
    Coding,
}

/// Reads a manifest. One in a coding that nobody asked for goes unread.
pub(super) fn read(
    kind: Kind,
    headers: &HeaderMap,
    body: &Bytes,
    bytes_max: u64,
) -> Result<Option<Manifest>, Unreadable> {
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
                .map_err(|_| Unreadable::Coding)?;
            if text.len() as u64 > bytes_max {
                return Err(Unread::TooLarge.into());
            }
            Ok(Some(read_manifest(kind, &text)?))
        }
        Some(_) => Ok(None),
    }
}

/// The same manifest, to be had in other codings too, where that is worth it.
pub(super) fn codable(mut object: Object) -> Object {
    let mut headers = object.head.headers.to_map();
    let worth_it = object.head.status == StatusCode::OK
        && !headers.contains_key(header::CONTENT_ENCODING)
        && !is_untouchable(&headers)
        && object.body.len() >= CODED_BYTES_MIN;
    if !worth_it {
        return object;
    }
    if !fields::lists(&headers, header::VARY, b"accept-encoding") {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
        object.head.headers = headers.into();
    }
    let mut codable = Object::new(object.head, object.body);
    codable.coded = Some(Codings::default());
    codable
}

/// What is held, in the coding that suits a viewer best, if that makes it any smaller.
pub(super) fn suited<'o>(object: &'o Arc<Object>, viewer: &HeaderMap) -> &'o Arc<Object> {
    let coded = object.coded.as_ref().and_then(|codings| {
        let coding = encoding::best(viewer)?;
        codings.in_coding(coding, || compressed(object, coding))
    });
    coded.unwrap_or(object)
}

fn compressed(object: &Object, coding: Coding) -> Option<Object> {
    let body = compress(&object.body, coding)?;
    (body.len() < object.body.len()).then(|| in_coding(object, coding, body))
}

/// The same with a body that is compressed already.
pub(super) fn in_coding(object: &Object, coding: Coding, body: Bytes) -> Object {
    let mut head = object.head.clone();
    let mut headers = head.headers.to_map();
    let name = HeaderValue::from_static(coding.as_str());
    headers.insert(header::CONTENT_ENCODING, name);
    let tag = headers.get(header::ETAG);
    if let Some(tag) = tag.and_then(|tag| distinct(tag, coding)) {
        headers.insert(header::ETAG, tag);
    }
    for digest in DIGESTS {
        headers.remove(digest);
    }
    head.headers = headers.into();
    Object::new(head, body)
}

/// Nobody on the way may code it otherwise (RFC 9110 §7.7).
fn is_untouchable(headers: &HeaderMap) -> bool {
    fields::lists(headers, header::CACHE_CONTROL, b"no-transform")
}

fn compress(body: &[u8], coding: Coding) -> Option<Bytes> {
    let room = Vec::with_capacity(body.len() / 4);
    let coded = match coding {
        Coding::Gzip => {
            let mut coder = GzEncoder::new(room, Compression::new(GZIP_LEVEL));
            coder.write_all(body).ok()?;
            coder.finish().ok()?
        }
        Coding::Brotli => {
            let parameters = BrotliEncoderParams {
                quality: BROTLI_QUALITY,
                size_hint: body.len(),
                ..BrotliEncoderParams::default()
            };
            let mut coded = room;
            brotli::BrotliCompress(&mut &body[..], &mut coded, &parameters).ok()?;
            coded
        }
        Coding::Zstd => zstd::bulk::compress(body, ZSTD_LEVEL).ok()?,
    };
    Some(coded.into_boxed_slice().into())
}

/// RFC 9110 §8.8.3.3: two codings of one text are two representations, which a strong tag tells apart.
fn distinct(tag: &HeaderValue, coding: Coding) -> Option<HeaderValue> {
    let inner = tag.as_bytes().strip_suffix(b"\"")?;
    let strong = inner.starts_with(b"\"");
    let coded = [inner, b"-", coding.as_str().as_bytes(), b"\""].concat();
    strong
        .then(|| HeaderValue::from_bytes(&coded).ok())
        .flatten()
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::cache::Head;
    use crate::policy::Lifetime;

    #[test]
    fn a_strong_tag_names_the_coding_and_a_weak_one_stays() {
        let tag = |text| distinct(&HeaderValue::from_static(text), Coding::Brotli);
        assert_eq!(tag("\"v1\""), Some(HeaderValue::from_static("\"v1-br\"")));
        assert_eq!(tag("W/\"v1\""), None);
    }

    fn manifest(vary: Option<&'static str>) -> Object {
        let vary = vary.map(|vary| (header::VARY, HeaderValue::from_static(vary)));
        let head = Head {
            status: StatusCode::OK,
            headers: HeaderMap::from_iter(vary).into(),
            targeted: None,
            kind: Kind::Hls,
            lifetime: Lifetime::none(Instant::now()),
            facts: None,
            length: None,
            stored: true,
            tie: None,
            attention: None,
        };
        let text = "#EXTINF:4.00000,\nsegment.ts\n".repeat(100);
        codable(Object::new(head, text.into()))
    }

    #[test]
    fn vary_is_said_once() {
        for vary in [None, Some("Origin, accept-encoding")] {
            let headers = manifest(vary).head.headers.to_map();
            assert_eq!(headers.get_all(header::VARY).iter().count(), 1);
        }
    }

    #[test]
    fn each_coding_can_be_read_again() {
        let object = Arc::new(manifest(None));
        for coding in Coding::ALL {
            let name = HeaderValue::from_static(coding.as_str());
            let viewer = HeaderMap::from_iter([(header::ACCEPT_ENCODING, name.clone())]);
            let coded = suited(&object, &viewer);
            assert_eq!(
                coded.head.headers.get(&header::CONTENT_ENCODING),
                Some(name.as_bytes())
            );
            assert!(coded.body.len() < object.body.len() / 2, "{coding:?}");
            let mut read = Vec::new();
            match coding {
                Coding::Gzip => drop(MultiGzDecoder::new(&coded.body[..]).read_to_end(&mut read)),
                Coding::Brotli => {
                    brotli::BrotliDecompress(&mut &coded.body[..], &mut read).unwrap();
                }
                Coding::Zstd => read = zstd::bulk::decompress(&coded.body, 1 << 20).unwrap(),
            }
            assert_eq!(read, object.body);
        }
        assert!(Arc::ptr_eq(suited(&object, &HeaderMap::new()), &object));
    }
}
