//! Tracks the segments that a live manifest lists and has just dropped. The cache uses both for
//! eviction: the distance of a segment from the live edge is its value, and a segment that no live
//! manifest lists any more is evicted first.

use std::collections::{HashMap, HashSet, VecDeque};
use std::time::Duration;

use super::representations::ClockPosition;
use seawall_cache::eviction::{Advance, LivePosition};
use seawall_manifest::{ListedResource, Listing, Manifest, ManifestInfo};
use seawall_policy::Rules;
use seawall_policy::access::CacheRequest;

/// Most segments remembered per manifest. Older ones are never reported as dropped.
const REMEMBERED_MAX: usize = 2048;
/// Parts are listed for three target durations after their segment is complete (RFC 8216bis
/// §4.4.4.9). Which parts are still listed is not parsed.
const PART_SEGMENTS: u64 = 3;

/// A sequence of objects that grows at its end and is dropped from its start: the segments or the
/// parts of a playlist, or one representation of an MPD.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
enum RenditionId {
    /// HLS: the only rendition. DASH: a representation whose timeline is listed.
    Segments(usize),
    Parts,
    /// DASH: a representation whose segments the clock announces, by the index of its template.
    Template(usize),
}

struct WindowSegment {
    rendition_hash: u64,
    is_part: bool,
    sequence: u64,
    uri_hash: u64,
    /// Fingerprint of the key.
    key_hash: u64,
}

/// An object that a version lists under a name of its own.
struct ListedName<'a> {
    rendition_hash: u64,
    uri_hash: u64,
    listed: &'a ListedResource,
    is_part: bool,
}

impl ListedName<'_> {
    /// As [`WindowSegment::id`].
    fn id(&self) -> (u64, u64) {
        (self.rendition_hash, self.uri_hash)
    }
}

/// What a version added to a rendition.
#[derive(Clone, Copy)]
struct AddedObjects {
    count: u64,
    /// The rendition consists of parts, not of segments.
    are_parts: bool,
}

/// The durations that a manifest states.
#[derive(Clone, Copy)]
struct Durations {
    segment: Duration,
    part: Duration,
}

/// The segments that a manifest lists.
#[derive(Default)]
pub(super) struct ListedWindow {
    segments: VecDeque<WindowSegment>,
    /// Segments listed before a restart.
    dropped_by_restart: Vec<u64>,
    hasher: ahash::RandomState,
}

/// What a version changed.
#[derive(Default)]
pub(crate) struct WindowChange {
    pub(crate) advances: Vec<Advance>,
    /// Fingerprints of the keys that this manifest no longer lists.
    pub(crate) dropped: Vec<u64>,
}

impl ListedWindow {
    /// Records what a version lists. Returns which segments it adds and drops.
    pub(super) fn update(
        &mut self,
        (request, rules): (&CacheRequest, &Rules),
        manifest: &Manifest,
        segment_duration: Duration,
    ) -> WindowChange {
        let is_first = self.segments.is_empty();
        let version = self.whole_objects(&manifest.listing);
        let (mut dropped, known) = self.remove_dropped(&version, &manifest.info);
        let added = self.add_new((request, rules), version, known);
        self.forget_oldest();
        // The same name may be listed again under another number.
        self.remove_listed(&mut dropped);
        let durations = Durations {
            segment: segment_duration,
            part: manifest.info.part_target().unwrap_or(segment_duration),
        };
        let advances = added.into_iter().map(|(rendition_hash, added)| {
            self.advance(rendition_hash, added, durations, is_first)
        });
        WindowChange {
            advances: advances.collect(),
            dropped,
        }
    }

    /// How a rendition advanced. The first version says nothing about its pace.
    fn advance(
        &self,
        rendition_hash: u64,
        added: AddedObjects,
        durations: Durations,
        is_first: bool,
    ) -> Advance {
        Advance {
            rendition: rendition_hash,
            segments: if is_first { 0 } else { added.count },
            listed: self.count_of(rendition_hash),
            segment_interval_ms: millis(if added.are_parts {
                durations.part
            } else {
                durations.segment
            }),
        }
    }

