//! Decides how the next version of a low-latency playlist is requested. A server that supports
//! blocking reload (LL-HLS) delays its response until the version exists: one request per version,
//! without delay. If that fails, the playlist is polled like any other.

use std::time::{Duration, Instant};

use seawall_manifest::ManifestInfo;
use seawall_manifest::low_latency::ReloadDirectives;

/// The next poll of a manifest.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum PlannedPoll {
    /// A plain request for the newest version, at this moment.
    Plain(Instant),
    /// A blocking request for a certain version, from this moment on.
    Blocking(Instant, ReloadDirectives),
}

impl PlannedPoll {
    /// When the poll is sent.
    pub(crate) fn at(&self) -> Instant {
        match self {
            PlannedPoll::Plain(at) | PlannedPoll::Blocking(at, _) => *at,
        }
    }
}

/// How the newest stored version of a playlist relates to the version that a request names.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ReloadStatus {
    /// It contains the requested version, so it is the answer.
    HasVersion,
    /// The directives have no effect: the current playlist is the answer.
    NoEffect,
    /// It does not contain the requested version yet, or this is unknown.
    LacksVersion,
}

impl ReloadStatus {
    /// `newest`: the newest stored version; `None`: it is no media playlist.
    pub(crate) fn of(newest: Option<&ManifestInfo>, requested: ReloadDirectives) -> ReloadStatus {
        let Some(newest) = newest else {
            return ReloadStatus::LacksVersion;
        };
        if !newest.is_live() {
            return ReloadStatus::NoEffect;
        }
        let (Some(msn), Some(edge)) = (requested.msn, newest.playlist_edge()) else {
            return ReloadStatus::LacksVersion;
        };
        if !newest.can_block_reload() {
            return ReloadStatus::NoEffect;
        }
        // A delta update that the shield does not make must come from the origin.
        if requested.skip.is_some() || !edge.has(msn, requested.part) {
            return ReloadStatus::LacksVersion;
        }
        ReloadStatus::HasVersion
    }
}

/// Is the requested version farther ahead of the newest version than a server blocks for?
pub(crate) fn is_too_far(newest: &ManifestInfo, requested: ReloadDirectives) -> bool {
    let (Some(msn), Some(edge)) = (requested.msn, newest.playlist_edge()) else {
        return false;
    };
    edge.is_too_far(msn)
}

/// After a blocking request without a new version, no further one is sent for this many intervals.
const FAILED_INTERVALS: u32 = 6;

/// A version this many parts late is requested from another endpoint too: a player as close to the
/// edge as the server permits (`PART-HOLD-BACK`) has three parts buffered.
const LATE_PARTS: u32 = 2;
/// A server blocks for segments at most this far ahead.
const SEGMENTS_AHEAD_MAX: u64 = 2;
/// Without parts, players have three segments buffered: a version is late after 1/n of a segment.
const LATE_SHARE: u32 = 2;

/// The blocking-reload state of one playlist.
#[derive(Debug, Default)]
pub(super) struct BlockingReload {
    /// The directives that request the next version; `None`: the server does not block.
    next_version: Option<ReloadDirectives>,
    /// The interval between versions (part or segment duration), and the segment duration.
    version_interval: Duration,
    segment_duration: Duration,
    last_request: Option<Instant>,
    failed_until: Option<Instant>,
}

impl BlockingReload {
    /// Updates the state from a version.
    pub(super) fn update(&mut self, info: &ManifestInfo) {
        let blocks = info.can_block_reload() && info.is_live();
        let edge = info.playlist_edge().filter(|_| blocks);
        self.next_version = edge.map(|edge| ReloadDirectives {
            msn: Some(edge.last_sequence.saturating_add(1)),
            part: info.part_target().map(|_| edge.next_segment_parts),
            skip: None,
        });
        self.segment_duration = info.stated_reload_interval().unwrap_or_default();
        self.version_interval = info.part_target().unwrap_or(self.segment_duration);
    }

