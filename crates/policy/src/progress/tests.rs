//! Tests how versions that continue, lag or restart are compared with earlier ones.

mod orders;
mod previous;
mod table;

use std::time::SystemTime;

use super::*;
use seawall_manifest::{MpdEdge, MpdInfo, PlaylistEdge, PlaylistInfo, ServerControl};

const INTERVAL: Duration = Duration::from_secs(4);

/// A playlist of ten segments that ends with number `last`; `name` names the segments.
fn window(last: u64, name: impl Fn(u64) -> u64) -> PlaylistInfo {
    let first = last.saturating_sub(9);
    PlaylistInfo {
        liveness: Liveness::Live,
        is_multivariant: false,
        target_duration: Some(INTERVAL),
        part_target: None,
        segment_duration: Some(INTERVAL),
        server_control: ServerControl::default(),
        edge: Some(PlaylistEdge {
            media_sequence: first,
            last_sequence: last,
            name_fingerprints: (first..=last).map(name).collect(),
            ..PlaylistEdge::default()
        }),
    }
}

/// Segment names are their numbers.
fn plain(last: u64) -> PlaylistInfo {
    window(last, |number| number)
}

/// A playlist whose last segment ends at this second.
fn dated(last: u64, end_seconds: u64) -> PlaylistInfo {
    let end_time = Some(second(end_seconds));
    with(plain(last), |edge| edge.end_time = end_time)
}

fn with(mut playlist: PlaylistInfo, change: impl FnOnce(&mut PlaylistEdge)) -> PlaylistInfo {
    change(playlist.edge.as_mut().expect("lists segments"));
    playlist
}

/// A playlist without segments.
fn nothing() -> PlaylistInfo {
    PlaylistInfo {
        edge: None,
        ..plain(0)
    }
}

/// An MPD of a stream that started at second 1 and lists segments up to `end_ms`.
fn mpd(publish_seconds: u64, (period_ms, end_ms): (u64, u64), representations: u64) -> MpdInfo {
    MpdInfo {
        liveness: Liveness::Live,
        is_patch: false,
        update_period: Some(INTERVAL),
        segment_duration: Some(INTERVAL),
        publish_time: Some(second(publish_seconds)),
        availability_start: Some(second(1)),
        edge: Some(MpdEdge {
            start_ms: 0,
            end_ms,
            last_period_start_ms: period_ms,
            representations,
            longest_end_ms: end_ms,
        }),
    }
}

fn second(seconds: u64) -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(seconds)
}

fn timeline(seen: impl Into<ManifestInfo>, now: Instant) -> ManifestHistory {
    ManifestHistory::new(&seen.into(), INTERVAL, now)
}

fn progress_between(seen: impl Into<ManifestInfo>, arrived: impl Into<ManifestInfo>) -> Progress {
    let now = Instant::now();
    timeline(seen, now).progress_of(&arrived.into(), now)
}

impl ManifestHistory {
    fn progress(&self, arrived: impl Into<ManifestInfo>, now: Instant) -> Progress {
        self.progress_of(&arrived.into(), now)
    }

    fn records(&mut self, arrived: impl Into<ManifestInfo>, progress: Progress, now: Instant) {
        self.record(&arrived.into(), progress, now);
    }
}

#[test]
fn later_version_is_newer_and_equal_one_is_same() {
    assert_eq!(progress_between(plain(20), plain(21)), Progress::Newer);
    assert_eq!(progress_between(plain(20), plain(20)), Progress::Same);
    let after_an_outage = plain(500);
    assert_eq!(
        progress_between(plain(20), after_an_outage),
        Progress::Newer
    );
    let part = with(plain(20), |edge| edge.next_segment_parts = 2);
    assert_eq!(progress_between(plain(20), part), Progress::Newer);
    let longer_window = with(plain(20), |edge| edge.media_sequence = 3);
    assert_eq!(progress_between(plain(20), longer_window), Progress::Same);
}