    fn forget_oldest(&mut self) {
        let forgotten = self.segments.len().saturating_sub(REMEMBERED_MAX);
        self.segments.drain(..forgotten);
    }

    /// The listed objects of a version that are whole files, not byte ranges.
    fn whole_objects<'a>(&self, listing: &'a Listing) -> Vec<ListedName<'a>> {
        let segments = listing.segments.iter().map(|listed| (listed, false));
        let parts = listing.parts.iter().map(|listed| (listed, true));
        let whole = segments
            .chain(parts)
            .filter(|(listed, _)| listed.range.is_none());
        let named = whole.map(|(listed, is_part)| ListedName {
            rendition_hash: self.rendition_hash(listed, is_part),
            uri_hash: self.hasher.hash_one(&listed.uri),
            listed,
            is_part,
        });
        named.collect()
    }

    /// Removes the segments that a version no longer lists. Returns their fingerprints, and the
    /// segments of the version that are already known.
    fn remove_dropped(
        &mut self,
        version: &[ListedName],
        info: &ManifestInfo,
    ) -> (Vec<u64>, HashSet<(u64, u64)>) {
        let extent = VersionExtent::of(version, info);
        let listed: HashSet<_> = version.iter().map(ListedName::id).collect();
        let mut known = HashSet::new();
        let mut dropped = std::mem::take(&mut self.dropped_by_restart);
        self.segments.retain(|segment| {
            if listed.contains(&segment.id()) {
                known.insert(segment.id());
                return true;
            }
            let is_dropped = extent.has_dropped(segment);
            dropped.extend(is_dropped.then_some(segment.key_hash));
            !is_dropped
        });
        (dropped, known)
    }

    /// Adds the segments of a version that are not `known`. Returns what was added, by rendition.
    fn add_new(
        &mut self,
        (request, rules): (&CacheRequest, &Rules),
        version: Vec<ListedName>,
        mut known: HashSet<(u64, u64)>,
    ) -> HashMap<u64, AddedObjects> {
        let mut added: HashMap<u64, AddedObjects> = HashMap::new();
        for name in version {
            if !known.insert(name.id()) {
                continue;
            }
            let Some(object) = request.resolve_same_host(rules, &name.listed.uri) else {
                continue;
            };
            let of_rendition = added.entry(name.rendition_hash).or_insert(AddedObjects {
                count: 0,
                are_parts: name.is_part,
            });
            of_rendition.count += 1;
            self.segments.push_back(WindowSegment {
                rendition_hash: name.rendition_hash,
                is_part: name.is_part,
                sequence: name.listed.position,
                uri_hash: name.uri_hash,
                key_hash: object.key.fingerprint(),
            });
        }
        added
    }

    /// Called on a restart: all listed segments are reported as dropped with the next version.
    pub(super) fn clear(&mut self) {
        let all = self.segments.drain(..);
        self.dropped_by_restart
            .extend(all.map(|segment| segment.key_hash));
    }

    /// The position of a segment, by the fingerprint of its key.
    pub(super) fn position(&self, key_hash: u64) -> Option<LivePosition> {
        let is_it = |segment: &WindowSegment| segment.key_hash == key_hash;
        let at = self.segments.iter().rposition(is_it)?;
        let rendition_hash = self.segments[at].rendition_hash;
        let newer = self.segments.range(at + 1..);
        let newer = newer.filter(|segment| segment.rendition_hash == rendition_hash);
        Some(LivePosition {
            rendition: rendition_hash,
            segments_from_edge: newer.count() as u64,
        })
    }

    /// Is the object listed under this fingerprint a segment (`true`) or a part? `None`: not
    /// listed.
    pub(super) fn is_segment(&self, key_hash: u64) -> Option<bool> {
        let listed = self
            .segments
            .iter()
            .filter(|listed| listed.key_hash == key_hash);
        listed.map(|listed| !listed.is_part).max()
    }

    /// The position of an announced part.
    pub(super) fn next_part(&self) -> LivePosition {
        LivePosition {
            rendition: self.hasher.hash_one(RenditionId::Parts),
            segments_from_edge: 0,
        }
    }

    /// The position of an MPD's segment that only the clock announces.
    pub(super) fn clock_position(&self, position: ClockPosition) -> LivePosition {
        LivePosition {
            rendition: self.template_rendition(position.template_index),
            segments_from_edge: position.segments_from_edge,
        }
    }

    /// The rendition whose segments this template of an MPD names.
    pub(super) fn template_rendition(&self, template_index: usize) -> u64 {
        self.hasher.hash_one(RenditionId::Template(template_index))
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        let dropped_by_restart = self.dropped_by_restart.capacity() * size_of::<u64>();
        self.segments.capacity() * size_of::<WindowSegment>() + dropped_by_restart
    }

    /// Removes from `dropped` the segments that this manifest still lists.
    pub(super) fn remove_listed(&self, dropped: &mut Vec<u64>) {
        if dropped.is_empty() {
            return;
        }
        let listed: HashSet<u64> = self
            .segments
            .iter()
            .map(|segment| segment.key_hash)
            .collect();
        dropped.retain(|key_hash| !listed.contains(key_hash));
    }

    fn rendition_hash(&self, listed: &ListedResource, is_part: bool) -> u64 {
        self.hasher.hash_one(if is_part {
            RenditionId::Parts
        } else {
            RenditionId::Segments(listed.representation)
        })
    }

    fn count_of(&self, rendition_hash: u64) -> u64 {
        self.segments
            .iter()
            .filter(|segment| segment.rendition_hash == rendition_hash)
            .count() as u64
    }
}

