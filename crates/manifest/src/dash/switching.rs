//! Which adaptation sets of a period players switch between (ISO/IEC 23009-1 §5.3.3.5). Together
//! they are one track, as packagers write one set for each encryption key or codec level.

use std::borrow::Cow;
use std::collections::HashMap;

use super::xml::XmlTag;

const SWITCHING: &str = "urn:mpeg:dash:adaptation-set-switching:2016";

/// What an adaptation set says of others.
#[derive(Default)]
pub(super) struct SetSwitching<'a> {
    id: Cow<'a, str>,
    /// The other sets' ids, separated by commas.
    others: Option<Cow<'a, str>>,
}

impl<'a> SetSwitching<'a> {
    /// Reads the tag of the set.
    pub(super) fn of(set: &XmlTag<'a>) -> SetSwitching<'a> {
        SetSwitching {
            id: set.attribute("id").unwrap_or_default(),
            others: None,
        }
    }

    /// Reads the tag of an element inside the set.
    pub(super) fn take(&mut self, tag: &XmlTag<'a>) {
        let is_property = matches!(tag.name, "SupplementalProperty" | "EssentialProperty");
        let has_scheme = || {
            tag.attribute("schemeIdUri")
                .is_some_and(|it| it == SWITCHING)
        };
        if self.others.is_none() && is_property && has_scheme() {
            self.others = tag.attribute("value");
        }
    }
}

/// The track of each set: the same number for sets that players switch between. It is enough that
/// one of two sets names the other.
pub(super) fn tracks(sets: &[&SetSwitching<'_>]) -> Vec<usize> {
    let mut tracks: Vec<_> = (0..sets.len()).collect();
    if sets.iter().all(|set| set.others.is_none()) {
        return tracks;
    }
    let with_id = sets
        .iter()
        .enumerate()
        .filter(|(_, set)| !set.id.is_empty());
    let by_id: HashMap<&str, usize> = with_id.map(|(index, set)| (&*set.id, index)).collect();
    for (index, set) in sets.iter().enumerate() {
        let others = set.others.iter().flat_map(|others| others.split(','));
        for other in others.filter_map(|id| by_id.get(id.trim())) {
            let (one, other) = (first(&mut tracks, index), first(&mut tracks, *other));
            tracks[one.max(other)] = one.min(other);
        }
    }
    (0..sets.len())
        .map(|index| first(&mut tracks, index))
        .collect()
}

/// The first set of the track, and a shorter way to it.
fn first(tracks: &mut [usize], mut index: usize) -> usize {
    while tracks[index] != index {
        tracks[index] = tracks[tracks[index]];
        index = tracks[index];
    }
    index
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tracks_of(sets: &[(&'static str, &'static str)]) -> Vec<usize> {
        let sets: Vec<_> = sets
            .iter()
            .map(|&(id, others)| SetSwitching {
                id: id.into(),
                others: (!others.is_empty()).then(|| others.into()),
            })
            .collect();
        tracks(&sets.iter().collect::<Vec<_>>())
    }

    #[test]
    fn linked_sets_are_one_track() {
        assert_eq!(tracks_of(&[("1", ""), ("", ""), ("1", "")]), [0, 1, 2]);
        // One names the other, in either direction, and over a third.
        assert_eq!(tracks_of(&[("1", ""), ("2", " 1 ")]), [0, 0]);
        assert_eq!(tracks_of(&[("1", "2,9,,"), ("2", "")]), [0, 0]);
        let chain = [("4", "3"), ("1", ""), ("3", "2"), ("5", "5"), ("2", "1")];
        assert_eq!(tracks_of(&chain), [0, 0, 0, 3, 0]);
    }
}
