//! Why did an origin give no whole answer? One enum, and the reading of pingora's errors into it.

use pingora_error::{Error, ErrorType};

/// Why an origin gave no whole answer. Also a metric label and a log word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// Too many are waiting already, or the wait for a permit was too long.
    #[error("origin busy")]
    Busy,
    /// It failed too often: it is left alone until a probe succeeds.
    #[error("origin left alone")]
    Open,
    /// No address is known for its name.
    #[error("origin name not resolved")]
    Resolve,
    /// No connection, or not in time.
    #[error("origin unreachable")]
    Connect,
    /// TLS failed.
    #[error("origin TLS failed")]
    Tls,
    /// No head, or not in time.
    #[error("origin timed out")]
    Timeout,
    /// Closed or reset before the head, or the request's own body broke off.
    #[error("origin reset the connection")]
    Reset,
    /// Not HTTP.
    #[error("origin broke the protocol")]
    Protocol,
    /// The body ended early, lacked its last chunk, or stalled.
    #[error("origin body cut off")]
    Truncated,
    /// Nothing to sign the request with.
    #[error("no credentials for the origin")]
    Credentials,
}

impl Failure {
    /// Every failure, in the order of [`Failure::index`].
    pub const ALL: [Failure; 10] = [
        Failure::Busy,
        Failure::Open,
        Failure::Resolve,
        Failure::Connect,
        Failure::Tls,
        Failure::Timeout,
        Failure::Reset,
        Failure::Protocol,
        Failure::Truncated,
        Failure::Credentials,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Busy => "busy",
            Failure::Open => "open",
            Failure::Resolve => "resolve",
            Failure::Connect => "connect",
            Failure::Tls => "tls",
            Failure::Timeout => "timeout",
            Failure::Reset => "reset",
            Failure::Protocol => "protocol",
            Failure::Truncated => "truncated",
            Failure::Credentials => "credentials",
        }
    }

    /// What an error while connecting means.
    pub(super) fn of_connecting(error: &Error) -> Failure {
        match error.etype() {
            ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::TLSWantX509Lookup
            | ErrorType::InvalidCert => Failure::Tls,
            _ => Failure::Connect,
        }
    }

    /// What an error between the request and the end of the response's head means.
    pub(super) fn of_asking(error: &Error) -> Failure {
        match error.etype() {
            ErrorType::InvalidHTTPHeader
            | ErrorType::H1Error
            | ErrorType::InvalidH2
            | ErrorType::H2Downgrade => Failure::Protocol,
            ErrorType::ReadTimedout | ErrorType::WriteTimedout => Failure::Timeout,
            _ => Failure::Reset,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn indices_are_dense_and_words_differ() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), at);
            let same = Failure::ALL
                .iter()
                .filter(|f| f.as_str() == failure.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
