//! Why a request was refused.

use http::StatusCode;

/// Why a request was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessDenial {
    /// The response status.
    pub status: StatusCode,
    /// A short reason for the log and the response body.
    pub why: &'static str,
}

impl AccessDenial {
    pub(super) fn unreadable() -> AccessDenial {
        bad("request target is invalid")
    }

    /// No route matches the host and path.
    pub fn not_served() -> AccessDenial {
        AccessDenial {
            status: StatusCode::MISDIRECTED_REQUEST,
            why: "no route serves this host and path",
        }
    }
}

pub(super) const fn bad(why: &'static str) -> AccessDenial {
    AccessDenial {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}
