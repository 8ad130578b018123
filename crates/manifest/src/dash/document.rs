//! Reads the parts of an MPD (ISO/IEC 23009-1) that are used: its periods and their
//! representations. Draws no conclusions.

use std::borrow::Cow;
use std::collections::VecDeque;
use std::rc::Rc;
use std::time::{Duration, SystemTime};

use super::super::date_time::date_time;
use super::super::info::ManifestError;
use super::super::limits::NAME_BYTES_MAX;
use super::inherited::{BaseUrl, InheritedAttributes, MediaType, RangedFile, SegmentTemplate};
use super::switching::{SetSwitching, tracks};
use super::time::{LONG, duration};
use super::xml::{ReadExtent, Xml, XmlTag};

/// Maximum number of kept periods: the last ones are kept. Of the earlier ones only the start of
/// the first is needed.
const PERIODS_KEPT: usize = 3;
/// The same when the whole presentation is read.
const PERIODS_MAX: usize = 1000;
/// Maximum number of representations of one period.
const REPRESENTATIONS_MAX: usize = 512;
const TIME_SERVERS_MAX: usize = 8;

/// An MPD.
#[derive(Default)]
pub(super) struct Mpd<'a> {
    pub(super) is_dynamic: bool,
    pub(super) update_period: Option<Duration>,
    pub(super) time_shift_depth: Option<Duration>,
    pub(super) published: Option<SystemTime>,
    pub(super) began: Option<SystemTime>,
    pub(super) duration: Option<Duration>,
    /// Events in the media announce updates of the MPD.
    pub(super) has_update_events: bool,
    /// URLs of `UTCTiming`.
    pub(super) time_servers: Vec<String>,
    /// The first period with a timeline, if it is not one of `periods`.
    pub(super) first: Option<MpdPeriod<'a>>,
    pub(super) periods: VecDeque<MpdPeriod<'a>>,
}

/// A period whose start is known.
pub(super) struct MpdPeriod<'a> {
    pub(super) start: Duration,
    pub(super) end: Option<Duration>,
    pub(super) representations: Vec<MpdRepresentation<'a>>,
}

/// A representation.
pub(super) struct MpdRepresentation<'a> {
    /// Those of one period that players switch between have the same number. Only of a whole
    /// presentation; else, each adaptation set is a track.
    pub(super) track: usize,
    pub(super) media_type: MediaType,
    pub(super) id: Cow<'a, str>,
    pub(super) bandwidth: Cow<'a, str>,
    pub(super) base: BaseUrl,
    pub(super) segments: SegmentTemplate,
    pub(super) ranged: Option<Rc<[RangedFile]>>,
}

/// An adaptation set, before it has inherited anything.
struct AdaptationSet<'a> {
    switching: SetSwitching<'a>,
    level: InheritedAttributes,
    representations: Vec<(XmlTag<'a>, InheritedAttributes)>,
}

