//! Whatever one of two simulated origins does, players of a live stream see no error, no step back,
//! and no byte that the packager did not make.

use std::time::Duration;

use seawall_simulator::{DemoRendition, Packaging, Resource, ResourceKind};

use crate::support::audience::{Audience, Evening};

/// Players begin with three segments: after one more they have polled the playlist again, and it is
/// refreshed by the shield.
const BEFORE: usize = 4;

/// Without faults, each version and each segment is requested about once, whatever the audience.
#[tokio::test]
async fn healthy_origin_gets_one_request_per_segment() {
    let evening = Evening::start(Packaging::Cmaf).await;
    let audience = evening.start_players(12);
    audience.wait_media(6).await;
    audience
        .assert_no_error()
        .assert_never_backwards()
        .assert_packagers_bytes();
    let asked = [ResourceKind::Init, ResourceKind::Segment].map(|kind| {
        let targets = evening.first.request_log().targets(kind);
        targets.iter().map(|(_, count)| count.requests).max()
    });
    assert_eq!(asked, [Some(1), Some(1)], "each once");
    assert_eq!(
        evening.second.request_log().requests(),
        0,
        "the second only stands by"
    );
}

/// Faults of the first of two origins are invisible to players.
async fn the_first_one_fails(how: &str) -> (Evening, Audience) {
    let evening = Evening::start(Packaging::Cmaf).await;
    let audience = evening.start_players(9);
    audience.wait_media(BEFORE).await;
    evening.switch_fault(&evening.first, how).await;
    audience.wait_media(6).await;
    audience
        .assert_no_error()
        .assert_never_backwards()
        .assert_packagers_bytes();
    (evening, audience)
}

#[tokio::test]
async fn players_see_no_error_when_an_origin_goes_backwards() {
    let (evening, _audience) = the_first_one_fails("back=2").await;
    assert!(evening.count_rejected("behind").await > 0);
}

#[tokio::test]
async fn players_see_no_error_when_an_origin_stalls() {
    let (evening, _audience) = the_first_one_fails("stall=on").await;
    assert!(evening.count_rejected("stalled").await > 0);
}

#[tokio::test]
async fn players_see_no_error_when_manifests_are_truncated() {
    let (evening, _audience) = the_first_one_fails("cut=manifests").await;
    assert!(evening.count_rejected("broken").await > 0);
}

#[tokio::test]
async fn players_see_no_error_when_an_origin_refuses_everything() {
    the_first_one_fails("refuse=100").await;
}

#[tokio::test]
async fn players_see_no_error_when_half_the_requests_are_refused() {
    the_first_one_fails("refuse=50").await;
}

#[tokio::test]
async fn players_see_no_error_when_an_origin_is_late() {
    the_first_one_fails("late=1").await;
}

/// Its manifests list segments that it does not have yet; the other origin has them.
#[tokio::test]
async fn players_see_no_error_when_listed_segments_are_missing() {
    the_first_one_fails("missing=0.5").await;
}

/// No player gets a cut segment as complete, and none gets it twice.
#[tokio::test]
async fn players_accept_no_truncated_segment() {
    let evening = Evening::start(Packaging::Cmaf).await;
    let audience = evening.start_players(6);
    audience.wait_media(BEFORE).await;
    evening.switch_fault(&evening.first, "cut=media").await;
    audience.wait_media(BEFORE).await;
    evening.switch_fault(&evening.first, "heal").await;
    audience.wait_media(4).await;
    audience.assert_never_backwards().assert_packagers_bytes();
}

/// The packager restarts and reuses its names: one step back, and never a byte of the old programme
/// with the new playlist.
#[tokio::test]
async fn players_get_no_old_segment_after_packager_restart() {
    let evening = Evening::start(Packaging::Cmaf).await;
    let audience = evening.start_players(6);
    audience.wait_media(BEFORE).await;
    evening.restart().await;
    audience.wait_restart().await;
    audience.wait_media(6).await;
    audience
        .assert_no_error()
        .assert_never_backwards()
        .assert_packagers_bytes();
    assert_eq!(evening.count_restarts().await, 1);
}

/// One rendition falls behind: operators see it as the stream's skew.
#[tokio::test]
async fn lagging_rendition_is_reported_as_stream_skew() {
    let evening = Evening::start(Packaging::Cmaf).await;
    let audience = evening.start_players(6);
    audience.wait_media(BEFORE).await;
    for origin in [&evening.first, &evening.second] {
        evening.switch_fault(origin, "stall=on&only=180p").await;
    }
    evening.wait_skew(3).await;
}

/// A redundant pair whose second origin is always a segment behind, used in turn.
#[tokio::test]
async fn players_see_no_error_when_one_origin_lags_a_segment() {
    let evening = Evening::start_with_lag(Packaging::Cmaf).await;
    let audience = evening.start_players(9);
    audience.wait_media(9).await;
    audience
        .assert_no_error()
        .assert_never_backwards()
        .assert_packagers_bytes();
    assert!(
        evening
            .second
            .request_log()
            .count_of_kind(ResourceKind::Playlist)
            .requests
            > 0
    );
}

/// Low latency: each part is requested once, and each version of each playlist.
#[tokio::test]
async fn each_low_latency_part_is_requested_once() {
    let evening = Evening::start(Packaging::LowLatency).await;
    let audience = evening.start_players(9);
    audience.wait_media(9).await;
    audience
        .assert_no_error()
        .assert_never_backwards()
        .assert_packagers_bytes();
    let parts = evening.first.request_log().targets(ResourceKind::Part);
    assert!(parts.len() >= 9 * DemoRendition::ALL.len());
    assert!(
        parts.iter().all(|(_, count)| count.requests == 1),
        "{parts:?}"
    );
    // A blocking request per part and rendition; each rendition began with a plain one, and perhaps
    // one more by the cadence.
    let playlists = evening.first.request_log().targets(ResourceKind::Playlist);
    let blocking = playlists
        .iter()
        .filter(|(target, _)| target.contains("_HLS_msn"));
    for (target, count) in blocking {
        assert!(count.requests == 1, "{target}: {count:?}");
    }
}

/// DASH: with a timeline, with numbers, and in chunks.
#[tokio::test]
async fn dash_players_see_no_error_and_cause_no_duplicates() {
    for form in [Packaging::Timeline, Packaging::Number, Packaging::Chunked] {
        let evening = Evening::start(form).await;
        let audience = evening.start_players(6);
        audience.wait_media(2).await;
        audience
            .assert_no_error()
            .assert_never_backwards()
            .assert_packagers_bytes();
        let mpd = evening
            .first
            .request_log()
            .count_of_target(&Resource::Mpd(form).path());
        assert!(mpd.requests > 0);
        assert_eq!(evening.first.request_log().duplicates(), []);
    }
}

/// Viewers do not wait for a slow origin once the cadence of its versions is known.
#[tokio::test]
async fn players_do_not_wait_for_playlists_of_slow_origin() {
    let evening = Evening::start(Packaging::Cmaf).await;
    evening.switch_fault(&evening.first, "slow=0.1").await;
    let audience = evening.start_players(9);
    audience.wait_media(4).await;
    let since = evening.first.clock().now();
    audience.wait_media(6).await;
    audience.assert_no_error().assert_never_backwards();
    let waited = audience.waits(since, |place| matches!(place, Resource::Playlist(..)));
    let slow = waited
        .iter()
        .filter(|waited| **waited >= Duration::from_millis(100));
    assert_eq!(slow.count(), 0, "{waited:?}");
}
