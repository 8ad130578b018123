//! Keeps a history for each variant of one manifest. Where responses differ by country or device,
//! a variant that ends earlier than another does not lag, and other names are not a restart.

use std::time::{Duration, Instant};

use seawall_manifest::{ManifestInfo, NAMES_MAX};
use seawall_policy::Key;
use seawall_policy::progress::{ManifestHistory, Progress};

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

/// The histories of the variants of a manifest, the most recently seen last.
#[derive(Default)]
pub(super) struct VariantHistories {
    known: Vec<VariantHistory>,
}

struct VariantHistory {
    variant: Variant,
    history: ManifestHistory,
    /// When the last changed version was accepted.
    accepted_at: Option<Instant>,
}

impl VariantHistories {
    /// Compares a version with the latest one of its variant. The first one of a variant continues
    /// the stream.
    pub(super) fn progress_of(
        &self,
        variant: Variant,
        info: &ManifestInfo,
        now: Instant,
    ) -> Progress {
        let known = self.known(variant);
        known.map_or(Progress::Newer, |known| {
            known.history.progress_of(info, now)
        })
    }

    /// Records a version with the result of [`VariantHistories::progress_of`]. The first one of a
    /// variant begins its history.
    pub(super) fn record(
        &mut self,
        variant: Variant,
        (info, progress): (&ManifestInfo, Progress),
        (reload_interval_max, now): (Duration, Instant),
    ) {
        let Some(at) = self.position(variant) else {
            if self.known.len() >= VARIANTS_MAX {
                self.known.remove(0);
            }
            self.known.push(VariantHistory {
                variant,
                history: ManifestHistory::new(info, reload_interval_max, now),
                accepted_at: None,
            });
            return;
        };
        self.known[at].history.record(info, progress, now);
        self.known[at..].rotate_left(1);
    }

    /// Is there a version of this variant to compare the next one with?
    pub(super) fn has_version(&self, variant: Variant) -> bool {
        let known = self.known(variant);
        known.is_some_and(|known| known.history.has_version())
    }

    fn position(&self, variant: Variant) -> Option<usize> {
        self.known.iter().position(|known| known.variant == variant)
    }

    fn known(&self, variant: Variant) -> Option<&VariantHistory> {
        self.position(variant).map(|at| &self.known[at])
    }

    /// Records a poll that brought nothing newer than the known version.
    pub(super) fn record_unchanged(&mut self, variant: Variant, current_at: Instant) {
        if let Some(at) = self.position(variant) {
            self.known[at].history.record_response(current_at);
            self.known[at..].rotate_left(1);
        }
    }

    pub(super) fn record_accepted(&mut self, variant: Variant, accepted_at: Instant) {
        if let Some(at) = self.position(variant) {
            self.known[at].accepted_at = Some(accepted_at);
        }
    }

    pub(super) fn accepted_at(&self, variant: Variant) -> Option<Instant> {
        self.known(variant)?.accepted_at
    }

    /// The next version of each variant counts as the first.
    pub(super) fn forget(&mut self) {
        for known in &mut self.known {
            known.history.forget();
        }
    }

    pub(super) fn set_reload_interval_max(&mut self, reload_interval_max: Duration) {
        for known in &mut self.known {
            known.history.set_reload_interval_max(reload_interval_max);
        }
    }

    /// The most recently seen variant should have changed by now.
    pub(super) fn is_late(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.history.is_late(now))
    }

    /// The most recently seen variant should have changed long ago.
    pub(super) fn is_stalled(&self, now: Instant) -> bool {
        let latest = self.known.last();
        latest.is_some_and(|known| known.history.is_stalled(now))
    }

    /// The media sequence number of the last segment, if segments are numbered.
    pub(super) fn last_sequence(&self) -> Option<u64> {
        self.known.last()?.history.last_sequence()
    }

    /// A variant has restarted and not yet passed the end of the timeline before the restart.
    pub(super) fn is_before_previous_end(&self) -> bool {
        let mut histories = self.known.iter().map(|known| &known.history);
        histories.any(ManifestHistory::is_before_previous_end)
    }

    /// Approximate bytes of memory.
    pub(super) fn weight_bytes(&self) -> usize {
        /// Two marks with the fingerprints of their names.
        const NAMES_BYTES: usize = 2 * NAMES_MAX * size_of::<u64>();
        self.known.capacity() * size_of::<VariantHistory>() + self.known.len() * NAMES_BYTES
    }
}
