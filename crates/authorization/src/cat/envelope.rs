//! Opens and closes the envelope of a token (COSE, RFC 9052): what is signed, by which key, and the
//! signature over the bytes as they were received. It knows nothing of claims.
//!
//! The envelope must be in its one shortest form, with no other unprotected header than the key
//! id: what no signature covers can then not be varied.

use ring::{hmac, signature};

use super::super::keys::is_pem;
use super::super::{KeyError, TokenRejection};
use super::cbor::{CborReader, CborValue, major};
use super::pem;

/// COSE algorithm numbers (IANA).
const HMAC_256: i64 = 5;
const ES256: i64 = -7;

/// Labels of headers.
const ALG: i64 = 1;
const CRIT: i64 = 2;
const KID: i64 = 4;

/// CBOR tags.
const CWT: u64 = 61;
const COSE_MAC0: u64 = 17;
const COSE_SIGN1: u64 = 18;

const PROTECTED_BYTES_MAX: usize = 256;
const SECRET_BYTES_MIN: usize = 32;

/// A key that verifies tokens. It verifies by its own algorithm only.
#[derive(Clone)]
pub struct CatKey(Algorithm);

#[derive(Clone)]
enum Algorithm {
    Hmac256(hmac::Key),
    Es256(signature::UnparsedPublicKey<Vec<u8>>),
}

impl CatKey {
    /// A secret for HMAC-SHA256 (COSE algorithm 5, "HS256").
    pub fn hmac_256(secret: &[u8]) -> Result<CatKey, KeyError> {
        if secret.len() < SECRET_BYTES_MIN {
            return Err(KeyError::ShortSecret);
        }
        let key = hmac::Key::new(hmac::HMAC_SHA256, secret);
        Ok(CatKey(Algorithm::Hmac256(key)))
    }

    /// A public key for ES256 (ECDSA with P-256 and SHA-256): PEM that begins with
    /// `-----BEGIN PUBLIC KEY-----`, as `openssl ec -pubout` writes it.
    pub fn es256(pem: &str) -> Result<CatKey, KeyError> {
        let point = pem::p256_point(pem).ok_or(KeyError::PublicKey)?;
        let key = signature::UnparsedPublicKey::new(&signature::ECDSA_P256_SHA256_FIXED, point);
        Ok(CatKey(Algorithm::Es256(key)))
    }

    /// The key that a file contains: a public key for ES256 if it is in PEM, else a secret for
    /// HS256. The caller takes off a line end: see [`strip_line_end`](crate::strip_line_end).
    pub fn of_file(content: &[u8]) -> Result<CatKey, KeyError> {
        if !is_pem(content) {
            return CatKey::hmac_256(content);
        }
        let pem = std::str::from_utf8(content).map_err(|_| KeyError::PublicKey)?;
        CatKey::es256(pem)
    }

    /// As short as those of published tokens.
    #[cfg(test)]
    pub(super) fn short(secret: &[u8]) -> CatKey {
        CatKey(Algorithm::Hmac256(hmac::Key::new(
            hmac::HMAC_SHA256,
            secret,
        )))
    }

    pub(super) fn is_public(&self) -> bool {
        matches!(self.0, Algorithm::Es256(_))
    }

    fn number(&self) -> i64 {
        match self.0 {
            Algorithm::Hmac256(_) => HMAC_256,
            Algorithm::Es256(_) => ES256,
        }
    }

    /// The tag of a message that this key verifies, and the text that begins what is signed.
    fn structure(&self) -> (u64, &'static str) {
        match self.0 {
            Algorithm::Hmac256(_) => (COSE_MAC0, "MAC0"),
            Algorithm::Es256(_) => (COSE_SIGN1, "Signature1"),
        }
    }
}

/// The algorithm only: a secret is never shown.
impl std::fmt::Debug for CatKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self.0 {
            Algorithm::Hmac256(_) => "CatKey(HS256)",
            Algorithm::Es256(_) => "CatKey(ES256)",
        })
    }
}

/// The parts of a token, unverified.
#[derive(Debug)]
pub(super) struct Envelope<'a> {
    /// `COSE_Mac0` or `COSE_Sign1`. `None`: the token does not say.
    tag: Option<u64>,
    protected: &'a [u8],
    pub(super) algorithm: i64,
    pub(super) key_id: Vec<u8>,
    pub(super) payload: &'a [u8],
    signature: &'a [u8],
}

impl<'a> Envelope<'a> {
    /// Whether there are keys for its algorithm.
    pub(super) fn has_known_algorithm(&self) -> bool {
        matches!(self.algorithm, HMAC_256 | ES256)
    }