impl<'a> Mpd<'a> {
    /// Reads the element whose tag was read last.
    pub(super) fn read(xml: &mut Xml<'a>, root: &XmlTag<'a>) -> Result<Mpd<'a>, ManifestError> {
        Mpd::read_each(xml, root, |_| {})
    }

    /// The same; also reports the representations of each period.
    pub(super) fn read_each(
        xml: &mut Xml<'a>,
        root: &XmlTag<'a>,
        mut each: impl FnMut(&[MpdRepresentation<'a>]),
    ) -> Result<Mpd<'a>, ManifestError> {
        let depth = xml.depth();
        let mut mpd = Mpd::default();
        for (name, value) in root.attributes() {
            match name {
                "type" => mpd.is_dynamic = value != "static",
                "minimumUpdatePeriod" => {
                    mpd.update_period = duration(&value).map(|period| period.min(LONG));
                }
                "timeShiftBufferDepth" => mpd.time_shift_depth = duration(&value),
                "publishTime" => mpd.published = date_time(&value),
                "availabilityStartTime" => mpd.began = date_time(&value),
                "mediaPresentationDuration" => mpd.duration = duration(&value),
                _ => {}
            }
        }
        let mut level = InheritedAttributes::default();
        while let Some(tag) = xml.child(depth)? {
            match tag.name {
                "Period" => mpd.take_period(xml, &tag, &level, &mut each)?,
                "UTCTiming" => mpd.take_time_servers(&tag),
                _ => level.take(xml, &tag)?,
            }
        }
        let end = mpd.duration;
        if let Some(last) = mpd.periods.back_mut() {
            last.end = last.end.or(end);
        }
        Ok(mpd)
    }

    fn take_period(
        &mut self,
        xml: &mut Xml<'a>,
        tag: &XmlTag<'a>,
        above: &InheritedAttributes,
        each: &mut impl FnMut(&[MpdRepresentation<'a>]),
    ) -> Result<(), ManifestError> {
        let attribute = |name| tag.attribute(name).and_then(|value| duration(&value));
        let (start, length) = (attribute("start"), attribute("duration"));
        let representations = self.read_representations(xml, above)?;
        each(&representations);
        let start = match self.periods.back() {
            None => start.or(Some(Duration::ZERO)),
            Some(before) => start.or(before.end),
        };
        // §5.3.2.1: a period with an unknown start is announced and not yet available.
        let Some(start) = start else { return Ok(()) };
        if let Some(before) = self.periods.back_mut() {
            before.end = Some(before.end.map_or(start, |end| end.min(start)));
        }
        let end = length.and_then(|length| start.checked_add(length));
        self.periods.push_back(MpdPeriod {
            start,
            end,
            representations,
        });
        let kept = match xml.extent {
            ReadExtent::Edge => PERIODS_KEPT,
            ReadExtent::Whole => PERIODS_MAX,
        };
        if self.periods.len() > kept {
            let dropped = self.periods.pop_front();
            self.first = self
                .first
                .take()
                .or(dropped.filter(MpdPeriod::has_timeline));
        }
        Ok(())
    }

    /// Reads the representations of a period.
    fn read_representations(
        &mut self,
        xml: &mut Xml<'a>,
        above: &InheritedAttributes,
    ) -> Result<Vec<MpdRepresentation<'a>>, ManifestError> {
        let depth = xml.depth();
        let mut period = InheritedAttributes::default();
        let mut sets = Vec::new();
        let mut count = 0;
        while let Some(tag) = xml.child(depth)? {
            match tag.name {
                "AdaptationSet" => {
                    let set = self.read_adaptation_set(xml, &tag, REPRESENTATIONS_MAX - count)?;
                    count += set.representations.len();
                    if !set.representations.is_empty() {
                        sets.push(set);
                    }
                }
                _ => period.take(xml, &tag)?,
            }
        }
        let period = period.below(above);
        let switching: Vec<_> = sets.iter().map(|set| &set.switching).collect();
        let tracks = tracks(&switching);
        let mut all = Vec::with_capacity(count);
        for (set, track) in sets.into_iter().zip(tracks) {
            let level = set.level.below(&period);
            for (tag, representation) in set.representations {
                let level = representation.below(&level);
                all.push(MpdRepresentation::new(&tag, level, track));
            }
        }
        Ok(all)
    }

    /// Reads an adaptation set, and its representations.
    fn read_adaptation_set(
        &mut self,
        xml: &mut Xml<'a>,
        tag: &XmlTag<'a>,
        count_max: usize,
    ) -> Result<AdaptationSet<'a>, ManifestError> {
        let depth = xml.depth();
        let is_whole = xml.extent == ReadExtent::Whole;
        let mut switching = SetSwitching::default();
        if is_whole {
            switching = SetSwitching::of(tag);
        }
        let mut level = InheritedAttributes {
            media_type: MediaType::of(tag),
            ..InheritedAttributes::default()
        };
        let mut representations = Vec::new();
        while let Some(tag) = xml.child(depth)? {
            match tag.name {
                "Representation" if representations.len() < count_max => {
                    let depth = xml.depth();
                    let mut attributes = InheritedAttributes {
                        media_type: MediaType::of(&tag),
                        ..InheritedAttributes::default()
                    };
                    while let Some(tag) = xml.child(depth)? {
                        self.record_update_events(&tag);
                        attributes.take(xml, &tag)?;
                    }
                    representations.push((tag, attributes));
                }
                _ => {
                    self.record_update_events(&tag);
                    if is_whole {
                        switching.take(&tag);
                    }
                    level.take(xml, &tag)?;
                }
            }
        }
        Ok(AdaptationSet {
            switching,
            level,
            representations,
        })
    }

    /// §5.10.4: events that announce a change of the MPD.
    fn record_update_events(&mut self, tag: &XmlTag<'_>) {
        const UPDATES: &str = "urn:mpeg:dash:event:2012";
        self.has_update_events |= tag.name == "InbandEventStream"
            && tag
                .attribute("schemeIdUri")
                .is_some_and(|scheme| scheme == UPDATES);
    }

    /// Only schemes whose value is a list of URLs (§5.8.5.7).
    fn take_time_servers(&mut self, tag: &XmlTag<'_>) {
        let scheme = tag.attribute("schemeIdUri").unwrap_or_default();
        if !scheme.starts_with("urn:mpeg:dash:utc:http-") {
            return;
        }
        let value = tag.attribute("value").unwrap_or_default();
        let room = TIME_SERVERS_MAX - self.time_servers.len().min(TIME_SERVERS_MAX);
        let addresses = value.split_ascii_whitespace();
        let addresses = addresses.filter(|address| address.len() <= NAME_BYTES_MAX);
        self.time_servers
            .extend(addresses.take(room).map(str::to_owned));
    }
}

impl MpdPeriod<'_> {
    fn has_timeline(&self) -> bool {
        self.representations
            .iter()
            .any(|representation| representation.segments.timeline.is_some())
    }
}

