//! Reports one name per directory.

use std::collections::HashSet;

/// Collects names and reports one per directory, as written. Keeps only a hash per directory: there
/// may be one directory per segment, and short texts may produce long names.
pub(super) struct Directories<'a> {
    known: HashSet<u64>,
    hasher: ahash::RandomState,
    show: &'a mut dyn FnMut(&str),
}

impl Directories<'_> {
    pub(super) fn new(show: &mut dyn FnMut(&str)) -> Directories<'_> {
        Directories {
            known: HashSet::new(),
            hasher: ahash::RandomState::new(),
            show,
        }
    }

    pub(super) fn take(&mut self, name: &str) {
        let path = name.split(['?', '#']).next().unwrap_or_default();
        let directory = path.rfind('/').map_or("", |end| &path[..=end]);
        if self.known.insert(self.hasher.hash_one(directory)) {
            (self.show)(name);
        }
    }
}
