//! Derives the live edge and the listing of an MPD.

use std::collections::HashSet;
use std::time::{Duration, SystemTime};

use super::super::info::{ListedResource, Listing, MpdEdge};
use super::super::limits::{EACH_MIN, LISTED_MAX};
use super::super::typical_duration::{TYPICAL_OF, median};
use super::document::{Mpd, MpdPeriod};
use super::inherited::MediaType;
use super::representation::Representation;

const TEMPLATES_MAX: usize = 128;
/// Maximum number of bytes of all templates' names: they are kept as long as the manifest is
/// tracked.
const TEMPLATES_BYTES_MAX: usize = 128 << 10;
const INITS_MAX: usize = 128;
/// Maximum number of files of which ranges are listed.
const FILES_MAX: usize = 128;

/// The representations of the kept periods, the last period first.
pub(super) struct RepresentationsByPeriod<'a> {
    periods: Vec<Vec<Representation<'a>>>,
    first: Option<Vec<Representation<'a>>>,
}

impl<'a> RepresentationsByPeriod<'a> {
    pub(super) fn of(mpd: &'a Mpd<'a>) -> RepresentationsByPeriod<'a> {
        let representations = |period: &'a MpdPeriod<'a>| {
            let elements = period.representations.iter();
            elements
                .map(|element| Representation::new(period, element))
                .collect()
        };
        RepresentationsByPeriod {
            periods: mpd.periods.iter().rev().map(representations).collect(),
            first: mpd.first.as_ref().map(representations),
        }
    }

    /// The live edge.
    ///
    /// Video and audio determine the edge, and of them the one that ends first: up to there
    /// everything is available. Subtitles and thumbnails are irregular, and count only if there is
    /// nothing else.
    pub(super) fn edge(&self) -> Option<MpdEdge> {
        let newest = self.newest()?;
        let mut oldest = self.first.iter().chain(self.periods.iter().rev());
        let ends = || spans(newest).map(|(_, end)| end);
        Some(MpdEdge {
            start_ms: oldest
                .find_map(|representations| spans(representations).map(|(start, _)| start).max())?,
            end_ms: ends().min()?,
            last_period_start_ms: newest.first().map_or(0, Representation::period),
            representations: ends().count() as u64,
            longest_end_ms: ends().max()?,
        })
    }

    /// The typical segment duration at the edge: of the video, or else of the deciding
    /// representations. A new period may have only a short segment, so earlier periods count too.
    pub(super) fn segment(&self) -> Option<Duration> {
        let lengths = |is_of: fn(&Representation<'_>) -> bool| {
            let representations = self.periods.iter().filter_map(|representations| {
                let mut representations = representations
                    .iter()
                    .filter(|representation| is_of(representation));
                representations.find(|representation| representation.lengths().next().is_some())
            });
            median(
                representations
                    .flat_map(Representation::lengths)
                    .take(TYPICAL_OF),
            )
        };
        lengths(|representation| representation.media_type() == MediaType::Video)
            .or_else(|| lengths(|_| true))
    }

    /// The listing. Only a live presentation has templates: its segments are not all listed.
    pub(super) fn listing(&self, began: Option<SystemTime>, is_live: bool) -> Listing {
        let representations = || self.periods.iter().flatten();
        let mut seen = HashSet::new();
        let inits = representations().filter_map(Representation::initialization);
        let inits = inits.filter(|uri| seen.insert(uri.clone()));
        let inits = inits.take(INITS_MAX).map(|uri| ListedResource {
            position: 0,
            representation: 0,
            uri,
            range: None,
        });
        let inits = inits.collect();
        let templates = representations()
            .filter(|_| is_live)
            .filter_map(|representation| representation.template(began))
            .scan(0, |bytes, template| {
                *bytes += template.weight_bytes();
                (*bytes <= TEMPLATES_BYTES_MAX).then_some(template)
            });
        let files = representations()
            .flat_map(Representation::files)
            .map(|(uri, end)| ListedResource {
                position: 0,
                representation: 0,
                uri,
                range: Some((0, Some(end))),
            });
        Listing {
            inits,
            files: files.take(FILES_MAX).collect(),
            segments: self
                .newest()
                .map(|representations| segments(representations))
                .unwrap_or_default(),
            templates: templates.take(TEMPLATES_MAX).collect(),
            ..Listing::default()
        }
    }

    /// The last period that lists segments.
    fn newest(&self) -> Option<&Vec<Representation<'a>>> {
        let mut periods = self.periods.iter();
        periods.find(|representations| spans(representations).next().is_some())
    }
}

