//! Tests how versions that continue, lag or restart are compared with earlier ones.

mod orders;

use super::*;
use seawall_manifest::{Liveness, ServerControl};

const PERIOD: Duration = Duration::from_secs(4);

/// An HLS window of ten segments that ends with number `last`; `name` names the segments.
fn window(last: u64, name: impl Fn(u64) -> u64) -> ManifestInfo {
    let first = last.saturating_sub(9);
    facts(LiveEdge {
        numbered: true,
        first,
        last,
        names: (first..=last).map(name).collect(),
        ..LiveEdge::default()
    })
}

fn facts(edge: LiveEdge) -> ManifestInfo {
    ManifestInfo {
        liveness: Liveness::Live,
        target_duration: Some(PERIOD),
        part_target: None,
        segment: Some(PERIOD),
        multivariant: false,
        edge: Some(edge),
        published: None,
        began: None,
        is_patch: false,
        control: ServerControl::default(),
    }
}

/// Segment names are their numbers.
fn plain(last: u64) -> ManifestInfo {
    window(last, |number| number)
}

fn judged(old: &ManifestInfo, new: &ManifestInfo) -> Progress {
    let now = Instant::now();
    Timeline::new(old, PERIOD, now).judge(new, now)
}

fn with(mut facts: ManifestInfo, change: impl FnOnce(&mut LiveEdge)) -> ManifestInfo {
    change(facts.edge.as_mut().expect("lists segments"));
    facts
}

#[test]
fn what_goes_on_goes_on() {
    assert_eq!(judged(&plain(20), &plain(21)), Progress::Onward);
    assert_eq!(judged(&plain(20), &plain(20)), Progress::Same);
    assert_eq!(
        judged(&plain(20), &plain(500)),
        Progress::Onward,
        "after an outage"
    );
    let part = with(plain(20), |edge| edge.parts = 2);
    assert_eq!(judged(&plain(20), &part), Progress::Onward);
    let longer = with(plain(20), |edge| edge.first = 3);
    assert_eq!(
        judged(&plain(20), &longer),
        Progress::Same,
        "a longer window"
    );
}

#[test]
fn who_lags_is_not_believed() {
    assert_eq!(judged(&plain(20), &plain(19)), Progress::Behind);
    assert_eq!(judged(&plain(20), &plain(12)), Progress::Behind);
    let short = |last| with(plain(last), |edge| edge.first = last - 2);
    assert_eq!(
        judged(&short(20), &short(17)),
        Progress::Behind,
        "three listed"
    );
    let part = with(plain(20), |edge| edge.parts = 2);
    assert_eq!(judged(&part, &plain(20)), Progress::Behind);
    // Another packager counts discontinuities on its own; the names show that it is the same
    // stream.
    let other = with(plain(19), |edge| edge.discontinuity = 7);
    assert_eq!(judged(&plain(20), &other), Progress::Behind);
}

#[test]
fn a_restart_is_seen_by_number_name_or_discontinuity() {
    assert_eq!(judged(&plain(5000), &plain(3)), Progress::Restarted);
    let now = Instant::now();
    let mut track = Timeline::new(&plain(19), PERIOD, now);
    let renamed = window(15, |number| number + 1000);
    assert_eq!(
        track.judge(&renamed, now),
        Progress::Behind,
        "names may be signed"
    );
    track.record(&plain(20), Progress::Onward, now);
    assert_eq!(track.judge(&renamed, now), Progress::Restarted);
    let discontinued = with(window(10, |number| number), |edge| {
        edge.discontinuity = 1;
        edge.names = Box::default();
    });
    assert_eq!(judged(&plain(20), &discontinued), Progress::Restarted);
}

#[test]
fn the_clock_tells_a_dead_origin_from_a_restarted_packager() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let held = with(plain(5000), |edge| edge.ends = Some(at(20_000)));
    let dead = with(plain(300), |edge| edge.ends = Some(at(1_200)));
    let anew = with(plain(3), |edge| edge.ends = Some(at(20_004)));
    assert_eq!(judged(&held, &dead), Progress::Behind);
    assert_eq!(judged(&held, &anew), Progress::Restarted);
}

