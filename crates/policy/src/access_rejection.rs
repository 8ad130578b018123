//! Why a request was rejected.

use std::sync::Arc;
use std::time::Duration;

use http::StatusCode;

use super::{AccessRuleKind, Route};

/// Why a request was rejected.
#[derive(Clone, Debug)]
pub struct AccessRejection {
    /// The response status.
    pub status: StatusCode,
    /// A short reason for the log and the response body.
    pub why: &'static str,
    /// The access rule that refused it, if one did.
    pub rule: Option<AccessRuleKind>,
    /// When another request may be admitted, if a rate limit refused this one.
    pub retry_after: Option<Duration>,
    /// The route that the request led to, if one was found.
    pub route: Option<Arc<Route>>,
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
            retry_after: None,
            route: None,
        }
    }

    /// The route serves nothing: it sends its viewers to another location.
    pub fn redirected() -> AccessRejection {
        AccessRejection {
            status: StatusCode::NOT_FOUND,
            why: "the route of this URL sends its viewers elsewhere (`redirect`)",
            rule: None,
            retry_after: None,
            route: None,
        }
    }

    /// An access rule of the route refuses the viewer. The response does not say which, or what
    /// would be accepted.
    pub fn denied(rule: AccessRuleKind) -> AccessRejection {
        AccessRejection {
            status: StatusCode::FORBIDDEN,
            why: "access denied",
            rule: Some(rule),
            retry_after: None,
            route: None,
        }
    }

    /// The request is over a rate limit. The response does not say which.
    pub fn over_limit(retry_after: Duration) -> AccessRejection {
        AccessRejection {
            status: StatusCode::TOO_MANY_REQUESTS,
            why: "too many requests",
            rule: None,
            retry_after: Some(retry_after),
            route: None,
        }
    }

    /// The same, of a request that led to this route.
    #[must_use]
    pub fn of_route(self, route: &Arc<Route>) -> AccessRejection {
        AccessRejection {
            route: Some(Arc::clone(route)),
            ..self
        }
    }

    /// Whether it concerns the viewer, not the request: whoever is refused must not cost more than
    /// whoever is served.
    pub fn is_of_viewer(&self) -> bool {
        self.rule.is_some() || self.retry_after.is_some()
    }
}

pub(super) const fn bad(why: &'static str) -> AccessRejection {
    AccessRejection {
        status: StatusCode::BAD_REQUEST,
        why,
        rule: None,
        retry_after: None,
        route: None,
    }
}