    /// The next poll, if it is a blocking one.
    pub(super) fn next_poll(&self, now: Instant) -> Option<PlannedPoll> {
        if self.failed_until.is_some_and(|until| now < until) {
            return None;
        }
        // A server that responds early gets no request more often than this.
        let gap = self.version_interval / 2;
        let from = self.last_request.map_or(now, |last| now.max(last + gap));
        self.next_version
            .map(|next| PlannedPoll::Blocking(from, next))
    }

    /// The wait after which a blocking request is overdue. `since`: the age of the newest version.
    /// Without directives the request is for an announced object, which comes with the next
    /// version.
    pub(super) fn overdue_after(
        &self,
        requested: ReloadDirectives,
        since: Duration,
    ) -> Option<Duration> {
        let next = self.next_version?;
        let requested = match requested.msn {
            Some(_) => requested,
            None => next,
        };
        let late = if self.version_interval < self.segment_duration {
            self.version_interval * LATE_PARTS
        } else {
            self.segment_duration / LATE_SHARE
        };
        let due = self.time_between_newest_and(requested, next);
        Some(due.saturating_sub(since) + late)
    }

    /// The time from the newest version to the requested one, if the server is in time. `next`: the
    /// version after the newest.
    fn time_between_newest_and(
        &self,
        requested: ReloadDirectives,
        next: ReloadDirectives,
    ) -> Duration {
        let segments = distance(requested.msn, next.msn);
        match requested.part {
            Some(_) if segments == 0 => {
                self.version_interval * (distance(requested.part, next.part) + 1)
            }
            Some(_) => {
                let parts = distance(requested.part, None) + 1;
                self.segment_duration * segments + self.version_interval * parts
            }
            None => self.segment_duration * (segments + 1),
        }
    }

    /// Does the request ask for a future version that the server will block for?
    pub(super) fn will_block_for(&self, requested: ReloadDirectives) -> bool {
        let Some((next, msn)) = self.next_version.zip(requested.msn) else {
            return false;
        };
        match msn.checked_sub(next.msn.unwrap_or_default()) {
            Some(0) => requested.part.is_none_or(|part| Some(part) >= next.part),
            Some(segments) => segments < SEGMENTS_AHEAD_MAX,
            None => false,
        }
    }

    /// Records a blocking request.
    pub(super) fn record_request(&mut self, now: Instant) {
        self.last_request = Some(now);
    }

    /// Records a blocking request that brought no new version.
    pub(super) fn record_failure(&mut self, now: Instant) {
        self.failed_until = Some(now + self.version_interval * FAILED_INTERVALS);
    }
}

