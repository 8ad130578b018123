//! Why a request was rejected.

use http::StatusCode;

/// Why a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRejection {
    /// The response status.
    pub status: StatusCode,
    /// A short reason for the log and the response body.
    pub why: &'static str,
}

impl AccessRejection {
    pub(super) fn unreadable() -> AccessRejection {
        bad("request target is invalid")
    }

    /// No route matches the host and path.
    pub fn not_served() -> AccessRejection {
        AccessRejection {
            status: StatusCode::MISDIRECTED_REQUEST,
            why: "no route serves this host and path",
        }
    }
}

pub(super) const fn bad(why: &'static str) -> AccessRejection {
    AccessRejection {
        status: StatusCode::BAD_REQUEST,
        why,
    }
}
