//! Reads a `SegmentTimeline` (ISO/IEC 23009-1 §5.3.9.6), in ticks of its time scale; knows neither
//! names nor clocks.

use std::collections::VecDeque;
use std::rc::Rc;

use super::super::info::ManifestError;
use super::super::limits::LISTED_MAX;
use super::xml::{ReadExtent, Xml, XmlTag};

/// The segments of one timeline: its extent and the last segments.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct SegmentTimeline {
    /// Start of the first segment.
    pub(super) first: u64,
    /// End of the last segment.
    pub(super) end: u64,
    /// Number of segments.
    pub(super) count: u64,
    /// The last runs of segments of equal duration.
    runs: VecDeque<SegmentRun>,
    /// A last run without an end: it continues to the end of its period, or forever.
    pub(super) open: Option<TimelineSegment>,
    /// It contains an invalid number: the whole timeline is ignored.
    broken: bool,
    /// The first runs are kept too.
    is_whole: bool,
}

/// Maximum number of runs of a timeline that is read whole.
const RUNS_MAX: usize = 200_000;

/// One segment.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct TimelineSegment {
    /// Index from the timeline's first segment, which is 0.
    pub(super) index: u64,
    pub(super) start: u64,
    pub(super) length: u64,
}

impl TimelineSegment {
    /// Saturates: segments that end beyond the range of numbers have been rejected before.
    pub(super) fn end(self) -> u64 {
        self.start.saturating_add(self.length)
    }
}

/// Consecutive segments of equal duration.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct SegmentRun {
    first: TimelineSegment,
    count: u64,
}

/// `S` as written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct TimelineEntry {
    start: Option<u64>,
    length: u64,
    /// Number of repetitions; negative: up to the next entry's start.
    repeat: i64,
}

impl SegmentTimeline {
    /// Reads the element whose tag was read last.
    pub(super) fn read(xml: &mut Xml<'_>) -> Result<SegmentTimeline, ManifestError> {
        let depth = xml.depth();
        let mut timeline = SegmentTimeline {
            is_whole: xml.extent == ReadExtent::Whole,
            ..SegmentTimeline::default()
        };
        loop {
            // Entries are most of an MPD's text: the usual form has a fast path.
            if xml.depth() == depth {
                xml.eat(|text| timeline.take_usual_entries(text));
            }
            match xml.child(depth)? {
                None => return Ok(timeline),
                Some(tag) if tag.name == "S" => match TimelineEntry::of(&tag) {
                    Some(entry) => timeline.take(entry),
                    None => timeline.broken = true,
                },
                Some(_) => {}
            }
        }
    }

    /// Closes an open end at `end`, the end of the period, if known. `None` if the timeline is
    /// invalid or lists nothing.
    pub(super) fn until(mut self: Rc<Self>, end: Option<u64>) -> Option<Rc<SegmentTimeline>> {
        if let (Some(open), Some(end)) = (self.open, end) {
            let timeline = Rc::make_mut(&mut self);
            timeline.open = None;
            timeline.run_until(open, end);
        }
        let lists = self.count > 0 || self.open.is_some_and(|open| open.length > 0);
        (lists && !self.broken).then_some(self)
    }

    /// All segments of the kept runs, in order.
    pub(super) fn all(&self) -> impl Iterator<Item = TimelineSegment> {
        self.runs.iter().flat_map(|run| {
            (0..run.count).map(|nth| TimelineSegment {
                index: run.first.index + nth,
                start: run.first.start + nth * run.first.length,
                length: run.first.length,
            })
        })
    }

    /// The last segments, newest first.
    pub(super) fn latest(&self) -> impl Iterator<Item = TimelineSegment> {
        let runs = self.runs.iter().rev();
        let segments = runs.flat_map(|run| {
            (0..run.count).rev().map(|nth| TimelineSegment {
                index: run.first.index + nth,
                start: run.first.start + nth * run.first.length,
                length: run.first.length,
            })
        });
        segments.take(LISTED_MAX)
    }

    /// Reads entries of the form `<S t="0" d="1" r="2"/>`. Returns the number of bytes read.
    fn take_usual_entries(&mut self, text: &str) -> usize {
        let mut rest = text.as_bytes();
        while let Some((entry, after)) = usual_entry(rest) {
            self.take(entry);
            rest = after;
        }
        text.len() - rest.len()
    }

