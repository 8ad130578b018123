//! The decision table, one line per row.

use super::*;

/// A timeline, and the time since its last version in reload intervals.
struct Seen {
    timeline: ManifestHistory,
    start: Instant,
    intervals: u32,
}

/// This version, which begins the timeline.
fn seen(version: impl Into<ManifestInfo>) -> Seen {
    let start = Instant::now();
    Seen {
        timeline: timeline(version, start),
        start,
        intervals: 0,
    }
}

impl Seen {
    fn then(mut self, version: impl Into<ManifestInfo>) -> Seen {
        self.timeline.records(version, Progress::Newer, self.start);
        self
    }

    fn restarted(mut self, version: impl Into<ManifestInfo>) -> Seen {
        self.timeline
            .records(version, Progress::Restarted, self.start);
        self
    }

    fn forgotten(mut self) -> Seen {
        self.timeline.forget();
        self
    }

    fn for_intervals(self, intervals: u32) -> Seen {
        Seen { intervals, ..self }
    }

    fn situation(&self, arrived: impl Into<ManifestInfo>) -> Situation {
        let now = self.start + self.intervals * INTERVAL;
        self.timeline.situation(&arrived.into(), now)
    }
}

/// A playlist of another packager, whose names differ.
fn other(last: u64) -> PlaylistInfo {
    window(last, |number| number + 7000)
}

fn discontinuity(last: u64) -> PlaylistInfo {
    with(other(last), |edge| edge.discontinuity_sequence = 1)
}

/// An MPD of one period, published at this second.
fn one_period(publish_seconds: u64, end_ms: u64) -> MpdInfo {
    mpd(publish_seconds, (0, end_ms), 2)
}

fn with_start(start_seconds: u64, mpd: MpdInfo) -> MpdInfo {
    MpdInfo {
        availability_start: Some(second(start_seconds)),
        ..mpd
    }
}

/// An MPD without clock.
fn undated(end_ms: u64) -> MpdInfo {
    MpdInfo {
        availability_start: None,
        publish_time: None,
        ..one_period(10, end_ms)
    }
}

fn empty_mpd() -> MpdInfo {
    MpdInfo {
        edge: None,
        ..one_period(12, 0)
    }
}

/// A third representation has joined; it ends at `end_ms`, and the longest at `longest_end_ms`.
fn joined(end_ms: u64, longest_end_ms: u64) -> MpdInfo {
    let mut mpd = mpd(12, (0, end_ms), 3);
    mpd.edge.as_mut().expect("lists segments").longest_end_ms = longest_end_ms;
    mpd
}

macro_rules! assert_rows {
    ($($seen:expr; $arrived:expr => $situation:ident, $progress:ident;)*) => {$({
        let situation = $seen.situation($arrived);
        let expected = (Situation::$situation, Progress::$progress);
        assert_eq!((situation, situation.progress()), expected);
    })*};
}

#[test]
fn every_general_progress_rule_decides_its_case() {
    assert_rows! {
        seen(plain(20)).forgotten(); plain(3) => FirstVersion, Newer;
        seen(plain(20)); one_period(10, 40_000) => OtherFormat, Restarted;
        seen(with_start(9, one_period(10, 40_000))); one_period(9, 44_000) => EarlierStream, Behind;
        seen(one_period(10, 40_000)); with_start(9, one_period(12, 4_000)) => OtherStart, Restarted;
        seen(one_period(10, 40_000)); with_start(9, one_period(8, 4_000)) => OtherStart, Restarted;
        seen(one_period(10, 40_000)); one_period(9, 44_000) => PublishedEarlier, Behind;
        seen(plain(20)); nothing() => ListsNothing, Behind;
        seen(one_period(10, 40_000)); empty_mpd() => ListsNothing, Behind;
        seen(nothing()); plain(3) => NothingToCompare, Newer;
        seen(empty_mpd()); one_period(12, 4_000) => NothingToCompare, Newer;
    }
}

#[test]
fn every_playlist_progress_rule_decides_its_case() {
    assert_rows! {
        seen(dated(10, 40)); dated(12, 9_000) => DatedTooLate, Restarted;
        seen(plain(20)); plain(21) => ReachesFurther, Newer;
        seen(plain(20)); plain(20) => ReachesAsFar, Same;
        seen(plain(20)); plain(19) => SameNames, Behind;
        seen(dated(5000, 20_000)); dated(300, 1_200) => DatedNoLater, Behind;
        seen(plain(20)); discontinuity(15) => NewDiscontinuity, Restarted;
        seen(plain(20)); discontinuity(3) => NewDiscontinuity, Restarted;
        seen(plain(19)).then(plain(20)); other(15) => OtherNames, Restarted;
        seen(plain(20)); plain(4) => EndsLongBefore, Restarted;
        seen(plain(20)); plain(5) => Lags, Behind;
        seen(plain(20)); other(15) => Lags, Behind;
    }
}

#[test]
fn every_mpd_progress_rule_decides_its_case() {
    assert_rows! {
        seen(mpd(10, (30_000, 40_000), 2)); one_period(12, 44_000) => EarlierPeriod, Behind;
        seen(one_period(10, 40_000)); one_period(12, 44_000) => ReachesFurther, Newer;
        seen(one_period(10, 40_000)); one_period(12, 40_000) => ReachesAsFar, Same;
        seen(one_period(10, 40_000)); mpd(12, (30_000, 36_000), 2) => PeriodCutShort, Newer;
        seen(one_period(10, 40_000)); joined(39_980, 40_000) => NewRepresentation, Newer;
        seen(one_period(10, 40_000)); joined(39_980, 39_980) => Lags, Behind;
        seen(one_period(10, 40_000)); joined(30_000, 40_000) => Lags, Behind;
        seen(one_period(10, 40_000)); one_period(12, 36_000) => Lags, Behind;
    }
}

#[test]
fn every_timeline_history_rule_decides_its_case() {
    let restarted = || seen(plain(5000)).restarted(other(300));
    assert_rows! {
        restarted().for_intervals(4); plain(5004) => PreviousContinues, Restarted;
        restarted(); plain(5001) => OfPrevious, Behind;
        seen(plain(4)).for_intervals(4); plain(1) => TimelineOver, Restarted;
        seen(plain(20)).for_intervals(12); plain(22) => PassedOldEnd, Restarted;
        seen(undated(40_000)).for_intervals(12); undated(44_000) => PassedOldEnd, Restarted;
    }
}
