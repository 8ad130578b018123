//! Says when the segments of an MPD are available, and which of its representations viewers watch.
//! One MPD lists all representations, and names segments by number that no version of it lists.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::expected_segment::{BEFORE_MAX, ExpectedSegment, PrefetchInterest};
use seawall_manifest::{Listing, SegmentNaming};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Rules};

/// All segments farther behind the newest one than this count as this far behind.
const DISTANCE_MAX: u64 = 64;

/// The position of a segment that only the clock announces.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct ClockPosition {
    /// The index of the template that names it.
    pub(super) template_index: usize,
    /// Number of newer segments that are available; [`DISTANCE_MAX`] if there are more.
    pub(super) segments_from_edge: u64,
}

/// Segments that have left the window of a representation.
pub(super) struct DroppedSegments {
    /// The index of the template that names them.
    pub(super) template_index: usize,
    pub(super) keys: Vec<Key>,
}

/// The representations of an MPD whose segment names can be computed; each is identified by the
/// index of its template.
#[derive(Default)]
pub(super) struct Representations {
    templates: Vec<SegmentNaming>,
    /// When this version of the MPD was accepted.
    accepted_at: Option<SystemTime>,
    time_shift_depth: Option<Duration>,
}

impl Representations {
    pub(super) fn of(listing: &Listing, accepted_at: SystemTime) -> Representations {
        Representations {
            templates: listing.templates.clone(),
            accepted_at: Some(accepted_at),
            time_shift_depth: listing.time_shift_depth,
        }
    }

    /// Two segment names of each, from which their directories follow.
    pub(super) fn example_names(&self) -> impl Iterator<Item = String> {
        let names =
            |template: &SegmentNaming| [1, 2].map(|number_or_time| template.name(number_or_time));
        self.templates.iter().flat_map(names)
    }

    /// No representation has segment names that can be computed.
    pub(super) fn has_no_templates(&self) -> bool {
        self.templates.is_empty()
    }

    /// Is the object a segment of the MPD at `mpd` that is available now, by a timeline or by the
    /// clock?
    pub(super) fn has_available(
        &self,
        rules: &Rules,
        mpd: &CacheRequest,
        request: &CacheRequest,
        now: SystemTime,
    ) -> bool {
        self.templates.iter().any(|template| {
            let number_or_time = number_or_time_of(template, rules, mpd, request);
            let newest = template.newest(now);
            number_or_time
                .zip(newest)
                .is_some_and(|(number_or_time, newest)| number_or_time <= newest)
        })
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        self.templates.iter().map(SegmentNaming::weight_bytes).sum()
    }

    /// When a segment becomes available that the MPD at `mpd` names and does not list. A segment in
    /// a timeline is available, whatever the clock says: many packagers' clocks are slightly off.
    pub(super) fn available_at(
        &self,
        rules: &Rules,
        mpd: &CacheRequest,
        request: &CacheRequest,
        now: SystemTime,
    ) -> Option<SystemTime> {
        self.templates.iter().find_map(|template| {
            let number_or_time = number_or_time_of(template, rules, mpd, request)?;
            self.unlisted_available_at(template, number_or_time, now)
        })
    }

    /// When a segment of this template becomes available. `None`: a timeline lists it.
    fn unlisted_available_at(
        &self,
        template: &SegmentNaming,
        number_or_time: u64,
        now: SystemTime,
    ) -> Option<SystemTime> {
        let at = template.available_at(number_or_time)?;
        let last_listed = template.newest(now).filter(|_| !template.is_by_clock());
        let Some(last_listed) = last_listed else {
            return Some(at);
        };
        if number_or_time <= last_listed {
            return None;
        }
        let after = self.after_listed(template, last_listed, at);
        Some(after.map_or(at, |after| after.min(at)))
    }

    /// When a segment of the MPD at `mpd` ends, by a timeline or the clock.
    pub(super) fn ends_at(
        &self,
        rules: &Rules,
        mpd: &CacheRequest,
        request: &CacheRequest,
    ) -> Option<SystemTime> {
        let ends = self.templates.iter().filter_map(|template| {
            let number_or_time = number_or_time_of(template, rules, mpd, request)?;
            template.ends_at(number_or_time)
        });
        ends.max()
    }

    /// When a segment becomes available, counted from the last one that a timeline lists: that one
    /// was available when the version was accepted, even if the clock disagrees.
    fn after_listed(
        &self,
        template: &SegmentNaming,
        last_listed: u64,
        at: SystemTime,
    ) -> Option<SystemTime> {
        let after = at
            .duration_since(template.available_at(last_listed)?)
            .ok()?;
        self.accepted_at?.checked_add(after)
    }

