//! Drops all objects of a directory in one step, by increasing the directory's epoch. A packager
//! that restarts reuses its segment names, so everything stored before is invalid.
//!
//! The caller chooses the key of a directory. The slices of one object have a directory of their
//! own. No list of the objects in a directory is needed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::weight::allocated;
use seawall_policy::Key;

/// Binds an object to the epochs of its directory and of its URL at the time of the request.
#[derive(Clone, Debug, Default)]
pub struct EpochToken(EpochBinding);

/// Nearly all objects are bound to a directory only. With the fields of the mark inline, the
/// token takes two words, and so does an optional token.
#[derive(Clone, Debug)]
enum EpochBinding {
    Directory { number: u32, epoch: Arc<Epoch> },
    Marks(Box<EpochMarks>),
}

#[derive(Clone, Debug, Default)]
struct EpochMarks {
    directory: Option<EpochMark>,
    /// Only when one URL has several keys: see [`EpochToken::to_url`].
    url: Option<EpochMark>,
    /// Of a slice: the epoch of the whole object, which is already counted among the keys of its
    /// URL.
    whole: Option<EpochMark>,
    /// Of an object in a directory of its own: the epoch of all such directories.
    parent: Option<EpochMark>,
}

#[derive(Clone, Debug)]
struct EpochMark {
    epoch: Arc<Epoch>,
    number: u32,
}