#[test]
fn earlier_version_of_the_same_stream_is_behind() {
    assert_eq!(progress_between(plain(20), plain(19)), Progress::Behind);
    assert_eq!(progress_between(plain(20), plain(12)), Progress::Behind);
    let three_segments = |last| with(plain(last), |edge| edge.media_sequence = last - 2);
    let progress = progress_between(three_segments(20), three_segments(17));
    assert_eq!(progress, Progress::Behind);
    let part = with(plain(20), |edge| edge.next_segment_parts = 2);
    assert_eq!(progress_between(part, plain(20)), Progress::Behind);
    // Another packager counts discontinuities on its own; the names show that it is the same
    // stream.
    let other = with(plain(19), |edge| edge.discontinuity_sequence = 7);
    assert_eq!(progress_between(plain(20), other), Progress::Behind);
}

#[test]
fn restart_is_detected_by_number_name_or_discontinuity() {
    assert_eq!(progress_between(plain(5000), plain(3)), Progress::Restarted);
    let now = Instant::now();
    let mut timeline = timeline(plain(19), now);
    let renamed = || window(15, |number| number + 1000);
    let progress = timeline.progress(renamed(), now);
    assert_eq!(progress, Progress::Behind, "names may be signed");
    timeline.records(plain(20), Progress::Newer, now);
    assert_eq!(timeline.progress(renamed(), now), Progress::Restarted);
    let discontinuity = with(plain(10), |edge| {
        edge.discontinuity_sequence = 1;
        edge.name_fingerprints = Box::default();
    });
    assert_eq!(
        progress_between(plain(20), discontinuity),
        Progress::Restarted
    );
}

#[test]
fn date_time_tells_dead_origin_from_restarted_packager() {
    assert_eq!(
        progress_between(dated(5000, 20_000), dated(300, 1_200)),
        Progress::Behind
    );
    assert_eq!(
        progress_between(dated(5000, 20_000), dated(3, 20_004)),
        Progress::Restarted
    );
}

#[test]
fn after_restart_the_old_timeline_is_behind() {
    let now = Instant::now();
    let mut timeline = timeline(plain(5000), now);
    let new = |last| window(last, |number| number + 7000);
    assert_eq!(timeline.progress(new(3), now), Progress::Restarted);
    timeline.records(new(3), Progress::Restarted, now);
    assert_eq!(timeline.progress(plain(5001), now), Progress::Behind);
    assert_eq!(timeline.progress(plain(4999), now), Progress::Behind);
    assert_eq!(timeline.progress(new(4), now), Progress::Newer);
}

#[test]
fn stalled_timeline_accepts_any_version_as_restart() {
    let now = Instant::now();
    let timeline = timeline(plain(4), now);
    // A restart with the same names: it looks the same as a lagging origin.
    let progress = timeline.progress(plain(1), now + 3 * INTERVAL);
    assert_eq!(progress, Progress::Behind);
    let late = now + 3 * INTERVAL + Duration::from_millis(1);
    assert!(timeline.is_stalled(late));
    assert_eq!(timeline.progress(plain(1), late), Progress::Restarted);
}

#[test]
fn mpd_without_edge_is_compared_by_publish_and_start_time() {
    let mpd = |publish_seconds, start_seconds| MpdInfo {
        availability_start: Some(second(start_seconds)),
        edge: None,
        ..mpd(publish_seconds, (0, 0), 0)
    };
    assert_eq!(progress_between(mpd(100, 1), mpd(99, 1)), Progress::Behind);
    assert_eq!(progress_between(mpd(100, 1), mpd(104, 1)), Progress::Newer);
    assert_eq!(
        progress_between(mpd(100, 1), mpd(104, 90)),
        Progress::Restarted
    );
}

#[test]
fn old_timeline_is_accepted_if_the_new_one_stalls() {
    let now = Instant::now();
    let mut timeline = timeline(plain(5000), now);
    let current = window(300, |number| number + 7000);
    timeline.records(current, Progress::Restarted, now);
    let late = now + 4 * INTERVAL;
    assert_eq!(timeline.progress(plain(5001), now), Progress::Behind);
    assert_eq!(timeline.progress(plain(5004), late), Progress::Restarted);
    let both_stall = timeline.progress(plain(5000), late);
    assert_eq!(both_stall, Progress::Behind);
}

