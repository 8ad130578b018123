//! Keeps a timeline for each variant of one manifest. Where responses differ by country or device,
//! a variant that ends earlier than another does not lag, and other names are not a restart.

use std::time::{Duration, Instant};

use seawall_manifest::{ManifestInfo, NAMES_MAX};
use seawall_policy::Key;
use seawall_policy::progress::{Progress, Timeline};

/// Most variants tracked per manifest. Beyond that the variant seen longest ago is forgotten, and
/// its next version counts as the first.
const VARIANTS_MAX: usize = 16;

/// The variant of a version: a hash of the header values that selected it, or nothing where there
/// is one response for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Variant(pub(super) Option<u64>);

impl Variant {
    /// A distinct name for each variant of a manifest.
    pub(super) fn name(self, manifest: &Key) -> Key {
        match self.0 {
            None => manifest.clone(),
            Some(hash) => Key::of(&[manifest.bytes(), &hash.to_be_bytes()]),
        }
    }
}

/// The timelines of a manifest, the most recently seen last.
#[derive(Default)]
pub(super) struct VariantTimelines {
    known: Vec<VariantTimeline>,
}

struct VariantTimeline {
    variant: Variant,
    track: Timeline,
    /// When the last changed version was taken.
    taken: Option<Instant>,
}

/// A version, and the timeline to compare it with.
pub(super) struct ComparedVersion<'a> {
    facts: &'a ManifestInfo,
    track: &'a mut Timeline,
}

impl ComparedVersion<'_> {
    pub(super) fn judge(&self, now: Instant) -> Progress {
        self.track.judge(self.facts, now)
    }

    pub(super) fn take(&mut self, progress: Progress, now: Instant) {
        self.track.record(self.facts, progress, now);
    }
}

impl VariantTimelines {
    /// A version of a variant; the first one starts its timeline.
    pub(super) fn of<'a>(
        &'a mut self,
        variant: Variant,
        facts: &'a ManifestInfo,
        (period, now): (Duration, Instant),
    ) -> ComparedVersion<'a> {
        let at = self.position(variant).unwrap_or_else(|| {
            if self.known.len() >= VARIANTS_MAX {
                self.known.remove(0);
            }
            self.known.push(VariantTimeline {
                variant,
                track: Timeline::new(facts, period, now),
                taken: None,
            });
            self.known.len() - 1
        });
        self.known[at..].rotate_left(1);
        let last = self.known.len() - 1;
        let track = &mut self.known[last].track;
        ComparedVersion { facts, track }
    }

    fn position(&self, variant: Variant) -> Option<usize> {
        self.known.iter().position(|known| known.variant == variant)
    }

    fn known(&self, variant: Variant) -> Option<&VariantTimeline> {
        self.position(variant).map(|at| &self.known[at])
    }

    /// The origin has confirmed the known version.
    pub(super) fn record_confirmation(&mut self, variant: Variant, now: Instant) {
        if let Some(at) = self.position(variant) {
            self.known[at].track.record_response(now);
        }
    }

    pub(super) fn note_taken(&mut self, variant: Variant, taken: Instant) {
        if let Some(at) = self.position(variant) {
            self.known[at].taken = Some(taken);
        }
    }

    pub(super) fn taken(&self, variant: Variant) -> Option<Instant> {
        self.known(variant)?.taken
    }

    /// The next version of each variant counts as the first.
    pub(super) fn forget(&mut self) {
        for known in &mut self.known {
            known.track.forget();
        }
    }

    pub(super) fn pace(&mut self, period: Duration) {
        for known in &mut self.known {
            known.track.set_period(period);
        }
    }

    /// The most recently seen variant should have changed by now.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.track.late(now))
    }

    /// The most recently seen variant should have changed long ago.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.track.stalled(now))
    }

    /// The media sequence number of the last segment, if segments are numbered.
    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.known.last()?.track.last_sequence()
    }

    /// A variant has restarted and not yet reached its former position.
    pub(super) fn has_unfinished_restart(&self) -> bool {
        let mut tracks = self.known.iter().map(|known| &known.track);
        tracks.any(Timeline::is_short_of_former)
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        /// Two marks with the fingerprints of their names.
        const NAMES_BYTES: usize = 2 * NAMES_MAX * size_of::<u64>();
        self.known.capacity() * size_of::<VariantTimeline>() + self.known.len() * NAMES_BYTES
    }
}
