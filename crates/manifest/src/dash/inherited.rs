//! Reads the segment attributes that every level of an MPD may have, and inherits them from the
//! level above (ISO/IEC 23009-1 §5.3.9).

use std::rc::Rc;
use std::time::Duration;

use super::super::info::ManifestError;
use super::super::limits::NAME_BYTES_MAX;
use super::reference;
use super::template::AvailabilityTimeOffset;
use super::timeline::SegmentTimeline;
use super::xml::{ReadExtent, Xml, XmlTag};

/// The media type of a representation.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum MediaType {
    Video,
    Audio,
    /// Subtitles, thumbnails, and unknown types.
    Other,
}

/// `BaseURL`: the first of each level, resolved. Shared by all lower levels without their own.
#[derive(Clone, Default)]
pub(super) struct BaseUrl {
    /// `None`: longer than any request.
    pub(super) url: Option<Rc<str>>,
    pub(super) availability_offset: Option<AvailabilityTimeOffset>,
}

/// `SegmentTemplate`.
#[derive(Clone, Default)]
pub(super) struct SegmentTemplate {
    /// Empty if longer than any request.
    pub(super) media: Option<Rc<str>>,
    /// See `media`.
    pub(super) initialization: Option<Rc<str>>,
    pub(super) timescale: Option<u64>,
    pub(super) duration: Option<u64>,
    pub(super) start_number: Option<u64>,
    pub(super) end_number: Option<u64>,
    pub(super) offset: Option<u64>,
    pub(super) availability_offset: Option<AvailabilityTimeOffset>,
    pub(super) timeline: Option<Rc<SegmentTimeline>>,
}

/// A file of which a `SegmentList` lists ranges.
pub(super) struct RangedFile {
    /// Empty: the base URL itself.
    pub(super) name: Rc<str>,
    /// End of the last range, in bytes.
    pub(super) end: u64,
}

/// Maximum number of files per list, the last ones: packagers write one per representation.
const RANGED_MAX: usize = 16;

/// The same when the whole presentation is read, but the first ones: nothing that is kept moves.
/// One more than what callers look at, who then see that there are more.
const FILES_MAX: usize = 200_001;

/// Attributes of a period, an adaptation set or a representation, which apply to it and to the
/// levels below.
#[derive(Default)]
pub(super) struct InheritedAttributes {
    pub(super) base: Option<BaseUrl>,
    pub(super) segments: Option<SegmentTemplate>,
    pub(super) ranged: Option<Rc<[RangedFile]>>,
    pub(super) media_type: Option<MediaType>,
}

impl MediaType {
    pub(super) fn of(tag: &XmlTag<'_>) -> Option<MediaType> {
        let stated = tag
            .attribute("contentType")
            .or_else(|| tag.attribute("mimeType"))?;
        Some(match stated.split('/').next() {
            Some("video") => MediaType::Video,
            Some("audio") => MediaType::Audio,
            _ => MediaType::Other,
        })
    }
}

impl InheritedAttributes {
    /// Reads an element that any level may contain.
    pub(super) fn take(
        &mut self,
        xml: &mut Xml<'_>,
        tag: &XmlTag<'_>,
    ) -> Result<(), ManifestError> {
        match tag.name {
            // Further base URLs are alternatives.
            "BaseURL" if self.base.is_none() => {
                let availability_offset = tag.attribute("availabilityTimeOffset");
                self.base = Some(BaseUrl {
                    availability_offset: availability_offset
                        .and_then(|value| AvailabilityTimeOffset::of(&value)),
                    url: short(&xml.content()?.unwrap_or_default()),
                });
            }
            "SegmentTemplate" => self.segments = Some(SegmentTemplate::read(xml, tag)?),
            "SegmentList" => self.ranged = Some(RangedFile::read(xml)?),
            _ => {}
        }
        Ok(())
    }