    fn take(&mut self, entry: TimelineEntry) {
        if let Some(open) = self.open.take() {
            self.run_until(open, entry.start.unwrap_or(open.end()));
        }
        let first = TimelineSegment {
            index: self.count,
            start: entry.start.unwrap_or(self.end),
            length: entry.length,
        };
        if self.count == 0 {
            self.first = first.start;
            self.end = first.start;
        }
        match u64::try_from(entry.repeat) {
            Ok(repeat) => self.run(first, repeat.checked_add(1)),
            Err(_) => self.open = Some(first),
        }
    }

    /// Adds segments up to `end`.
    fn run_until(&mut self, first: TimelineSegment, end: u64) {
        if first.length == 0 {
            self.broken = true;
        } else if end > first.start {
            self.run(first, Some((end - first.start).div_ceil(first.length)));
        }
    }

    fn run(&mut self, first: TimelineSegment, count: Option<u64>) {
        let length = count.and_then(|count| first.length.checked_mul(count));
        let end = length.and_then(|length| first.start.checked_add(length));
        let total = count.and_then(|count| self.count.checked_add(count));
        let (Some(count), Some(end), Some(total)) = (count, end, total) else {
            self.broken = true;
            return;
        };
        // A segment must not be empty, and a timeline runs forward.
        if first.length == 0 || end <= self.end {
            self.broken = true;
            return;
        }
        let runs_max = if self.is_whole { RUNS_MAX } else { LISTED_MAX };
        if self.runs.len() == runs_max {
            self.runs.pop_front();
        }
        self.runs.push_back(SegmentRun { first, count });
        (self.end, self.count) = (end, total);
    }
}

impl TimelineEntry {
    fn of(tag: &XmlTag<'_>) -> Option<TimelineEntry> {
        let mut entry = TimelineEntry::default();
        for (name, value) in tag.attributes() {
            match name {
                "t" => entry.start = Some(value.parse().ok()?),
                "d" => entry.length = value.parse().ok()?,
                "r" => entry.repeat = value.parse().ok()?,
                _ => {}
            }
        }
        Some(entry)
    }
}

/// An entry of the usual form at the start, and the rest.
fn usual_entry(text: &[u8]) -> Option<(TimelineEntry, &[u8])> {
    let mut rest = text.trim_ascii_start().strip_prefix(b"<S")?;
    let mut entry = TimelineEntry::default();
    loop {
        let spaced = rest.trim_ascii_start();
        if let Some(after) = spaced.strip_prefix(b"/>") {
            return Some((entry, after));
        }
        if spaced.len() == rest.len() {
            return None;
        }
        let (name, value) = (spaced.first()?, spaced.get(1..)?.strip_prefix(b"=\"")?);
        let (value, negative) = match value.strip_prefix(b"-") {
            Some(value) => (value, true),
            None => (value, false),
        };
        let (number, after) = number(value)?;
        match name {
            b't' if !negative => entry.start = Some(number),
            b'd' if !negative => entry.length = number,
            b'r' => {
                let repeat = i64::try_from(number).ok()?;
                entry.repeat = if negative { -repeat } else { repeat };
            }
            _ => return None,
        }
        rest = after.strip_prefix(b"\"")?;
    }
}