/// By how much one number is greater than another, up to a limit far above what a server blocks
/// for. An absent number counts as zero.
fn distance(number: Option<u64>, other: Option<u64>) -> u32 {
    const DISTANCE_MAX: u64 = 64;
    let distance = number
        .unwrap_or_default()
        .saturating_sub(other.unwrap_or_default());
    u32::try_from(distance.min(DISTANCE_MAX)).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use seawall_manifest::{Kind, read_manifest};

    const SECOND: Duration = Duration::from_secs(1);

    fn playlist(control: &str, end: &str) -> ManifestInfo {
        read(&playlist_text(control, end))
    }

    fn playlist_text(control: &str, end: &str) -> String {
        format!(
            "#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-SERVER-CONTROL:{control}\n\
             #EXT-X-PART-INF:PART-TARGET=1\n#EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:4,\n7.mp4\n\
             #EXT-X-PART:DURATION=1,URI=\"8.0.mp4\"\n{end}"
        )
    }

    fn read(text: &str) -> ManifestInfo {
        read_manifest(Kind::Hls, text.as_bytes()).unwrap().info
    }

    fn after(info: &ManifestInfo) -> BlockingReload {
        let mut blocking = BlockingReload::default();
        blocking.update(info);
        blocking
    }

    #[test]
    fn blocking_requests_are_spaced_by_half_a_part() {
        let (now, next) = (
            Instant::now(),
            ReloadDirectives::of("_HLS_msn=8&_HLS_part=1").unwrap(),
        );
        let mut blocking = after(&playlist("CAN-BLOCK-RELOAD=YES", ""));
        assert_eq!(
            blocking.next_poll(now),
            Some(PlannedPoll::Blocking(now, next))
        );
        blocking.record_request(now);
        let from = now + SECOND / 2;
        assert_eq!(
            blocking.next_poll(now),
            Some(PlannedPoll::Blocking(from, next))
        );
        assert_eq!(
            blocking.next_poll(now + SECOND),
            Some(PlannedPoll::Blocking(now + SECOND, next))
        );
    }

    #[test]
    fn no_blocking_request_if_unsupported_or_ended() {
        let now = Instant::now();
        assert_eq!(after(&playlist("HOLD-BACK=12", "")).next_poll(now), None);
        let ended = playlist("CAN-BLOCK-RELOAD=YES", "#EXT-X-ENDLIST\n");
        assert_eq!(after(&ended).next_poll(now), None);
    }

    #[test]
    fn blocking_request_is_overdue_two_parts_after_it_is_due() {
        let requested = |query| ReloadDirectives::of(query).unwrap();
        let blocking = after(&playlist("CAN-BLOCK-RELOAD=YES", ""));
        let overdue_after = |query, since| blocking.overdue_after(requested(query), since);
        for (query, due) in [
            ("_HLS_msn=8&_HLS_part=1", 1),
            ("", 1),
            ("_HLS_msn=8&_HLS_part=3", 3),
            ("_HLS_msn=8", 4),
            ("_HLS_msn=9&_HLS_part=0", 5),
            ("_HLS_msn=9", 8),
        ] {
            assert_eq!(
                overdue_after(query, Duration::ZERO),
                Some((due + 2) * SECOND),
                "{query}"
            );
        }
        assert_eq!(overdue_after("", SECOND / 2), Some(SECOND * 5 / 2));
        assert_eq!(overdue_after("", 60 * SECOND), Some(2 * SECOND));
        let text = playlist_text("CAN-BLOCK-RELOAD=YES", "");
        let whole = read(&text.replace("PART-TARGET=1", ""));
        assert_eq!(
            after(&whole).overdue_after(requested("_HLS_msn=8"), SECOND),
            Some(5 * SECOND)
        );
        assert_eq!(
            after(&playlist("", "")).overdue_after(requested("_HLS_msn=8"), SECOND),
            None
        );
    }

    #[test]
    fn server_blocks_only_for_versions_just_after_the_live_edge() {
        let blocking = after(&playlist("CAN-BLOCK-RELOAD=YES", ""));
        for (query, is_next) in [
            ("_HLS_msn=8&_HLS_part=1", true),
            ("_HLS_msn=8", true),
            ("_HLS_msn=9&_HLS_part=0", true),
            ("_HLS_msn=8&_HLS_part=0", false),
            ("_HLS_msn=7&_HLS_part=3", false),
            ("_HLS_msn=10", false),
            ("", false),
        ] {
            assert_eq!(
                blocking.will_block_for(ReloadDirectives::of(query).unwrap()),
                is_next,
                "{query}"
            );
        }
        let requested = ReloadDirectives::of("_HLS_msn=8&_HLS_part=1").unwrap();
        assert!(!after(&playlist("", "")).will_block_for(requested));
    }

    #[test]
    fn blocking_reload_pauses_after_a_failure() {
        let now = Instant::now();
        let mut blocking = after(&playlist("CAN-BLOCK-RELOAD=YES", ""));
        blocking.record_failure(now);
        assert_eq!(blocking.next_poll(now + 5 * SECOND), None);
        assert!(blocking.next_poll(now + 6 * SECOND).is_some());
    }
}
