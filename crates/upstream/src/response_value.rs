//! Rates a response by its status. Pure functions.

use http::{HeaderMap, Method, StatusCode, header};

use super::{ExpectedContent, UpstreamRequest};

/// The lower the value, the more readily another endpoint's response is preferred.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum ResponseValue {
    /// It does not answer the request: an unrequested 206 or 304, or a redirect of an object that
    /// was there a moment ago.
    Unrequested,
    /// The endpoint failed.
    Failure,
    /// It refuses an object that should exist.
    Refusal,
    /// The object, or another regular response.
    Answer,
}

/// The properties of a request that decide which responses are good.
#[derive(Clone, Copy, Debug)]
pub(super) struct ResponseExpectation {
    /// `None`: not GET or HEAD; another endpoint must not be requested too, because the request may
    /// change something.
    expected_content: Option<ExpectedContent>,
    /// The object existed a moment ago, or a manifest lists it.
    pub(super) is_expected: bool,
    is_partial: bool,
    is_conditional: bool,
}

impl ResponseExpectation {
    pub(super) fn of(request: &UpstreamRequest) -> ResponseExpectation {
        let has = |headers: &HeaderMap, names: &[header::HeaderName]| {
            names.iter().any(|name| headers.contains_key(name))
        };
        let conditions = [
            header::IF_MATCH,
            header::IF_NONE_MATCH,
            header::IF_MODIFIED_SINCE,
            header::IF_UNMODIFIED_SINCE,
        ];
        ResponseExpectation {
            expected_content: matches!(request.method, Method::GET | Method::HEAD)
                .then_some(request.expected_content),
            is_expected: request.is_expected,
            is_partial: has(&request.headers, &[header::RANGE]),
            is_conditional: has(&request.headers, &conditions),
        }
    }

    pub(super) fn is_of_manifest(self) -> bool {
        self.expected_content == Some(ExpectedContent::Manifest)
    }

    pub(super) fn rate(self, status: StatusCode) -> ResponseValue {
        let Some(expected_content) = self.expected_content else {
            return ResponseValue::Answer;
        };
        let needs_body = self.is_expected || expected_content != ExpectedContent::Anything;
        match status {
            status if is_endpoint_failure(status) => ResponseValue::Failure,
            StatusCode::PARTIAL_CONTENT if !self.is_partial => ResponseValue::Unrequested,
            StatusCode::NOT_MODIFIED if !self.is_conditional => ResponseValue::Unrequested,
            StatusCode::NOT_MODIFIED => ResponseValue::Answer,
            StatusCode::NO_CONTENT | StatusCode::RESET_CONTENT if needs_body => {
                ResponseValue::Unrequested
            }
            StatusCode::RANGE_NOT_SATISFIABLE if self.is_partial => ResponseValue::Answer,
            StatusCode::PRECONDITION_FAILED if self.is_conditional => ResponseValue::Answer,
            // Invented URLs are often redirected or refused: one endpoint's response is enough for
            // those.
            _ if !self.is_expected || status.is_success() => ResponseValue::Answer,
            status if status.is_redirection() => ResponseValue::Unrequested,
            _ => ResponseValue::Refusal,
        }
    }
}

/// The status describes the endpoint, so another endpoint may have the object. Wider than
/// [`seawall_policy::lifetime::is_origin_failure`]: endpoints differ in what they implement, and a
/// 421 is about the connection.
fn is_endpoint_failure(status: StatusCode) -> bool {
    let is_about_endpoint = matches!(
        status,
        StatusCode::REQUEST_TIMEOUT
            | StatusCode::TOO_MANY_REQUESTS
            | StatusCode::MISDIRECTED_REQUEST
    );
    // Statuses up to 999 can arrive; above 599 none is defined.
    is_about_endpoint || status.as_u16() >= 500
}

#[cfg(test)]
mod tests {
    use super::*;

    const PLAIN: ResponseExpectation = ResponseExpectation {
        expected_content: Some(ExpectedContent::Anything),
        is_expected: false,
        is_partial: false,
        is_conditional: false,
    };
    const MEDIA: ResponseExpectation = ResponseExpectation {
        expected_content: Some(ExpectedContent::Media),
        ..PLAIN
    };
    const EXPECTED: ResponseExpectation = ResponseExpectation {
        is_expected: true,
        ..MEDIA
    };

    fn are(question: ResponseExpectation, statuses: &[u16], value: ResponseValue) {
        for &status in statuses {
            let status = StatusCode::from_u16(status).unwrap();
            assert_eq!(question.rate(status), value, "{question:?} {status}");
        }
    }

    #[test]
    fn status_5xx_408_421_and_429_are_failures() {
        let failures = [
            500, 501, 502, 503, 504, 505, 507, 508, 511, 520, 521, 529, 599, 600, 999, 429, 408,
            421,
        ];
        for question in [PLAIN, MEDIA, EXPECTED] {
            are(question, &failures, ResponseValue::Failure);
            are(question, &[200], ResponseValue::Answer);
        }
    }

    #[test]
    fn responses_that_do_not_fit_the_request_are_worth_nothing() {
        are(PLAIN, &[206, 304], ResponseValue::Unrequested);
        are(PLAIN, &[204], ResponseValue::Answer);
        are(MEDIA, &[204, 205, 206, 304], ResponseValue::Unrequested);
        are(
            EXPECTED,
            &[300, 301, 302, 303, 307, 308],
            ResponseValue::Unrequested,
        );
    }

    #[test]
    fn client_error_is_a_refusal_only_if_object_is_expected() {
        let refusals = [400, 401, 403, 404, 405, 410, 416, 425, 451];
        are(EXPECTED, &refusals, ResponseValue::Refusal);
        are(MEDIA, &refusals, ResponseValue::Answer);
        are(MEDIA, &[301, 302, 307], ResponseValue::Answer);
    }

    #[test]
    fn range_and_conditional_requests_accept_206_304_412_416() {
        let partial = ResponseExpectation {
            is_partial: true,
            is_conditional: true,
            ..EXPECTED
        };
        are(partial, &[206, 304, 412, 416], ResponseValue::Answer);
    }

    #[test]
    fn unsafe_methods_accept_any_status() {
        let expected_content = None;
        are(
            ResponseExpectation {
                expected_content,
                ..EXPECTED
            },
            &[204, 404, 500],
            ResponseValue::Answer,
        );
    }
}
