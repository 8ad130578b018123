//! Common Access Tokens (CTA-5007-B): CBOR claims in a COSE envelope. Why they are read here and
//! not by the crate of that name: docs/decisions/0081-own-reader-for-common-access-tokens.md.
//!
//! Whatever is not understood refuses the token, as it could be a restriction: a claim, a kind of
//! comparison, a part of a URL. Regular expressions are not evaluated: their cost is the token's to
//! choose.

mod cbor;
mod claims;
mod envelope;
mod explanation;
mod labels;
mod networks;
mod pem;
mod renewal;
mod uri;

use std::collections::HashMap;

use data_encoding::BASE64URL_NOPAD;

use super::{KeyError, TokenCarrier, TokenCarriers, TokenRejection};
pub use claims::Cat;
pub use envelope::CatKey;
use envelope::Envelope;
pub(crate) use explanation::{date, explain};
pub use renewal::RenewedToken;

/// A longer token, in its base64 form, is refused unread.
pub const CAT_BYTES_MAX: usize = 4096;

/// Whose tokens a route accepts.
#[derive(Clone, Debug, Default)]
pub struct CatSettings {
    /// The keys by key id.
    pub keys: Vec<(Vec<u8>, CatKey)>,
    /// A token must name one of these as its issuer. None: any, as the key tells enough.
    pub issuers: Vec<String>,
    /// A token must be for one of these. None: tokens that name an audience are refused.
    pub audiences: Vec<String>,
    /// Accepts tokens without `exp`, which end only when their key is taken away.
    pub accepts_no_expiry: bool,
}

/// Verifies tokens.
#[derive(Clone, Debug)]
pub struct CatVerifier {
    keys: HashMap<Vec<u8>, CatKey>,
    issuers: Vec<String>,
    audiences: Vec<String>,
    accepts_no_expiry: bool,
}

impl CatVerifier {
    /// Checks that each key id is there once.
    pub fn new(settings: CatSettings) -> Result<CatVerifier, KeyError> {
        let mut keys = HashMap::new();
        for (id, key) in settings.keys {
            if keys.insert(id, key).is_some() {
                return Err(KeyError::RepeatedId);
            }
        }
        Ok(CatVerifier {
            keys,
            issuers: settings.issuers,
            audiences: settings.audiences,
            accepts_no_expiry: settings.accepts_no_expiry,
        })
    }

    pub(crate) fn has_public_keys(&self) -> bool {
        self.keys.values().any(CatKey::is_public)
    }

    /// Reads a token and verifies all that does not depend on the request or the time. What the
    /// token permits is for [`Cat::check`] to compare.
    pub fn verify(&self, token: &str) -> Result<Cat, TokenRejection> {
        let token = decode(token)?;
        let envelope = Envelope::open(&token)?;
        let key = self.keys.get(&envelope.key_id);
        envelope.verify(key.ok_or(TokenRejection::UnknownKey)?)?;
        let claims = claims::read(envelope.payload)?;
        let is_expected = |issuer: &str| self.issuers.iter().any(|expected| expected == issuer);
        if !self.issuers.is_empty() && !claims.issuer.is_some_and(|issuer| is_expected(&issuer)) {
            return Err(TokenRejection::Issuer);
        }
        let is_ours = |audience: &String| self.audiences.contains(audience);
        let names_none = claims.audiences.is_empty() && self.audiences.is_empty();
        if !names_none && !claims.audiences.iter().any(is_ours) {
            return Err(TokenRejection::Audience);
        }
        let mut cat = claims.cat;
        if cat.expires_at.is_none() && !self.accepts_no_expiry {
            return Err(TokenRejection::NoExpiry);
        }
        cat.key_id = envelope.key_id;
        Ok(cat)
    }

    /// The token that replaces one of its last seconds, as its `catr` claim wants it. `None`: it is
    /// not time, the claim names another carrier than the route reads, or the key can only verify.
    /// Responses with it belong in no cache. `now` is in seconds since 1970.
    pub fn renew(
        &self,
        cat: &Cat,
        carriers: &TokenCarriers,
        carrier: TokenCarrier,
        now: u64,
    ) -> Option<RenewedToken> {
        let renewal = cat.renewal.as_deref()?;
        let payload = renewal.renewed_claims(cat.expires_at?, now)?;
        let token = envelope::seal(self.keys.get(&cat.key_id)?, &cat.key_id, &payload)?;
        renewal.field(carriers, carrier, &BASE64URL_NOPAD.encode(&token))
    }
}

impl CatKey {
    /// Whether this key has signed the token, whatever its key id and its claims are. For
    /// explanations only: [`CatVerifier::verify`] says whether a token is accepted.
    pub fn verify_signature(&self, token: &str) -> Result<(), TokenRejection> {
        Envelope::open(&decode(token)?)?.verify(self)
    }
}

/// Strict but for padding, which is not part of base64url here and which some issuers add, encoded
/// or not.
fn decode(token: &str) -> Result<Vec<u8>, TokenRejection> {
    if token.len() > CAT_BYTES_MAX {
        return Err(TokenRejection::TooLong);
    }
    let token = token.trim_end_matches('=');
    let token = token.trim_end_matches("%3D").trim_end_matches("%3d");
    let bytes = BASE64URL_NOPAD.decode(token.as_bytes());
    bytes.map_err(|_| TokenRejection::Malformed)
}

#[cfg(test)]
mod tests;
