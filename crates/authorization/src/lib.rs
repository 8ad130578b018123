//! Decides by a token whether a request may enter: signed URLs, and Common Access Tokens
//! (CTA-5007-B). Pure functions: the time is an argument, keys are values, nothing waits.
//!
//! | question | answered by |
//! |---|---|
//! | where is the token, and what is the request without it? | [`TokenRules::find`] → [`FoundToken`] |
//! | does it permit the request? | [`TokenRules::admit`] → [`TokenPermit`] or [`TokenRejection`] |
//! | which tokens were verified already? | [`VerifiedTokens`], one for each worker |
//! | how is a signed URL made? | [`SigningKeys::sign`] |
//! | what does a token say? | [`explain`] |
//!
//! What a client sends is bounded before it is read, and cannot panic. A viewer learns no reason of
//! a refusal; [`TokenRejection`] is for metrics and logs.
//!
//! # Example
//!
//! ```
//! use http::HeaderMap;
//! use seawall_authorization::{
//!     SignedUrl, SigningKeys, TokenCarriers, TokenRejection, TokenRequest, TokenRules,
//!     VerifiedTokens, TokenVerifier,
//! };
//!
//! let secret = b"a secret of at least 32 bytes: openssl rand -hex 32";
//! let keys = SigningKeys::new([("2026", secret.as_slice())]).unwrap();
//! let permitted = SignedUrl {
//!     key_id: "2026".to_owned(),
//!     path_prefix: "/live/match".to_owned(),
//!     expires_at: 1_767_225_600,
//!     network: None,
//! };
//! let token = keys.sign(&permitted).unwrap();
//!
//! let carriers = TokenCarriers {
//!     query: Some("seawall".to_owned()),
//!     ..TokenCarriers::default()
//! };
//! let rules = TokenRules::new(carriers, TokenVerifier::SignedUrl(keys));
//! let mut verified = VerifiedTokens::new(1024, 1 << 20);
//!
//! let target = format!("/live/match/1.m3u8?seawall={token}&_HLS_msn=7");
//! let headers = HeaderMap::new();
//! let found = rules.find(&target, &headers).unwrap();
//! assert_eq!(found.target, "/live/match/1.m3u8?_HLS_msn=7");
//!
//! let request = TokenRequest {
//!     method: "GET",
//!     scheme: "https",
//!     host: "media.example",
//!     port: None,
//!     target: &found.target,
//!     client: None,
//!     protocol: Some("h2"),
//! };
//! let permit = rules.admit(&found, &request, &mut verified, 1_767_225_599).unwrap();
//! assert_eq!(permit.until, Some(1_767_225_600));
//! let late = rules.admit(&found, &request, &mut verified, 1_767_225_600);
//! assert_eq!(late, Err(TokenRejection::Expired));
//! ```

#![deny(missing_docs)]

mod carriers;
mod cat;
mod forged_signatures;
mod keys;
mod rejection;
mod request;
mod rules;
mod separated;
mod signed_url;
mod verified_tokens;
mod verifier;

pub use carriers::{FoundToken, TokenCarrier, TokenCarriers};
pub use cat::{CAT_BYTES_MAX, Cat, CatKey, CatSettings, CatVerifier, RenewedToken};
pub use ipnet::IpNet;
pub use keys::{KeyError, is_pem, strip_line_end};
pub use rejection::TokenRejection;
pub use request::TokenRequest;
pub use rules::{TokenPermit, TokenRules};
pub use signed_url::{SIGNED_URL_BYTES_MAX, SignedUrl, SigningError, SigningKeys};
pub use verified_tokens::{VerifiedTokenStats, VerifiedTokens};
pub use verifier::{TokenClaims, TokenVerifier};

/// What a token says, in words. It may be a forgery: nothing was verified.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenExplanation {
    /// The kind of token.
    pub format: &'static str,
    /// Names and values, in the token's order.
    pub fields: Vec<(String, String)>,
    /// When it is valid, if at all.
    pub validity: TokenValidity,
}

/// When a token is valid by its own words, for any client and any request.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct TokenValidity {
    /// Why it is refused at any time.
    pub never: Option<TokenRejection>,
    /// The first second since 1970 in which it is valid. `None`: from the beginning.
    pub not_before: Option<u64>,
    /// The first second since 1970 in which it is not valid any more. `None`: it has no end, and
    /// settings decide whether such tokens are accepted.
    pub expires_at: Option<u64>,
}

impl TokenValidity {
    /// Whether it is valid. `now` is in seconds since 1970.
    pub fn check(&self, now: u64) -> Result<(), TokenRejection> {
        if let Some(rejection) = self.never {
            return Err(rejection);
        }
        if self.expires_at.is_some_and(|end| now >= end) {
            return Err(TokenRejection::Expired);
        }
        if self.not_before.is_some_and(|start| now < start) {
            return Err(TokenRejection::NotYetValid);
        }
        Ok(())
    }
}

/// Explains a token of either kind.
pub fn explain(token: &str) -> Result<TokenExplanation, TokenRejection> {
    // base64url has no dots.
    if !token.contains('.') {
        return cat::explain(token);
    }
    let url = SignedUrl::read_unverified(token)?;
    let network = url.network.map(|network| network.to_string());
    let validity = TokenValidity {
        expires_at: Some(url.expires_at),
        ..TokenValidity::default()
    };
    let fields = [
        ("key id", url.key_id),
        ("path", url.path_prefix),
        ("expires at", cat::date(url.expires_at)),
        ("network", network.unwrap_or_else(|| "any".to_owned())),
    ];
    Ok(TokenExplanation {
        format: "signed URL",
        fields: fields.map(|(name, value)| (name.to_owned(), value)).into(),
        validity,
    })
}