#[derive(Debug, Default)]
struct Epoch {
    number: AtomicU32,
    /// The weight of this epoch is already charged to a stored object.
    is_charged: AtomicBool,
    /// The keys of one URL that may have stored objects. A directory has none.
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
                directory: Some(EpochMark { epoch, number }),
                url: None,
                whole: None,
                parent: None,
            } => EpochBinding::Directory { number, epoch },
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
    pub(crate) fn was_valid_before(&self, ended: &EndedEpochs) -> bool {
        self.all_marks(|epoch, number| epoch.is_at(number) || ended.has(epoch, number))
    }

    /// Whether one of these ended epochs is its own.
    pub(crate) fn ended_with(&self, ended: &EndedEpochs) -> bool {
        !self.all_marks(|epoch, number| !ended.has(epoch, number))
    }

    fn all_marks(&self, holds: impl Fn(&Epoch, u32) -> bool) -> bool {
        match &self.0 {
            EpochBinding::Directory { number, epoch } => holds(epoch, *number),
            EpochBinding::Marks(marks) => {
                let marks = [&marks.directory, &marks.url, &marks.whole, &marks.parent];
                let mut marks = marks.into_iter().flatten();
                marks.all(|mark| holds(&mark.epoch, mark.number))
            }
        }
    }

    /// Whether it ends with the epoch of a directory.
    pub fn is_bound_to_directory(&self) -> bool {
        match &self.0 {
            EpochBinding::Directory { .. } => true,
            EpochBinding::Marks(marks) => marks.directory.is_some(),
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

    /// The same token, also bound to the directory of `parent`.
    #[must_use]
    pub fn within(&self, parent: &EpochToken) -> EpochToken {
        EpochToken::from(EpochMarks {
            parent: parent.marks().directory,
            ..self.marks()
        })
    }

    /// The same token for a slice; it also ends when `whole` is purged.
    #[must_use]
    pub fn of_slice(&self, whole: &EpochToken) -> EpochToken {
        EpochToken::from(EpochMarks {
            whole: whole.marks().directory,
            ..self.marks()
        })
    }

    fn marks(&self) -> EpochMarks {
        match &self.0 {
            EpochBinding::Directory { number, epoch } => EpochMarks {
                directory: Some(EpochMark {
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
            EpochBinding::Directory { .. } => 0,
            EpochBinding::Marks(_) => allocated(size_of::<EpochMarks>()),
        }
    }

    /// The bytes of its directory's epoch, while they are charged to no stored object.
    pub(super) fn uncharged_bytes(&self) -> usize {
        let epoch = self.directory_epoch();
        let uncharged = epoch.filter(|epoch| !epoch.is_charged.load(Ordering::Relaxed));
        uncharged.map_or(0, |_| EPOCH_BYTES)
    }

    /// Records that the bytes of its directory's epoch are charged to a stored object.
    pub(super) fn charge(&self) {
        if let Some(epoch) = self.directory_epoch() {
            epoch.is_charged.store(true, Ordering::Relaxed);
        }
    }

    fn directory_epoch(&self) -> Option<&Arc<Epoch>> {
        match &self.0 {
            EpochBinding::Directory { epoch, .. } => Some(epoch),
            EpochBinding::Marks(marks) => marks.directory.as_ref().map(|mark| &mark.epoch),
        }
    }

    /// Adds a key to the keys of its URL, unless `keys_max` others have stored objects.
    pub(crate) fn admit(
        &self,
        key: &Key,
        keys_max: usize,
        is_stored: impl Fn(&Key) -> bool,
    ) -> bool {
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
            keys.retain(is_stored);
        }
        keys.len() < keys_max && keys.insert(key.clone())
    }
}

/// Epochs that a purge has ended, with their numbers before; or those that it would end.
#[derive(Default)]
pub(crate) struct EndedEpochs {
    /// The epochs are listed and do not end.
    is_dry_run: bool,
    numbers: HashMap<usize, u32>,
    /// While they are kept here, no other epoch can have the same address.
    kept: Vec<Arc<Epoch>>,
}

impl EndedEpochs {
    /// Lists the epochs that a purge would end.
    pub(crate) fn dry_run() -> EndedEpochs {
        EndedEpochs {
            is_dry_run: true,
            ..EndedEpochs::default()
        }
    }

    fn has(&self, epoch: &Epoch, number: u32) -> bool {
        let ended = self.numbers.get(&std::ptr::from_ref(epoch).addr());
        ended.is_some_and(|ended| *ended == number)
    }

    fn end(&mut self, epoch: Arc<Epoch>) {
        let number = if self.is_dry_run {
            epoch.number.load(Ordering::Acquire)
        } else {
            epoch.end()
        };
        // Later ends in the same purge do not count: the first one dropped the objects.
        let address = Arc::as_ptr(&epoch).addr();
        self.numbers.entry(address).or_insert(number);
        self.kept.push(epoch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }
}

/// All directories and URLs with live tokens, in shards, so that scanning one shard is short.
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
    pub(crate) fn token(&self, directory: Option<&Key>, url: Option<&Key>) -> EpochToken {
        EpochToken::from(EpochMarks {
            directory: directory.map(|directory| self.mark(directory)),
            url: url.map(|url| self.mark(url)),
            ..EpochMarks::default()
        })
    }

    fn mark(&self, key: &Key) -> EpochMark {
        let mut table = self.shard(key).lock();
        let known = table.epochs.get(key).and_then(Weak::upgrade);
        let epoch = known.unwrap_or_else(|| table.insert(key));
        let number = epoch.number.load(Ordering::Acquire);
        EpochMark { epoch, number }
    }

    pub(crate) fn end(&self, key: &Key) {
        let table = self.shard(key).lock();
        if let Some(epoch) = table.epochs.get(key).and_then(Weak::upgrade) {
            epoch.end();
        }
    }

    /// Ends the epoch of a directory and records it in `ended`.
    pub(crate) fn end_for(&self, key: &Key, ended: &mut EndedEpochs) {
        let table = self.shard(key).lock();
        if let Some(epoch) = table.epochs.get(key).and_then(Weak::upgrade) {
            ended.end(epoch);
        }
    }

    /// Ends the epochs of all matching directories and records them in `ended`.
    pub(crate) fn end_where(&self, is_match: impl Fn(&Key) -> bool, ended: &mut EndedEpochs) {
        for shard in &self.shards {
            let table = shard.lock();
            let matching = table.epochs.iter().filter(|(key, _)| is_match(key));
            let epochs = matching.filter_map(|(_, epoch)| epoch.upgrade());
            epochs.for_each(|epoch| ended.end(epoch));
        }
    }

    /// The keys of a URL that may have stored objects.
    pub(crate) fn keys_of(&self, url: &Key) -> Vec<Key> {
        let table = self.shard(url).lock();
        let epoch = table.epochs.get(url).and_then(Weak::upgrade);
        drop(table);
        let keys = epoch.and_then(|epoch| Some(epoch.keys.get()?.lock().iter().cloned().collect()));
        keys.unwrap_or_default()
    }

    fn shard(&self, key: &Key) -> &Mutex<EpochTable> {
        let [low, ..] = self.hasher.hash_one(key).to_le_bytes();
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
    fn insert(&mut self, key: &Key) -> Arc<Epoch> {
        if self.epochs.len() >= self.sweep_at {
            self.epochs.retain(|_, epoch| epoch.strong_count() > 0);
            self.sweep_at = SWEEP_MIN.max(self.epochs.len() / 4 * 5);
        }
        let epoch = Arc::<Epoch>::default();
        self.epochs.insert(key.clone(), Arc::downgrade(&epoch));
        epoch
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_end_of_an_epoch_frees_all_that_was_bound_before() {
        let epochs = Epochs::default();
        let (here, there) = (Key::of(&[b"/a/"]), Key::of(&[b"/b/"]));
        let (old, other) = (
            epochs.token(Some(&here), None),
            epochs.token(Some(&there), None),
        );
        assert!(old.is_valid());
        epochs.end(&here);
        let new = epochs.token(Some(&here), None);
        assert!(!old.is_valid() && new.is_valid() && other.is_valid());
    }

    #[test]
    fn what_lies_within_ends_with_either_directory() {
        let epochs = Epochs::default();
        let (here, parent) = (Key::of(&[b"/a/1/"]), Key::of(&[b"/a/#/"]));
        for ends in [&here, &parent] {
            let (epoch_token, outer) = (
                epochs.token(Some(&here), None),
                epochs.token(Some(&parent), None),
            );
            let epoch_token = epoch_token.within(&outer);
            assert!(
                epoch_token.is_valid()
                    && epoch_token.is_bound_to_directory()
                    && epoch_token.to_url().is_none()
            );
            epochs.end(ends);
            assert!(!epoch_token.is_valid());
        }
    }

    #[test]
    fn an_optional_token_takes_two_words_and_one_object_bears_the_weight_of_an_epoch() {
        assert_eq!(size_of::<Option<EpochToken>>(), 16);
        let (epochs, here) = (Epochs::default(), Key::of(&[b"/a/"]));
        let token = || epochs.token(Some(&here), None);
        let (one, other) = (token(), token());
        assert_eq!(one.uncharged_bytes(), EPOCH_BYTES);
        assert_eq!(
            other.uncharged_bytes(),
            EPOCH_BYTES,
            "an estimate charges nothing"
        );
        one.charge();
        assert_eq!((one.uncharged_bytes(), other.uncharged_bytes()), (0, 0));
        drop((one, other));
        assert_eq!(token().uncharged_bytes(), EPOCH_BYTES);
    }

    #[test]
    fn directories_without_tokens_are_forgotten() {
        let epochs = Epochs::default();
        let kept = epochs.token(Some(&Key::of(&[b"kept"])), None);
        for number in 0..10 * SHARDS * SWEEP_MIN {
            epochs.token(Some(&Key::of(&[&number.to_be_bytes()])), None);
        }
        let listed = epochs.shards.iter().map(|shard| shard.lock().epochs.len());
        assert!(listed.sum::<usize>() <= 2 * SHARDS * SWEEP_MIN);
        epochs.end(&Key::of(&[b"kept"]));
        assert!(!kept.is_valid());
    }

    #[test]
    fn limits_keys_per_url_and_invalidates_them_together() {
        let epochs = Epochs::default();
        let (directory, url) = (Key::of(&[b"/a/"]), Key::of(&[b"/a/b"]));
        let epoch_token = epochs.token(Some(&directory), Some(&url));
        let key = |number: u8| Key::of(&[b"key", &[number]]);
        let all = |_: &Key| true;
        assert!(epoch_token.admit(&key(1), 2, all) && epoch_token.admit(&key(2), 2, all));
        assert!(!epoch_token.admit(&key(3), 2, all), "two are stored");
        assert!(epoch_token.admit(&key(1), 2, all), "one of the two");
        assert!(
            epoch_token.admit(&key(3), 2, |stored| *stored != key(1)),
            "one left"
        );
        let manifest = epoch_token.to_url().unwrap();
        epochs.end(&directory);
        assert!(!epoch_token.is_valid() && manifest.is_valid());
        epochs.end(&url);
        assert!(!manifest.is_valid());
        assert!(epochs.token(None, Some(&url)).admit(&key(4), 1, all));
    }
}
