//! One representation in one period: the positions of its segments on the presentation's timeline,
//! and their names.

use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::super::limits::NAME_BYTES_MAX;
use super::document::{MpdPeriod, MpdRepresentation};
use super::inherited::MediaType;
use super::reference;
use super::template::{AvailabilityBase, AvailabilityTimeOffset, SegmentNaming, SegmentTiming};
use super::time::span;
use super::timeline::{SegmentTimeline, TimelineSegment};
use super::url_template::{SegmentPosition, UrlTemplate};

const NANOS: u128 = 1_000_000_000;

/// A representation with all values computed.
pub(super) struct Representation<'a> {
    element: &'a MpdRepresentation<'a>,
    start: Duration,
    /// Ticks per second; not zero.
    scale: u64,
    /// Start of the period on its time scale.
    offset: u64,
    /// End of the period on its time scale.
    end: Option<u64>,
    timeline: Option<Rc<SegmentTimeline>>,
    /// The names of segments, if each has its own.
    url_template: Option<UrlTemplate>,
}

impl<'a> Representation<'a> {
    pub(super) fn new(
        period: &MpdPeriod<'_>,
        element: &'a MpdRepresentation<'a>,
    ) -> Representation<'a> {
        let segments = &element.segments;
        let scale = segments.timescale.filter(|&scale| scale > 0).unwrap_or(1);
        let offset = segments.offset.unwrap_or(0);
        let end = period.end.and_then(|end| {
            let nanos = end.checked_sub(period.start)?.as_nanos();
            let ticks = nanos.checked_mul(u128::from(scale))?.div_ceil(NANOS);
            u64::try_from(ticks).ok()?.checked_add(offset)
        });
        let timeline = segments
            .timeline
            .clone()
            .and_then(|timeline| timeline.until(end));
        let url_template = segments
            .media
            .as_deref()
            .and_then(|media| element.url_template(media));
        Representation {
            element,
            start: period.start,
            scale,
            offset,
            end,
            timeline,
            url_template: url_template
                .filter(|url_template| url_template.has_number() || url_template.has_time()),
        }
    }

    /// Start of its period, in milliseconds.
    pub(super) fn period(&self) -> u64 {
        u64::try_from(self.start.as_millis()).unwrap_or(u64::MAX)
    }

    pub(super) fn media_type(&self) -> MediaType {
        self.element.media_type
    }

    /// Start and end of the listed segments in milliseconds, if they are known.
    pub(super) fn span(&self) -> Option<(u64, u64)> {
        let timeline = self.listed()?;
        Some((self.millis(timeline.first)?, self.millis(timeline.end)?))
    }

    /// The last listed segments, newest first: the end in milliseconds, and the position.
    pub(super) fn latest(&self) -> impl Iterator<Item = (u64, SegmentPosition)> {
        let latest = self.listed().into_iter().flat_map(SegmentTimeline::latest);
        latest.map_while(|segment| Some((self.millis(segment.end())?, self.position(segment)?)))
    }

    pub(super) fn url_template(&self) -> Option<&UrlTemplate> {
        self.url_template.as_ref()
    }

    /// The name of the initialization segment.
    pub(super) fn initialization(&self) -> Option<String> {
        let written = self.element.segments.initialization.as_deref()?;
        let written = Some(written).filter(|written| !written.is_empty())?;
        let url_template = self.element.url_template(written)?;
        let has_gaps = url_template.has_number() || url_template.has_time();
        (!has_gaps).then(|| url_template.name(SegmentPosition::default()))
    }

    /// The files of which it lists ranges, and the end of the last range of each.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, u64)> {
        let ranged = self.element.ranged.iter().flat_map(|files| files.iter());
        ranged.filter_map(|file| {
            let base = self.element.base.url.as_deref()?;
            let fits = base.len() + file.name.len() <= NAME_BYTES_MAX;
            fits.then(|| (reference::join(base, &file.name), file.end))
        })
    }

    /// The names of all its segments: those that are listed, or that its template gives from the
    /// start of the period to its end, or to the clock. Of a file with an index, the file.
    pub(super) fn all_names(
        &self,
        began: Option<SystemTime>,
        now: SystemTime,
        time_shift_depth: Option<Duration>,
    ) -> Box<dyn Iterator<Item = String> + '_> {
        if let (Some(timeline), Some(url_template)) = (self.listed(), &self.url_template) {
            let positions = timeline.all().map_while(|segment| self.position(segment));
            return Box::new(positions.map(move |position| url_template.name(position)));
        }
        if let Some(naming) = self.template(began) {
            return Box::new(names_in_window(naming, now, time_shift_depth));
        }
        let files = self.files().map(|(name, _)| name);
        let base = self.element.base.url.as_deref().unwrap_or_default();
        let is_file = self.element.ranged.is_none()
            && self.element.segments.media.is_none()
            && !base.is_empty()
            && !base.ends_with('/');
        Box::new(files.chain(is_file.then(|| base.to_owned())))
    }

    /// As the MPD writes it.
    pub(super) fn bandwidth(&self) -> Option<u64> {
        self.element.bandwidth.parse().ok()
    }

    /// Durations of the segments at its edge, the last one first.
    pub(super) fn lengths(&self) -> impl Iterator<Item = Duration> {
        let latest = self.listed().into_iter().flat_map(SegmentTimeline::latest);
        let latest = latest.map(|segment| segment.length);
        // Without a list, all segments have the same duration.
        let alike = self.step().filter(|_| self.listed().is_none());
        let ticks = latest.chain(alike.into_iter().cycle());
        ticks.map(|ticks| span(ticks, self.scale))
    }

    /// The names and availability times of its segments; `began` is the start of the presentation.
    pub(super) fn template(&self, began: Option<SystemTime>) -> Option<SegmentNaming> {
        let step = self.step()?;
        let segments = &self.element.segments;
        let number = self.first_number();
        let availability_base = match &self.timeline {
            None => AvailabilityBase::Clock(SegmentPosition {
                number,
                time: self.offset,
            }),
            Some(timeline) => match timeline.open {
                Some(open) => AvailabilityBase::Clock(self.position(open)?),
                None => AvailabilityBase::Listed(SegmentPosition {
                    number: number.checked_add(timeline.count)?,
                    time: timeline.end,
                }),
            },
        };
        let url_template = self.url_template.clone()?;
        Some(SegmentNaming {
            last: self.last(&url_template, availability_base, step),
            url_template,
            availability_base,
            pace: SegmentTiming {
                scale: self.scale,
                step,
                offset: self.offset,
            },
            began: began.and_then(|began| began.checked_add(self.start)),
            availability_offset: AvailabilityTimeOffset::sum(
                self.element.base.availability_offset,
                segments.availability_offset,
            ),
        })
    }

    /// Value of the last segment before the period's end.
    fn last(
        &self,
        url_template: &UrlTemplate,
        availability_base: AvailabilityBase,
        step: u64,
    ) -> Option<u64> {
        let (AvailabilityBase::Listed(from) | AvailabilityBase::Clock(from)) = availability_base;
        let by_time = !url_template.has_number();
        let by_period = self.end.and_then(|end| {
            let remaining = end.saturating_sub(from.time);
            // The rest after a timeline may be only a rounding error.
            let count = match availability_base {
                AvailabilityBase::Listed(_) if remaining < step / 2 => 0,
                _ => remaining.div_ceil(step),
            };
            if by_time {
                from.time
                    .checked_add(step.checked_mul(count)?)?
                    .checked_sub(step)
            } else {
                from.number.checked_add(count)?.checked_sub(1)
            }
        });
        let by_number = self.element.segments.end_number.filter(|_| !by_time);
        by_period.into_iter().chain(by_number).min()
    }

    /// The timeline, unless its end is open.
    fn listed(&self) -> Option<&SegmentTimeline> {
        let timeline = self.timeline.as_deref()?;
        timeline.open.is_none().then_some(timeline)
    }

    fn step(&self) -> Option<u64> {
        let step = match &self.timeline {
            Some(timeline) => timeline.open.or_else(|| timeline.latest().next())?.length,
            None if self.element.segments.timeline.is_some() => return None,
            None => self.element.segments.duration?,
        };
        (step > 0).then_some(step)
    }

    fn position(&self, segment: TimelineSegment) -> Option<SegmentPosition> {
        Some(SegmentPosition {
            number: self.first_number().checked_add(segment.index)?,
            time: segment.start,
        })
    }

    fn first_number(&self) -> u64 {
        self.element.segments.start_number.unwrap_or(1)
    }

    /// Converts a time of its own scale to the presentation's timeline.
    fn millis(&self, ticks: u64) -> Option<u64> {
        let into = i128::from(ticks) - i128::from(self.offset);
        let into = (into * 1000).div_euclid(i128::from(self.scale));
        let millis = i128::try_from(self.start.as_millis()).ok()? + into;
        u64::try_from(millis.max(0)).ok()
    }
}