    /// The position of a segment that only the clock announces. `None`: it is no such segment, or
    /// has left the window.
    pub(super) fn clock_position(
        &self,
        rules: &Rules,
        mpd: &CacheRequest,
        request: &CacheRequest,
        now: SystemTime,
    ) -> Option<ClockPosition> {
        for (template_index, template) in self.templates.iter().enumerate() {
            if !template.is_by_clock() {
                continue;
            }
            let Some(newest) = template.newest(now) else {
                continue;
            };
            let Some(number_or_time) = number_or_time_of(template, rules, mpd, request) else {
                continue;
            };
            let segments_from_edge = segments_between(template, number_or_time, newest);
            let window_length = self.window_length(template);
            if window_length.is_none_or(|length| segments_from_edge < length) {
                return Some(ClockPosition {
                    template_index,
                    segments_from_edge,
                });
            }
        }
        None
    }

    /// What the new segment `newest` drops from the window of its representation.
    pub(super) fn dropped_by(
        &self,
        (rules, mpd): (&Rules, &CacheRequest),
        newest: &CacheRequest,
        now: SystemTime,
    ) -> Option<DroppedSegments> {
        /// A late check finds several segments gone.
        const DROPPED_MAX: u64 = 4;
        let template_index = self.clock_position(rules, mpd, newest, now)?.template_index;
        let template = self.templates.get(template_index)?;
        let number_or_time = template.number_of(newest.target.path())?;
        let key_before = |back: u64| {
            let name = template.name(template.before(number_or_time, back)?);
            Some(mpd.resolve_same_host(rules, &name)?.key)
        };
        let keys = match self.window_length(template) {
            Some(length) => (length..length + DROPPED_MAX)
                .filter_map(key_before)
                .collect(),
            None => Vec::new(),
        };
        Some(DroppedSegments {
            template_index,
            keys,
        })
    }

    /// Number of segments of a representation that are available at once; `u64::MAX` if they stay.
    pub(super) fn window_length_of(&self, template_index: usize) -> u64 {
        let template = self.templates.get(template_index);
        let listed = template.and_then(|template| self.window_length(template));
        listed.unwrap_or(u64::MAX)
    }

    /// The segment duration of a representation; zero if the MPD has no such representation.
    pub(super) fn segment_duration_of(&self, template_index: usize) -> Duration {
        let template = self.templates.get(template_index);
        template
            .map(SegmentNaming::segment_duration)
            .unwrap_or_default()
    }

    /// Number of segments of a representation that are available at the same time; `None`: all
    /// stay. Each is available for the time-shift buffer depth and twice its own duration (ISO/IEC
    /// 23009-1 §5.3.9.5.3).
    fn window_length(&self, template: &SegmentNaming) -> Option<u64> {
        let (depth, segment_duration) = (
            self.time_shift_depth?.as_millis(),
            template.segment_duration().as_millis(),
        );
        u64::try_from(depth.checked_div(segment_duration)?)
            .ok()?
            .checked_add(2)
    }

    /// The newest available segment of each representation that is timed by the clock, with the
    /// segments before it. Periods that use the same name share one item.
    pub(super) fn newest(
        &self,
        rules: &Rules,
        mpd: &CacheRequest,
        now: SystemTime,
    ) -> Vec<ExpectedSegment> {
        let mut seen = HashSet::new();
        let by_clock = self.by_clock(now);
        by_clock
            .filter_map(|(template, newest)| {
                let named =
                    |number_or_time| mpd.resolve_same_host(rules, &template.name(number_or_time));
                let request = named(newest).filter(|request| seen.insert(request.key.clone()))?;
                let before = (1..=BEFORE_MAX as u64)
                    .filter_map(|back| named(template.before(newest, back)?));
                Some(ExpectedSegment {
                    request,
                    interest: PrefetchInterest::IfAnyRequested(before.collect()),
                })
            })
            .collect()
    }

    /// When to check for the newest segment: when the next one is due, and twice after that, since
    /// packagers are late.
    pub(super) fn next_check(&self, now: SystemTime) -> Option<SystemTime> {
        /// Least time between two checks.
        const WAIT_MIN: Duration = Duration::from_millis(20);
        let checks = self.by_clock(now).flat_map(|(template, newest)| {
            let segment_duration = template.segment_duration();
            let available_at = template.available_at(newest);
            let late = [segment_duration / 20, segment_duration / 5];
            let late = late.map(|late| available_at?.checked_add(late));
            let next = template
                .next(now)
                .and_then(|next| template.available_at(next));
            late.into_iter().chain([next]).flatten()
        });
        checks
            .filter(|check| *check > now)
            .min()
            .map(|check| check.max(now + WAIT_MIN))
    }

    fn by_clock(&self, now: SystemTime) -> impl Iterator<Item = (&SegmentNaming, u64)> {
        let templates = self
            .templates
            .iter()
            .filter(|template| template.is_by_clock());
        let newest = move |template| Some((template, newest(template, now)?));
        templates.filter_map(newest)
    }
}

/// The number or the time by which a template of the MPD at `mpd` names the object. `None`: it is
/// no segment of this template. Names of other representations may have the same ending.
fn number_or_time_of(
    template: &SegmentNaming,
    rules: &Rules,
    mpd: &CacheRequest,
    request: &CacheRequest,
) -> Option<u64> {
    let number_or_time = template.number_of(request.target.path())?;
    let named = mpd.resolve_any_host(rules, &template.name(number_or_time))?;
    (named.path_key() == request.path_key()).then_some(number_or_time)
}

