//! AWS Signature Version 4 over a request in canonical form: what is hashed, and the key it is
//! signed with. Knows no service: whether a path is normalised is the caller's choice.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{SystemTime, UNIX_EPOCH};

use percent_encoding::{
    AsciiSet, NON_ALPHANUMERIC, percent_decode_str, percent_encode, utf8_percent_encode,
};
use ring::{digest, hmac};
use seawall_manifest::calendar_date;
use zeroize::Zeroizing;

use super::super::Credentials;

/// The hash of a request whose body is not signed.
pub(super) const UNSIGNED_PAYLOAD: &str = "UNSIGNED-PAYLOAD";
/// SHA-256 of no bytes.
pub(super) const EMPTY_PAYLOAD: &str =
    "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";

const ALGORITHM: &str = "AWS4-HMAC-SHA256";

/// The parts of a request that are signed, as the service derives them from what it receives.
pub(super) struct CanonicalRequest<'a> {
    pub(super) method: &'a str,
    pub(super) path: String,
    pub(super) query: String,
    /// Names in lower case; the values of a repeated field are joined by commas.
    pub(super) fields: BTreeMap<&'a str, String>,
    /// The body's SHA-256, or [`UNSIGNED_PAYLOAD`].
    pub(super) payload: &'a str,
}

/// What a signature is valid for.
pub(super) struct SigningScope<'a> {
    pub(super) time: &'a SigningTime,
    pub(super) region: &'a str,
    pub(super) service: &'a str,
}

/// `20150830T123600Z`.
pub(super) struct SigningTime(String);

impl SigningTime {
    pub(super) fn new(now: SystemTime) -> SigningTime {
        let seconds = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let (year, month, day) = calendar_date(seconds / 86_400);
        let (hour, minute, second) = (seconds / 3600 % 24, seconds / 60 % 60, seconds % 60);
        SigningTime(format!(
            "{year:04}{month:02}{day:02}T{hour:02}{minute:02}{second:02}Z"
        ))
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    fn day(&self) -> &str {
        self.0.split_once('T').map_or("", |(day, _)| day)
    }
}

impl<'a> CanonicalRequest<'a> {
    /// Adds a header field; spaces around and between words count as one.
    pub(super) fn add_field(&mut self, name: &'a str, value: &str) {
        let words: Vec<_> = value.split(' ').filter(|word| !word.is_empty()).collect();
        let value = words.join(" ");
        self.fields
            .entry(name)
            .and_modify(|values| {
                values.push(',');
                values.push_str(&value);
            })
            .or_insert(value);
    }

    /// The value of `Authorization`.
    pub(super) fn authorization(
        &self,
        scope: &SigningScope<'_>,
        credentials: &Credentials,
    ) -> String {
        let signed = self.signed_fields();
        let hash = hex(digest::digest(&digest::SHA256, self.text(&signed).as_bytes()).as_ref());
        let time = scope.time.as_str();
        let place = scope.place();
        let text = format!("{ALGORITHM}\n{time}\n{place}\n{hash}");
        let key = scope.key(credentials.secret_access_key());
        let signature = hex(hmac::sign(&key, text.as_bytes()).as_ref());
        let id = credentials.access_key_id();
        format!(
            "{ALGORITHM} Credential={id}/{place}, SignedHeaders={signed}, Signature={signature}"
        )
    }

    fn signed_fields(&self) -> String {
        let names: Vec<_> = self.fields.keys().copied().collect();
        names.join(";")
    }

    fn text(&self, signed: &str) -> String {
        let CanonicalRequest {
            method,
            path,
            query,
            payload,
            ..
        } = self;
        let fields = self.fields.iter();
        let fields: Vec<_> = fields
            .map(|(name, value)| format!("{name}:{value}"))
            .collect();
        let fields = fields.join("\n");
        format!("{method}\n{path}\n{query}\n{fields}\n\n{signed}\n{payload}")
    }
}

impl SigningScope<'_> {
    fn place(&self) -> String {
        let (day, region, service) = (self.time.day(), self.region, self.service);
        format!("{day}/{region}/{service}/aws4_request")
    }

    fn key(&self, secret: &str) -> hmac::Key {
        let first = Zeroizing::new(format!("AWS4{secret}"));
        let steps = [self.time.day(), self.region, self.service, "aws4_request"];
        steps.into_iter().fold(key(first.as_bytes()), |with, step| {
            key(hmac::sign(&with, step.as_bytes()).as_ref())
        })
    }
}

fn key(bytes: &[u8]) -> hmac::Key {
    hmac::Key::new(hmac::HMAC_SHA256, bytes)
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// A path without empty and dot segments, its escapes escaped once more: as every service but S3
/// expects it.
pub(super) fn normalized_path(path: &str) -> String {
    let mut segments = Vec::new();
    for segment in path.split('/') {
        match segment {
            "" | "." => {}
            ".." => drop(segments.pop()),
            _ => segments.push(segment),
        }
    }
    let is_directory = ["/", "/.", "/.."].iter().any(|end| path.ends_with(end));
    let mut normalized = format!("/{}", segments.join("/"));
    if is_directory && !segments.is_empty() {
        normalized.push('/');
    }
    utf8_percent_encode(&normalized, PATH).to_string()
}

/// Parameters in the order of their encoded names and values. A `+` is a space.
pub(super) fn canonical_query(query: &str) -> String {
    let encoded = |text: &str| {
        let spaced = text.replace('+', " ");
        let decoded: Vec<u8> = percent_decode_str(&spaced).collect();
        percent_encode(&decoded, COMPONENT).to_string()
    };
    let parameters = query.split('&').filter(|parameter| !parameter.is_empty());
    let mut parameters: Vec<_> = parameters
        .map(|parameter| {
            let (name, value) = parameter.split_once('=').unwrap_or((parameter, ""));
            (encoded(name), encoded(value))
        })
        .collect();
    parameters.sort_unstable();
    let parameters: Vec<_> = parameters
        .iter()
        .map(|(name, value)| format!("{name}={value}"))
        .collect();
    parameters.join("&")
}

/// All bytes but the unreserved ones (RFC 3986 §2.3).
const COMPONENT: &AsciiSet = &NON_ALPHANUMERIC
    .remove(b'-')
    .remove(b'.')
    .remove(b'_')
    .remove(b'~');

/// The same, without the separator of path segments.
const PATH: &AsciiSet = &COMPONENT.remove(b'/');

/// A path with one spelling of each byte. A `%` that begins no escape is encoded.
pub(super) fn canonical_spelling(path: &str) -> String {
    let decoded: Vec<u8> = percent_decode_str(path).collect();
    percent_encode(&decoded, PATH).to_string()
}

#[cfg(test)]
mod tests;
