//! Packagers may give each segment a directory of its own (`104/seg.ts`). All these directories are one place, so
//! that it is known of each of them which manifest lists it and when its programme began anew. Which parts of a path
//! are numbers of segments shows where a manifest lists two directories that differ in nothing else.

use std::collections::HashMap;

use crate::policy::Key;
use crate::policy::access::CacheRequest;

/// Directories remembered of one manifest that may turn out to be numbered.
const SEEN_MAX: usize = 512;
/// Location that stand for numbered directories; a manifest has one for each rendition, mostly.
const NUMBERED_MAX: usize = 64;

/// What one manifest lists in numbered directories.
#[derive(Default)]
pub(super) struct NumberedDirectories {
    /// A directory that a numbered place would stand for.
    seen: HashMap<Key, Key, ahash::RandomState>,
    /// The one that was listed last at the end.
    known: Vec<Key>,
}

impl NumberedDirectories {
    /// Something is listed: the place that stands for its directory and others, if it has one.
    pub(super) fn list(&mut self, listed: &CacheRequest) -> Option<Key> {
        let places: Vec<Key> = listed.numbered_places().collect();
        let is_known = |place: &Key| places.contains(place);
        if let Some(at) = self.known.iter().position(is_known) {
            self.known[at..].rotate_left(1);
            return self.known.last().cloned();
        }
        let here = listed.place();
        for place in places {
            if self.seen.len() >= SEEN_MAX {
                self.seen.clear();
            }
            if *self
                .seen
                .entry(place.clone())
                .or_insert_with(|| here.clone())
                != here
            {
                self.seen.remove(&place);
                if self.known.len() >= NUMBERED_MAX {
                    self.known.remove(0);
                }
                self.known.push(place.clone());
                return Some(place);
            }
        }
        None
    }

    pub(super) fn known(&self) -> &[Key] {
        &self.known
    }

    /// Bytes of memory, about.
    pub(super) fn weight_bytes(&self) -> usize {
        /// A key's text, and what surrounds an allocation.
        const TEXT_BYTES: usize = 96;
        let keys = 2 * self.seen.capacity() + self.known.capacity();
        keys * size_of::<Key>() + (2 * self.seen.len() + self.known.len()) * TEXT_BYTES
    }
}

/// Where something lies.
#[derive(Default)]
pub(in crate::proxy) struct Location {
    /// Its directory.
    pub(in crate::proxy) here: Option<Key>,
    /// All directories that differ from it in a segment's number.
    pub(in crate::proxy) around: Option<Key>,
}

impl Location {
    pub(in crate::proxy) fn only(here: Key) -> Location {
        Location {
            here: Some(here),
            around: None,
        }
    }

    /// Where it belongs as long as it is not listed, until the next version says what is.
    pub(in crate::proxy) fn unlisted(&self) -> Location {
        Location {
            here: self.here.as_ref().map(unlisted),
            around: self.around.as_ref().map(unlisted),
        }
    }
}

/// Where what is not listed belongs that lies in a place.
pub(in crate::proxy) fn unlisted(place: &Key) -> Key {
    Key::of(&[b"unlisted", place.bytes()])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::policy::{Route, Rules};

    fn entries(paths: impl IntoIterator<Item = String>) -> Vec<CacheRequest> {
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
        };
        let base = CacheRequest::asked(&rules, "a", "/a.m3u8");
        let paths = paths.into_iter();
        let entries = paths.map(|path| base.sibling(&rules, &path).unwrap());
        entries.collect()
    }

    #[test]
    fn two_directories_that_differ_in_a_number_are_one_place() {
        let paths = [
            "/live/9/a.ts",
            "/live/9/b.ts",
            "/live/10/a.ts",
            "/live/9/c.ts",
        ];
        let entries = entries(paths.map(str::to_owned));
        let mut numbered = NumberedDirectories::default();
        let found: Vec<_> = entries.iter().map(|entry| numbered.list(entry)).collect();
        assert_eq!(
            found[..2],
            [None, None],
            "one directory is nothing but itself"
        );
        assert!(found[2].is_some() && found[2] == found[3]);
    }

    #[test]
    fn renditions_that_are_numbered_too_are_told_apart_by_the_segments_number() {
        let paths = (0..100).flat_map(|number| {
            let of = move |rendition| format!("/live/{rendition}/{number}/s.m4s");
            (1..=3).map(of)
        });
        let mut numbered = NumberedDirectories::default();
        for entry in entries(paths) {
            numbered.list(&entry);
        }
        let last = entries((1..=3).map(|rendition| format!("/live/{rendition}/100/s.m4s")));
        for entry in last {
            let by_segment = entry.numbered_places().next();
            assert_eq!(numbered.list(&entry), by_segment);
        }
    }

    #[test]
    fn what_is_remembered_has_a_bound() {
        let paths = (0..2000).flat_map(|number| {
            let of = move |twin| format!("/live/{:x}/x/{twin}/s.m4s", number * 1_000_003);
            (1..=2).map(of)
        });
        let mut numbered = NumberedDirectories::default();
        for entry in entries(paths) {
            numbered.list(&entry);
            assert!(numbered.seen.len() <= SEEN_MAX + 4);
            assert!(numbered.known.len() <= NUMBERED_MAX);
        }
    }
}
