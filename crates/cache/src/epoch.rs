//! Drops all objects of a place (usually a directory) in one step, by increasing the place's epoch.
//! A packager that restarts reuses its segment names, so everything stored before is invalid.
//!
//! The caller chooses what a place is. No list of the objects in it is needed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::weight::allocated;
use seawall_policy::Key;

/// Binds an object to the epochs of its place and of its URL at the time of the request.
#[derive(Clone, Debug, Default)]
pub struct EpochToken(EpochBinding);

/// Nearly all objects are bound to a place only. With the fields of the mark inline, the token
/// takes two words, and so does an optional token.
#[derive(Clone, Debug)]
enum EpochBinding {
    Place { number: u32, epoch: Arc<Epoch> },
    Marks(Box<EpochMarks>),
}

#[derive(Clone, Debug, Default)]
struct EpochMarks {
    place: Option<EpochMark>,
    /// Only when one URL has several keys: see [`EpochToken::to_url`].
    url: Option<EpochMark>,
    /// Of a slice: the epoch of the whole object, which is already counted among the keys of its
    /// URL.
    whole: Option<EpochMark>,
    /// Of an object in a directory of its own: the epoch of all such directories.
    around: Option<EpochMark>,
}

#[derive(Clone, Debug)]
struct EpochMark {
    epoch: Arc<Epoch>,
    number: u32,
}

#[derive(Debug, Default)]
struct Epoch {
    number: AtomicU32,
    /// A stored object is charged for the memory of this epoch.
    is_charged: AtomicBool,
    /// The keys of one URL that may have stored objects. A place has none.
    keys: OnceLock<Box<Mutex<HashSet<Key, ahash::RandomState>>>>,
}

/// Bytes of an epoch and its table entry, with a share of the ended epochs that are still listed.
const EPOCH_BYTES: usize = 200;

impl Default for EpochBinding {
    fn default() -> EpochBinding {
        EpochBinding::Marks(Box::default())
    }
}

impl From<EpochMarks> for EpochToken {
    fn from(marks: EpochMarks) -> EpochToken {
        EpochToken(match marks {
            EpochMarks {
                place: Some(EpochMark { epoch, number }),
                url: None,
                whole: None,
                around: None,
            } => EpochBinding::Place { number, epoch },
            marks => EpochBinding::Marks(Box::new(marks)),
        })
    }
}

impl Epoch {
    fn is_at(&self, number: u32) -> bool {
        self.number.load(Ordering::Acquire) == number
    }
}

impl EpochToken {
    /// Whether none of its epochs has ended.
    pub fn is_valid(&self) -> bool {
        self.all_marks(Epoch::is_at)
    }

    /// Whether it was valid until these epochs ended, or still is.
    pub(crate) fn held_before(&self, ended: &EndedEpochs) -> bool {
        self.all_marks(|epoch, number| epoch.is_at(number) || ended.has(epoch, number))
    }

    /// Whether one of these ended epochs is its own.
    pub(crate) fn ended_with(&self, ended: &EndedEpochs) -> bool {
        !self.all_marks(|epoch, number| !ended.has(epoch, number))
    }

    fn all_marks(&self, is_so: impl Fn(&Epoch, u32) -> bool) -> bool {
        match &self.0 {
            EpochBinding::Place { number, epoch } => is_so(epoch, *number),
            EpochBinding::Marks(marks) => {
                let marks = [&marks.place, &marks.url, &marks.whole, &marks.around];
                let mut marks = marks.into_iter().flatten();
                marks.all(|mark| is_so(&mark.epoch, mark.number))
            }
        }
    }

    /// Whether it ends with the epoch of a place.
    pub fn is_to_place(&self) -> bool {
        match &self.0 {
            EpochBinding::Place { .. } => true,
            EpochBinding::Marks(marks) => marks.place.is_some(),
        }
    }

    /// The same token bound to the URL alone. `None` if it is not bound to a URL.
    #[must_use]
    pub fn to_url(&self) -> Option<EpochToken> {
        let EpochMarks { url, whole, .. } = self.marks();
        url.is_some().then(|| {
            EpochToken::from(EpochMarks {
                url,
                whole,
                ..EpochMarks::default()
            })
        })
    }

    /// The same token, also bound to the place of `around`.
    #[must_use]
    pub fn within(&self, around: &EpochToken) -> EpochToken {
        EpochToken::from(EpochMarks {
            around: around.marks().place,
            ..self.marks()
        })
    }

    /// The same token for a slice; it also ends when `whole` is purged.
    #[must_use]
    pub fn of_slice(&self, whole: &EpochToken) -> EpochToken {
        EpochToken::from(EpochMarks {
            whole: whole.marks().place,
            ..self.marks()
        })
    }

