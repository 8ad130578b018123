//! Selects the new segments that viewers will soon request, and says under which condition.

use std::collections::{HashMap, VecDeque};

use seawall_manifest::Listing;
use seawall_policy::access::CacheRequest;
use seawall_policy::{Key, Rules};

/// A player that joins at the live edge requests one of this many last segments first, and then the
/// later ones. New objects that are older are not requested soon.
pub(super) const EDGE_SEGMENTS: usize = 3;

/// Number of segments before a new one that are checked: if viewers requested one of them, they
/// watch the representation.
pub(super) const BEFORE_MAX: usize = 6;

/// A new segment, and the condition under which viewers want it.
pub(crate) struct ExpectedSegment {
    pub(crate) request: CacheRequest,
    pub(crate) interest: PrefetchInterest,
}

impl ExpectedSegment {
    pub(super) fn always(request: CacheRequest) -> ExpectedSegment {
        let interest = PrefetchInterest::Always;
        ExpectedSegment { request, interest }
    }

    /// The new segments that an MPD lists, each with the segments just before it in the same
    /// representation: the last ones of each, the newest first.
    pub(super) fn new_in_mpd(
        rules: &Rules,
        mpd: &CacheRequest,
        listing: &Listing,
        is_new: impl Fn(&Key) -> bool,
    ) -> Vec<ExpectedSegment> {
        let mut before: HashMap<usize, VecDeque<CacheRequest>> = HashMap::new();
        let mut new: Vec<(usize, CacheRequest)> = Vec::new();
        for listed in &listing.segments {
            let representation = listed.representation;
            let Some(request) = mpd.resolve_same_host(rules, &listed.uri) else {
                continue;
            };
            if is_new(&request.key) {
                new.push((representation, request));
                continue;
            }
            let before = before.entry(representation).or_default();
            if before.len() >= BEFORE_MAX {
                before.pop_front();
            }
            before.push_back(request);
        }
        let mut taken: HashMap<usize, usize> = HashMap::new();
        let newest = new.into_iter().rev().filter(|(representation, _)| {
            let taken = taken.entry(*representation).or_default();
            *taken += 1;
            *taken <= EDGE_SEGMENTS
        });
        let expected = newest.map(|(representation, request)| {
            let before = before.get(&representation).cloned().unwrap_or_default();
            let interest = PrefetchInterest::IfAnyRequested(before.into());
            ExpectedSegment { request, interest }
        });
        expected.collect()
    }
}

/// When a new segment is worth a prefetch.
pub(crate) enum PrefetchInterest {
    /// Always: its playlist is for one rendition, and is watched.
    Always,
    /// If a viewer recently requested one of these preceding segments.
    IfAnyRequested(Vec<CacheRequest>),
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;
    use crate::live::fixtures::{request, rules};
    use seawall_manifest::{Kind, read_manifest};

    #[test]
    fn expects_next_segment_of_each_of_40_representations() {
        let representations: Vec<_> = (0..40)
            .map(|number| format!("<Representation id='{number}'/>"))
            .collect();
        let mpd = format!(
            "<MPD type='dynamic' availabilityStartTime='1970-01-01T00:00:00Z'>\
             <Period><AdaptationSet><SegmentTemplate media='$RepresentationID$/$Number$'>\
             <SegmentTimeline><S t='0' d='2' r='99'/></SegmentTimeline></SegmentTemplate>{}\
             </AdaptationSet></Period></MPD>",
            representations.concat()
        );
        let listing = read_manifest(Kind::Dash, mpd.as_bytes()).unwrap().listing;
        let (rules, request) = (rules(), request("/live/a.mpd"));
        let newest = |request: &CacheRequest| request.target.path().ends_with("/100");
        let keys = listing.segments.iter();
        let keys = keys.filter_map(|listed| request.resolve_same_host(&rules, &listed.uri));
        let new: HashSet<Key> = keys.filter(newest).map(|request| request.key).collect();
        let expected =
            ExpectedSegment::new_in_mpd(&rules, &request, &listing, |key| new.contains(key));
        assert_eq!(expected.len(), 40);
        for ExpectedSegment { request, interest } in expected {
            let PrefetchInterest::IfAnyRequested(before) = interest else {
                panic!("an MPD's segment is wanted only if an earlier one was");
            };
            assert_eq!(before.len(), 6);
            assert!(
                before
                    .iter()
                    .all(|other| other.directory() == request.directory())
            );
        }
    }
}
