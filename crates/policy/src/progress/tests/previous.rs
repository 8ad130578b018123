//! Tests to which of two timelines a version after a restart belongs.

use super::*;

/// Two origins of one MPD without a clock; the second is several segments behind when the first one
/// stops. Viewers go back once, and then see each further version of the second one.
#[test]
fn lagging_mpd_that_was_accepted_passes_the_end_of_the_stopped_one() {
    let undated = |end_ms| MpdInfo {
        availability_start: None,
        publish_time: None,
        ..mpd(10, (0, end_ms), 2)
    };
    let start = Instant::now();
    let mut timeline = timeline(undated(40_000), start);
    let now = start + 4 * INTERVAL;
    let accepted = undated(32_000).into();
    assert_eq!(timeline.progress_of(&accepted, now), Progress::Restarted);
    timeline.record(&accepted, Progress::Restarted, now);
    for further in 1..6 {
        let version = undated(32_000 + 4000 * u64::from(further)).into();
        let now = now + further * INTERVAL;
        assert_eq!(
            timeline.progress_of(&version, now),
            Progress::Newer,
            "{further}"
        );
        timeline.record(&version, Progress::Newer, now);
    }
    let stopped = undated(40_000).into();
    assert_eq!(
        timeline.progress_of(&stopped, now + 6 * INTERVAL),
        Progress::Behind
    );
}

/// A playlist whose names an origin signs anew in each version; they contain no segment number.
fn newly_signed(origin: u64, last: u64) -> PlaylistInfo {
    window(last, |number| (number * 1000 + last) * 10 + origin)
}

/// The same with two origins of one playlist.
#[test]
fn lagging_playlist_with_signed_names_passes_the_end_of_the_stopped_one() {
    let start = Instant::now();
    let mut timeline = timeline(newly_signed(1, 20), start);
    let now = start + 4 * INTERVAL;
    let accepted = newly_signed(2, 16);
    assert_eq!(
        timeline.progress(accepted.clone(), now),
        Progress::Restarted,
        "the stream goes on there"
    );
    timeline.records(accepted, Progress::Restarted, now);
    for further in 1..10 {
        let version = newly_signed(2, 16 + u64::from(further));
        let now = now + further * INTERVAL;
        let progress = timeline.progress(version.clone(), now);
        assert_eq!(progress, Progress::Newer, "{further}");
        timeline.records(version, progress, now);
    }
}

/// What the stopped origin still sends is no continuation of the other one, which would seem to lag
/// behind it again.
#[test]
fn stopped_origin_is_behind_after_a_lagging_one_was_accepted() {
    let start = Instant::now();
    let now = start + 4 * INTERVAL;
    let undated = |end_ms| MpdInfo {
        availability_start: None,
        publish_time: None,
        ..mpd(10, (0, end_ms), 2)
    };
    let mut mpd = timeline(undated(40_000), start);
    mpd.records(undated(20_000), Progress::Restarted, now);
    let mut playlist = timeline(newly_signed(1, 20), start);
    playlist.records(newly_signed(2, 15), Progress::Restarted, now);
    let now = now + INTERVAL;
    assert_eq!(mpd.progress(undated(40_000), now), Progress::Behind);
    assert_eq!(
        playlist.progress(newly_signed(1, 20), now),
        Progress::Behind
    );
}

/// The stopped origin goes on, or the lagging one catches up with it.
#[test]
fn version_beyond_the_stopped_one_continues_a_lagging_one() {
    let start = Instant::now();
    let mut timeline = timeline(newly_signed(1, 20), start);
    let now = start + 4 * INTERVAL;
    timeline.records(newly_signed(2, 15), Progress::Restarted, now);
    let further = timeline.progress(newly_signed(1, 24), now + INTERVAL);
    assert_eq!(further, Progress::Newer);
}

#[test]
fn restarted_playlist_with_signed_names_passes_the_old_end() {
    let start = Instant::now();
    let mut timeline = timeline(newly_signed(1, 40), start);
    let restarted = newly_signed(2, 2);
    assert_eq!(
        timeline.progress(restarted.clone(), start),
        Progress::Restarted
    );
    timeline.records(restarted, Progress::Restarted, start);
    for further in 1..50 {
        let version = newly_signed(2, 2 + u64::from(further));
        let now = start + further * INTERVAL;
        if further < 38 {
            // A redundant origin did not restart.
            let other = timeline.progress(newly_signed(1, 40 + u64::from(further)), now);
            assert_eq!(other, Progress::Behind, "{further}");
        }
        let progress = timeline.progress(version.clone(), now);
        assert_eq!(progress, Progress::Newer, "{further}");
        timeline.records(version, progress, now);
    }
}

/// The packager marked its restart; a redundant one has not restarted and is a little ahead.
#[test]
fn old_timeline_a_little_ahead_of_a_marked_restart_is_behind() {
    let start = Instant::now();
    let mut timeline = timeline(newly_signed(1, 20), start);
    let restarted = |last| {
        with(newly_signed(2, last), |edge| {
            edge.discontinuity_sequence = 1;
        })
    };
    assert_eq!(timeline.progress(restarted(19), start), Progress::Restarted);
    timeline.records(restarted(19), Progress::Restarted, start);
    let now = start + INTERVAL;
    assert_eq!(
        timeline.progress(newly_signed(1, 21), now),
        Progress::Behind
    );
    assert_eq!(timeline.progress(restarted(20), now), Progress::Newer);
}
