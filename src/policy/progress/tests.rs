//! Versions that go on, lag or begin anew, each judged by what went before.

use super::*;
use crate::media::{Control, Liveness};

const PERIOD: Duration = Duration::from_secs(4);

/// An HLS window of ten segments that ends with this number, named by `name`.
fn window(last: u64, name: impl Fn(u64) -> u64) -> Facts {
    let first = last.saturating_sub(9);
    facts(Edge {
        numbered: true,
        skipped: 0,
        last_parts: 0,
        first,
        last,
        parts: 0,
        discontinuity: 0,
        names: (first..=last).map(name).collect(),
        ends: None,
    })
}

fn facts(edge: Edge) -> Facts {
    Facts {
        liveness: Liveness::Live,
        target_duration: Some(PERIOD),
        part_target: None,
        segment: Some(PERIOD),
        multivariant: false,
        edge: Some(edge),
        published: None,
        began: None,
        patch: None,
        control: Control::default(),
    }
}

/// Segments are called by their numbers.
fn plain(last: u64) -> Facts {
    window(last, |number| number)
}

fn judged(old: &Facts, new: &Facts) -> Progress {
    let now = Instant::now();
    Track::new(old, PERIOD, now).judge(new, now)
}

fn with(mut facts: Facts, change: impl FnOnce(&mut Edge)) -> Facts {
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
    let part = with(plain(20), |edge| edge.parts = 2);
    assert_eq!(judged(&part, &plain(20)), Progress::Behind);
    // Another pipeline counts its discontinuities on its own; the names say that it is the same stream.
    let other = with(plain(19), |edge| edge.discontinuity = 7);
    assert_eq!(judged(&plain(20), &other), Progress::Behind);
}

#[test]
fn a_restart_is_seen_by_number_name_or_discontinuity() {
    assert_eq!(judged(&plain(5000), &plain(3)), Progress::Restarted);
    let renamed = window(21, |number| number + 1000);
    assert_eq!(judged(&plain(20), &renamed), Progress::Restarted);
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
    let mut track = Track::new(&plain(5000), PERIOD, now);
    let anew = window(3, |number| number + 7000);
    assert_eq!(track.judge(&anew, now), Progress::Restarted);
    track.take(&anew, Progress::Restarted, now);
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
    let track = Track::new(&plain(4), PERIOD, now);
    // Restarted with the same names: no text can tell this from an origin that lags.
    assert_eq!(track.judge(&plain(1), now + 3 * PERIOD), Progress::Behind);
    let late = now + 3 * PERIOD + Duration::from_millis(1);
    assert!(track.stalled(late));
    assert_eq!(track.judge(&plain(1), late), Progress::Restarted);
}

#[test]
fn an_mpd_goes_by_its_own_clock() {
    let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
    let mpd = |published, began| Facts {
        edge: None,
        published: at(published),
        began: at(began),
        ..plain(0)
    };
    assert_eq!(judged(&mpd(100, 1), &mpd(99, 1)), Progress::Behind);
    assert_eq!(judged(&mpd(100, 1), &mpd(104, 1)), Progress::Onward);
    assert_eq!(judged(&mpd(100, 1), &mpd(104, 90)), Progress::Restarted);
}

/// A delta update does not list the discontinuities that it leaves out. An origin that lags behind
/// it and sends them all has not begun anew.
#[test]
fn a_delta_update_forgets_no_discontinuity() {
    let now = Instant::now();
    let discontinued = |last| with(plain(last), |edge| edge.discontinuity = 2);
    let mut track = Track::new(&discontinued(20), PERIOD, now);
    let delta = with(plain(40), |edge| {
        (edge.first, edge.skipped) = (25, 6);
        edge.discontinuity = 0;
    });
    track.take(&delta, Progress::Onward, now);
    assert_eq!(track.judge(&discontinued(28), now), Progress::Behind);
}