#[test]
fn empty_manifest_is_behind_and_keeps_the_timeline() {
    let now = Instant::now();
    let mut timeline = timeline(plain(5000), now);
    assert_eq!(timeline.progress(nothing(), now), Progress::Behind);
    let late = now + 4 * INTERVAL;
    assert_eq!(timeline.progress(nothing(), late), Progress::Restarted);
    let ended = || PlaylistInfo {
        liveness: Liveness::Ended,
        ..nothing()
    };
    assert_eq!(timeline.progress(ended(), now), Progress::Newer);
    timeline.records(ended(), Progress::Newer, now);
    assert_eq!(timeline.progress(plain(4995), now), Progress::Behind);
    assert_eq!(timeline.progress(plain(5), now), Progress::Restarted);
}

/// The same numbers with other times are other segments, unless there is a new discontinuity.
#[test]
fn same_numbers_with_much_later_dates_are_a_restart() {
    let day = 86_400;
    for (seen, arrived, progress) in [
        (dated(10, 40), dated(12, 48), Progress::Newer),
        (dated(10, 40), dated(12, 48 + day), Progress::Restarted),
        (dated(10, 40), dated(2, 8 + 60), Progress::Restarted),
        (dated(10, 40), dated(9, 36), Progress::Behind),
        // A lagging origin with segments shorter than their maximum.
        (dated(40, 240), dated(31, 239), Progress::Behind),
        // After an outage.
        (dated(10, 40), dated(30, 120 + day), Progress::Newer),
    ] {
        let what = format!("{:?}", arrived.edge);
        assert_eq!(progress_between(seen, arrived), progress, "{what}");
    }
    let gap = with(dated(12, 48 + day), |edge| edge.discontinuity_sequence = 1);
    assert_eq!(progress_between(dated(10, 40), gap), Progress::Newer);
}

#[test]
fn discontinuity_in_an_old_version_is_no_restart() {
    let dead = with(dated(4980, 19_920), |edge| edge.discontinuity_sequence = 3);
    assert_eq!(
        progress_between(dated(5000, 20_000), dead),
        Progress::Behind
    );
}

/// Timelines with different starts are not comparable.
#[test]
fn mpds_of_two_packagers_do_not_alternate() {
    let now = Instant::now();
    let mpd = |start_seconds: u64, clock_seconds: u64| MpdInfo {
        availability_start: Some(second(start_seconds)),
        ..mpd(
            clock_seconds,
            (0, (clock_seconds - start_seconds) * 1000),
            0,
        )
    };
    let (first, other) = (1000, 1060);
    let mut timeline = timeline(mpd(first, 2000), now);
    assert_eq!(
        timeline.progress(mpd(other, 2000), now),
        Progress::Restarted
    );
    timeline.records(mpd(other, 2000), Progress::Restarted, now);
    for clock in (2002..2400).step_by(2) {
        assert_eq!(timeline.progress(mpd(first, clock), now), Progress::Behind);
        assert_eq!(timeline.progress(mpd(other, clock), now), Progress::Newer);
        timeline.records(mpd(other, clock), Progress::Newer, now);
    }
    let dead = mpd(500, 1500);
    assert_eq!(timeline.progress(dead, now), Progress::Behind);
}

/// Many packagers write the time of the request as `publishTime`.
#[test]
fn newer_publish_time_with_shorter_timeline_is_behind() {
    let seen = || mpd(10, (0, 40_000), 2);
    let arrived = |end_ms| progress_between(seen(), mpd(12, (0, end_ms), 2));
    assert_eq!(arrived(39_980), Progress::Behind);
    assert_eq!(arrived(28_000), Progress::Behind);
    assert_eq!(arrived(44_000), Progress::Newer);
    let nothing = MpdInfo {
        edge: None,
        ..mpd(12, (0, 0), 2)
    };
    assert_eq!(progress_between(seen(), nothing), Progress::Behind);
}

