//! Decides whether the token of a request lets it in.

use std::sync::atomic::{AtomicU64, Ordering};

use http::HeaderMap;

use super::{
    FoundToken, RenewedToken, TokenCarriers, TokenClaims, TokenRejection, TokenRequest,
    TokenVerifier, VerifiedTokens,
};

/// The next number of [`TokenRules::number`]. It is counted up when a configuration or a key is
/// read.
static NEXT_NUMBER: AtomicU64 = AtomicU64::new(0);

/// The tokens that a route accepts. Other keys are other rules: make new ones when a key file
/// changes.
#[derive(Debug)]
pub struct TokenRules {
    carriers: TokenCarriers,
    verifier: TokenVerifier,
    /// No other rules of this process have it, so that what these verified counts for no others.
    number: u64,
}

/// The permission that a token gives.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenPermit {
    /// The first second since 1970 in which the token permits nothing. `None`: there is none.
    pub until: Option<u64>,
    /// Whether it depends on the client's address or on the negotiated protocol. Another client
    /// that sends the same bytes may then not get the same response unasked.
    pub is_for_connection: bool,
    /// A token that the response should give the client. Such a response belongs in no cache, and
    /// is not repeated.
    pub renewed: Option<RenewedToken>,
}

impl TokenPermit {
    /// The permission of two tokens, both of which are needed.
    #[must_use]
    pub fn and(self, other: TokenPermit) -> TokenPermit {
        let ends = [self.until, other.until];
        TokenPermit {
            until: ends.into_iter().flatten().min(),
            is_for_connection: self.is_for_connection || other.is_for_connection,
            renewed: self.renewed.or(other.renewed),
        }
    }
}

impl TokenRules {
    /// Tokens of this kind, at these places.
    pub fn new(carriers: TokenCarriers, verifier: TokenVerifier) -> TokenRules {
        TokenRules {
            carriers,
            verifier,
            number: NEXT_NUMBER.fetch_add(1, Ordering::Relaxed),
        }
    }

    /// Finds the token of a request for `target` (path and query as sent), and the target without
    /// it: the target for routes, keys and origins, and for [`TokenRules::admit`].
    pub fn find<'a>(
        &self,
        target: &'a str,
        headers: &'a HeaderMap,
    ) -> Result<FoundToken<'a>, TokenRejection> {
        self.carriers.find(target, headers)
    }

    /// Where tokens are.
    pub fn carriers(&self) -> &TokenCarriers {
        &self.carriers
    }

    /// Takes tokens out of headers before these go to an origin or into a key.
    pub fn strip_headers(&self, headers: &mut HeaderMap) {
        self.carriers.strip_headers(headers);
    }

    /// Whether the token permits the request. `now` is in seconds since 1970.
    pub fn admit(
        &self,
        found: &FoundToken<'_>,
        request: &TokenRequest<'_>,
        verified: &mut VerifiedTokens,
        now: u64,
    ) -> Result<TokenPermit, TokenRejection> {
        if let Some(claims) = verified.find(self.number, found.token) {
            let permit = self.permit(claims, found, request, now);
            if permit == Err(TokenRejection::Expired) {
                verified.forget(self.number, found.token);
            }
            return permit;
        }
        let is_costly = self.verifier.is_costly();
        if is_costly && verified.forged.are_too_many(request.client, now) {
            return Err(TokenRejection::Flood);
        }
        verified.count_verification();
        let claims = self.verifier.verify(found.token);
        if is_costly && claims == Err(TokenRejection::Signature) {
            verified.forged.count(request.client, now);
        }
        let claims = claims?;
        let permit = self.permit(&claims, found, request, now);
        if permit != Err(TokenRejection::Expired) {
            verified.remember(self.number, found.token, claims);
        }
        permit
    }

    fn permit(
        &self,
        claims: &TokenClaims,
        found: &FoundToken<'_>,
        request: &TokenRequest<'_>,
        now: u64,
    ) -> Result<TokenPermit, TokenRejection> {
        claims.check(request, now)?;
        let renewed = match (&self.verifier, claims) {
            (TokenVerifier::Cat(verifier), TokenClaims::Cat(cat)) => {
                verifier.renew(cat, &self.carriers, found.carrier, now)
            }
            _ => None,
        };
        Ok(TokenPermit {
            until: claims.expires_at(),
            is_for_connection: claims.is_for_connection(),
            renewed,
        })
    }
}

#[cfg(test)]
mod tests;