#[test]
fn a_restart_is_accepted_once() {
    let now = Instant::now();
    let mut track = Timeline::new(&plain(5000), PERIOD, now);
    let anew = window(3, |number| number + 7000);
    assert_eq!(track.judge(&anew, now), Progress::Restarted);
    track.record(&anew, Progress::Restarted, now);
    assert_eq!(
        track.judge(&plain(5001), now),
        Progress::Behind,
        "the old generation"
    );
    assert_eq!(track.judge(&plain(4999), now), Progress::Behind);
    let next = window(4, |number| number + 7000);
    assert_eq!(track.judge(&next, now), Progress::Onward);
}

#[test]
fn when_nothing_goes_on_for_long_whatever_is_there_is_taken() {
    let now = Instant::now();
    let track = Timeline::new(&plain(4), PERIOD, now);
    // A restart with the same names: it looks the same as a lagging origin.
    assert_eq!(track.judge(&plain(1), now + 3 * PERIOD), Progress::Behind);
    let late = now + 3 * PERIOD + Duration::from_millis(1);
    assert!(track.stalled(late));
    assert_eq!(track.judge(&plain(1), late), Progress::Restarted);
}

#[test]
fn an_mpd_goes_by_its_own_clock() {
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mpd = |published, began| ManifestInfo {
        edge: None,
        published: at(published),
        began: at(began),
        ..plain(0)
    };
    assert_eq!(judged(&mpd(100, 1), &mpd(99, 1)), Progress::Behind);
    assert_eq!(judged(&mpd(100, 1), &mpd(104, 1)), Progress::Onward);
    assert_eq!(judged(&mpd(100, 1), &mpd(104, 90)), Progress::Restarted);
}

#[test]
fn the_generation_that_was_left_is_better_than_one_that_stands_still() {
    let now = Instant::now();
    let mut track = Timeline::new(&plain(5000), PERIOD, now);
    let other = |last| window(last, |number| number + 7000);
    track.record(&other(300), Progress::Restarted, now);
    let late = now + 4 * PERIOD;
    assert_eq!(track.judge(&plain(5001), now), Progress::Behind);
    assert_eq!(track.judge(&plain(5004), late), Progress::Restarted);
    assert_eq!(
        track.judge(&plain(5000), late),
        Progress::Behind,
        "that stands still as well"
    );
}

#[test]
fn one_that_lists_nothing_is_no_progress_and_forgets_nothing() {
    let now = Instant::now();
    let nothing = ManifestInfo {
        edge: None,
        ..plain(0)
    };
    let mut track = Timeline::new(&plain(5000), PERIOD, now);
    assert_eq!(track.judge(&nothing, now), Progress::Behind);
    let late = now + 4 * PERIOD;
    assert_eq!(track.judge(&nothing, late), Progress::Restarted);
    let ended = ManifestInfo {
        liveness: Liveness::Ended,
        ..nothing
    };
    assert_eq!(track.judge(&ended, now), Progress::Onward);
    track.record(&ended, Progress::Onward, now);
    assert_eq!(track.judge(&plain(4995), now), Progress::Behind);
    assert_eq!(track.judge(&plain(5), now), Progress::Restarted);
}

