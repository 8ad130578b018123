//! Tests each requirement of RFC 9110 §13 and RFC 9111 §4.3 on preconditions.

use http::HeaderValue;
use http::header::{CONNECTION, SERVER, TRANSFER_ENCODING};
use proptest::prelude::*;

use super::*;

const EARLIER: &str = "Tue, 15 Nov 1994 08:12:31 GMT";
const MODIFIED: &str = "Tue, 15 Nov 1994 12:45:26 GMT";
const LATER: &str = "Wed, 16 Nov 1994 08:12:31 GMT";

fn fields(lines: &[(HeaderName, &'static str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in lines {
        headers.append(name, HeaderValue::from_static(value));
    }
    headers
}

fn stored() -> HeaderMap {
    fields(&[(ETAG, "\"a\""), (LAST_MODIFIED, MODIFIED)])
}

fn judged(lines: &[(HeaderName, &'static str)]) -> PreconditionResult {
    evaluate(&fields(lines), &stored())
}

#[test]
fn request_without_precondition_proceeds() {
    assert_eq!(judged(&[]), PreconditionResult::Proceed);
}

// §13.1.2: weak comparison; false when any listed tag matches, or with `*`.
#[test]
fn if_none_match_uses_weak_comparison() {
    for value in ["\"a\"", "W/\"a\"", "\"x\", W/\"a\"", "*", "\"x,\",\"a\""] {
        assert_eq!(
            judged(&[(IF_NONE_MATCH, value)]),
            PreconditionResult::NotModified
        );
    }
    for value in ["\"b\"", "a", "\"*\"", "", "\"A\""] {
        assert_eq!(
            judged(&[(IF_NONE_MATCH, value)]),
            PreconditionResult::Proceed
        );
    }
    let lines = [(IF_NONE_MATCH, "\"x\""), (IF_NONE_MATCH, "\"a\"")];
    assert_eq!(judged(&lines), PreconditionResult::NotModified);
}

// §13.1.2: a stored weak tag matches as well; without a tag only `*` does.
#[test]
fn if_none_match_against_weak_or_missing_stored_etag() {
    let request = fields(&[(IF_NONE_MATCH, "\"a\"")]);
    let weak = fields(&[(ETAG, "W/\"a\"")]);
    assert_eq!(evaluate(&request, &weak), PreconditionResult::NotModified);
    assert_eq!(
        evaluate(&request, &HeaderMap::new()),
        PreconditionResult::Proceed
    );
    let any = fields(&[(IF_NONE_MATCH, "*")]);
    assert_eq!(
        evaluate(&any, &HeaderMap::new()),
        PreconditionResult::NotModified
    );
}

// §13.1.3: not modified when the stored date is earlier or equal.
#[test]
fn if_modified_since_compares_last_modified() {
    let since = |date| judged(&[(IF_MODIFIED_SINCE, date)]);
    assert_eq!(since(MODIFIED), PreconditionResult::NotModified);
    assert_eq!(since(LATER), PreconditionResult::NotModified);
    assert_eq!(since(EARLIER), PreconditionResult::Proceed);
    assert_eq!(
        since("Tuesday, 15-Nov-94 12:45:26 GMT"),
        PreconditionResult::NotModified
    );
    assert_eq!(since("yesterday"), PreconditionResult::Proceed);
}

// RFC 9111 §4.3.2: without `Last-Modified`, the stored `Date` is compared.
#[test]
fn if_modified_since_uses_date_without_last_modified() {
    let request = fields(&[(IF_MODIFIED_SINCE, MODIFIED)]);
    let dated = fields(&[(DATE, EARLIER)]);
    assert_eq!(evaluate(&request, &dated), PreconditionResult::NotModified);
    assert_eq!(
        evaluate(&request, &HeaderMap::new()),
        PreconditionResult::Proceed
    );
}

// §13.1.3: a recipient must ignore If-Modified-Since if the request contains If-None-Match.
#[test]
fn if_none_match_overrides_if_modified_since() {
    let lines = [(IF_NONE_MATCH, "\"b\""), (IF_MODIFIED_SINCE, LATER)];
    assert_eq!(judged(&lines), PreconditionResult::Proceed);
}

// §13.1.1: strong comparison; a weak tag never matches.
#[test]
fn if_match_uses_strong_comparison() {
    assert_eq!(
        judged(&[(IF_MATCH, "\"x\", \"a\"")]),
        PreconditionResult::Proceed
    );
    assert_eq!(judged(&[(IF_MATCH, "*")]), PreconditionResult::Proceed);
    assert_eq!(judged(&[(IF_MATCH, "W/\"a\"")]), PreconditionResult::Failed);
    assert_eq!(judged(&[(IF_MATCH, "\"b\"")]), PreconditionResult::Failed);
}

// §13.1.4, and §13.2.2 step 2: only without If-Match.
#[test]
fn if_unmodified_since_fails_if_modified_without_if_match() {
    let since = |date| judged(&[(IF_UNMODIFIED_SINCE, date)]);
    assert_eq!(since(EARLIER), PreconditionResult::Failed);
    assert_eq!(since(MODIFIED), PreconditionResult::Proceed);
    assert_eq!(since("yesterday"), PreconditionResult::Proceed);
    let both = [(IF_MATCH, "\"a\""), (IF_UNMODIFIED_SINCE, EARLIER)];
    assert_eq!(judged(&both), PreconditionResult::Proceed);
    let undated = fields(&[(ETAG, "\"a\"")]);
    let request = fields(&[(IF_UNMODIFIED_SINCE, EARLIER)]);
    assert_eq!(evaluate(&request, &undated), PreconditionResult::Proceed);
}

// §13.2.2: If-Match is evaluated first, then If-None-Match.
#[test]
fn if_match_is_evaluated_before_if_none_match() {
    let lines = [(IF_MATCH, "\"b\""), (IF_NONE_MATCH, "\"a\"")];
    assert_eq!(judged(&lines), PreconditionResult::Failed);
    let lines = [(IF_MATCH, "\"a\""), (IF_NONE_MATCH, "\"a\"")];
    assert_eq!(judged(&lines), PreconditionResult::NotModified);
}

// RFC 9111 §4.3.1: the stored validators are sent as they came.
#[test]
fn stored_validators_are_sent_for_revalidation() {
    let mut upstream = HeaderMap::new();
    assert!(validators(&stored(), &mut upstream));
    assert_eq!(upstream[IF_NONE_MATCH], "\"a\"");
    assert_eq!(upstream[IF_MODIFIED_SINCE], MODIFIED);

    let mut upstream = HeaderMap::new();
    let useless = fields(&[(ETAG, ""), (LAST_MODIFIED, "0")]);
    assert!(!validators(&useless, &mut upstream));
    assert!(upstream.is_empty());
}

// §15.4.5: a 304 carries these fields of the 200, and none that describe its content.
#[test]
fn response_304_has_only_the_required_fields() {
    let mut full = stored();
    for (name, value) in [
        ("cache-control", "max-age=1"),
        ("content-type", "video/mp2t"),
        ("set-cookie", "a=b"),
        ("access-control-allow-origin", "*"),
        ("vary", "accept-encoding"),
        ("date", LATER),
        ("x-other", "1"),
    ] {
        full.insert(name, HeaderValue::from_static(value));
    }
    let short = not_modified_headers(&full);
    let mut names: Vec<&str> = short.keys().map(HeaderName::as_str).collect();
    names.sort_unstable();
    let expected = [
        "access-control-allow-origin",
        "cache-control",
        "date",
        "etag",
        "last-modified",
        "vary",
    ];
    assert_eq!(names, expected);
}

// RFC 9111 §3.2.
#[test]
fn revalidation_updates_fields_except_those_of_the_body() {
    let mut old = stored();
    old.append(VIA, HeaderValue::from_static("1.1 a"));
    old.append(VIA, HeaderValue::from_static("1.1 b"));
    old.insert(CONTENT_LENGTH, HeaderValue::from_static("9"));
    let new = updated(
        &old,
        &fields(&[
            (VIA, "1.1 c"),
            (SERVER, "new"),
            (CONTENT_LENGTH, "0"),
            (CONTENT_TYPE, "text/html"),
            (CONTENT_ENCODING, "gzip"),
            (TRANSFER_ENCODING, "chunked"),
            (CONNECTION, "close"),
            (SET_COOKIE, "a=b"),
        ]),
    );
    assert_eq!(new.get_all(VIA).iter().count(), 1);
    assert_eq!(new[VIA], "1.1 c");
    assert_eq!(new[SERVER], "new");
    assert_eq!(new[CONTENT_LENGTH], "9");
    assert_eq!(new[ETAG], "\"a\"");
    for name in [
        CONTENT_TYPE,
        CONTENT_ENCODING,
        TRANSFER_ENCODING,
        CONNECTION,
        SET_COOKIE,
    ] {
        assert!(!new.contains_key(&name), "{name}");
    }
}

proptest! {
    #[test]
    fn arbitrary_precondition_does_not_panic(value in "[W/\"a, *\\\\GMT0-9:]{0,60}") {
        let Ok(value) = HeaderValue::try_from(value) else { return Ok(()) };
        for name in [IF_MATCH, IF_NONE_MATCH, IF_MODIFIED_SINCE, IF_UNMODIFIED_SINCE] {
            let request = HeaderMap::from_iter([(name, value.clone())]);
            evaluate(&request, &stored());
            evaluate(&request, &HeaderMap::from_iter([(ETAG, value.clone())]));
        }
    }
}
