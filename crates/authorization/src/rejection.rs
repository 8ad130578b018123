//! Why a token is refused. It knows nothing of status codes: a viewer learns no reason.

/// Why a request with a token, or without one, may not enter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TokenRejection {
    /// The request has no token where the rules look for one.
    #[error("the request has no token")]
    Missing,
    /// The request has two tokens in the same place.
    #[error("the request has more than one token")]
    Repeated,
    /// The token is longer than its format allows.
    #[error("the token is too long")]
    TooLong,
    /// The token does not have the format.
    #[error("the token is malformed")]
    Malformed,
    /// No key has the token's key id, or the token has none.
    #[error("the key id is unknown")]
    UnknownKey,
    /// The token names another algorithm than its key has.
    #[error("the algorithm is not that of the key")]
    Algorithm,
    /// The signature or MAC is wrong.
    #[error("the signature is wrong")]
    Signature,
    /// The client has sent so many wrong signatures that they are not verified any more.
    #[error("the client sends too many wrong signatures")]
    Flood,
    /// The token is not valid any more.
    #[error("the token has expired")]
    Expired,
    /// The token is not valid yet.
    #[error("the token is not valid yet")]
    NotYetValid,
    /// The token permits other URLs.
    #[error("the token is for another URL")]
    Url,
    /// The token permits other client addresses.
    #[error("the token is for another client address")]
    Address,
    /// The token permits other methods.
    #[error("the token is for another method")]
    Method,
    /// The token permits other protocols (`catalpn`).
    #[error("the token is for another protocol")]
    Protocol,
    /// The issuer is not one of those that the rules name, or missing.
    #[error("the issuer is not accepted")]
    Issuer,
    /// The token is for other recipients, or names none although the rules do.
    #[error("the audience is not accepted")]
    Audience,
    /// The token has no `exp`, and the rules want one.
    #[error("the token has no expiry")]
    NoExpiry,
    /// The token has a claim that is not evaluated here, or has a value that is not understood.
    /// What is not understood could be a restriction.
    #[error("the claim {0} is not evaluated, or its value is not understood")]
    Claim(i64),
}

impl TokenRejection {
    /// Every word that [`TokenRejection::as_str`] returns, in the order of
    /// [`TokenRejection::index`].
    pub const WORDS: [&str; 18] = [
        "missing",
        "repeated",
        "too_long",
        "malformed",
        "key",
        "algorithm",
        "signature",
        "expired",
        "not_yet",
        "url",
        "address",
        "method",
        "protocol",
        "issuer",
        "audience",
        "no_expiry",
        "claim",
        "flood",
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        match self {
            TokenRejection::Missing => 0,
            TokenRejection::Repeated => 1,
            TokenRejection::TooLong => 2,
            TokenRejection::Malformed => 3,
            TokenRejection::UnknownKey => 4,
            TokenRejection::Algorithm => 5,
            TokenRejection::Signature => 6,
            TokenRejection::Expired => 7,
            TokenRejection::NotYetValid => 8,
            TokenRejection::Url => 9,
            TokenRejection::Address => 10,
            TokenRejection::Method => 11,
            TokenRejection::Protocol => 12,
            TokenRejection::Issuer => 13,
            TokenRejection::Audience => 14,
            TokenRejection::NoExpiry => 15,
            TokenRejection::Claim(_) => 16,
            TokenRejection::Flood => 17,
        }
    }

    /// The word for metrics and logs.
    pub fn as_str(self) -> &'static str {
        TokenRejection::WORDS[self.index()]
    }
}
