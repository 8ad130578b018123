//! Detects stored files that are shorter than a live manifest says: some manifests list byte ranges
//! of one file, and the file grows with each version.

use std::collections::HashMap;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use super::LiveStreams;
use super::tracker_state::TrackerState;
use seawall_manifest::{ListedResource, Listing};
use seawall_policy::access::CacheRequest;
use seawall_policy::{Lifetime, Rules};

/// An origin may be behind its own manifest: an object received this recently is not fetched again.
const LATELY: Duration = Duration::from_millis(500);

impl TrackerState {
    /// Remembers the end offsets of the files of which a version lists ranges.
    pub(super) fn measure(&mut self, entry: &CacheRequest, rules: &Rules, listing: &Listing) {
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
            if let Some(file) = entry.resolve_any_host(rules, uri) {
                let reach = files.entry(self.hasher.hash_one(&file.key)).or_default();
                *reach = end.max(*reach);
            }
        }
        self.files = files.into_iter().collect();
    }

    fn reach_of(&self, entry: &CacheRequest) -> Option<u64> {
        if self.files.is_empty() {
            return None;
        }
        let file = self.hasher.hash_one(&entry.key);
        let mut files = self.files.iter();
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
        entry: &CacheRequest,
        length: u64,
        lifetime: &Lifetime,
        now: Instant,
    ) -> bool {
        let resident = now.saturating_duration_since(lifetime.received);
        let may_grow = !entry.kind.is_manifest() && resident >= LATELY;
        may_grow
            && self.all_trackers_listing(entry).iter().any(|tracker| {
                let end = tracker.state.lock().reach_of(entry);
                end.is_some_and(|end| end > length)
            })
    }
}
