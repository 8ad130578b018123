//! Why an origin gave no complete response, and the mapping of pingora errors to it.

use std::error::Error as StdError;
use std::io;

use pingora_error::{Error, ErrorType};

/// Linux error codes for a lack of sockets on this host: ENOMEM, ENFILE, EMFILE, EADDRNOTAVAIL,
/// ENOBUFS.
const SHORTAGES: [i32; 5] = [12, 23, 24, 99, 105];

/// Why an origin gave no complete response. Also a metric label and a log word.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum Failure {
    /// The queue is full, or the wait for a permit was too long.
    #[error("origin busy")]
    Busy,
    /// It failed too often: the breaker is open until a probe succeeds.
    #[error("origin breaker is open")]
    BreakerOpen,
    /// No address is known for the host name.
    #[error("origin name not resolved")]
    Resolve,
    /// No connection, or not before the deadline.
    #[error("origin unreachable")]
    Connect,
    /// TLS failed.
    #[error("origin TLS failed")]
    Tls,
    /// No response head before the deadline.
    #[error("origin timed out")]
    Timeout,
    /// Closed or reset before the head.
    #[error("origin reset the connection")]
    Reset,
    /// Not HTTP.
    #[error("invalid HTTP from the origin")]
    Protocol,
    /// The body ended early, lacked its last chunk, or stalled.
    #[error("origin body cut off")]
    Truncated,
    /// No credentials to sign the request with.
    #[error("no credentials for the origin")]
    Credentials,
    /// This host has no descriptors, ports or buffers left: not the origin's fault.
    #[error("no sockets left for the origin")]
    Exhausted,
    /// The request body is larger than allowed.
    #[error("request body larger than allowed")]
    UploadTooLarge,
    /// The request body arrived too slowly.
    #[error("request body too slow")]
    UploadTooSlow,
    /// The request body was not valid HTTP, or broke off.
    #[error("request body broken")]
    UploadBroken,
}

/// Why a request body did not arrive complete: its sender's fault, not the origin's.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum UploadFault {
    /// Larger than allowed.
    #[error("request body larger than allowed")]
    TooLarge,
    /// Slower than allowed.
    #[error("request body too slow")]
    TooSlow,
    /// Not valid HTTP, or broken off.
    #[error("request body broken")]
    Broken,
}

impl From<&(dyn StdError + Send + Sync + 'static)> for UploadFault {
    fn from(error: &(dyn StdError + Send + Sync + 'static)) -> UploadFault {
        let fault = error.downcast_ref::<UploadFault>().copied();
        fault.unwrap_or(UploadFault::Broken)
    }
}

impl Failure {
    /// Every failure, in the order of [`Failure::index`].
    pub const ALL: [Failure; 14] = [
        Failure::Busy,
        Failure::BreakerOpen,
        Failure::Resolve,
        Failure::Connect,
        Failure::Tls,
        Failure::Timeout,
        Failure::Reset,
        Failure::Protocol,
        Failure::Truncated,
        Failure::Credentials,
        Failure::Exhausted,
        Failure::UploadTooLarge,
        Failure::UploadTooSlow,
        Failure::UploadBroken,
    ];

    /// A dense index for tables of counters.
    pub fn index(self) -> usize {
        self as usize
    }

    /// The word used in logs and metrics.
    pub fn as_str(self) -> &'static str {
        match self {
            Failure::Busy => "busy",
            Failure::BreakerOpen => "open",
            Failure::Resolve => "resolve",
            Failure::Connect => "connect",
            Failure::Tls => "tls",
            Failure::Timeout => "timeout",
            Failure::Reset => "reset",
            Failure::Protocol => "protocol",
            Failure::Truncated => "truncated",
            Failure::Credentials => "credentials",
            Failure::Exhausted => "exhausted",
            Failure::UploadTooLarge => "upload_too_large",
            Failure::UploadTooSlow => "upload_too_slow",
            Failure::UploadBroken => "upload_broken",
        }
    }

    /// The request body did not arrive: its sender's fault.
    pub fn is_of_upload(self) -> bool {
        matches!(
            self,
            Failure::UploadTooLarge | Failure::UploadTooSlow | Failure::UploadBroken
        )
    }

    /// The failure that an error while connecting means.
    pub(super) fn of_connecting(error: &Error) -> Failure {
        if is_own_shortage(error.root_cause()) {
            return Failure::Exhausted;
        }
        match error.etype() {
            ErrorType::TLSHandshakeFailure
            | ErrorType::TLSHandshakeTimedout
            | ErrorType::TLSWantX509Lookup
            | ErrorType::InvalidCert => Failure::Tls,
            _ => Failure::Connect,
        }
    }

    /// The failure that an error between request and end of the response head means.
    pub(super) fn of_exchange(error: &Error) -> Failure {
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

/// This host could not create a socket.
fn is_own_shortage(mut cause: &(dyn StdError + 'static)) -> bool {
    loop {
        if let Some(error) = cause.downcast_ref::<io::Error>()
            && let Some(code) = error.raw_os_error()
        {
            return SHORTAGES.contains(&code);
        }
        let Some(source) = cause.source() else {
            return false;
        };
        cause = source;
    }
}

impl From<UploadFault> for Failure {
    fn from(fault: UploadFault) -> Failure {
        match fault {
            UploadFault::TooLarge => Failure::UploadTooLarge,
            UploadFault::TooSlow => Failure::UploadTooSlow,
            UploadFault::Broken => Failure::UploadBroken,
        }
    }
}

#[cfg(test)]
mod tests {
    use pingora_error::OrErr;

    use super::*;

    const REFUSED: i32 = 111;
    const NO_ROUTE: i32 = 113;
    const TIMED_OUT: i32 = 110;

    /// The failure if the system returns this code while a socket is created or connected.
    fn failure_of(code: i32) -> Failure {
        let system: Result<(), _> = Err(io::Error::from_raw_os_error(code));
        let inner = system.or_err(ErrorType::SocketError, "failed to create socket");
        let wrapped = Error::because(ErrorType::InternalError, "on this host", inner.unwrap_err());
        Failure::of_connecting(&wrapped)
    }

    #[test]
    fn local_resource_shortage_is_not_a_connect_failure() {
        for code in SHORTAGES {
            assert_eq!(failure_of(code), Failure::Exhausted);
        }
        for code in [REFUSED, NO_ROUTE, TIMED_OUT] {
            assert_eq!(failure_of(code), Failure::Connect);
        }
    }

    #[test]
    fn failure_indices_are_dense_and_labels_distinct() {
        for (at, failure) in Failure::ALL.into_iter().enumerate() {
            assert_eq!(failure.index(), at);
            let same = Failure::ALL
                .iter()
                .filter(|f| f.as_str() == failure.as_str());
            assert_eq!(same.count(), 1);
        }
    }
}
