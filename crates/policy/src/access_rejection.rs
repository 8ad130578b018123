//! Why a request was rejected.

use http::StatusCode;

use super::AccessRuleKind;

/// Why a request was rejected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct AccessRejection {
    /// The response status.
    pub status: StatusCode,
    /// A short reason for the log and the response body.
    pub why: &'static str,
    /// The access rule that refused it, if one did.
    pub rule: Option<AccessRuleKind>,
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
            rule: None,
        }
    }

    /// The route serves nothing: it sends its viewers to another location.
    pub fn redirected() -> AccessRejection {
        AccessRejection {
            status: StatusCode::NOT_FOUND,
            why: "the route of this URL sends its viewers elsewhere (`redirect`)",
            rule: None,
        }
    }

    /// An access rule of the route refuses the viewer. The response does not say which, or what
    /// would be accepted.
    pub fn denied(rule: AccessRuleKind) -> AccessRejection {
        AccessRejection {
            status: StatusCode::FORBIDDEN,
            why: "access denied",
            rule: Some(rule),
        }
    }
}

pub(super) const fn bad(why: &'static str) -> AccessRejection {
    AccessRejection {
        status: StatusCode::BAD_REQUEST,
        why,
        rule: None,
    }
}
