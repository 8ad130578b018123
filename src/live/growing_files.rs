//! Detects stored files that are shorter than a live manifest says: some manifests list byte ranges
//! of one file, and the file grows with each version. A part of [`TrackerState`]; `tracker` lists
//! the parts.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::LiveStreams;
use super::tracker_state::TrackerState;
use seawall_manifest::{ListedResource, Listing};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Lifetime, Rules};

/// An origin may be behind its own manifest: an object received this recently is not fetched again.
const SETTLED_AFTER: Duration = Duration::from_millis(500);

impl TrackerState {
    /// Remembers the end offsets of the files of which a version lists ranges.
    pub(super) fn record_file_ends(
        &mut self,
        request: &CacheRequest,
        rules: &Rules,
        listing: &Listing,
    ) {
        let Listing {
            inits,
            segments,
            parts,
            files,
            ..
        } = listing;
        let mut ends: HashMap<&str, u64> = HashMap::new();
        let listed = inits.iter().chain(segments).chain(parts).chain(files);
        for ListedResource { uri, range, .. } in listed {
            let Some((start, Some(length))) = *range else {
                continue;
            };
            let end = ends.entry(uri).or_default();
            *end = start.saturating_add(length).max(*end);
        }
        // One file may be listed under several names.
        let mut files: HashMap<u64, u64> = HashMap::new();
        for (uri, end) in ends {
            if let Some(file) = request.resolve_any_host(rules, uri) {
                let end_of_file = files.entry(self.hasher.hash_one(&file.key)).or_default();
                *end_of_file = end.max(*end_of_file);
            }
        }
        self.file_ends = files.into_iter().collect();
    }

    fn listed_end_of(&self, request: &CacheRequest) -> Option<u64> {
        if self.file_ends.is_empty() {
            return None;
        }
        let file = self.hasher.hash_one(&request.key);
        let mut files = self.file_ends.iter();
        files.find_map(|(hash, end)| (*hash == file).then_some(*end))
    }
}

impl LiveStreams {
    /// Does any manifest list byte ranges? If not, hits take no lock.
    pub(crate) fn has_byte_ranges(&self) -> bool {
        self.has_byte_ranges.load(Ordering::Relaxed)
    }

    /// Does a live manifest list ranges beyond the `length` of this stored object?
    pub(crate) fn is_outgrown(
        &self,
        request: &CacheRequest,
        length: u64,
        lifetime: &Lifetime,
        now: Instant,
    ) -> bool {
        let resident = now.saturating_duration_since(lifetime.received);
        let may_grow = !request.kind.is_manifest() && resident >= SETTLED_AFTER;
        may_grow
            && self
                .trackers_beside_with_unstored(request)
                .iter()
                .any(|tracker| {
                    let end = tracker.state.lock().listed_end_of(request);
                    end.is_some_and(|end| end > length)
                })
    }
}
