//! Tests each requirement of the RFCs on cache directives.

use http::HeaderValue;
use proptest::prelude::*;

use super::*;

fn headers(lines: &[(&'static str, &'static str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                HeaderName::from_static(name),
                HeaderValue::from_static(value),
            )
        })
        .fold(HeaderMap::new(), |mut headers, (name, value)| {
            headers.append(name, value);
            headers
        })
}

fn cache_control(value: &'static str) -> ResponseDirectives {
    ResponseDirectives::of(&headers(&[("cache-control", value)])).0
}

fn request(value: &'static str) -> RequestDirectives {
    RequestDirectives::of(&headers(&[("cache-control", value)]))
}

fn secs(count: u64) -> Duration {
    Duration::from_secs(count)
}

const DEFAULT: Duration = Duration::from_secs(7);

#[test]
fn missing_cache_control_gives_defaults() {
    let (directives, targeted) = ResponseDirectives::of(&HeaderMap::new());
    assert_eq!(directives, ResponseDirectives::default());
    assert_eq!(targeted, Targeted::No);
    assert_eq!(directives.stale_if_error_or(DEFAULT), DEFAULT);
    assert!(!directives.stale_forbidden());
}

// RFC 9111 §5.2: names are case-insensitive; tokens and quoted strings mean the same.
#[test]
fn parses_every_response_directive() {
    let read = cache_control(
        r#"Public, MAX-AGE=10, s-maxage="20", stale-while-revalidate=3, stale-if-error=4"#,
    );
    assert!(read.present && read.public && !read.must_revalidate && !read.no_store);
    assert_eq!(read.max_age, Some(secs(10)));
    assert_eq!(read.s_maxage, Some(secs(20)));
    assert_eq!(read.stale_while_revalidate, Some(secs(3)));
    assert_eq!(read.stale_if_error, Some(secs(4)));
    assert!(cache_control("proxy-revalidate").proxy_revalidate);
    assert!(cache_control("max-age=1, Must-Revalidate").must_revalidate);
}