    fn marks(&self) -> EpochMarks {
        match &self.0 {
            EpochBinding::Place { number, epoch } => EpochMarks {
                place: Some(EpochMark {
                    number: *number,
                    epoch: Arc::clone(epoch),
                }),
                ..EpochMarks::default()
            },
            EpochBinding::Marks(marks) => EpochMarks::clone(marks),
        }
    }

    /// Bytes of memory besides its own size.
    pub(super) fn own_bytes(&self) -> usize {
        match &self.0 {
            EpochBinding::Place { .. } => 0,
            EpochBinding::Marks(_) => allocated(size_of::<EpochMarks>()),
        }
    }

    /// The bytes of its place's epoch, unless a stored object is charged for them already.
    pub(super) fn epoch_bytes(&self) -> usize {
        let is_due = |epoch: &&Arc<Epoch>| !epoch.is_charged.load(Ordering::Relaxed);
        self.place_epoch().filter(is_due).map_or(0, |_| EPOCH_BYTES)
    }

    /// Records that a stored object is charged for its place's epoch.
    pub(super) fn mark_epoch_charged(&self) {
        if let Some(epoch) = self.place_epoch() {
            epoch.is_charged.store(true, Ordering::Relaxed);
        }
    }

    fn place_epoch(&self) -> Option<&Arc<Epoch>> {
        match &self.0 {
            EpochBinding::Place { epoch, .. } => Some(epoch),
            EpochBinding::Marks(marks) => marks.place.as_ref().map(|mark| &mark.epoch),
        }
    }

    /// Adds a key to the keys of its URL, unless `keys_max` others have stored objects.
    pub(crate) fn admit(&self, key: &Key, keys_max: usize, held: impl Fn(&Key) -> bool) -> bool {
        let EpochBinding::Marks(marks) = &self.0 else {
            return true;
        };
        let url = marks.url.as_ref().filter(|_| marks.whole.is_none());
        let Some(url) = url else {
            return true;
        };
        let mut keys = url.epoch.keys.get_or_init(Box::default).lock();
        if keys.contains(key) {
            return true;
        }
        if keys.len() >= keys_max {
            keys.retain(held);
        }
        keys.len() < keys_max && keys.insert(key.clone())
    }
}

/// Epochs that a purge has ended, with their numbers before.
#[derive(Default)]
pub(crate) struct EndedEpochs {
    numbers: HashMap<usize, u32>,
    /// While they are kept here, no other epoch can have the same address.
    kept: Vec<Arc<Epoch>>,
}

impl EndedEpochs {
    fn has(&self, epoch: &Epoch, number: u32) -> bool {
        let ended = self.numbers.get(&std::ptr::from_ref(epoch).addr());
        ended.is_some_and(|ended| *ended == number)
    }