    /// Adds the inherited attributes.
    pub(super) fn below(self, above: &InheritedAttributes) -> InheritedAttributes {
        InheritedAttributes {
            base: match (self.base, &above.base) {
                (Some(base), Some(above)) => Some(BaseUrl {
                    url: base.url.zip(above.url.as_ref()).and_then(|(url, above)| {
                        let fits = above.len() + url.len() <= NAME_BYTES_MAX;
                        fits.then(|| reference::join(above, &url).into())
                    }),
                    availability_offset: base.availability_offset.or(above.availability_offset),
                }),
                (base, above) => base.or_else(|| above.clone()),
            },
            segments: match (self.segments, &above.segments) {
                (Some(segments), Some(above)) => Some(segments.below(above)),
                (segments, above) => segments.or_else(|| above.clone()),
            },
            ranged: self.ranged.or_else(|| above.ranged.clone()),
            media_type: self.media_type.or(above.media_type),
        }
    }
}

impl RangedFile {
    fn read(xml: &mut Xml<'_>) -> Result<Rc<[RangedFile]>, ManifestError> {
        let depth = xml.depth();
        let is_whole = xml.extent == ReadExtent::Whole;
        let mut files: Vec<RangedFile> = Vec::new();
        while let Some(tag) = xml.child(depth)? {
            let range = tag.attribute("mediaRange");
            let last = range.and_then(|range| range.split_once('-')?.1.parse::<u64>().ok());
            // Without a range, each file is a segment.
            if tag.name != "SegmentURL" || last.is_none() && !is_whole {
                continue;
            }
            let name = tag.attribute("media").unwrap_or_default();
            let end = last.map_or(0, |last| last.saturating_add(1));
            let mut known = files.iter_mut().rev().take(RANGED_MAX);
            if let Some(known) = known.find(|known| *known.name == *name) {
                known.end = known.end.max(end);
            } else if (!is_whole || files.len() < FILES_MAX)
                && let Some(name) = short(&name)
            {
                if !is_whole && files.len() >= RANGED_MAX {
                    files.remove(0);
                }
                files.push(RangedFile { name, end });
            }
        }
        Ok(files.into())
    }
}

impl SegmentTemplate {
    fn read(xml: &mut Xml<'_>, tag: &XmlTag<'_>) -> Result<SegmentTemplate, ManifestError> {
        let depth = xml.depth();
        let mut segments = SegmentTemplate::default();
        for (name, value) in tag.attributes() {
            let number = || value.parse().ok();
            match name {
                "media" => segments.media = Some(short(&value).unwrap_or_default()),
                "initialization" => {
                    segments.initialization = Some(short(&value).unwrap_or_default());
                }
                "timescale" => segments.timescale = number(),
                "duration" => segments.duration = number(),
                "startNumber" => segments.start_number = number(),
                "endNumber" => segments.end_number = number(),
                "presentationTimeOffset" => segments.offset = number(),
                "availabilityTimeOffset" => {
                    segments.availability_offset = AvailabilityTimeOffset::of(&value);
                }
                _ => {}
            }
        }
        while let Some(tag) = xml.child(depth)? {
            match tag.name {
                "SegmentTimeline" => segments.timeline = Some(Rc::new(SegmentTimeline::read(xml)?)),
                "Initialization" => {
                    let named = tag.attribute("sourceURL");
                    let named = named.map(|name| short(&name).unwrap_or_default());
                    segments.initialization = named.or(segments.initialization);
                }
                _ => {}
            }
        }
        Ok(segments)
    }

    fn below(self, above: &SegmentTemplate) -> SegmentTemplate {
        let both = above.clone();
        SegmentTemplate {
            media: self.media.or(both.media),
            initialization: self.initialization.or(both.initialization),
            timescale: self.timescale.or(both.timescale),
            duration: self.duration.or(both.duration),
            start_number: self.start_number.or(both.start_number),
            end_number: self.end_number.or(both.end_number),
            offset: self.offset.or(both.offset),
            availability_offset: self.availability_offset.or(both.availability_offset),
            timeline: self.timeline.or(both.timeline),
        }
    }
}

impl AvailabilityTimeOffset {
    fn of(text: &str) -> Option<AvailabilityTimeOffset> {
        if text == "INF" {
            return Some(AvailabilityTimeOffset::Always);
        }
        seconds(text).map(AvailabilityTimeOffset::By)
    }
}

/// The name, unless it is longer than any request.
fn short(name: &str) -> Option<Rc<str>> {
    (name.len() <= NAME_BYTES_MAX).then(|| name.into())
}

/// `xs:double`, not negative.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    Duration::try_from_secs_f64(text.parse().ok()?).ok()
}
