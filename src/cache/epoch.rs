//! Is what is held still of the programme that it was stored under? A packager that starts anew reuses
//! its names: everything filed under a place is dropped in one step, by counting the place's epoch on.
//!
//! A place is whatever the caller says belongs together; nobody has to know what is filed there.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::policy::Key;

/// Ties an object to its place's epoch as it was when the object was asked for.
#[derive(Clone, Debug)]
pub struct Tie {
    epoch: Arc<AtomicU64>,
    number: u64,
}

impl Tie {
    /// Is it still the same epoch?
    pub fn holds(&self) -> bool {
        self.epoch.load(Ordering::Acquire) == self.number
    }
}

/// The places to which anything is tied.
#[derive(Default)]
pub(crate) struct Epochs {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    epochs: HashMap<Key, Weak<AtomicU64>, ahash::RandomState>,
    /// With so many listed, those that nothing is tied to are taken off the list.
    sweep_at: usize,
}

/// A list shorter than this is not worth sweeping.
const SWEEP_MIN: usize = 1024;

impl Epochs {
    pub(crate) fn tie(&self, place: &Key) -> Tie {
        let mut places = self.places.lock();
        let known = places.epochs.get(place).and_then(Weak::upgrade);
        let epoch = known.unwrap_or_else(|| places.list(place));
        let number = epoch.load(Ordering::Acquire);
        Tie { epoch, number }
    }

    pub(crate) fn end(&self, place: &Key) {
        let places = self.places.lock();
        if let Some(epoch) = places.epochs.get(place).and_then(Weak::upgrade) {
            epoch.fetch_add(1, Ordering::AcqRel);
        }
    }
}

impl Places {
    fn list(&mut self, place: &Key) -> Arc<AtomicU64> {
        if self.epochs.len() >= self.sweep_at {
            self.epochs.retain(|_, epoch| epoch.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.epochs.len() * 2);
        }
        let epoch = Arc::default();
        self.epochs.insert(place.clone(), Arc::downgrade(&epoch));
        epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_epoch_frees_all_that_was_tied_before() {
        let epochs = Epochs::default();
        let (here, there) = (Key::of(&[b"/a/"]), Key::of(&[b"/b/"]));
        let (old, other) = (epochs.tie(&here), epochs.tie(&there));
        assert!(old.holds());
        epochs.end(&here);
        let new = epochs.tie(&here);
        assert!(!old.holds() && new.holds() && other.holds());
    }

    #[test]
    fn places_that_nothing_is_tied_to_are_forgotten() {
        let epochs = Epochs::default();
        let kept = epochs.tie(&Key::of(&[b"kept"]));
        for number in 0..10 * SWEEP_MIN {
            epochs.tie(&Key::of(&[&number.to_be_bytes()]));
        }
        assert!(epochs.places.lock().epochs.len() <= 2 * SWEEP_MIN);
        epochs.end(&Key::of(&[b"kept"]));
        assert!(!kept.holds());
    }
}
