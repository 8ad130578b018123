//! Simulates a manifest that changes at set times: number of polls and delay.

use super::*;

const MS: Duration = Duration::from_millis(1);

/// The result of polling a simulated manifest by a cadence.
struct Run {
    /// Polls per version, without the first few versions.
    polls: f64,
    /// Mean delay until a version is found, as a share of the mean time between versions.
    late: f64,
}

fn run(changes: &[Duration], stated: Duration) -> Run {
    const LEARNING: usize = 5;
    let start = Instant::now();
    let mut cadence = Cadence::new(stated, start);
    let (mut seen, mut polls, mut late) = (0, 0_u32, Duration::ZERO);
    let version = |at: Instant| changes.partition_point(|change| start + *change <= at);
    while seen + 1 < changes.len() {
        let at = cadence.next();
        assert!(
            at > cadence.last_poll,
            "a poll must come after the last one"
        );
        let now = version(at);
        let counts = seen >= LEARNING;
        polls += u32::from(counts);
        if now == seen {
            cadence.unchanged(at);
            continue;
        }
        if counts {
            late += at - (start + changes[now - 1]);
        }
        cadence.changed(at, stated);
        seen = now;
    }
    let versions = f64::from(u32::try_from(seen - LEARNING).unwrap());
    Run {
        polls: f64::from(polls) / versions,
        late: late.as_secs_f64() / versions / stated.as_secs_f64(),
    }
}

/// A hundred versions, one per `period` from `phase` on, each delayed by `jitter`.
fn changes(interval: Duration, phase: Duration, jitter: impl Fn(u32) -> Duration) -> Vec<Duration> {
    let at = |number| phase + interval * number + jitter(number);
    (0..100).map(at).collect()
}

#[test]
fn steady_stream_needs_about_one_poll_per_version() {
    for (interval, phase) in [
        (4000, 10),
        (4000, 1234),
        (4000, 3990),
        (2000, 700),
        (6006, 5000),
    ] {
        let stated = interval * MS;
        let run = run(&changes(stated, phase * MS, |_| Duration::ZERO), stated);
        assert!(run.polls <= 1.2, "{interval} {phase}: {} polls", run.polls);
        assert!(run.late <= 0.03, "{interval} {phase}: {} late", run.late);
    }
}

#[test]
fn cadence_follows_packager_with_jitter() {
    let stated = 4000 * MS;
    let jitter = |number: u32| (number * 37 % 90) * MS;
    let run = run(&changes(stated, 900 * MS, jitter), stated);
    assert!(run.polls <= 1.8, "{} polls", run.polls);
    assert!(run.late <= 0.04, "{} late", run.late);
}

#[test]
fn cadence_follows_clock_drift_in_both_directions() {
    for interval in [3994, 4006] {
        let run = run(
            &changes(interval * MS, 500 * MS, |_| Duration::ZERO),
            4000 * MS,
        );
        assert!(run.polls <= 1.6, "{interval}: {} polls", run.polls);
        assert!(run.late <= 0.04, "{interval}: {} late", run.late);
    }
}

#[test]
fn polls_less_often_while_a_change_is_overdue() {
    let start = Instant::now();
    let mut cadence = Cadence::new(4000 * MS, start);
    let mut gaps = Vec::new();
    for _ in 0..20 {
        let at = cadence.next();
        gaps.push(at - cadence.last_poll);
        cadence.unchanged(at);
    }
    assert!(gaps[3..].is_sorted(), "{gaps:?}");
    assert_eq!(gaps.last(), Some(&(2000 * MS)));
}

#[test]
fn after_a_gap_next_poll_is_within_one_period() {
    let start = Instant::now();
    let mut cadence = Cadence::new(2000 * MS, start);
    let mut polled = start;
    while polled < start + 10_000 * MS {
        polled = cadence.next();
        cadence.unchanged(polled);
    }
    let found = cadence.next();
    cadence.changed(found, 2000 * MS);
    let next = cadence.next();
    assert!(next > found && next <= found + 2000 * MS);
}