/// A period that listed a whole advertisement may be cut short.
#[test]
fn ad_period_cut_short_is_no_lag_and_no_restart() {
    let advertisement = || mpd(10, (100_000, 130_000), 2);
    let after = || mpd(12, (115_000, 119_000), 2);
    assert_eq!(progress_between(advertisement(), after()), Progress::Newer);
    let other_packager = progress_between(after(), advertisement());
    assert_eq!(other_packager, Progress::Behind);
    // Redundant packagers do not begin periods at exactly the same time.
    let other_packager = progress_between(advertisement(), mpd(12, (100_040, 126_000), 2));
    assert_eq!(other_packager, Progress::Behind);
    let next = progress_between(after(), mpd(13, (114_960, 123_000), 2));
    assert_eq!(next, Progress::Newer);
}

/// Signed names differ in each version, also in those of a lagging node.
#[test]
fn newly_signed_names_are_no_restart() {
    let now = Instant::now();
    let signed = |last: u64, salt: u64| window(last, move |number| number * 1000 + salt);
    let mut timeline = timeline(signed(20, 1), now);
    for (last, salt) in [(21, 2), (21, 3), (22, 4)] {
        let progress = timeline.progress(signed(last, salt), now);
        assert!(matches!(progress, Progress::Newer | Progress::Same));
        timeline.records(signed(last, salt), progress, now);
        let lag = timeline.progress(signed(last - 2, salt + 100), now);
        assert_eq!(lag, Progress::Behind, "{last}");
    }
    // If names are numbered, the first version already decides.
    let counted = |last, salt| with(signed(last, salt), |edge| edge.name_number_offset = Some(0));
    assert_eq!(
        progress_between(counted(20, 1), counted(19, 2)),
        Progress::Behind
    );
}

/// The manifest was not polled, and a restarted packager has reached just past the old end.
#[test]
fn few_new_segments_after_long_silence_are_a_restart() {
    let now = Instant::now();
    let mut timeline = timeline(plain(20), now);
    let after = |intervals: u32| now + intervals * INTERVAL;
    assert_eq!(timeline.progress(plain(22), after(6)), Progress::Newer);
    assert_eq!(timeline.progress(plain(22), after(12)), Progress::Restarted);
    let unwatched = timeline.progress(plain(120), after(100));
    assert_eq!(unwatched, Progress::Newer);
    let gap = with(plain(22), |edge| edge.discontinuity_sequence = 1);
    let says_that_it_stalled = timeline.progress(gap, after(12));
    assert_eq!(says_that_it_stalled, Progress::Newer);
    timeline.record_response(after(11));
    let polled = timeline.progress(plain(22), after(12));
    assert_eq!(polled, Progress::Newer);
}

/// While the clocks show a lag, an origin may catch up.
#[test]
fn dated_lag_is_no_restart_until_it_should_have_caught_up() {
    let now = Instant::now();
    let dated = |last| dated(last, 4 * last);
    let timeline = timeline(dated(20), now);
    let progress = timeline.progress(dated(14), now + 8 * INTERVAL);
    assert_eq!(progress, Progress::Behind);
    let progress = timeline.progress(dated(14), now + 10 * INTERVAL);
    assert_eq!(progress, Progress::Restarted);
}

/// A delta update does not list the discontinuities that it skips. A lagging origin that lists all
/// of them has not restarted.
#[test]
fn delta_update_keeps_skipped_discontinuities() {
    let now = Instant::now();
    let discontinued = |last| with(plain(last), |edge| edge.discontinuity_sequence = 2);
    let mut timeline = timeline(discontinued(20), now);
    let delta = with(plain(40), |edge| {
        (edge.media_sequence, edge.skipped_segments) = (25, 6);
        edge.discontinuity_sequence = 0;
    });
    timeline.records(delta, Progress::Newer, now);
    assert_eq!(timeline.progress(discontinued(28), now), Progress::Behind);
}