/// How far a version reaches, to tell a dropped segment from one that is merely not parsed: of a
/// long window only the end is parsed into the listing.
struct VersionExtent {
    /// The first and last media sequence number; milliseconds in DASH. `None`: it lists nothing.
    bounds: Option<(u64, u64)>,
    /// The oldest parsed segment of each rendition.
    oldest_parsed: HashMap<u64, u64>,
}

impl VersionExtent {
    fn of(version: &[ListedName], info: &ManifestInfo) -> VersionExtent {
        let bounds = match info {
            ManifestInfo::Hls(playlist) => {
                let edge = playlist.edge.as_ref();
                edge.map(|edge| (edge.media_sequence, edge.last_sequence))
            }
            ManifestInfo::Dash(mpd) => mpd.edge.as_ref().map(|edge| (edge.start_ms, edge.end_ms)),
        };
        let mut oldest_parsed: HashMap<u64, u64> = HashMap::new();
        for name in version {
            let position = name.listed.position;
            let oldest = oldest_parsed.entry(name.rendition_hash).or_insert(position);
            *oldest = position.min(*oldest);
        }
        VersionExtent {
            bounds,
            oldest_parsed,
        }
    }

    /// Has the version dropped this segment, which it does not list by the same name?
    fn has_dropped(&self, segment: &WindowSegment) -> bool {
        let Some((start, end)) = self.bounds else {
            return true;
        };
        if segment.is_part {
            return segment.sequence + PART_SEGMENTS <= end;
        }
        let oldest_parsed = self.oldest_parsed.get(&segment.rendition_hash);
        segment.sequence < start || oldest_parsed.is_some_and(|oldest| segment.sequence >= *oldest)
    }
}

impl WindowSegment {
    /// Its rendition and the hash of its name, which identify it in a version.
    fn id(&self) -> (u64, u64) {
        (self.rendition_hash, self.uri_hash)
    }
}

