//! The issuer of tokens: signed URLs, and Common Access Tokens made of their bytes.

use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use data_encoding::BASE64URL_NOPAD;
use ring::hmac;
use seawall_authorization::{SignedUrl, SigningKeys};
use seawall_policy::{RequiredToken, TokenKind};

/// Secrets of issuers.
pub const SECRET: &str = "the-secret-of-the-issuer-for-2026";
pub const NEW_SECRET: &str = "the-secret-of-the-issuer-for-2027";

/// Seconds since 1970.
pub fn now() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.expect("a clock").as_secs()
}

/// Replaces a file as an operator does: at no time is there half a key.
pub fn write_key(folder: &Path, file: &str, key: &str) -> PathBuf {
    let (path, new) = (folder.join(file), folder.join("new"));
    std::fs::write(&new, format!("{key}\n")).expect("a folder");
    std::fs::rename(&new, &path).expect("a folder");
    path
}

/// A token in the query, with the one key `k`.
pub fn required(kind: TokenKind, key: PathBuf) -> RequiredToken {
    RequiredToken {
        kind,
        keys: vec![("k".to_owned(), key)],
        issuers: Vec::new(),
        audiences: Vec::new(),
        accepts_no_expiry: false,
        header: None,
        cookie: None,
        query: Some("seawall".to_owned()),
        path: None,
    }
}

/// A signed URL for everything below a path, by the key `k` with this secret.
pub fn signed(secret: &str, path: &str, expires_at: u64, network: Option<&str>) -> String {
    signed_by(("k", secret), path, expires_at, network)
}

/// The same by another key: its id and secret.
pub fn signed_by(
    (id, secret): (&str, &str),
    path: &str,
    expires_at: u64,
    network: Option<&str>,
) -> String {
    let keys = SigningKeys::new([(id, secret.as_bytes())]).expect("a key");
    let url = SignedUrl {
        key_id: id.to_owned(),
        path_prefix: path.to_owned(),
        expires_at,
        network: network.map(|network| network.parse().expect("a network")),
    };
    keys.sign(&url).expect("a path")
}

/// The same, valid for an hour from every network.
pub fn valid(path: &str) -> String {
    signed(SECRET, path, now() + 3600, None)
}

/// A Common Access Token with these claims (labels, and values in CBOR), by the key `k`.
pub fn cat(secret: &str, claims: &[(u64, Vec<u8>)]) -> String {
    const PROTECTED: [u8; 3] = [0xa1, 0x01, 0x05];
    let mut payload = head(5, claims.len() as u64);
    for (label, value) in claims {
        payload.extend(head(0, *label));
        payload.extend(value);
    }
    let mut signed = vec![0x84];
    signed.extend(text("MAC0"));
    for part in [&PROTECTED[..], b"", &payload] {
        signed.extend(bytes(part));
    }
    let key = hmac::Key::new(hmac::HMAC_SHA256, secret.as_bytes());
    let mut token = vec![0x84];
    token.extend(bytes(&PROTECTED));
    token.extend([0xa1, 0x04]);
    token.extend(bytes(b"k"));
    token.extend(bytes(&payload));
    token.extend(bytes(hmac::sign(&key, &signed).as_ref()));
    BASE64URL_NOPAD.encode(&token)
}

/// `exp`, as a claim.
pub fn expiry(seconds: u64) -> (u64, Vec<u8>) {
    (4, head(0, seconds))
}

/// A text in CBOR.
pub fn text(text: &str) -> Vec<u8> {
    [head(3, text.len() as u64), text.as_bytes().to_vec()].concat()
}

/// Bytes in CBOR.
pub fn bytes(bytes: &[u8]) -> Vec<u8> {
    [head(2, bytes.len() as u64), bytes.to_vec()].concat()
}

/// The head of an item in CBOR, in its shortest form: an unsigned number is all head.
pub fn head(major: u8, argument: u64) -> Vec<u8> {
    let bytes = argument.to_be_bytes();
    let (info, length) = match argument {
        0..24 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    [&[major << 5 | info], &bytes[8 - length..]].concat()
}