/// The number at the start, and the rest.
fn number(text: &[u8]) -> Option<(u64, &[u8])> {
    let mut rest = text;
    let mut number = 0_u64;
    while let Some((digit @ b'0'..=b'9', after)) = rest.split_first() {
        number = number
            .checked_mul(10)?
            .checked_add(u64::from(digit - b'0'))?;
        rest = after;
    }
    (rest.len() < text.len()).then_some((number, rest))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn read(entries: &str) -> Rc<SegmentTimeline> {
        let text = format!("<T>{entries}</T>");
        let (mut xml, _) = Xml::open(&text).unwrap();
        Rc::new(SegmentTimeline::read(&mut xml).unwrap())
    }

    fn starts(timeline: &SegmentTimeline) -> Vec<(u64, u64)> {
        let latest = timeline.latest();
        latest
            .map(|segment| (segment.index, segment.start))
            .collect()
    }

    #[test]
    fn timeline_entries_follow_each_other() {
        let timeline = read("\n <S t=\"100\" d=\"10\" r=\"2\"/>\n <S d=\"5\" />").until(None);
        let timeline = timeline.unwrap();
        assert_eq!(
            (timeline.first, timeline.end, timeline.count),
            (100, 135, 4)
        );
        assert_eq!(starts(&timeline), [(3, 130), (2, 120), (1, 110), (0, 100)]);
    }

    #[test]
    fn equivalent_xml_spellings_give_the_same_timeline() {
        let usual = read("<S t=\"7\" d=\"2\" r=\"1\"/><S d=\"3\"/>");
        for other in [
            "<S d='2' t='7' r='1'/><S d='3'></S>",
            "<S r=\"1\" t=\"7\" d=\"2\"></S><!-- --><S d=\"3\"/>",
            "<S t=\" 7 \" n=\"4\" d=\"2\" r=\"&#x31;\"/><x:S d=\"9\"/><S d=\"3\"/>",
        ] {
            assert_eq!(read(other), usual, "{other}");
        }
    }

    #[test]
    fn negative_repeat_ends_at_the_next_start() {
        let timeline = read("<S t=\"0\" d=\"10\" r=\"-1\"/><S t=\"35\" d=\"10\"/>");
        let timeline = timeline.until(None).unwrap();
        assert_eq!((timeline.count, timeline.end), (5, 45));
        // Its end is unknown.
        let timeline = read("<S t=\"0\" d=\"10\" r=\"-1\"/><S d=\"7\"/>").until(None);
        assert_eq!(timeline.map(|it| (it.count, it.end)), Some((2, 17)));
    }

    #[test]
    fn open_ended_repeat_ends_with_its_period() {
        let open = read("<S t=\"5\" d=\"10\"/><S d=\"10\" r=\"-1\"/>");
        let whole = open.clone().until(Some(40)).unwrap();
        assert_eq!((whole.count, whole.end, whole.open), (4, 45, None));
        let open = open.until(None).unwrap();
        assert_eq!((open.count, open.end), (1, 15));
        assert_eq!(open.open.map(|segment| segment.start), Some(15));
    }

    #[test]
    fn malformed_timeline_gives_no_segments() {
        for entries in [
            "",
            "<S t=\"1\"/>",
            "<S t=\"1\" d=\"0\" r=\"5\"/>",
            "<S t=\"1\" d=\"0\" r=\"-1\"/><S t=\"9\" d=\"1\"/>",
            "<S t=\"1\" d=\"x\"/>",
            "<S t=\"1\" d=\"-1\"/>",
            "<S t=\"9\" d=\"1\"/><S t=\"2\" d=\"1\"/>",
            "<S t=\"18446744073709551615\" d=\"1\"/>",
            "<S t=\"18446744073709551616\" d=\"1\"/>",
            "<S t=\"0\" d=\"9\" r=\"9223372036854775807\"/>",
            "<S t=\"0\" d=\"2\" r=\"99999999999999999999\"/>",
        ] {
            assert_eq!(read(entries).until(None), None, "{entries}");
        }
    }

    #[test]
    fn keeps_only_the_last_segments_of_a_long_timeline() {
        let many = read("<S t=\"0\" d=\"1\" r=\"9000000000000000000\"/>")
            .until(None)
            .unwrap();
        assert_eq!(starts(&many).len(), LISTED_MAX);
        let runs = "<S d=\"1\"/>".repeat(1000);
        let runs = read(&runs).until(None).unwrap();
        assert_eq!((runs.count, runs.runs.len()), (1000, LISTED_MAX));
        assert_eq!(starts(&runs)[0], (999, 999));
    }

    proptest! {
        #[test]
        fn arbitrary_timeline_entries_do_not_panic(entries in "(<S( [tdrn]=\"-?[0-9]{1,20}\"){0,4}/>){0,8}") {
            if let Some(timeline) = read(&entries).until(Some(u64::MAX)) {
                let latest: Vec<_> = timeline.latest().collect();
                prop_assert!(latest.is_sorted_by(|a, b| a.index > b.index));
                prop_assert!(latest.iter().all(|segment| segment.end() <= timeline.end));
            }
        }
    }
}
