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
    /// More about the reason, for the log alone: the word that a metric counts it by.
    pub detail: Option<&'static str>,
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
            detail: None,
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
            detail: None,
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
            detail: None,
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
            detail: None,
            retry_after: Some(retry_after),
            route: None,
        }
    }

    /// The same, with the word that a metric counts it by.
    #[must_use]
    pub fn with_detail(self, word: &'static str) -> AccessRejection {
        AccessRejection {
            detail: Some(word),
            ..self
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

    /// Why, in one word: that of the access rule, as the metric counts it.
    pub fn reason(&self) -> &'static str {
        match (self.rule, self.retry_after, self.status) {
            (Some(rule), ..) => rule.as_str(),
            (None, Some(_), _) => "rate_limit",
            (.., StatusCode::MISDIRECTED_REQUEST) => "no_route",
            (.., StatusCode::METHOD_NOT_ALLOWED) => "method",
            _ => "malformed",
        }
    }

    /// More about the reason: the word of a metric, or the text that the sender gets.
    pub fn reason_detail(&self) -> Option<&'static str> {
        let told = (!self.is_of_viewer()).then_some(self.why);
        self.detail.or(told)
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
        detail: None,
        retry_after: None,
        route: None,
    }
}