    fn take(&mut self, epoch: Arc<Epoch>) {
        let number = epoch.end();
        // Later ends in the same purge do not count: the first one dropped the objects.
        let address = Arc::as_ptr(&epoch).addr();
        self.numbers.entry(address).or_insert(number);
        self.kept.push(epoch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// All places with live tokens, in shards, so that scanning one shard is short.
pub(crate) struct Epochs {
    shards: [Mutex<EpochTable>; SHARDS],
    hasher: ahash::RandomState,
}

const SHARDS: usize = 64;

impl Default for Epochs {
    fn default() -> Epochs {
        Epochs {
            shards: std::array::from_fn(|_| Mutex::default()),
            hasher: ahash::RandomState::new(),
        }
    }
}

#[derive(Default)]
struct EpochTable {
    epochs: HashMap<Key, Weak<Epoch>, ahash::RandomState>,
    /// At this length, epochs without tokens are removed from the table.
    sweep_at: usize,
}

/// A shorter table is not worth sweeping.
const SWEEP_MIN: usize = 64;

impl Epochs {
    pub(crate) fn tie(&self, place: Option<&Key>, url: Option<&Key>) -> EpochToken {
        EpochToken::from(EpochMarks {
            place: place.map(|place| self.mark(place)),
            url: url.map(|url| self.mark(url)),
            ..EpochMarks::default()
        })
    }

    fn mark(&self, place: &Key) -> EpochMark {
        let mut places = self.places(place).lock();
        let known = places.epochs.get(place).and_then(Weak::upgrade);
        let epoch = known.unwrap_or_else(|| places.list(place));
        let number = epoch.number.load(Ordering::Acquire);
        EpochMark { epoch, number }
    }

    pub(crate) fn end(&self, place: &Key) {
        let places = self.places(place).lock();
        if let Some(epoch) = places.epochs.get(place).and_then(Weak::upgrade) {
            epoch.end();
        }
    }

    /// Ends the epoch of a place and records it in `ended`.
    pub(crate) fn end_for(&self, place: &Key, ended: &mut EndedEpochs) {
        let places = self.places(place).lock();
        if let Some(epoch) = places.epochs.get(place).and_then(Weak::upgrade) {
            ended.take(epoch);
        }
    }

    /// Ends the epochs of all matching places and records them in `ended`.
    pub(crate) fn end_where(&self, is_meant: impl Fn(&Key) -> bool, ended: &mut EndedEpochs) {
        for shard in &self.shards {
            let places = shard.lock();
            let meant = places.epochs.iter().filter(|(place, _)| is_meant(place));
            let epochs = meant.filter_map(|(_, epoch)| epoch.upgrade());
            epochs.for_each(|epoch| ended.take(epoch));
        }
    }

    /// The keys of a URL that may have stored objects.
    pub(crate) fn keys_of(&self, url: &Key) -> Vec<Key> {
        let places = self.places(url).lock();
        let epoch = places.epochs.get(url).and_then(Weak::upgrade);
        drop(places);
        let keys = epoch.and_then(|epoch| Some(epoch.keys.get()?.lock().iter().cloned().collect()));
        keys.unwrap_or_default()
    }

    fn places(&self, place: &Key) -> &Mutex<EpochTable> {
        let [low, ..] = self.hasher.hash_one(place).to_le_bytes();
        &self.shards[usize::from(low) % SHARDS]
    }
}

impl Epoch {
    /// Returns the number before.
    fn end(&self) -> u32 {
        let number = self.number.fetch_add(1, Ordering::AcqRel);
        if let Some(keys) = self.keys.get() {
            keys.lock().clear();
        }
        number
    }
}

impl EpochTable {
    fn list(&mut self, place: &Key) -> Arc<Epoch> {
        if self.epochs.len() >= self.sweep_at {
            self.epochs.retain(|_, epoch| epoch.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.epochs.len() / 4 * 5);
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
        assert!(old.is_valid());
        epochs.end(&here);
        let new = epochs.tie(Some(&here), None);
        assert!(!old.is_valid() && new.is_valid() && other.is_valid());
    }

    #[test]
    fn what_lies_within_ends_with_either_place() {
        let epochs = Epochs::default();
        let (here, around) = (Key::of(&[b"/a/1/"]), Key::of(&[b"/a/#/"]));
        for ends in [&here, &around] {
            let (tie, outer) = (
                epochs.tie(Some(&here), None),
                epochs.tie(Some(&around), None),
            );
            let tie = tie.within(&outer);
            assert!(tie.is_valid() && tie.is_to_place() && tie.to_url().is_none());
            epochs.end(ends);
            assert!(!tie.is_valid());
        }
    }

    #[test]
    fn an_optional_tie_takes_two_words_and_one_object_bears_the_weight_of_an_epoch() {
        assert_eq!(size_of::<Option<EpochToken>>(), 16);
        let (epochs, here) = (Epochs::default(), Key::of(&[b"/a/"]));
        let tie = || epochs.tie(Some(&here), None);
        let (one, other) = (tie(), tie());
        assert_eq!(
            (one.epoch_bytes(), one.epoch_bytes()),
            (EPOCH_BYTES, EPOCH_BYTES)
        );
        one.mark_epoch_charged();
        assert_eq!((one.epoch_bytes(), other.epoch_bytes()), (0, 0));
        drop((one, other));
        assert_eq!(tie().epoch_bytes(), EPOCH_BYTES);
    }

    #[test]
    fn places_that_nothing_is_tied_to_are_forgotten() {
        let epochs = Epochs::default();
        let kept = epochs.tie(Some(&Key::of(&[b"kept"])), None);
        for number in 0..10 * SHARDS * SWEEP_MIN {
            epochs.tie(Some(&Key::of(&[&number.to_be_bytes()])), None);
        }
        let listed = epochs.shards.iter().map(|shard| shard.lock().epochs.len());
        assert!(listed.sum::<usize>() <= 2 * SHARDS * SWEEP_MIN);
        epochs.end(&Key::of(&[b"kept"]));
        assert!(!kept.is_valid());
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
        assert!(!tie.is_valid() && manifest.is_valid());
        epochs.end(&url);
        assert!(!manifest.is_valid());
        assert!(epochs.tie(None, Some(&url)).admit(&key(4), 1, all));
    }
}