/// Number of segments from this one to the newest one; [`DISTANCE_MAX`] if there are more.
fn segments_between(template: &SegmentNaming, number_or_time: u64, newest: u64) -> u64 {
    let has_reached = |back: &u64| {
        let before_newest = template.before(newest, *back);
        before_newest.is_none_or(|before| before <= number_or_time)
    };
    (0..DISTANCE_MAX).find(has_reached).unwrap_or(DISTANCE_MAX)
}

/// The newest segment; `None` if the period's last one has been available for a segment duration:
/// no further one follows.
fn newest(template: &SegmentNaming, now: SystemTime) -> Option<u64> {
    let newest = template.newest(now)?;
    let available_at = template.available_at(newest)?;
    let is_over = template.next(now).is_none()
        && available_at.checked_add(template.segment_duration())? <= now;
    (!is_over).then_some(newest)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use seawall_manifest::{Kind, read_manifest};
    use seawall_policy::Route;

    fn read(periods: &str) -> (Rules, CacheRequest, Listing) {
        read_with("", periods)
    }

    fn read_with(attribute: &str, periods: &str) -> (Rules, CacheRequest, Listing) {
        let mpd = format!(
            "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z' {attribute}>\
             {periods}</MPD>"
        );
        let manifest = read_manifest(Kind::Dash, mpd.as_bytes()).unwrap();
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
        };
        let request = CacheRequest::asked(&rules, "a", "/live/a.mpd");
        (rules, request, manifest.listing)
    }

    /// The newest segments at a second of 1970, by an MPD of these periods.
    fn newest(periods: &str, second: u64) -> Vec<String> {
        let (rules, request, listing) = read(periods);
        let now = SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let newest = Representations::of(&listing, now).newest(&rules, &request, now);
        newest
            .into_iter()
            .map(|expected| expected.request.target.path().to_owned())
            .collect()
    }

    /// A period of segments of 2 s, numbered from `number`.
    fn period(start: u64, number: u64) -> String {
        format!(
            "<Period start='PT{start}S'><AdaptationSet><SegmentTemplate duration='2' \
             startNumber='{number}' media='$Number$.m4s'/><Representation/></AdaptationSet>\
             </Period>"
        )
    }

    #[test]
    fn newest_segment_of_an_ended_period_is_dropped() {
        // The first period holds three and a half segments.
        let periods = period(0, 1) + &period(7, 5);
        assert_eq!(newest(&periods, 5), ["/live/2.m4s"]);
        assert_eq!(newest(&periods, 8), ["/live/4.m4s"]);
        assert_eq!(newest(&periods, 9), ["/live/5.m4s", "/live/4.m4s"]);
        assert_eq!(newest(&periods, 10), ["/live/5.m4s"]);
        let over = "<Period start='PT0S' duration='PT7S'>";
        let over = period(0, 1).replace("<Period start='PT0S'>", over);
        assert_eq!(newest(&over, 1000), [""; 0]);
    }

    #[test]
    fn same_name_in_two_periods_is_one_segment() {
        let periods = period(0, 1) + &period(7, 4);
        assert_eq!(newest(&periods, 9), ["/live/4.m4s"]);
    }

    #[test]
    fn segments_outside_time_shift_buffer_have_no_position_and_are_dropped() {
        let (rules, request, listing) = read(&period(0, 0));
        let at = |second| SystemTime::UNIX_EPOCH + Duration::from_secs(second);
        let segment = |number: u64| {
            request
                .resolve_same_host(&rules, &format!("{number}.m4s"))
                .unwrap()
        };
        // The newest is 99; all segments stay.
        let representations = Representations::of(&listing, at(200));
        assert!(
            representations
                .clock_position(&rules, &request, &segment(1), at(200))
                .is_some()
        );
        let dropped = representations
            .dropped_by((&rules, &request), &segment(99), at(200))
            .unwrap()
            .keys;
        assert!(dropped.is_empty());
        assert_eq!(representations.window_length_of(0), u64::MAX);
        // The buffer holds 20 s, and one segment more on both sides.
        let (.., listing) = read_with("timeShiftBufferDepth='PT20S'", &period(0, 0));
        let representations = Representations::of(&listing, at(200));
        let position =
            |number| representations.clock_position(&rules, &request, &segment(number), at(200));
        let expected = ClockPosition {
            template_index: 0,
            segments_from_edge: 11,
        };
        assert_eq!(position(88), Some(expected));
        assert_eq!(representations.window_length_of(0), 12);
        assert_eq!(position(87), None);
        let dropped = representations
            .dropped_by((&rules, &request), &segment(99), at(200))
            .unwrap()
            .keys;
        let named: Vec<Key> = (84..=87).rev().map(|number| segment(number).key).collect();
        assert_eq!(dropped, named);
    }
}