/// Start and end of the deciding representations.
fn spans<'a>(representations: &'a [Representation<'a>]) -> impl Iterator<Item = (u64, u64)> {
    deciding(representations).filter_map(Representation::span)
}

fn deciding<'a>(
    representations: &'a [Representation<'a>],
) -> impl Iterator<Item = &'a Representation<'a>> {
    let plays = |representation: &Representation<'_>| {
        representation.media_type() != MediaType::Other && representation.span().is_some()
    };
    let any_plays = representations.iter().any(plays);
    representations
        .iter()
        .filter(move |representation| !any_plays || plays(representation))
}

/// The last segments of each representation, the same number of each, oldest first.
fn segments(representations: &[Representation<'_>]) -> Vec<ListedResource> {
    let listing = || {
        let representations = representations
            .iter()
            .filter(|representation| representation.span().is_some());
        representations
            .filter_map(|representation| Some((representation, representation.url_template()?)))
            .take(LISTED_MAX)
            .enumerate()
    };
    let each = (LISTED_MAX / listing().count().max(1)).max(EACH_MIN);
    let mut segments: Vec<ListedResource> = listing()
        .flat_map(|(number, (representation, url_template))| {
            let latest = representation.latest().take(each);
            latest.map(move |(end_ms, segment)| ListedResource {
                position: end_ms,
                representation: number,
                uri: url_template.name(segment),
                range: None,
            })
        })
        .collect();
    segments.sort_by_key(|segment| segment.position);
    segments
}

#[cfg(test)]
mod tests {
    use super::super::read;

    /// The end of the last range of each file: of the base URL, of named files, and of an inherited
    /// list.
    #[test]
    fn media_ranges_give_the_known_end_of_each_file() {
        let list = |ranges: &str| format!("<SegmentList duration='2'>{ranges}</SegmentList>");
        let list_of_representation = list(
            "<Initialization range='0-9999'/><SegmentURL media='b.mp4' mediaRange='10-19'/>\
             <SegmentURL media='b.mp4' mediaRange='5-9'/><SegmentURL media='c.mp4'/>\
             <SegmentURL media='d.mp4' mediaRange='7'/><SegmentURL mediaRange='0-x'/>\
             <SegmentURL media='e.mp4' mediaRange='0-18446744073709551615'/>",
        );
        let inherited_list =
            list("<SegmentURL mediaRange='0-99'/><SegmentURL mediaRange='100-199'/>");
        let text = format!(
            "<MPD type='dynamic'><BaseURL>x/</BaseURL><Period><AdaptationSet>{inherited_list}\
             <Representation><BaseURL>a.mp4</BaseURL></Representation>\
             <Representation><BaseURL>y/</BaseURL>{list_of_representation}</Representation>\
             </AdaptationSet></Period></MPD>"
        );
        let files = read(&text).unwrap().listing.files.into_iter();
        let files: Vec<_> = files.map(|file| (file.uri, file.range)).collect();
        let up_to = |name: &str, end| (name.to_owned(), Some((0, Some(end))));
        assert_eq!(
            files,
            [
                up_to("x/a.mp4", 200),
                up_to("x/y/b.mp4", 20),
                up_to("x/y/e.mp4", u64::MAX)
            ]
        );
        let many: Vec<String> = (0..40)
            .map(|number| format!("<SegmentURL media='{number}' mediaRange='0-1'/>"))
            .collect();
        let track = format!("<Representation>{}</Representation>", list(&many.concat()));
        let text = format!(
            "<MPD><Period><AdaptationSet>{}</AdaptationSet></Period></MPD>",
            track.repeat(20)
        );
        let files = read(&text).unwrap().listing.files;
        assert_eq!((files.len(), &*files[0].uri), (128, "24"));
    }
}