impl<'a> MpdRepresentation<'a> {
    fn new(tag: &XmlTag<'a>, level: InheritedAttributes, track: usize) -> MpdRepresentation<'a> {
        MpdRepresentation {
            track,
            media_type: level.media_type.unwrap_or(MediaType::Other),
            id: tag.attribute("id").unwrap_or_default(),
            bandwidth: tag.attribute("bandwidth").unwrap_or_default(),
            base: level.base.unwrap_or_else(|| BaseUrl {
                url: Some("".into()),
                availability_offset: None,
            }),
            segments: level.segments.unwrap_or_default(),
            ranged: level.ranged,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::template::AvailabilityTimeOffset;
    use super::*;

    fn read(inside: &str, check: impl FnOnce(Mpd<'_>)) {
        let text = format!("<MPD>{inside}</MPD>");
        let (mut xml, root) = Xml::open(&text).unwrap();
        check(Mpd::read(&mut xml, &root).unwrap());
        xml.close().unwrap();
    }

    #[test]
    fn inherits_attributes_from_outer_levels_in_any_order() {
        let inside = "<BaseURL>https://h/a/</BaseURL><BaseURL>https://other/</BaseURL>\
            <Period><BaseURL availabilityTimeOffset='1.5'>b/</BaseURL>\
              <AdaptationSet mimeType='video/mp4'>\
                <Representation id='v' bandwidth='5'><BaseURL>c/</BaseURL>\
                  <SegmentTemplate startNumber='4'/></Representation>\
                <Representation id='w'/>\
                <SegmentTemplate timescale='90' media='m' startNumber='3'/>\
              </AdaptationSet>\
              <SegmentTemplate timescale='1' duration='7' initialization='i'/></Period>";
        read(inside, |mpd| {
            let [v, w] = &mpd.periods[0].representations[..] else {
                panic!("two tracks")
            };
            assert_eq!(
                (&*v.id, &*v.bandwidth, v.base.url.as_deref()),
                ("v", "5", Some("https://h/a/b/c/"))
            );
            assert_eq!(
                (&*w.id, w.base.url.as_deref()),
                ("w", Some("https://h/a/b/"))
            );
            assert_eq!(
                w.base.availability_offset,
                Some(AvailabilityTimeOffset::By(Duration::from_millis(1500)))
            );
            assert!(v.media_type == MediaType::Video);
            assert_eq!(
                (v.segments.start_number, w.segments.start_number),
                (Some(4), Some(3))
            );
            for track in [v, w] {
                let segments = &track.segments;
                assert_eq!((segments.timescale, segments.duration), (Some(90), Some(7)));
                assert_eq!(segments.media.as_deref(), Some("m"));
                assert_eq!(segments.initialization.as_deref(), Some("i"));
            }
        });
    }

    // §5.3.2.1.
    #[test]
    fn period_start_and_end_follow_from_neighbours() {
        let spans = |inside: &str| {
            let mut spans = Vec::new();
            read(inside, |mpd| {
                let seconds =
                    |it: &MpdPeriod<'_>| (it.start.as_secs(), it.end.map(|end| end.as_secs()));
                spans = mpd.periods.iter().map(seconds).collect();
            });
            spans
        };
        let ends = |start, end| (start, Some(end));
        assert_eq!(spans("<Period/>"), [(0, None)]);
        assert_eq!(spans("<Period start='PT5S'/><Period/>"), [(5, None)]);
        assert_eq!(
            spans("<Period duration='PT5S'/><Period/>"),
            [ends(0, 5), (5, None)]
        );
        let overlapping = "<Period start='PT2S' duration='PT9S'/><Period start='PT4S'/>";
        assert_eq!(spans(overlapping), [ends(2, 4), (4, None)]);
        let many = "<Period duration='PT1S'/>".repeat(9);
        assert_eq!(spans(&many), [ends(6, 7), ends(7, 8), ends(8, 9)]);
    }

    #[test]
    fn utc_timing_lists_only_urls_up_to_the_limit() {
        let inside = "<UTCTiming schemeIdUri='urn:mpeg:dash:utc:http-iso:2014' value=' a  b '/>\
            <UTCTiming schemeIdUri='urn:mpeg:dash:utc:direct:2014' value='2024-01-01T00:00:00Z'/>\
            <UTCTiming schemeIdUri='urn:mpeg:dash:utc:http-head:2014' value='c'/>";
        read(inside, |mpd| assert_eq!(mpd.time_servers, ["a", "b", "c"]));
        let many = inside.repeat(20);
        read(&many, |mpd| {
            assert_eq!(mpd.time_servers.len(), TIME_SERVERS_MAX);
        });
    }

    #[test]
    fn representations_are_limited() {
        let set = "<AdaptationSet><Representation/><Representation/></AdaptationSet>";
        let inside = format!("<Period>{}</Period>", set.repeat(REPRESENTATIONS_MAX));
        read(&inside, |mpd| {
            assert_eq!(mpd.periods[0].representations.len(), REPRESENTATIONS_MAX);
        });
    }
}
