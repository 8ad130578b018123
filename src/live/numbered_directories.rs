//! Recognizes numbered directories: some packagers give each segment a directory of its own
//! (`104/seg.ts`). All of them count as one directory, so that the manifests that list it and its
//! restarts are known for each of them. A path part is a segment number if one manifest lists two
//! directories that differ only in it.

use std::collections::HashMap;

use seawall_policy::Key;
use seawall_policy::access::CacheRequest;

/// Most directories remembered per manifest as candidates.
const CANDIDATES_MAX: usize = 512;
/// Most numbered directories per manifest; usually there is one per rendition.
const NUMBERED_MAX: usize = 64;

/// The numbered directories of one manifest.
#[derive(Default)]
pub(super) struct NumberedDirectories {
    /// Candidate numbered directory → a real directory that it would stand for.
    candidates: HashMap<Key, Key, ahash::RandomState>,
    /// Known numbered directories, the most recently listed last.
    known: Vec<Key>,
}

impl NumberedDirectories {
    /// Registers a listed object. Returns its numbered directory, if it has one.
    pub(super) fn list(&mut self, listed: &CacheRequest) -> Option<Key> {
        let directories: Vec<Key> = listed.numbered_directories().collect();
        let is_known = |directory: &Key| directories.contains(directory);
        if let Some(at) = self.known.iter().position(is_known) {
            self.known[at..].rotate_left(1);
            return self.known.last().cloned();
        }
        let listed_in = listed.directory();
        for directory in directories {
            if self.candidates.len() >= CANDIDATES_MAX {
                self.candidates.clear();
            }
            let first_listed_in = self
                .candidates
                .entry(directory.clone())
                .or_insert_with(|| listed_in.clone());
            if *first_listed_in != listed_in {
                self.candidates.remove(&directory);
                if self.known.len() >= NUMBERED_MAX {
                    self.known.remove(0);
                }
                self.known.push(directory.clone());
                return Some(directory);
            }
        }
        None
    }

    pub(super) fn known(&self) -> &[Key] {
        &self.known
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        /// A key's text and the overhead of an allocation.
        const TEXT_BYTES: usize = 96;
        let keys = 2 * self.candidates.capacity() + self.known.capacity();
        keys * size_of::<Key>() + (2 * self.candidates.len() + self.known.len()) * TEXT_BYTES
    }
}

/// The directories of an object.
#[derive(Default)]
pub(crate) struct Location {
    /// Its directory.
    pub(crate) directory: Option<Key>,
    /// The numbered directory that contains it.
    pub(crate) numbered_directory: Option<Key>,
}

impl Location {
    pub(crate) fn only(directory: Key) -> Location {
        Location {
            directory: Some(directory),
            numbered_directory: None,
        }
    }

    /// The epochs of the object while it is unlisted: they end with the next version that says what
    /// is listed.
    pub(crate) fn unlisted(&self) -> Location {
        Location {
            directory: self.directory.as_ref().map(unlisted),
            numbered_directory: self.numbered_directory.as_ref().map(unlisted),
        }
    }
}

/// The key for the epoch of unlisted objects in a directory.
pub(crate) fn unlisted(directory: &Key) -> Key {
    Key::of(&[b"unlisted", directory.bytes()])
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use seawall_policy::{Route, Rules};

    fn requests(paths: impl IntoIterator<Item = String>) -> Vec<CacheRequest> {
        let rules = Rules {
            routes: vec![Arc::new(Route::everything("main"))],
            name: "seawall".into(),
            trusted_proxies: seawall_policy::TrustedProxies::default(),
            client_classes: seawall_policy::ClientClasses::default(),
        };
        let base = CacheRequest::asked(&rules, "a", "/a.m3u8");
        let paths = paths.into_iter();
        let requests = paths.map(|path| base.resolve_same_host(&rules, &path).unwrap());
        requests.collect()
    }

    #[test]
    fn two_directories_differing_in_a_number_are_one_numbered_directory() {
        let paths = [
            "/live/9/a.ts",
            "/live/9/b.ts",
            "/live/10/a.ts",
            "/live/9/c.ts",
        ];
        let requests = requests(paths.map(str::to_owned));
        let mut numbered = NumberedDirectories::default();
        let found: Vec<_> = requests
            .iter()
            .map(|request| numbered.list(request))
            .collect();
        assert_eq!(
            found[..2],
            [None, None],
            "one directory is nothing but itself"
        );
        assert!(found[2].is_some() && found[2] == found[3]);
    }

    #[test]
    fn numbered_renditions_are_not_taken_for_segment_numbers() {
        let paths = (0..100).flat_map(|number| {
            let of = move |rendition| format!("/live/{rendition}/{number}/s.m4s");
            (1..=3).map(of)
        });
        let mut numbered = NumberedDirectories::default();
        for request in requests(paths) {
            numbered.list(&request);
        }
        let last = requests((1..=3).map(|rendition| format!("/live/{rendition}/100/s.m4s")));
        for request in last {
            let by_segment = request.numbered_directories().next();
            assert_eq!(numbered.list(&request), by_segment);
        }
    }

    #[test]
    fn numbered_directory_memory_is_limited() {
        let paths = (0..2000).flat_map(|number| {
            let of = move |twin| format!("/live/{:x}/x/{twin}/s.m4s", number * 1_000_003);
            (1..=2).map(of)
        });
        let mut numbered = NumberedDirectories::default();
        for request in requests(paths) {
            numbered.list(&request);
            assert!(numbered.candidates.len() <= CANDIDATES_MAX + 4);
            assert!(numbered.known.len() <= NUMBERED_MAX);
        }
    }
}
