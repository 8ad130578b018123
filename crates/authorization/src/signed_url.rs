//! Signed URLs: a token that permits everything below a path until a second, optionally from one
//! network only. It is the same in a query, a cookie, a header or a segment of the path.
//!
//! The format, which docs/tokens.md describes for those who issue tokens:
//!
//! ```text
//! 1.KEYID.EXPIRY.PREFIX.NETWORK.MAC
//! ```
//!
//! | field | is |
//! |---|---|
//! | `1` | the version of this format |
//! | `KEYID` | the name of the key: 1 to 64 letters, digits, `-` and `_` |
//! | `EXPIRY` | seconds since 1970: the first second in which the token is not valid |
//! | `PREFIX` | base64url of the path, as clients send it. It permits the path and what is below |
//! | `NETWORK` | base64url of the client's address or network as text (`192.0.2.7`, `2001:db8::/56`); empty: any |
//! | `MAC` | base64url of HMAC-SHA256, with the key, of `seawall.` and the token before its last dot |
//!
//! base64url has no padding. No field contains a dot, so the signed text has one reading only.

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;

use data_encoding::BASE64URL_NOPAD;
use ipnet::IpNet;
use ring::hmac;

use super::request::{has_dot_segments, is_below};
use super::{KeyError, TokenRejection, TokenRequest};

/// A longer token is refused unread.
pub const SIGNED_URL_BYTES_MAX: usize = 2048;

const VERSION: &str = "1";
/// Separates these MACs from whatever else the secret may sign.
const CONTEXT: &[u8] = b"seawall.";
const KEY_ID_BYTES_MAX: usize = 64;
/// As many bytes as the MAC has: a shorter secret would be the easier one to guess.
const SECRET_BYTES_MIN: usize = 32;

/// What a signed URL permits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SignedUrl {
    /// The key that signs it.
    pub key_id: String,
    /// It permits this path and everything below.
    pub path_prefix: String,
    /// The first second since 1970 in which it is not valid.
    pub expires_at: u64,
    /// It permits only clients from here. `None`: all.
    pub network: Option<IpNet>,
}

/// Why a token cannot be made.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SigningError {
    /// There is no such key.
    #[error("no key has this id")]
    UnknownKey,
    /// No request path can be below the prefix.
    #[error(
        "the path must begin with `/`, and be as clients send it: ASCII, percent-encoded, \
             without a query and without `.` or `..` segments"
    )]
    Path,
    /// The token would be longer than [`SIGNED_URL_BYTES_MAX`].
    #[error("the path is too long for a token")]
    TooLong,
}

/// The secrets that sign URLs, by key id: several while one is rotated.
#[derive(Clone)]
pub struct SigningKeys(HashMap<String, hmac::Key>);

impl SigningKeys {
    /// The keys by id. Each byte of a secret counts: the caller takes off a line end.
    pub fn new<'a>(
        secrets: impl IntoIterator<Item = (&'a str, &'a [u8])>,
    ) -> Result<SigningKeys, KeyError> {
        let mut keys = HashMap::new();
        for (id, secret) in secrets {
            if !is_key_id(id) {
                return Err(KeyError::Id);
            }
            if secret.len() < SECRET_BYTES_MIN {
                return Err(KeyError::ShortSecret);
            }
            let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
            if keys.insert(id.to_owned(), key).is_some() {
                return Err(KeyError::RepeatedId);
            }
        }
        Ok(SigningKeys(keys))
    }

    /// Makes the token.
    pub fn sign(&self, url: &SignedUrl) -> Result<String, SigningError> {
        let key = self.0.get(&url.key_id).ok_or(SigningError::UnknownKey)?;
        let prefix = url.path_prefix.as_str();
        let is_sent_so = |byte: u8| byte.is_ascii_graphic() && byte != b'?' && byte != b'#';
        if !prefix.starts_with('/') || !prefix.bytes().all(is_sent_so) || has_dot_segments(prefix) {
            return Err(SigningError::Path);
        }
        let network = url.network.map(|network| network.to_string());
        let mut token = format!(
            "{VERSION}.{}.{}.{}.{}",
            url.key_id,
            url.expires_at,
            BASE64URL_NOPAD.encode(prefix.as_bytes()),
            BASE64URL_NOPAD.encode(network.unwrap_or_default().as_bytes()),
        );
        let mac = hmac::sign(key, &signed_text(&token));
        token.push('.');
        BASE64URL_NOPAD.encode_append(mac.as_ref(), &mut token);
        if token.len() > SIGNED_URL_BYTES_MAX {
            return Err(SigningError::TooLong);
        }
        Ok(token)
    }

    /// Reads a token and verifies its MAC. What it permits is for [`SignedUrl::check`] to compare.
    pub fn verify(&self, token: &str) -> Result<SignedUrl, TokenRejection> {
        let url = SignedUrl::read_unverified(token)?;
        let key = self.0.get(&url.key_id).ok_or(TokenRejection::UnknownKey)?;
        let (text, mac) = token.rsplit_once('.').ok_or(TokenRejection::Malformed)?;
        let mac = decode(mac)?;
        // In constant time.
        hmac::verify(key, &signed_text(text), &mac).map_err(|_| TokenRejection::Signature)?;
        Ok(url)
    }
}

