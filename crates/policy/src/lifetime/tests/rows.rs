//! Tests each row of the table "How long things live" in docs/live.md: freshness, the rule that
//! decided, and the stale windows.

use super::*;
use crate::route::Lifetimes;

const MINUTE: Duration = Duration::from_mins(1);
const HOUR: Duration = Duration::from_hours(1);

/// An hour of freshness from the origin.
const LONG: &[(&str, &str)] = &[("cache-control", "max-age=3600")];
/// A second of freshness from the origin.
const SHORT: &[(&str, &str)] = &[("cache-control", "max-age=1")];
const UNTOLD: &[(&str, &str)] = &[];

/// A response by its status, kind and manifest info.
struct Row<'a> {
    status: u16,
    kind: Kind,
    info: Option<&'a ManifestInfo>,
    children: Option<Duration>,
    due_in: Option<Duration>,
    standing: ManifestContext,
    lifetimes: Lifetimes,
}

impl Row<'_> {
    fn of(kind: Kind, info: Option<&ManifestInfo>) -> Row<'_> {
        Row {
            status: 200,
            kind,
            info,
            children: None,
            due_in: None,
            standing: ManifestContext::CurrentVersion,
            lifetimes: Lifetimes::default(),
        }
    }

    fn storage(&self, lines: &[(&'static str, &str)]) -> StorageDecision {
        let headers = headers(lines);
        let response = ResponseFacts {
            status: StatusCode::from_u16(self.status).unwrap(),
            headers: &headers,
            kind: self.kind,
            info: self.info,
            end_is_proven: true,
            authorized: false,
            delay: Duration::ZERO,
            context: self.standing,
            child_target_duration: self.children,
            due_in: self.due_in,
        };
        let lifetimes = self.lifetimes.clone();
        let route = Route {
            lifetimes,
            ..route()
        };
        storage(&response, &route, Now::read())
    }

    fn lifetime(&self, lines: &[(&'static str, &str)]) -> Lifetime {
        match self.storage(lines) {
            StorageDecision::Store(lifetime) => lifetime,
            other => panic!("expected to be stored, got {other:?}"),
        }
    }

    fn fresh(&self, lines: &[(&'static str, &str)]) -> (Duration, Rule) {
        let lifetime = self.lifetime(lines);
        (lifetime.fresh_for, lifetime.rule)
    }

    fn windows(&self, lines: &[(&'static str, &str)]) -> (Duration, Duration) {
        let lifetime = self.lifetime(lines);
        (lifetime.stale_while_revalidate, lifetime.stale_if_error)
    }
}

fn multivariant() -> ManifestInfo {
    let playlist = PlaylistInfo {
        is_multivariant: true,
        target_duration: None,
        ..live_playlist(1)
    };
    playlist.into()
}

/// A dynamic MPD with this update period and four-second segments.
fn dynamic(update_period: Option<Duration>) -> MpdInfo {
    MpdInfo {
        liveness: Liveness::Live,
        is_patch: false,
        update_period,
        segment_duration: Some(4 * SECOND),
        publish_time: None,
        availability_start: None,
        edge: None,
    }
}

fn ended() -> ManifestInfo {
    let playlist = PlaylistInfo {
        liveness: Liveness::Ended,
        ..live_playlist(6)
    };
    playlist.into()
}

#[test]
fn hls_multivariant_playlist_live() {
    let info = multivariant();
    let mut row = Row::of(Kind::Hls, Some(&info));
    assert_eq!(row.fresh(LONG), (6 * SECOND, Rule::Multivariant));
    assert_eq!(row.fresh(UNTOLD), (6 * SECOND, Rule::Multivariant));
    row.children = Some(4 * SECOND);
    assert_eq!(row.fresh(LONG), (4 * SECOND, Rule::Multivariant));
    assert_eq!(row.fresh(SHORT), (SECOND, Rule::Origin));
    assert_eq!(row.windows(LONG), (4 * SECOND, MINUTE));
}

#[test]
fn hls_media_playlist_live() {
    let info = live(6);
    let row = Row::of(Kind::Hls, Some(&info));
    assert_eq!(row.fresh(LONG), (3 * SECOND, Rule::HalfTarget));
    assert_eq!(row.fresh(UNTOLD), (3 * SECOND, Rule::HalfTarget));
    assert_eq!(row.fresh(SHORT), (SECOND, Rule::Origin));
    assert_eq!(
        row.windows(LONG),
        (3 * SECOND, MINUTE),
        "an outage is survived"
    );
    let slow = live(30);
    let row = Row::of(Kind::Hls, Some(&slow));
    assert_eq!(row.windows(LONG).1, 90 * SECOND);
}

#[test]
fn hls_media_playlist_ended() {
    let info = ended();
    let row = Row::of(Kind::Hls, Some(&info));
    assert_eq!(row.fresh(UNTOLD), (HOUR, Rule::RouteDefault));
    assert_eq!(row.fresh(SHORT), (SECOND, Rule::Origin));
    assert_eq!(row.windows(UNTOLD).1, DAY);
    let lately = Row {
        standing: ManifestContext::JustEnded,
        ..row
    };
    assert_eq!(lately.fresh(LONG), (10 * SECOND, Rule::JustEnded));
    assert_eq!(lately.fresh(SHORT), (SECOND, Rule::Origin));
}

#[test]
fn mpd_static() {
    let info = ManifestInfo::from(MpdInfo {
        liveness: Liveness::Ended,
        ..dynamic(None)
    });
    let row = Row::of(Kind::Dash, Some(&info));
    assert_eq!(row.fresh(UNTOLD), (HOUR, Rule::RouteDefault));
    assert_eq!(row.fresh(SHORT), (SECOND, Rule::Origin));
    assert_eq!(row.windows(UNTOLD).1, DAY);
}

#[test]
fn mpd_dynamic_with_an_update_period() {
    let often = dynamic(Some(SECOND / 2)).into();
    let row = Row::of(Kind::Dash, Some(&often));
    assert_eq!(row.fresh(LONG), (SECOND / 2, Rule::UpdatePeriod));
    let seldom = dynamic(Some(30 * SECOND)).into();
    let row = Row::of(Kind::Dash, Some(&seldom));
    assert_eq!(row.fresh(LONG), (2 * SECOND, Rule::HalfSegment));
    assert_eq!(row.fresh(UNTOLD), (2 * SECOND, Rule::HalfSegment));
    assert_eq!(row.fresh(SHORT), (SECOND, Rule::Origin));
    let segments = dynamic(Some(2 * SECOND)).into();
    let row = Row::of(Kind::Dash, Some(&segments));
    assert_eq!(row.windows(LONG), (2 * SECOND, MINUTE));
}

#[test]
fn mpd_dynamic_without_an_update_period() {
    for period in [None, Some(Duration::ZERO)] {
        let info = dynamic(period).into();
        let row = Row::of(Kind::Dash, Some(&info));
        assert_eq!(row.fresh(LONG), (SECOND, Rule::NoUpdatePeriod));
        assert_eq!(row.fresh(UNTOLD), (SECOND, Rule::NoUpdatePeriod));
        assert_eq!(row.windows(LONG).1, MINUTE);
    }
}

#[test]
fn mpd_patch() {
    let info = ManifestInfo::from(MpdInfo {
        is_patch: true,
        ..dynamic(None)
    });
    let mut row = Row::of(Kind::Dash, Some(&info));
    assert_eq!(row.fresh(LONG), (HOUR, Rule::Origin));
    assert_eq!(row.fresh(UNTOLD), (SECOND, Rule::Patch));
    let generous = &[("cache-control", "max-age=9, stale-while-revalidate=9")];
    let never = (Duration::ZERO, Duration::ZERO);
    assert_eq!((row.windows(UNTOLD), row.windows(generous)), (never, never));
    (row.status, row.info) = (425, None);
    row.lifetimes.negative_max = MINUTE;
    assert_eq!(row.fresh(LONG), (SECOND, Rule::Negative));
    assert_eq!(row.fresh(UNTOLD), (SECOND, Rule::Negative));
}

#[test]
fn time_endpoints_are_passed() {
    let row = Row::of(Kind::TimeServer, None);
    assert_eq!(
        row.storage(LONG),
        StorageDecision::Pass(UncacheableReason::Kind)
    );
}

#[test]
fn media_and_init_segments() {
    for kind in [Kind::Segment, Kind::Init] {
        let mut row = Row::of(kind, None);
        assert_eq!(row.fresh(LONG), (HOUR, Rule::Origin));
        assert_eq!(row.fresh(UNTOLD), (DAY, Rule::RouteDefault));
        assert_eq!(row.windows(LONG), (Duration::ZERO, DAY));
        row.lifetimes.segment_max = MINUTE;
        assert_eq!(row.fresh(LONG), (MINUTE, Rule::RouteMax));
        row.lifetimes.segment_min = MINUTE;
        assert_eq!(row.fresh(SHORT), (MINUTE, Rule::RouteMin));
    }
}

#[test]
fn keys_and_licences_are_passed() {
    let row = Row::of(Kind::DecryptionKey, None);
    assert_eq!(
        row.storage(LONG),
        StorageDecision::Pass(UncacheableReason::Kind)
    );
}

#[test]
fn negative_lifetime_ends_when_the_object_is_due() {
    for kind in [Kind::Segment, Kind::Hls, Kind::Dash] {
        for status in [404, 410] {
            let mut row = Row::of(kind, None);
            row.status = status;
            assert_eq!(row.fresh(LONG), (SECOND, Rule::Negative));
            assert_eq!(row.fresh(UNTOLD), (SECOND, Rule::Negative));
            row.due_in = Some(SECOND / 4);
            assert_eq!(row.fresh(LONG), (SECOND / 4, Rule::Due));
            row.due_in = Some(9 * SECOND);
            assert_eq!(row.fresh(LONG), (SECOND, Rule::Negative));
            assert_eq!(row.windows(LONG), (Duration::ZERO, Duration::ZERO));
        }
    }
}

#[test]
fn failures_are_not_stored() {
    for status in [500, 503, 504, 429, 408] {
        let mut row = Row::of(Kind::Segment, None);
        row.status = status;
        assert_eq!(row.storage(LONG), failure(None));
    }
}

/// Precedence: what forbids storing, the route, the origin, the content, the table.
#[test]
fn lifetime_precedence_is_no_store_route_origin_content_table() {
    let info = live(6);
    let mut row = Row::of(Kind::Hls, Some(&info));
    row.lifetimes.manifest_max = 2 * SECOND;
    assert_eq!(row.fresh(LONG), (2 * SECOND, Rule::RouteMax));
    row.lifetimes.override_ttl = Some(9 * SECOND);
    assert_eq!(row.fresh(SHORT), (9 * SECOND, Rule::Override));
    let always = &[("cache-control", "no-cache, max-age=9")];
    assert_eq!(row.fresh(always), (Duration::ZERO, Rule::NoCache));
    let never = &[("cache-control", "no-store")];
    assert_eq!(
        row.storage(never),
        StorageDecision::Pass(UncacheableReason::NoStore)
    );
    row.lifetimes.manifest_stale_if_error = Some(5 * MINUTE);
    assert_eq!(row.windows(LONG).1, 5 * MINUTE);
    let told = &[("cache-control", "max-age=9, stale-if-error=7")];
    assert_eq!(row.windows(told).1, 7 * SECOND);
}
