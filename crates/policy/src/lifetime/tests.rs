//! Tests each row of the table of kinds, and each reason not to store.

mod rows;

use super::*;
use seawall_manifest::{Liveness, MpdInfo, PlaylistInfo, ServerControl};

const SECOND: Duration = Duration::from_secs(1);
const DAY: Duration = Duration::from_hours(24);

fn route() -> Route {
    Route::everything("o")
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines
        .iter()
        .map(|(name, value)| {
            (
                header::HeaderName::from_static(name),
                http::HeaderValue::from_str(value).unwrap(),
            )
        })
        .collect()
}

fn judged(
    kind: Kind,
    status: u16,
    lines: &[(&'static str, &str)],
    info: Option<&ManifestInfo>,
) -> StorageDecision {
    judged_on(&route(), (kind, status), lines, info)
}

fn judged_on(
    route: &Route,
    (kind, status): (Kind, u16),
    lines: &[(&'static str, &str)],
    info: Option<&ManifestInfo>,
) -> StorageDecision {
    let headers = headers(lines);
    let response = ResponseFacts {
        status: StatusCode::from_u16(status).unwrap(),
        headers: &headers,
        kind,
        info,
        end_is_proven: true,
        authorized: false,
        delay: Duration::ZERO,
        context: ManifestContext::CurrentVersion,
        child_target_duration: None,
        due_in: None,
    };
    storage(&response, route, Now::read())
}

fn fresh_for(kind: Kind, lines: &[(&'static str, &str)], info: Option<&ManifestInfo>) -> Duration {
    match judged(kind, 200, lines, info) {
        StorageDecision::Store(lifetime) => lifetime.fresh_for,
        other => panic!("expected to be stored, got {other:?}"),
    }
}

fn live(target_seconds: u64) -> ManifestInfo {
    live_playlist(target_seconds).into()
}

fn live_playlist(target_seconds: u64) -> PlaylistInfo {
    PlaylistInfo {
        liveness: Liveness::Live,
        is_multivariant: false,
        target_duration: Some(Duration::from_secs(target_seconds)),
        part_target: None,
        segment_duration: None,
        server_control: ServerControl::default(),
        edge: None,
    }
}

#[test]
fn segment_without_cache_control_is_fresh_for_a_day() {
    assert_eq!(fresh_for(Kind::Segment, &[], None), DAY);
    assert_eq!(fresh_for(Kind::Init, &[], None), DAY);
    assert_eq!(
        fresh_for(Kind::Segment, &[("cache-control", "max-age=60")], None),
        60 * SECOND
    );
}

#[test]
fn live_playlist_is_fresh_at_most_half_its_target_duration() {
    let info = live(6);
    let kept = |lines| fresh_for(Kind::Hls, lines, Some(&info));
    assert_eq!(kept(&[("cache-control", "max-age=60")]), 3 * SECOND);
    assert_eq!(kept(&[("cache-control", "max-age=1")]), SECOND);
    assert_eq!(kept(&[]), 3 * SECOND);
}

#[test]
fn ended_playlist_is_fresh_as_the_origin_says() {
    let info = ManifestInfo::from(PlaylistInfo {
        liveness: Liveness::Ended,
        ..live_playlist(6)
    });
    assert_eq!(fresh_for(Kind::Hls, &[], Some(&info)), 3600 * SECOND);
    let explicit = [("cache-control", "max-age=86400")];
    assert_eq!(fresh_for(Kind::Hls, &explicit, Some(&info)), DAY);
}

#[test]
fn s_maxage_wins_over_max_age_and_expires() {
    let lines = [
        ("cache-control", "max-age=10, s-maxage=20"),
        ("expires", "Thu, 01 Jan 1970 00:00:00 GMT"),
    ];
    assert_eq!(fresh_for(Kind::Segment, &lines, None), 20 * SECOND);
}

#[test]
fn expires_counts_from_date() {
    let lines = [
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
        ("expires", "Sun, 06 Nov 1994 08:50:37 GMT"),
    ];
    assert_eq!(fresh_for(Kind::Other, &lines, None), 60 * SECOND);
    assert_eq!(
        fresh_for(Kind::Other, &[("expires", "0")], None),
        Duration::ZERO
    );
}

#[test]
fn response_404_is_usable_for_at_most_a_second() {
    let explicit = [("cache-control", "max-age=300")];
    for lines in [&explicit[..], &[]] {
        match judged(Kind::Segment, 404, lines, None) {
            StorageDecision::Store(lifetime) => assert_eq!(lifetime.usable_for(), SECOND),
            other => panic!("{other:?}"),
        }
    }
}

fn failure(retry_after: Option<Duration>) -> StorageDecision {
    StorageDecision::Failure {
        retry_after,
        is_shareable: true,
    }
}

#[test]
fn failure_is_not_stored_and_retry_after_is_capped_at_10s() {
    for status in [500, 502, 503, 504, 429, 408] {
        assert_eq!(judged(Kind::Hls, status, &[], None), failure(None));
    }
    let wait = [("retry-after", "3")];
    assert_eq!(
        judged(Kind::Hls, 503, &wait, None),
        failure(Some(3 * SECOND))
    );
    let for_ever = [("retry-after", "99999")];
    assert_eq!(
        judged(Kind::Hls, 503, &for_ever, None),
        failure(Some(10 * SECOND))
    );
}

#[test]
fn uncacheable_responses_are_passed() {
    let cases = [
        (("cache-control", "no-store"), UncacheableReason::NoStore),
        (
            ("cache-control", "private, max-age=60"),
            UncacheableReason::Private,
        ),
        (("set-cookie", "a=b"), UncacheableReason::SetCookie),
        (("vary", "*"), UncacheableReason::VaryAll),
    ];
    for (line, reason) in cases {
        assert_eq!(
            judged(Kind::Segment, 200, &[line], None),
            StorageDecision::Pass(reason)
        );
    }
    assert_eq!(
        judged(Kind::DecryptionKey, 200, &[], None),
        StorageDecision::Pass(UncacheableReason::Kind)
    );
    assert_eq!(
        judged(Kind::TimeServer, 200, &[], None),
        StorageDecision::Pass(UncacheableReason::Kind)
    );
    assert_eq!(
        judged(Kind::Other, 200, &[], None),
        StorageDecision::Pass(UncacheableReason::NoLifetime)
    );
    assert_eq!(
        judged(Kind::Segment, 206, &[], None),
        StorageDecision::Pass(UncacheableReason::Partial)
    );
}

#[test]
fn must_revalidate_ends_stale_windows_and_s_maxage_does_not() {
    let windows = |line| match judged(Kind::Segment, 200, &[("cache-control", line)], None) {
        StorageDecision::Store(lifetime) => {
            lifetime.usable_for().saturating_sub(lifetime.fresh_for)
        }
        other => panic!("{other:?}"),
    };
    assert_eq!(windows("max-age=5, must-revalidate"), Duration::ZERO);
    assert_eq!(windows("s-maxage=5, stale-if-error=7"), 7 * SECOND);
    assert_eq!(windows("max-age=5"), DAY);
}

#[test]
fn age_field_of_the_origin_counts() {
    let now = Now::read();
    let lines = [("cache-control", "max-age=60"), ("age", "61")];
    match judged(Kind::Segment, 200, &lines, None) {
        StorageDecision::Store(lifetime) => assert!(lifetime.age(now.mono) >= 60 * SECOND),
        other => panic!("{other:?}"),
    }
}

#[test]
fn clock_difference_to_the_origin_makes_nothing_stale() {
    let lines = [
        ("cache-control", "max-age=60"),
        ("date", "Sun, 06 Nov 1994 08:49:37 GMT"),
    ];
    match judged(Kind::Segment, 200, &lines, None) {
        StorageDecision::Store(lifetime) => assert!(lifetime.age(Instant::now()) < 60 * SECOND),
        other => panic!("{other:?}"),
    }
}

#[test]
fn store_errors_route_keeps_failure_for_its_max_age() {
    let route = Route {
        store_errors: true,
        ..route()
    };
    let judged = |status, lines: &[(&'static str, &str)]| {
        judged_on(&route, (Kind::Segment, status), lines, None)
    };
    for status in [500, 502, 503, 504, 429, 408] {
        let lines = [("cache-control", "max-age=60"), ("age", "20")];
        let StorageDecision::CacheableFailure(lifetime) = judged(status, &lines) else {
            panic!("{status}");
        };
        assert_eq!(lifetime.fresh_for, 60 * SECOND);
        assert!(lifetime.fresh_remaining(Instant::now()) <= 40 * SECOND);
    }
    for lines in [
        &[][..],
        &[("cache-control", "max-age=0")],
        &[("cache-control", "max-age=60, private")],
        &[("cache-control", "max-age=60, no-store")],
        &[("cache-control", "max-age=60, no-cache")],
        &[("cache-control", "max-age=60"), ("age", "60")],
        &[("cache-control", "max-age=60"), ("vary", "accept-language")],
    ] {
        let is_brief = matches!(judged(500, lines), StorageDecision::Failure { .. });
        assert!(is_brief, "{lines:?}");
    }
}

#[test]
fn uncacheable_failure_is_shared_with_its_status_only() {
    for line in [
        ("cache-control", "private"),
        ("set-cookie", "a=b"),
        ("content-encoding", "gzip"),
        ("vary", "accept-language"),
        ("cache-control", "no-store"),
    ] {
        let closed = StorageDecision::Failure {
            retry_after: None,
            is_shareable: false,
        };
        assert_eq!(judged(Kind::Hls, 503, &[line], None), closed, "{line:?}");
    }
}

#[test]
fn no_store_404_is_gone_and_401_or_403_is_refused() {
    let no_store = [("cache-control", "no-store")];
    assert_eq!(
        judged(Kind::Hls, 404, &no_store, None),
        StorageDecision::Gone
    );
    for status in [400, 401, 403, 508, 302] {
        assert_eq!(
            judged(Kind::Hls, status, &[], None),
            StorageDecision::Refused
        );
    }
}

#[test]
fn response_405_is_fresh_for_at_most_a_second() {
    let explicit = [("cache-control", "max-age=3600")];
    match judged(Kind::Hls, 405, &explicit, None) {
        StorageDecision::Store(lifetime) => assert_eq!(lifetime.fresh_for, SECOND),
        other => panic!("{other:?}"),
    }
}

#[test]
fn huge_or_listed_age_makes_the_object_stale() {
    for age in [
        "7200, 0",
        "7200,",
        "18446744073709551615",
        "99999999999999999999",
    ] {
        let lines = [("cache-control", "max-age=60"), ("age", age)];
        match judged(Kind::Segment, 200, &lines, None) {
            StorageDecision::Store(lifetime) => {
                assert!(lifetime.fresh_remaining(Instant::now()).is_zero());
            }
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn proxy_revalidate_does_not_make_authorized_response_storable() {
    let headers = headers(&[("cache-control", "proxy-revalidate, max-age=60")]);
    let response = ResponseFacts {
        status: StatusCode::OK,
        headers: &headers,
        kind: Kind::Segment,
        info: None,
        end_is_proven: true,
        authorized: true,
        delay: Duration::ZERO,
        context: ManifestContext::CurrentVersion,
        child_target_duration: None,
        due_in: None,
    };
    let storage = storage(&response, &route(), Now::read());
    assert_eq!(
        storage,
        StorageDecision::Pass(UncacheableReason::Authorized)
    );
}

#[test]
fn refreshed_max_age_exceeds_freshness_unless_origin_is_strict() {
    let lifetime = |fresh: u32| Lifetime {
        fresh_for: fresh * SECOND,
        stale_while_revalidate: fresh * SECOND,
        ..Lifetime::none(std::time::Instant::now())
    };
    let info = live(6);
    // Half a target duration, rounded down to whole seconds by the origin.
    assert_eq!(lifetime(3).refreshed_max_age(Some(&info)), 9 * SECOND);
    assert_eq!(
        lifetime(2).refreshed_max_age(Some(&live(5))),
        Duration::from_millis(7500)
    );
    assert_eq!(lifetime(1).refreshed_max_age(Some(&info)), 2 * SECOND);
    assert_eq!(lifetime(3).refreshed_max_age(None), 6 * SECOND);
    let strict = Lifetime {
        stale_while_revalidate: Duration::ZERO,
        ..lifetime(3)
    };
    assert_eq!(strict.refreshed_max_age(Some(&info)), 3 * SECOND);
}

fn low_latency() -> ManifestInfo {
    let playlist = PlaylistInfo {
        part_target: Some(SECOND / 2),
        ..live_playlist(4)
    };
    playlist.into()
}

#[test]
fn low_latency_playlist_is_fresh_for_half_a_part_by_default() {
    let kept = |lines: &[_]| match judged(Kind::Hls, 200, lines, Some(&low_latency())) {
        StorageDecision::Store(lifetime) => (lifetime.fresh_for, lifetime.stale_while_revalidate),
        other => panic!("{other:?}"),
    };
    let max_age = |age: &'static str| [("cache-control", age)];
    assert_eq!(kept(&[]), (SECOND / 4, SECOND / 4));
    assert_eq!(kept(&max_age("max-age=1")), (SECOND, SECOND / 2));
    assert_eq!(kept(&max_age("max-age=60")), (2 * SECOND, SECOND / 2));
    assert_eq!(
        kept(&max_age("max-age=1, stale-while-revalidate=9")),
        (SECOND, SECOND / 2)
    );
    assert_eq!(kept(&max_age("max-age=0")).0, Duration::ZERO);
}

#[test]
fn requested_playlist_version_is_fresh_for_24s_and_never_stale() {
    let kept = |lines: &[_]| {
        let response = ResponseFacts {
            status: StatusCode::OK,
            headers: &headers(lines),
            kind: Kind::Hls,
            info: Some(&low_latency()),
            end_is_proven: true,
            authorized: false,
            delay: Duration::ZERO,
            context: ManifestContext::RequestedVersion,
            child_target_duration: None,
            due_in: None,
        };
        match storage(&response, &route(), Now::read()) {
            StorageDecision::Store(lifetime) => (lifetime.fresh_for, lifetime.usable_for()),
            other => panic!("{other:?}"),
        }
    };
    assert_eq!(kept(&[]), (24 * SECOND, 24 * SECOND));
    assert_eq!(
        kept(&[("cache-control", "max-age=1")]),
        (SECOND, SECOND),
        "the origin's word, where it is stricter"
    );
}

#[test]
fn refreshed_low_latency_playlist_may_wait_for_a_late_part() {
    let info = low_latency();
    let StorageDecision::Store(lifetime) = judged(Kind::Hls, 200, &[], Some(&info)) else {
        panic!("it is stored");
    };
    assert_eq!(lifetime.refreshed_max_age(Some(&info)), 3 * SECOND / 2);
}
