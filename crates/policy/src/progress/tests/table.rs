//! The decision table, one line per row.

use super::*;

/// A timeline, and the time since its last version in periods.
struct Shown {
    timeline: ManifestHistory,
    start: Instant,
    intervals: u32,
}

/// This version, which begins the timeline.
fn shown(version: impl Into<ManifestInfo>) -> Shown {
    let start = Instant::now();
    Shown {
        timeline: timeline(version, start),
        start,
        intervals: 0,
    }
}

impl Shown {
    fn then(mut self, version: impl Into<ManifestInfo>) -> Shown {
        self.timeline.records(version, Progress::Newer, self.start);
        self
    }

    fn restarted(mut self, version: impl Into<ManifestInfo>) -> Shown {
        self.timeline
            .records(version, Progress::Restarted, self.start);
        self
    }

    fn forgotten(mut self) -> Shown {
        self.timeline.forget();
        self
    }

    fn for_intervals(self, intervals: u32) -> Shown {
        Shown { intervals, ..self }
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
    ($($shown:expr; $arrived:expr => $situation:ident, $progress:ident;)*) => {$({
        let situation = $shown.situation($arrived);
        let expected = (Situation::$situation, Progress::$progress);
        assert_eq!((situation, situation.progress()), expected);
    })*};
}

#[test]
fn every_general_progress_rule_decides_its_case() {
    assert_rows! {
        shown(plain(20)).forgotten(); plain(3) => FirstVersion, Newer;
        shown(plain(20)); one_period(10, 40_000) => OtherFormat, Restarted;
        shown(with_start(9, one_period(10, 40_000))); one_period(9, 44_000) => EarlierStream, Behind;
        shown(one_period(10, 40_000)); with_start(9, one_period(12, 4_000)) => OtherStart, Restarted;
        shown(one_period(10, 40_000)); with_start(9, one_period(8, 4_000)) => OtherStart, Restarted;
        shown(one_period(10, 40_000)); one_period(9, 44_000) => PublishedEarlier, Behind;
        shown(plain(20)); nothing() => ListsNothing, Behind;
        shown(one_period(10, 40_000)); empty_mpd() => ListsNothing, Behind;
        shown(nothing()); plain(3) => NothingToCompare, Newer;
        shown(empty_mpd()); one_period(12, 4_000) => NothingToCompare, Newer;
    }
}

#[test]
fn every_playlist_progress_rule_decides_its_case() {
    assert_rows! {
        shown(dated(10, 40)); dated(12, 9_000) => DatedTooLate, Restarted;
        shown(plain(20)); plain(21) => ReachesFurther, Newer;
        shown(plain(20)); plain(20) => ReachesAsFar, Same;
        shown(plain(20)); plain(19) => SameNames, Behind;
        shown(dated(5000, 20_000)); dated(300, 1_200) => DatedNoLater, Behind;
        shown(plain(20)); discontinuity(15) => NewDiscontinuity, Restarted;
        shown(plain(20)); discontinuity(3) => NewDiscontinuity, Restarted;
        shown(plain(19)).then(plain(20)); other(15) => OtherNames, Restarted;
        shown(plain(20)); plain(4) => EndsLongBefore, Restarted;
        shown(plain(20)); plain(5) => Lags, Behind;
        shown(plain(20)); other(15) => Lags, Behind;
    }
}

#[test]
fn every_mpd_progress_rule_decides_its_case() {
    assert_rows! {
        shown(mpd(10, (30_000, 40_000), 2)); one_period(12, 44_000) => EarlierPeriod, Behind;
        shown(one_period(10, 40_000)); one_period(12, 44_000) => ReachesFurther, Newer;
        shown(one_period(10, 40_000)); one_period(12, 40_000) => ReachesAsFar, Same;
        shown(one_period(10, 40_000)); mpd(12, (30_000, 36_000), 2) => PeriodCutShort, Newer;
        shown(one_period(10, 40_000)); joined(39_980, 40_000) => NewRepresentation, Newer;
        shown(one_period(10, 40_000)); joined(39_980, 39_980) => Lags, Behind;
        shown(one_period(10, 40_000)); joined(30_000, 40_000) => Lags, Behind;
        shown(one_period(10, 40_000)); one_period(12, 36_000) => Lags, Behind;
    }
}

#[test]
fn every_timeline_history_rule_decides_its_case() {
    let restarted = || shown(plain(5000)).restarted(other(300));
    assert_rows! {
        restarted().for_intervals(4); plain(5004) => PreviousContinues, Restarted;
        restarted(); plain(5001) => OfPrevious, Behind;
        shown(plain(4)).for_intervals(4); plain(1) => TimelineOver, Restarted;
        shown(plain(20)).for_intervals(12); plain(22) => PassedOldEnd, Restarted;
        shown(undated(40_000)).for_intervals(12); undated(44_000) => PassedOldEnd, Restarted;
    }
}
