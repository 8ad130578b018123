//! How far has each variant of one manifest come? Where the answer is another one for each country or device,
//! each has a timeline of its own: that one ends earlier than another is no lag, and other names are
//! no restart.

use std::time::{Duration, Instant};

use crate::manifest::{ManifestInfo, NAMES_MAX};
use crate::policy::Key;
use crate::policy::progress::{Progress, Timeline};

/// So many variants of a manifest are told apart; beyond that, the one seen longest ago is forgotten, and
/// its next version is the first.
const VARIANTS_MAX: usize = 16;

/// Which variant a version is of: a hash of the header values that chose it, or nothing where it is
/// everybody's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(in crate::proxy) struct Variant(pub(super) Option<u64>);

impl Variant {
    /// A name of its own for each variant of a manifest.
    pub(super) fn name(self, manifest: &Key) -> Key {
        match self.0 {
            None => manifest.clone(),
            Some(hash) => Key::of(&[manifest.bytes(), &hash.to_be_bytes()]),
        }
    }
}

/// The timelines of a manifest, the one seen last at the end.
#[derive(Default)]
pub(super) struct VariantTimelines {
    known: Vec<VariantTimeline>,
}

struct VariantTimeline {
    variant: Variant,
    track: Timeline,
    /// When the last version was taken that went on.
    taken: Option<Instant>,
}

/// A version, and the timeline that it is compared with.
pub(super) struct ComparedVersion<'a> {
    facts: &'a ManifestInfo,
    track: &'a mut Timeline,
}

impl ComparedVersion<'_> {
    pub(super) fn judge(&self, now: Instant) -> Progress {
        self.track.judge(self.facts, now)
    }

    pub(super) fn take(&mut self, progress: Progress, now: Instant) {
        self.track.take(self.facts, progress, now);
    }
}

impl VariantTimelines {
    /// A version of a variant; begins its timeline where it is the first.
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

    /// The origin still speaks of what is known.
    pub(super) fn hear(&mut self, variant: Variant, now: Instant) {
        if let Some(at) = self.position(variant) {
            self.known[at].track.hears(now);
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

    /// Whatever comes next is the first.
    pub(super) fn forget(&mut self) {
        for known in &mut self.known {
            known.track.forget();
        }
    }

    pub(super) fn pace(&mut self, period: Duration) {
        for known in &mut self.known {
            known.track.paced(period);
        }
    }

    /// The one that was seen last should have changed by now.
    pub(super) fn late(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.track.late(now))
    }

    /// The one that was seen last should have changed long ago.
    pub(super) fn stalled(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.track.stalled(now))
    }

    /// The number of its last segment, where segments are numbered.
    pub(super) fn reach(&self) -> Option<u64> {
        self.known.last()?.track.reach()
    }

    /// One of them has begun anew, and has not come as far yet as before.
    pub(super) fn are_short_of_former(&self) -> bool {
        let mut tracks = self.known.iter().map(|known| &known.track);
        tracks.any(Timeline::is_short_of_former)
    }

    /// Bytes of memory, about.
    pub(super) fn weight_bytes(&self) -> usize {
        /// Two marks with the fingerprints of their names.
        const NAMES_BYTES: usize = 2 * NAMES_MAX * size_of::<u64>();
        self.known.capacity() * size_of::<VariantTimeline>() + self.known.len() * NAMES_BYTES
    }
}
