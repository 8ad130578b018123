//! Computes the memory that a tracker uses. A part of [`ManifestTracker`], whose file lists the
//! parts.

use super::ManifestTracker;
use super::stream::LiveStream;
use seawall_cache::AccessTracker;
use seawall_policy::Key;
use seawall_policy::access::CacheRequest;

impl ManifestTracker {
    /// Approximate bytes of memory of this tracker.
    pub(super) fn weight_bytes(&self) -> usize {
        /// Texts and keys of a `CacheRequest`, and the overhead of an allocation.
        const REQUEST_BYTES: usize = 256;
        const FIELD_BYTES: usize = 112;
        let text = |request: &CacheRequest| {
            let target = request.target.as_str().len();
            size_of::<CacheRequest>() + REQUEST_BYTES + target + request.key.bytes().len()
        };
        let state = self.state.lock();
        let keys = state
            .directories
            .iter()
            .map(|directory| directory.bytes().len());
        let directories = state.directories.capacity() * size_of::<Key>() + keys.sum::<usize>();
        let announced = state.announced.iter().map(|(request, _)| text(request));
        let background_headers = state
            .background_headers
            .iter()
            .flat_map(|headers| headers.iter());
        let fields = background_headers.map(|(_, value)| value.len() + FIELD_BYTES);
        let names = state.listed_since_restart.as_ref();
        let files = size_of_val(&*state.file_ends) + state.window.weight_bytes();
        let bytes = size_of::<ManifestTracker>()
            + text(&self.request)
            + size_of::<AccessTracker>()
            + size_of::<LiveStream>()
            + size_of_val(&*state.listed_names)
            + directories
            + state.numbered.weight_bytes()
            + announced.sum::<usize>()
            + fields.sum::<usize>()
            + state.representations.weight_bytes()
            + state.variants.weight_bytes()
            + names.map_or(0, |names| names.weight_bytes())
            + files;
        // Allowance for the allocator's size classes.
        bytes + bytes / 8
    }
}
