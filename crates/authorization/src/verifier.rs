//! One kind of token, and what a valid one permits.

use super::{Cat, CatVerifier, SignedUrl, SigningKeys, TokenRejection, TokenRequest};

/// Verifies the tokens of a route. Which kind they are says the configuration, not the token.
#[derive(Clone, Debug)]
pub enum TokenVerifier {
    /// Signed URLs.
    SignedUrl(SigningKeys),
    /// Common Access Tokens.
    Cat(CatVerifier),
}

/// What a verified token permits.
#[derive(Clone, Debug, PartialEq)]
pub enum TokenClaims {
    /// A signed URL.
    SignedUrl(SignedUrl),
    /// A Common Access Token.
    Cat(Cat),
}

impl TokenVerifier {
    /// Verifies all that does not depend on the request or the time.
    pub fn verify(&self, token: &str) -> Result<TokenClaims, TokenRejection> {
        match self {
            TokenVerifier::SignedUrl(keys) => keys.verify(token).map(TokenClaims::SignedUrl),
            TokenVerifier::Cat(verifier) => verifier.verify(token).map(TokenClaims::Cat),
        }
    }

    /// Whether a forged token takes longer to refuse than a hit to answer.
    pub(crate) fn is_costly(&self) -> bool {
        match self {
            TokenVerifier::SignedUrl(_) => false,
            TokenVerifier::Cat(verifier) => verifier.has_public_keys(),
        }
    }
}

impl TokenClaims {
    /// Whether they permit the request. `now` is in seconds since 1970.
    pub fn check(&self, request: &TokenRequest<'_>, now: u64) -> Result<(), TokenRejection> {
        match self {
            TokenClaims::SignedUrl(url) => url.check(request, now),
            TokenClaims::Cat(cat) => cat.check(request, now),
        }
    }

    /// The first second since 1970 in which they permit nothing. `None`: there is none.
    pub fn expires_at(&self) -> Option<u64> {
        match self {
            TokenClaims::SignedUrl(url) => Some(url.expires_at),
            TokenClaims::Cat(cat) => cat.expires_at(),
        }
    }

    /// Whether they are compared with the client's address or with the negotiated protocol.
    pub fn is_for_connection(&self) -> bool {
        match self {
            TokenClaims::SignedUrl(url) => url.network.is_some(),
            TokenClaims::Cat(cat) => cat.is_for_connection(),
        }
    }

    /// Memory besides the value itself, in bytes, about.
    pub(crate) fn heap_bytes(&self) -> usize {
        match self {
            TokenClaims::SignedUrl(url) => url.key_id.len() + url.path_prefix.len(),
            TokenClaims::Cat(cat) => cat.heap_bytes(),
        }
    }
}
