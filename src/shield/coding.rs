//! What does a manifest say, through its content coding? And how is it coded for viewers? The shield asks
//! for plain text, and compresses each version once.

use std::io::{Read, Write};
use std::sync::Arc;

use bytes::Bytes;
use flate2::Compression;
use flate2::read::MultiGzDecoder;
use flate2::write::GzEncoder;
use http::{HeaderMap, HeaderValue, StatusCode, header};

use super::whole::Unread;
use crate::cache::Object;
use crate::media::{Kind, Manifest, ManifestError, read_manifest};
use crate::policy::fields;

/// Text shorter than this fits a packet as it is.
const CODED_BYTES_MIN: usize = 600;

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

/// The same manifest with its text compressed beside it, where that is worth it.
pub(super) fn coded(object: Object) -> Object {
    let plain = object.head.status == StatusCode::OK
        && !object.head.headers.contains_key(header::CONTENT_ENCODING)
        && !is_untouchable(&object.head.headers)
        && object.body.len() >= CODED_BYTES_MIN;
    let coded = plain.then(|| compress(&object.body)).flatten();
    match coded.filter(|coded| coded.len() < object.body.len()) {
        Some(body) => with_coded(object, body),
        None => object,
    }
}

/// Nobody on the way may code it otherwise (RFC 9110 §7.7).
fn is_untouchable(headers: &HeaderMap) -> bool {
    fields::lists(headers, header::CACHE_CONTROL, b"no-transform")
}

/// The same with a body that is compressed already.
pub(super) fn with_coded(mut object: Object, body: Bytes) -> Object {
    let mut head = object.head.clone();
    let headers = &mut head.headers;
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
    if let Some(tag) = headers.get(header::ETAG).and_then(distinct) {
        headers.insert(header::ETAG, tag);
    }
    for digest in DIGESTS {
        headers.remove(digest);
    }
    add_vary(headers);
    add_vary(&mut object.head.headers);
    let mut plain = Object::new(object.head, object.body);
    plain.coded = Some(Arc::new(Object::new(head, body)));
    plain
}

fn compress(body: &Bytes) -> Option<Bytes> {
    let mut coder = GzEncoder::new(Vec::with_capacity(body.len() / 4), Compression::new(4));
    coder.write_all(body).ok()?;
    coder.finish().ok().map(Bytes::from)
}

/// RFC 9110 §8.8.3.3: two codings of one text are two representations, which a strong tag tells apart.
fn distinct(tag: &HeaderValue) -> Option<HeaderValue> {
    let inner = tag.as_bytes().strip_suffix(b"\"")?;
    let strong = inner.starts_with(b"\"");
    let mut coded = inner.to_vec();
    coded.extend_from_slice(b"-gzip\"");
    strong
        .then(|| HeaderValue::from_bytes(&coded).ok())
        .flatten()
}

fn add_vary(headers: &mut HeaderMap) {
    if !fields::lists(headers, header::VARY, b"accept-encoding") {
        headers.append(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_strong_tag_names_the_coding_and_a_weak_one_stays() {
        let tag = |text| distinct(&HeaderValue::from_static(text));
        assert_eq!(tag("\"v1\""), Some(HeaderValue::from_static("\"v1-gzip\"")));
        assert_eq!(tag("W/\"v1\""), None);
    }

    #[test]
    fn vary_is_said_once() {
        let mut headers = HeaderMap::new();
        add_vary(&mut headers);
        add_vary(&mut headers);
        assert_eq!(headers.get_all(header::VARY).iter().count(), 1);
        let mut named = HeaderMap::new();
        named.insert(
            header::VARY,
            HeaderValue::from_static("Origin, accept-encoding"),
        );
        add_vary(&mut named);
        assert_eq!(named.get_all(header::VARY).iter().count(), 1);
    }
}