/// The ids only: a secret is never shown.
impl fmt::Debug for SigningKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_set().entries(self.0.keys()).finish()
    }
}

impl SignedUrl {
    /// Reads a token and believes it. For explanations only: anyone can write one.
    pub fn read_unverified(token: &str) -> Result<SignedUrl, TokenRejection> {
        if token.len() > SIGNED_URL_BYTES_MAX {
            return Err(TokenRejection::TooLong);
        }
        let mut fields = token.split('.');
        let mut field = || fields.next().ok_or(TokenRejection::Malformed);
        let (version, key_id, expiry) = (field()?, field()?, field()?);
        let (prefix, network, _mac) = (field()?, field()?, field()?);
        if version != VERSION || fields.next().is_some() || !is_key_id(key_id) {
            return Err(TokenRejection::Malformed);
        }
        let path_prefix = decode_text(prefix)?;
        if !path_prefix.starts_with('/') {
            return Err(TokenRejection::Malformed);
        }
        let network = match network {
            "" => None,
            network => Some(read_network(&decode_text(network)?)?),
        };
        Ok(SignedUrl {
            key_id: key_id.to_owned(),
            path_prefix,
            expires_at: read_seconds(expiry)?,
            network,
        })
    }

    /// Whether it permits the request. `now` is in seconds since 1970.
    pub fn check(&self, request: &TokenRequest<'_>, now: u64) -> Result<(), TokenRejection> {
        if now >= self.expires_at {
            return Err(TokenRejection::Expired);
        }
        request.check_path()?;
        if !is_below(request.path(), &self.path_prefix) {
            return Err(TokenRejection::Url);
        }
        let is_from = |network| request.is_from(&[network]);
        if !self.network.is_none_or(is_from) {
            return Err(TokenRejection::Address);
        }
        Ok(())
    }
}

fn is_key_id(id: &str) -> bool {
    let is_allowed = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
    (1..=KEY_ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(is_allowed)
}

fn signed_text(token: &str) -> Vec<u8> {
    [CONTEXT, token.as_bytes()].concat()
}

/// Strict: no padding, and no bits after the last byte. A token has one form.
fn decode(field: &str) -> Result<Vec<u8>, TokenRejection> {
    let bytes = BASE64URL_NOPAD.decode(field.as_bytes());
    bytes.map_err(|_| TokenRejection::Malformed)
}

fn decode_text(field: &str) -> Result<String, TokenRejection> {
    String::from_utf8(decode(field)?).map_err(|_| TokenRejection::Malformed)
}

/// Digits only, and no zero in front.
fn read_seconds(field: &str) -> Result<u64, TokenRejection> {
    let is_plain = field.bytes().all(|byte| byte.is_ascii_digit()) && !field.starts_with('0');
    let seconds = field.parse().ok().filter(|_| is_plain);
    seconds.ok_or(TokenRejection::Malformed)
}

/// An address in IPv6 form of an IPv4 client counts as IPv4, as that of the client does.
fn read_network(text: &str) -> Result<IpNet, TokenRejection> {
    let address = text.parse::<IpAddr>();
    let network = address.map(|address| IpNet::from(address.to_canonical()));
    let network = network.or_else(|_| text.parse::<IpNet>());
    network.map_err(|_| TokenRejection::Malformed)
}

#[cfg(test)]
mod tests;
