//! Which token a route demands of its viewers: settings only. What a token says, and whether it was
//! signed, is for the crate `authorization` to read.

use std::path::PathBuf;

use http::HeaderName;

/// The token that every request of a route must carry.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequiredToken {
    /// Which kind of token.
    pub kind: TokenKind,
    /// The keys that sign tokens: their ids, and the files that contain them. Several while one is
    /// rotated.
    pub keys: Vec<(String, PathBuf)>,
    /// A Common Access Token must name one of these as its issuer. None: any.
    pub issuers: Vec<String>,
    /// A Common Access Token must be for one of these. None: tokens that name an audience are
    /// refused.
    pub audiences: Vec<String>,
    /// Accepts Common Access Tokens that never expire.
    pub accepts_no_expiry: bool,
    /// A header with the token.
    pub header: Option<HeaderName>,
    /// The name of a cookie with the token.
    pub cookie: Option<String>,
    /// The name of a query parameter with the token.
    pub query: Option<String>,
    /// The name of the first segment of the path, `/NAME=TOKEN/…`.
    pub path: Option<String>,
}

/// A kind of token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TokenKind {
    /// Signed URLs, made with one secret.
    SignedUrl,
    /// Common Access Tokens (CTA-5007).
    Cat,
}