/// The same numbers with other times are other segments, unless there is a new discontinuity.
#[test]
fn numbers_that_come_again_a_day_later_are_a_restart() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let ends = |last, seconds| with(plain(last), |edge| edge.ends = Some(at(seconds)));
    let day = 86_400;
    assert_eq!(judged(&ends(10, 40), &ends(12, 48)), Progress::Onward);
    assert_eq!(
        judged(&ends(10, 40), &ends(12, 48 + day)),
        Progress::Restarted
    );
    assert_eq!(judged(&ends(10, 40), &ends(2, 8 + 60)), Progress::Restarted);
    assert_eq!(judged(&ends(10, 40), &ends(9, 36)), Progress::Behind);
    // A lagging origin with segments shorter than their maximum.
    assert_eq!(judged(&ends(40, 240), &ends(31, 239)), Progress::Behind);
    let gap = with(ends(12, 48 + day), |edge| edge.discontinuity = 1);
    assert_eq!(judged(&ends(10, 40), &gap), Progress::Onward);
    let far = ends(30, 120 + day);
    assert_eq!(
        judged(&ends(10, 40), &far),
        Progress::Onward,
        "after an outage"
    );
}

#[test]
fn a_discontinuity_of_yesterday_is_no_restart() {
    let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let held = with(plain(5000), |edge| edge.ends = Some(at(20_000)));
    let dead = with(plain(4980), |edge| {
        (edge.ends, edge.discontinuity) = (Some(at(19_920)), 3);
    });
    assert_eq!(judged(&held, &dead), Progress::Behind);
}

/// Timelines with different starts are not comparable.
#[test]
fn mpds_of_two_packagers_do_not_take_turns() {
    let now = Instant::now();
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mpd = |began: u64, clock: u64| ManifestInfo {
        published: at(clock),
        began: at(began),
        ..with(plain(0), |edge| {
            (edge.numbered, edge.names) = (false, Box::default());
            edge.last = (clock - began) * 1000;
        })
    };
    let (first, second) = (1000, 1060);
    let mut track = Timeline::new(&mpd(first, 2000), PERIOD, now);
    assert_eq!(track.judge(&mpd(second, 2000), now), Progress::Restarted);
    track.record(&mpd(second, 2000), Progress::Restarted, now);
    for clock in (2002..2400).step_by(2) {
        assert_eq!(track.judge(&mpd(first, clock), now), Progress::Behind);
        let next = mpd(second, clock);
        assert_eq!(track.judge(&next, now), Progress::Onward);
        track.record(&next, Progress::Onward, now);
    }
    let dead = mpd(500, 1500);
    assert_eq!(track.judge(&dead, now), Progress::Behind, "long dead");
}

fn mpd(published: u64, (period, last): (u64, u64), tracks: u64) -> ManifestInfo {
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    ManifestInfo {
        published: at(published),
        began: at(1),
        edge: Some(LiveEdge {
            last,
            period,
            tracks,
            furthest: last,
            ..LiveEdge::default()
        }),
        ..plain(0)
    }
}

/// Many packagers write the time of the request as `publishTime`.
#[test]
fn a_newer_publish_time_excuses_no_shorter_timeline() {
    let held = mpd(10, (0, 40_000), 2);
    let next = |last| judged(&held, &mpd(12, (0, last), 2));
    assert_eq!(next(39_980), Progress::Behind);
    assert_eq!(next(28_000), Progress::Behind);
    assert_eq!(next(44_000), Progress::Onward);
    let nothing = ManifestInfo {
        edge: None,
        ..mpd(12, (0, 0), 2)
    };
    assert_eq!(judged(&held, &nothing), Progress::Behind);
}

/// A new representation may end a little before the others did.
#[test]
fn an_mpd_with_a_new_representation_may_end_a_little_earlier() {
    let held = mpd(10, (0, 40_000), 2);
    let joined = |last, furthest| with(mpd(12, (0, last), 3), |edge| edge.furthest = furthest);
    assert_eq!(judged(&held, &joined(39_980, 40_000)), Progress::Onward);
    assert_eq!(judged(&held, &joined(39_980, 39_980)), Progress::Behind);
    assert_eq!(judged(&held, &joined(30_000, 40_000)), Progress::Behind);
}

