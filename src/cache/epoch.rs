//! Is what is held still of the programme that it was stored under? A packager that starts anew reuses
//! its names: everything filed under a place is dropped in one step, by counting the place's epoch on.
//!
//! A place is whatever the caller says belongs together; nobody has to know what is filed there.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Weak};

use parking_lot::Mutex;

use crate::policy::Key;

/// Ties an object to the epochs of its place and of its URL as they were when it was asked for.
#[derive(Clone, Debug, Default)]
pub struct Tie {
    place: Option<Mark>,
    /// What few objects are tied to besides.
    rare: Option<Box<Rare>>,
}

#[derive(Clone, Debug)]
struct Rare {
    /// Only where one URL has many keys: see [`Tie::to_url`].
    url: Option<Mark>,
    /// Of a slice: the object that it is a part of. That one counts among its URL's keys already.
    whole: Option<Mark>,
}

#[derive(Clone, Debug)]
struct Mark {
    epoch: Arc<Epoch>,
    number: u64,
}

#[derive(Debug, Default)]
struct Epoch {
    number: AtomicU64,
    /// The keys of one URL under which something is held.
    keys: Mutex<HashSet<Key, ahash::RandomState>>,
}

impl Mark {
    fn holds(&self) -> bool {
        self.epoch.number.load(Ordering::Acquire) == self.number
    }
}

impl Tie {
    /// Is it still the same epoch?
    pub fn holds(&self) -> bool {
        let rare = self.rare.as_ref();
        let marks = rare.map(|rare| [&rare.url, &rare.whole]);
        let marks = marks.into_iter().flatten().chain([&self.place]);
        marks.flatten().all(Mark::holds)
    }

    /// It ends with a place's epoch.
    pub fn is_to_place(&self) -> bool {
        self.place.is_some()
    }

    /// The same, tied to the URL alone; `None` where it is not tied to that.
    #[must_use]
    pub fn to_url(&self) -> Option<Tie> {
        let rare = self.rare.as_ref()?;
        rare.url.as_ref()?;
        Some(Tie {
            place: None,
            rare: Some(rare.clone()),
        })
    }

    /// The same for a slice of what is tied; `whole` ends when that is purged.
    #[must_use]
    pub fn of_slice(&self, whole: &Tie) -> Tie {
        let url = self.rare.as_ref().and_then(|rare| rare.url.clone());
        Tie {
            place: self.place.clone(),
            rare: Some(Box::new(Rare {
                url,
                whole: whole.place.clone(),
            })),
        }
    }

    /// Counts a key in among those of its URL, unless `keys_max` others are held already.
    pub(crate) fn admit(&self, key: &Key, keys_max: usize, held: impl Fn(&Key) -> bool) -> bool {
        let rare = self.rare.as_ref().filter(|rare| rare.whole.is_none());
        let Some(url) = rare.and_then(|rare| rare.url.as_ref()) else {
            return true;
        };
        let mut keys = url.epoch.keys.lock();
        if keys.contains(key) {
            return true;
        }
        if keys.len() >= keys_max {
            keys.retain(held);
        }
        keys.len() < keys_max && keys.insert(key.clone())
    }
}

/// The places to which anything is tied.
#[derive(Default)]
pub(crate) struct Epochs {
    places: Mutex<Places>,
}

#[derive(Default)]
struct Places {
    epochs: HashMap<Key, Weak<Epoch>, ahash::RandomState>,
    /// With so many listed, those that nothing is tied to are taken off the list.
    sweep_at: usize,
}

/// A list shorter than this is not worth sweeping.
const SWEEP_MIN: usize = 1024;

impl Epochs {
    pub(crate) fn tie(&self, place: Option<&Key>, url: Option<&Key>) -> Tie {
        Tie {
            place: place.map(|place| self.mark(place)),
            rare: url.map(|url| {
                Box::new(Rare {
                    url: Some(self.mark(url)),
                    whole: None,
                })
            }),
        }
    }

    fn mark(&self, place: &Key) -> Mark {
        let mut places = self.places.lock();
        let known = places.epochs.get(place).and_then(Weak::upgrade);
        let epoch = known.unwrap_or_else(|| places.list(place));
        let number = epoch.number.load(Ordering::Acquire);
        Mark { epoch, number }
    }

    pub(crate) fn end(&self, place: &Key) {
        let places = self.places.lock();
        if let Some(epoch) = places.epochs.get(place).and_then(Weak::upgrade) {
            epoch.number.fetch_add(1, Ordering::AcqRel);
            epoch.keys.lock().clear();
        }
    }
}

impl Places {
    fn list(&mut self, place: &Key) -> Arc<Epoch> {
        if self.epochs.len() >= self.sweep_at {
            self.epochs.retain(|_, epoch| epoch.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.epochs.len() * 2);
        }
        let epoch = Arc::<Epoch>::default();
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
        let (old, other) = (
            epochs.tie(Some(&here), None),
            epochs.tie(Some(&there), None),
        );
        assert!(old.holds());
        epochs.end(&here);
        let new = epochs.tie(Some(&here), None);
        assert!(!old.holds() && new.holds() && other.holds());
    }

    #[test]
    fn places_that_nothing_is_tied_to_are_forgotten() {
        let epochs = Epochs::default();
        let kept = epochs.tie(Some(&Key::of(&[b"kept"])), None);
        for number in 0..10 * SWEEP_MIN {
            epochs.tie(Some(&Key::of(&[&number.to_be_bytes()])), None);
        }
        assert!(epochs.places.lock().epochs.len() <= 2 * SWEEP_MIN);
        epochs.end(&Key::of(&[b"kept"]));
        assert!(!kept.holds());
    }

    #[test]
    fn the_keys_of_one_url_are_bounded_and_end_together() {
        let epochs = Epochs::default();
        let (place, url) = (Key::of(&[b"/a/"]), Key::of(&[b"/a/b"]));
        let tie = epochs.tie(Some(&place), Some(&url));
        let key = |number: u8| Key::of(&[b"key", &[number]]);
        let all = |_: &Key| true;
        assert!(tie.admit(&key(1), 2, all) && tie.admit(&key(2), 2, all));
        assert!(!tie.admit(&key(3), 2, all), "two are held");
        assert!(tie.admit(&key(1), 2, all), "one of the two");
        assert!(tie.admit(&key(3), 2, |held| *held != key(1)), "one left");
        let manifest = tie.to_url().unwrap();
        epochs.end(&place);
        assert!(!tie.holds() && manifest.holds());
        epochs.end(&url);
        assert!(!manifest.holds());
        assert!(epochs.tie(None, Some(&url)).admit(&key(4), 1, all));
    }
}