    pub(super) fn open(token: &'a [u8]) -> Result<Envelope<'a>, TokenRejection> {
        let malformed = TokenRejection::Malformed;
        let mut reader = CborReader::new(token);
        let mut tag = reader.read_shortest(major::TAG);
        if tag == Some(CWT) {
            // RFC 8392, section 6: the tag of a CWT is followed by that of COSE.
            tag = Some(reader.read_shortest(major::TAG).ok_or(malformed)?);
        }
        if !matches!(tag, None | Some(COSE_MAC0 | COSE_SIGN1)) {
            return Err(malformed);
        }
        if reader.read_shortest(major::ARRAY) != Some(4) {
            return Err(malformed);
        }
        let protected = reader.read_bytes().map_err(|_| malformed)?;
        let unprotected_key_id = read_unprotected(&mut reader)?;
        let payload = reader.read_bytes().map_err(|_| malformed)?;
        let signature = reader.read_bytes().map_err(|_| malformed)?;
        if !reader.is_at_end() {
            return Err(malformed);
        }
        let (algorithm, protected_key_id) = read_protected(protected)?;
        let key_id = match (protected_key_id, unprotected_key_id) {
            (Some(key_id), None) => key_id,
            (None, Some(key_id)) => key_id.to_vec(),
            (None, None) => return Err(TokenRejection::UnknownKey),
            (Some(_), Some(_)) => return Err(malformed),
        };
        Ok(Envelope {
            tag,
            protected,
            algorithm,
            key_id,
            payload,
            signature,
        })
    }

    pub(super) fn verify(&self, key: &CatKey) -> Result<(), TokenRejection> {
        let (tag, context) = key.structure();
        if self.algorithm != key.number() || self.tag.is_some_and(|given| given != tag) {
            return Err(TokenRejection::Algorithm);
        }
        let signed = signed_structure(context, self.protected, self.payload);
        let verified = match &key.0 {
            // In constant time, and the whole MAC: a truncated one is another algorithm.
            Algorithm::Hmac256(key) => hmac::verify(key, &signed, self.signature),
            Algorithm::Es256(key) => key.verify(&signed, self.signature),
        };
        verified.map_err(|_| TokenRejection::Signature)
    }
}

/// A token with these claims, if the key can sign.
pub(super) fn seal(key: &CatKey, key_id: &[u8], payload: &[u8]) -> Option<Vec<u8>> {
    let Algorithm::Hmac256(secret) = &key.0 else {
        return None;
    };
    let protected = [0xa1, 0x01, 0x05];
    let mac = hmac::sign(secret, &signed_structure("MAC0", &protected, payload));
    let mut token = Vec::new();
    push_head(&mut token, major::TAG, CWT);
    push_head(&mut token, major::TAG, COSE_MAC0);
    push_head(&mut token, major::ARRAY, 4);
    push_bytes(&mut token, &protected);
    push_head(&mut token, major::MAP, 1);
    push_integer(&mut token, KID);
    push_bytes(&mut token, key_id);
    push_bytes(&mut token, payload);
    push_bytes(&mut token, mac.as_ref());
    Some(token)
}

/// `MAC_structure` and `Sig_structure` of RFC 9052, without external data.
fn signed_structure(context: &str, protected: &[u8], payload: &[u8]) -> Vec<u8> {
    let mut signed = Vec::with_capacity(protected.len() + payload.len() + 32);
    push_head(&mut signed, major::ARRAY, 4);
    push_head(&mut signed, major::TEXT, context.len() as u64);
    signed.extend_from_slice(context.as_bytes());
    push_bytes(&mut signed, protected);
    push_bytes(&mut signed, b"");
    push_bytes(&mut signed, payload);
    signed
}

/// The key id, which is the only header that may be there.
fn read_unprotected<'a>(reader: &mut CborReader<'a>) -> Result<Option<&'a [u8]>, TokenRejection> {
    let malformed = TokenRejection::Malformed;
    match reader.read_shortest(major::MAP).ok_or(malformed)? {
        0 => Ok(None),
        1 if reader.read_shortest(major::UNSIGNED) == Some(KID.cast_unsigned()) => {
            reader.read_bytes().map(Some).map_err(|_| malformed)
        }
        _ => Err(malformed),
    }
}

/// The algorithm and the key id. Other headers mean nothing to us, unless `crit` says they must.
fn read_protected(protected: &[u8]) -> Result<(i64, Option<Vec<u8>>), TokenRejection> {
    let malformed = TokenRejection::Malformed;
    if protected.len() > PROTECTED_BYTES_MAX {
        return Err(malformed);
    }
    let mut reader = CborReader::new(protected);
    let CborValue::Map(headers) = reader.read_item().map_err(|_| malformed)? else {
        return Err(malformed);
    };
    let (mut algorithm, mut key_id) = (None, None);
    for (label, value) in &headers {
        let is_repeated = match label.as_integer() {
            Some(ALG) => algorithm
                .replace(value.as_integer().ok_or(malformed)?)
                .is_some(),
            Some(KID) => {
                let id = value.as_bytes().ok_or(malformed)?;
                key_id.replace(id.to_vec()).is_some()
            }
            Some(CRIT) => return Err(malformed),
            _ => false,
        };
        if is_repeated {
            return Err(malformed);
        }
    }
    if !reader.is_at_end() {
        return Err(malformed);
    }
    Ok((algorithm.ok_or(TokenRejection::Algorithm)?, key_id))
}

pub(super) fn push_integer(out: &mut Vec<u8>, value: i64) {
    match u64::try_from(value) {
        Ok(value) => push_head(out, major::UNSIGNED, value),
        Err(_) => push_head(out, major::NEGATIVE, (!value).cast_unsigned()),
    }
}

fn push_bytes(out: &mut Vec<u8>, bytes: &[u8]) {
    push_head(out, major::BYTES, bytes.len() as u64);
    out.extend_from_slice(bytes);
}

pub(super) fn push_head(out: &mut Vec<u8>, major: u8, argument: u64) {
    let bytes = argument.to_be_bytes();
    let (info, length) = match argument {
        0..24 => (bytes[7], 0),
        24..=0xff => (24, 1),
        0x100..=0xffff => (25, 2),
        0x1_0000..=0xffff_ffff => (26, 4),
        _ => (27, 8),
    };
    out.push(major << 5 | info);
    out.extend_from_slice(&bytes[bytes.len() - length..]);
}