// RFC 9111 §5.2.2.4, §5.2.2.7: a qualified form may be treated as the unqualified one.
#[test]
fn qualified_directives_count_as_unqualified() {
    assert!(cache_control(r#"private="set-cookie, x", max-age=5"#).private);
    let read = cache_control(r#"no-cache="a, max-age=9", max-age=5"#);
    assert!(read.no_cache);
    assert_eq!(read.max_age, Some(secs(5)));
}

// RFC 9111 §4.2: a directive named inside a quoted string is text.
#[test]
fn directives_in_quoted_text_are_ignored() {
    let read = cache_control(r#"ext="no-store, \", max-age=0", max-age=5"#);
    assert!(!read.no_store);
    assert_eq!(read.max_age, Some(secs(5)));
}

// RFC 9111 §4.2.1: invalid freshness information is encouraged to count as stale, and of
// conflicting directives the most restrictive is honoured.
#[test]
fn malformed_max_age_is_zero_and_repeated_takes_the_least() {
    for value in [
        "max-age=",
        "max-age",
        "max-age=-1",
        "max-age=1.5",
        "max-age=5s",
        "max-age=\"5",
        "max-age = 5",
        "max-age=5, max-age=x",
    ] {
        assert_eq!(cache_control(value).max_age, Some(secs(0)), "{value}");
    }
    assert_eq!(
        cache_control("max-age=9, max-age=5, max-age=7").max_age,
        Some(secs(5))
    );
}

// RFC 9111 §1.2.2: a value greater than what can be represented counts as 2^31.
#[test]
fn huge_max_age_saturates_at_2_pow_31() {
    for value in ["max-age=2147483649", "max-age=99999999999999999999999999"] {
        assert_eq!(cache_control(value).max_age, Some(secs(1 << 31)), "{value}");
    }
    assert_eq!(
        cache_control("max-age=2147483647").max_age,
        Some(secs((1 << 31) - 1))
    );
}

// RFC 9111 §4.2.4 and §5.2.2.10, RFC 5861 §3 and §4.
#[test]
fn stale_windows_follow_the_origin_directives() {
    let windows = |value| {
        let read = cache_control(value);
        let windows = (
            read.stale_while_revalidate_or(DEFAULT).as_secs(),
            read.stale_if_error_or(DEFAULT).as_secs(),
        );
        assert_eq!(read.stale_forbidden(), windows == (0, 0), "{value}");
        windows
    };
    assert_eq!(windows("max-age=1"), (7, 7));
    assert_eq!(windows("max-age=1, stale-if-error=60"), (7, 60));
    assert_eq!(windows("s-maxage=1"), (0, 0));
    assert_eq!(windows("s-maxage=1, stale-if-error=60"), (0, 60));
    assert_eq!(windows("s-maxage=1, stale-while-revalidate=5"), (5, 0));
    assert_eq!(windows("must-revalidate, stale-if-error=60"), (0, 0));
    assert_eq!(windows("no-cache, stale-if-error=60"), (0, 0));
}

// RFC 9213 §2.2: the first valid, non-empty targeted field decides alone.
#[test]
fn most_targeted_cache_control_field_decides() {
    let both = [
        ("cache-control", "no-store"),
        ("surrogate-control", "max-age=30"),
        ("cdn-cache-control", "max-age=60"),
    ];
    let (read, targeted) = ResponseDirectives::of(&headers(&both));
    assert_eq!(read.max_age, Some(secs(60)));
    assert!(!read.no_store);
    assert_eq!(targeted, Targeted::Yes);

    let (read, targeted) = ResponseDirectives::of(&headers(&both[..2]));
    assert_eq!(read.max_age, Some(secs(30)));
    assert_eq!(targeted, Targeted::Yes);
}

// RFC 8941 §3.2, and the item types of §3.3.
#[test]
fn well_formed_dictionaries_have_members() {
    for (line, count) in [
        ("", 0),
        ("max-age=60", 1),
        ("max-age=60, no-store", 2),
        ("a=1;x;y=?0 \t,\tb=(1 \"2\" c;d=1), c=:aGk=:", 3),
        ("a=-1, b=1.125, c=\"q\\\"\\\\\", d=Tok*en/1:2, *e=?1", 5),
        ("a=( )", 1),
    ] {
        assert_eq!(
            members(line.as_bytes()).map(|read| read.len()),
            Some(count),
            "{line}"
        );
    }
}

// RFC 8941 §4.2: when parsing fails the entire field is ignored.
#[test]
fn malformed_dictionaries_have_none() {
    for line in [
        "max-age=60,",
        ",max-age=60",
        "max-age=60 no-store",
        "Max-Age=60",
        "max-age=",
        "max-age = 60",
        "a=1.",
        "a=1.2345",
        "a=1234567890123456",
        "a=--1",
        "a=\"open",
        "a=\"\\n\"",
        "a=?2",
        "a=:aGk",
        "a=(1",
        "a=(1\"2\")",
        "a=1;",
        "a=é",
        "&=1",
    ] {
        assert_eq!(members(line.as_bytes()), None, "{line}");
    }
}

// RFC 9213 §2.1: empty, or a parsing error: as if the field were not present.
#[test]
fn malformed_targeted_field_is_ignored() {
    for bad in ["", "max-age=60,", "MAX-AGE=60", "max-age=60, &", "max-age"] {
        let lines = [("cache-control", "max-age=5"), ("cdn-cache-control", bad)];
        let (read, targeted) = ResponseDirectives::of(&headers(&lines));
        if bad == "max-age" {
            // Well-formed, but a boolean is not a lifetime.
            assert_eq!((read.max_age, targeted), (Some(secs(0)), Targeted::Yes));
        } else {
            let expected = (Some(secs(5)), Targeted::No);
            assert_eq!((read.max_age, targeted), expected, "{bad}");
        }
    }
}

// RFC 8941 §3.2: of duplicate keys the last counts; RFC 9213 §2.1: parameters are ignored.
#[test]
fn targeted_field_is_a_structured_dictionary() {
    let read = |value| ResponseDirectives::of(&headers(&[("cdn-cache-control", value)])).0;
    assert_eq!(read("max-age=9;a=1, max-age=10").max_age, Some(secs(10)));
    assert_eq!(read("max-age=\"9\"").max_age, Some(secs(0)));
    assert_eq!(read("max-age=-9").max_age, Some(secs(0)));
    assert!(!read("no-store, no-store=?0").no_store);
    assert!(read("private=\"a, b\"").private);
    let lines = [
        ("cdn-cache-control", "max-age=60"),
        ("cdn-cache-control", "no-store"),
    ];
    let (read, _) = ResponseDirectives::of(&headers(&lines));
    assert!(read.no_store && read.max_age == Some(secs(60)));
}

#[test]
fn surrogate_control_for_other_purposes_is_ignored() {
    let of = |value| {
        let lines = [("cache-control", "max-age=5"), ("surrogate-control", value)];
        ResponseDirectives::of(&headers(&lines))
    };
    assert_eq!(of("max-age=60+30").0.max_age, Some(secs(60)));
    assert!(of("no-store, content=\"ESI/1.0\"").0.no_store);
    for other in ["content=\"ESI/1.0\"", "max-age=60;abc", "no-store;abc"] {
        let (read, targeted) = of(other);
        assert_eq!((read.max_age, targeted), (Some(secs(5)), Targeted::No));
    }
}

// RFC 9111 §5.2.1 and §5.4.
#[test]
fn parses_every_request_directive() {
    let read = request("no-store, no-cache, only-if-cached, max-age=1, min-fresh=2, max-stale=3");
    assert!(read.no_store && read.no_cache && read.only_if_cached);
    assert_eq!(read.max_age, Some(secs(1)));
    assert_eq!(read.min_fresh, Some(secs(2)));
    assert_eq!(read.max_stale, Some(Some(secs(3))));

    assert_eq!(request("max-stale").max_stale, Some(None));
    assert_eq!(
        request("max-stale, max-stale=5").max_stale,
        Some(Some(secs(5)))
    );
    assert_eq!(request("max-stale=x").max_stale, Some(Some(secs(0))));
    assert_eq!(request("min-fresh=2, min-fresh=9").min_fresh, Some(secs(9)));
}

#[test]
fn pragma_counts_only_without_cache_control() {
    let alone = headers(&[("pragma", "x, No-Cache")]);
    assert!(RequestDirectives::of(&alone).no_cache);
    let both = headers(&[("pragma", "no-cache"), ("cache-control", "max-age=5")]);
    assert!(!RequestDirectives::of(&both).no_cache);
}

proptest! {
    #[test]
    fn arbitrary_value_does_not_panic(value in proptest::collection::vec(0x20_u8..=0xff, 0..200)) {
        let Ok(value) = HeaderValue::from_bytes(&value) else { return Ok(()) };
        let mut headers = HeaderMap::new();
        for name in ["cache-control", "cdn-cache-control", "surrogate-control", "pragma"] {
            headers.insert(name, value.clone());
            ResponseDirectives::of(&headers);
            RequestDirectives::of(&headers);
        }
    }

    #[test]
    fn max_age_is_never_longer_than_stated(first in any::<u64>(), second in any::<u64>()) {
        let mut headers = HeaderMap::new();
        for said in [first, second] {
            if let Ok(value) = HeaderValue::try_from(format!("max-age={said}")) {
                headers.append(CACHE_CONTROL, value);
            }
        }
        let (read, _) = ResponseDirectives::of(&headers);
        prop_assert_eq!(read.max_age, Some(secs(first.min(second).min(SECONDS_MAX))));
    }
}