/// The names from the first segment that is still available to the last one that is already.
fn names_in_window(
    naming: SegmentNaming,
    now: SystemTime,
    time_shift_depth: Option<Duration>,
) -> impl Iterator<Item = String> {
    let (first, last) = (naming.first(), naming.newest_or_last(now));
    let window = time_shift_depth.map_or(u64::MAX, |depth| {
        let segments = depth.as_nanos() / naming.segment_duration().as_nanos().max(1);
        u64::try_from(segments).unwrap_or(u64::MAX)
    });
    let oldest = last
        .and_then(|last| naming.before(last, window))
        .unwrap_or(first);
    let mut next = last.map(|last| (first.max(oldest), last));
    std::iter::from_fn(move || {
        let (value, last) = next?;
        next = naming
            .after(value)
            .filter(|after| *after <= last)
            .map(|after| (after, last));
        (value <= last).then(|| naming.name(value))
    })
}

impl MpdRepresentation<'_> {
    /// Its base URL, and one name of each of its templates.
    pub(super) fn examples(&self) -> impl Iterator<Item = String> {
        let base = self.base.url.as_deref().filter(|base| !base.is_empty());
        let segments = &self.segments;
        let written = [&segments.initialization, &segments.media];
        let written = written.into_iter().flatten();
        let patterns = written.filter_map(|written| self.url_template(written));
        let named =
            patterns.map(|url_template| url_template.name(SegmentPosition { number: 1, time: 0 }));
        base.map(str::to_owned).into_iter().chain(named)
    }

    fn url_template(&self, written: &str) -> Option<UrlTemplate> {
        UrlTemplate::new(
            self.base.url.as_deref()?,
            written,
            &self.id,
            &self.bandwidth,
        )
    }
}