/// A period that listed a whole advertisement may be cut short.
#[test]
fn an_advertisement_that_is_cut_short_is_no_lag_and_no_restart() {
    let advertisement = mpd(10, (100_000, 130_000), 2);
    let back = mpd(12, (115_000, 119_000), 2);
    assert_eq!(judged(&advertisement, &back), Progress::Onward);
    assert_eq!(judged(&back, &advertisement), Progress::Behind, "a twin");
    // Redundant packagers do not begin periods at exactly the same time.
    let twin = mpd(12, (100_040, 126_000), 2);
    assert_eq!(judged(&advertisement, &twin), Progress::Behind);
    assert_eq!(
        judged(&back, &mpd(13, (114_960, 123_000), 2)),
        Progress::Onward
    );
}

/// Signed names differ in each version, also in those of a lagging node.
#[test]
fn names_that_are_signed_anew_are_no_restart() {
    let now = Instant::now();
    let signed = |last: u64, salt: u64| window(last, move |number| number * 1000 + salt);
    let mut track = Timeline::new(&signed(20, 1), PERIOD, now);
    for (last, salt) in [(21, 2), (21, 3), (22, 4)] {
        let next = signed(last, salt);
        let progress = track.judge(&next, now);
        assert!(matches!(progress, Progress::Onward | Progress::Same));
        track.record(&next, progress, now);
        let lag = signed(last - 2, salt + 100);
        assert_eq!(track.judge(&lag, now), Progress::Behind, "{last}");
    }
    // If names are numbered, the first version already decides.
    let counted = |last, salt| with(signed(last, salt), |edge| edge.numbering = Some(0));
    assert_eq!(judged(&counted(20, 1), &counted(19, 2)), Progress::Behind);
}

/// The manifest was not polled, and a restarted packager has reached just past the old end.
#[test]
fn a_long_silence_and_few_new_segments_are_a_restart() {
    let now = Instant::now();
    let track = Timeline::new(&plain(20), PERIOD, now);
    let judged = |facts: &ManifestInfo, periods: u32| track.judge(facts, now + periods * PERIOD);
    assert_eq!(judged(&plain(22), 6), Progress::Onward);
    assert_eq!(judged(&plain(22), 12), Progress::Restarted);
    assert_eq!(judged(&plain(120), 100), Progress::Onward, "nobody watched");
    let gap = with(plain(22), |edge| edge.discontinuity = 1);
    assert_eq!(
        judged(&gap, 12),
        Progress::Onward,
        "it says that it stood still"
    );
    let mut heard = track.clone();
    heard.record_response(now + 11 * PERIOD);
    assert_eq!(
        heard.judge(&plain(22), now + 12 * PERIOD),
        Progress::Onward,
        "it stood still and was seen to"
    );
}

/// While the clocks show a lag, an origin may catch up.
#[test]
fn who_lags_by_more_than_the_patience_is_no_restart() {
    let now = Instant::now();
    let at = |last: u64| SystemTime::UNIX_EPOCH + Duration::from_secs(4 * last);
    let dated = |last| with(plain(last), |edge| edge.ends = Some(at(last)));
    let track = Timeline::new(&dated(20), PERIOD, now);
    assert_eq!(track.judge(&dated(14), now + 8 * PERIOD), Progress::Behind);
    assert_eq!(
        track.judge(&dated(14), now + 10 * PERIOD),
        Progress::Restarted,
        "it should have caught up"
    );
}

/// A delta update does not list the discontinuities that it skips. A lagging origin that lists all
/// of them has not restarted.
#[test]
fn a_delta_update_forgets_no_discontinuity() {
    let now = Instant::now();
    let discontinued = |last| with(plain(last), |edge| edge.discontinuity = 2);
    let mut track = Timeline::new(&discontinued(20), PERIOD, now);
    let delta = with(plain(40), |edge| {
        (edge.first, edge.skipped) = (25, 6);
        edge.discontinuity = 0;
    });
    track.record(&delta, Progress::Onward, now);
    assert_eq!(track.judge(&discontinued(28), now), Progress::Behind);
}