pub(super) fn millis(span: Duration) -> u64 {
    u64::try_from(span.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use seawall_manifest::{Kind, read_manifest};
    use seawall_policy::Route;

    fn rules() -> Rules {
        Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
        }
    }

    fn slide(window: &mut ListedWindow, text: &str) -> WindowChange {
        let manifest = read_manifest(Kind::Hls, text.as_bytes()).unwrap();
        let rules = rules();
        let request = CacheRequest::asked(&rules, "a", "/live/a.m3u8");
        window.update((&request, &rules), &manifest, Duration::from_secs(4))
    }

    fn playlist(first: u64, count: u64) -> String {
        let head = format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n#EXT-X-MEDIA-SEQUENCE:{first}\n");
        let segments = (first..first + count).map(|number| format!("#EXTINF:4,\n{number}.ts\n"));
        head + &segments.collect::<String>()
    }

    fn name(path: &'static str) -> u64 {
        CacheRequest::asked(&rules(), "a", path).key.fingerprint()
    }

    fn numbered(number: u64) -> u64 {
        CacheRequest::asked(&rules(), "a", format!("/live/{number}.ts").leak())
            .key
            .fingerprint()
    }

    #[test]
    fn delisted_segment_departs_and_the_others_advance() {
        let mut window = ListedWindow::default();
        let first = slide(&mut window, &playlist(1, 3));
        assert!(first.dropped.is_empty());
        assert_eq!(first.advances[0].segments, 0, "it is unknown since when");
        assert_eq!(window.position(numbered(1)).unwrap().segments_from_edge, 2);
        let second = slide(&mut window, &playlist(2, 3));
        assert_eq!(second.dropped, [numbered(1)]);
        assert_eq!(second.advances[0].segments, 1);
        assert_eq!(second.advances[0].segment_interval_ms, 4000);
        assert_eq!(window.position(numbered(1)), None);
        assert_eq!(window.position(numbered(4)).unwrap().segments_from_edge, 0);
        assert!(slide(&mut window, &playlist(2, 3)).advances.is_empty());
        window.clear();
        let restarted = slide(&mut window, &playlist(3, 3));
        assert_eq!(restarted.dropped, [numbered(2)]);
    }

    #[test]
    fn long_window_departs_only_segments_dropped_at_its_start() {
        let mut window = ListedWindow::default();
        slide(&mut window, &playlist(1, 64));
        for last in 65..=200 {
            assert!(slide(&mut window, &playlist(1, last)).dropped.is_empty());
        }
        let position = window.position(numbered(2)).unwrap();
        assert_eq!(position.segments_from_edge, 198);
        let left = slide(&mut window, &playlist(11, 190)).dropped;
        assert_eq!(left.len(), 10);
    }

    #[test]
    fn segment_listed_by_another_manifest_does_not_depart() {
        let mut other = ListedWindow::default();
        slide(&mut other, &playlist(2, 3));
        let mut dropped = vec![numbered(1), numbered(2)];
        other.remove_listed(&mut dropped);
        assert_eq!(dropped, [numbered(1)]);
    }

    #[test]
    fn names_with_an_old_signature_depart_with_their_version() {
        let mut window = ListedWindow::default();
        slide(&mut window, &playlist(1, 3).replace(".ts", ".ts?a"));
        let left = slide(&mut window, &playlist(1, 3).replace(".ts", ".ts?b")).dropped;
        assert_eq!(left.len(), 3);
    }

    #[test]
    fn parts_depart_some_segments_after_the_live_edge() {
        let mut window = ListedWindow::default();
        let parts = |last: u64| {
            let part = format!("#EXT-X-PART:DURATION=1,URI=\"{}.0.ts\"\n", last + 1);
            let head = "#EXTM3U\n#EXT-X-PART-INF:PART-TARGET=1\n";
            playlist(last - 3, 4).replace("#EXTM3U\n", head) + &part
        };
        slide(&mut window, &parts(10));
        let part = name("/live/11.0.ts");
        assert_eq!(window.position(part), Some(window.next_part()));
        for last in 11..14 {
            assert!(!slide(&mut window, &parts(last)).dropped.contains(&part));
        }
        assert!(slide(&mut window, &parts(14)).dropped.contains(&part));
    }
}
