//! Faults of an origin, and their effect on its content. Most faults are errors of time: an origin
//! that is late, stalled or behind shows the content of another time.

use std::sync::Arc;
use std::time::Duration;

use super::broadcast::Broadcast;
use super::media_assets::DemoRendition;
use super::utc::Utc;

/// The active faults. By default there are none.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Faults {
    /// Everything is published this much later than it was made.
    pub late: Duration,
    /// Manifests have not changed since this time; media continue.
    pub stalled: Option<Utc>,
    /// Manifests have gone back by this many segments.
    pub back: u64,
    /// Media bodies end at half of the announced length, and close the connection.
    pub cut_media: bool,
    /// Manifests end at half of their length, without an error.
    pub cut_manifests: bool,
    /// Media cannot be found for this long after manifests list them.
    pub missing: Duration,
    /// Percentage of requests that are answered with 503.
    pub refused_percent: u8,
    /// Delay before the first byte of a response.
    pub slow: Duration,
    /// The faults apply to this rendition only; otherwise to all, and to objects of no rendition.
    pub only: Option<DemoRendition>,
}

/// What an origin shows: a stream and its faults.
#[derive(Clone, Debug)]
pub(super) struct OriginScene {
    pub(super) broadcast: Arc<Broadcast>,
    pub(super) faults: Faults,
    /// How many segments this origin is behind its twin.
    pub(super) lag: u64,
}

/// The stream as one request sees it.
#[derive(Clone, Debug)]
pub(super) struct StreamView {
    pub(super) broadcast: Arc<Broadcast>,
    /// The faults for this request.
    pub(super) faults: Faults,
    /// The time whose manifests are shown.
    pub(super) listing_time: Utc,
    /// The time whose media are available.
    pub(super) media_time: Utc,
    listing_behind: Duration,
    making_behind: Duration,
}

impl OriginScene {
    pub(super) fn view(&self, rendition: Option<DemoRendition>, now: Utc) -> StreamView {
        let concerned = self.faults.only.is_none_or(|only| rendition == Some(only));
        let faults = if concerned {
            self.faults.clone()
        } else {
            Faults::default()
        };
        let segment = self.broadcast.segment_duration();
        let segments = |count: u64| segment * u32::try_from(count).unwrap_or(u32::MAX);
        let behind = faults.late + segments(self.lag);
        let listing_behind = behind + segments(faults.back);
        let making_behind = behind + faults.missing;
        let shown = faults.stalled.map_or(now, |stalled| now.min(stalled));
        StreamView {
            broadcast: self.broadcast.clone(),
            listing_time: shown.saturating_sub(listing_behind),
            media_time: now.saturating_sub(making_behind),
            listing_behind,
            making_behind,
            faults,
        }
    }
}

impl StreamView {
    /// When the manifest of this time is shown; `None` if manifests have stalled before.
    pub(super) fn listed_at(&self, moment: Utc) -> Option<Utc> {
        let shown = moment.saturating_add(self.listing_behind);
        let stands = self.faults.stalled.is_some_and(|stalled| stalled < shown);
        (!stands).then_some(shown)
    }

    /// When media that were made at this time are available.
    pub(super) fn made_at(&self, moment: Utc) -> Utc {
        moment.saturating_add(self.making_behind)
    }
}

#[cfg(test)]
mod tests {
    use super::super::broadcast::BroadcastPlan;
    use super::*;

    const START: Utc = Duration::from_secs(1_750_000_000);

    fn at(seconds: u64) -> Utc {
        START + Duration::from_secs(seconds)
    }

    fn view(faults: Faults, lag: u64) -> StreamView {
        let scene = OriginScene {
            broadcast: Arc::new(Broadcast::new(BroadcastPlan::from(START))),
            faults,
            lag,
        };
        scene.view(Some(DemoRendition::Low), at(60))
    }

    #[test]
    fn time_faults_shift_the_listing() {
        let shown = |faults, lag| {
            let view = view(faults, lag);
            (
                view.listing_time.abs_diff(START),
                view.media_time.abs_diff(START),
            )
        };
        let seconds = |listing, making| (Duration::from_secs(listing), Duration::from_secs(making));
        let right = Faults::default();
        assert_eq!(shown(right.clone(), 0), seconds(60, 60));
        assert_eq!(shown(right.clone(), 3), seconds(54, 54));
        let late = Faults {
            late: Duration::from_secs(5),
            ..right.clone()
        };
        assert_eq!(shown(late, 1), seconds(53, 53));
        let stalled = Faults {
            stalled: Some(at(50)),
            ..right.clone()
        };
        assert_eq!(shown(stalled, 0), seconds(50, 60));
        let back = Faults {
            back: 2,
            ..right.clone()
        };
        assert_eq!(shown(back, 0), seconds(56, 60));
        let missing = Faults {
            missing: Duration::from_secs(3),
            ..right
        };
        assert_eq!(shown(missing, 0), seconds(60, 57));
    }

    #[test]
    fn fault_of_one_rendition_affects_no_other() {
        let faults = |only| Faults {
            back: 2,
            only: Some(only),
            ..Faults::default()
        };
        assert_eq!(view(faults(DemoRendition::Low), 0).listing_time, at(56));
        assert_eq!(view(faults(DemoRendition::High), 0).listing_time, at(60));
    }

    #[test]
    fn reports_when_a_version_will_be_listed() {
        let late = Faults {
            late: Duration::from_secs(5),
            ..Faults::default()
        };
        assert_eq!(view(late.clone(), 0).listed_at(at(60)), Some(at(65)));
        assert_eq!(view(late.clone(), 0).made_at(at(60)), at(65));
        let stalled = Faults {
            stalled: Some(at(62)),
            ..late
        };
        assert_eq!(view(stalled.clone(), 0).listed_at(at(57)), Some(at(62)));
        assert_eq!(view(stalled, 0).listed_at(at(58)), None);
    }
}
