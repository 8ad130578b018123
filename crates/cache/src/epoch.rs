//! Drops all objects of a directory in one step, by increasing the directory's epoch. A packager
//! that restarts reuses its segment names, so everything stored before is invalid.
//!
//! The caller chooses the key of a directory. The slices of one object have a directory of their
//! own. No list of the objects in a directory is needed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU32, AtomicU64, Ordering};
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
    /// Of an object with tags: the epoch of all objects with the same tags.
    tags: Option<EpochMark>,
}

#[derive(Clone, Debug)]
pub(super) struct EpochMark {
    epoch: Arc<Epoch>,
    number: u32,
}

/// A name that an origin gives to some of its objects. Each set of tags has an epoch, which ends
/// when one of its tags is purged.
#[derive(Debug)]
pub(super) struct Tag {
    /// The number of its last purge; 0: it was never purged.
    pub(super) purged_at: AtomicU64,
    /// The sets that it is in.
    pub(super) sets: Mutex<Vec<Weak<Epoch>>>,
    is_charged: AtomicBool,
    bytes: usize,
    /// The number of all tags.
    count: Arc<AtomicU64>,
}

#[derive(Debug, Default)]
pub(super) struct Epoch {
    number: AtomicU32,
    /// The weight of this epoch is already charged to a stored object.
    is_charged: AtomicBool,
    /// The keys of one URL that may have stored objects. A directory has none.
    keys: OnceLock<Box<Mutex<HashSet<Key, ahash::RandomState>>>>,
    /// Of a set of tags: these tags.
    tags: Box<[Arc<Tag>]>,
}

impl Tag {
    /// A tag under a key of this length.
    pub(super) fn new(key_bytes: usize, count: &Arc<AtomicU64>) -> Tag {
        count.fetch_add(1, Ordering::Relaxed);
        Tag {
            purged_at: AtomicU64::new(0),
            sets: Mutex::default(),
            is_charged: AtomicBool::new(false),
            bytes: TAG_BYTES + allocated(key_bytes),
            count: Arc::clone(count),
        }
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of an epoch and its table entry, with a share of the ended epochs that are still listed.
const EPOCH_BYTES: usize = 216;

/// Bytes of a tag and its table entry, besides its key.
const TAG_BYTES: usize = 200;
/// Bytes that a set takes for each of its tags: here, in the tag and in the table.
const TAG_IN_SET_BYTES: usize = 40;

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
                tags: None,
            } => EpochBinding::Directory { number, epoch },
            marks => EpochBinding::Marks(Box::new(marks)),
        })
    }
}

impl Epoch {
    /// The epoch of a set of tags.
    pub(super) fn of_tags(tags: Box<[Arc<Tag>]>) -> Epoch {
        Epoch {
            tags,
            ..Epoch::default()
        }
    }

    pub(super) fn tags(&self) -> &[Arc<Tag>] {
        &self.tags
    }

    /// Its bytes and those of its tags, while they are charged to no stored object.
    fn uncharged_bytes(&self) -> usize {
        if self.is_charged.load(Ordering::Relaxed) {
            return 0;
        }
        let tags = self.tags.iter();
        let tags = tags.filter(|tag| !tag.is_charged.load(Ordering::Relaxed));
        let tag_bytes = tags.map(|tag| tag.bytes).sum::<usize>();
        EPOCH_BYTES + TAG_IN_SET_BYTES * self.tags.len() + tag_bytes
    }

    fn charge(&self) {
        self.is_charged.store(true, Ordering::Relaxed);
        for tag in &self.tags {
            tag.is_charged.store(true, Ordering::Relaxed);
        }
    }

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
                let EpochMarks {
                    directory,
                    url,
                    whole,
                    parent,
                    tags,
                } = &**marks;
                let marks = [directory, url, whole, parent, tags];
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

    /// The same token bound to the URL and the tags alone. `None` if it is bound to neither.
    #[must_use]
    pub fn to_url(&self) -> Option<EpochToken> {
        let EpochMarks {
            url, whole, tags, ..
        } = self.marks();
        (url.is_some() || tags.is_some()).then(|| {
            EpochToken::from(EpochMarks {
                url,
                whole,
                tags,
                ..EpochMarks::default()
            })
        })
    }

    /// The same token, also bound to a set of tags, in place of an earlier one.
    #[must_use]
    pub(super) fn with_tags(&self, tags: EpochMark) -> EpochToken {
        EpochToken::from(EpochMarks {
            tags: Some(tags),
            ..self.marks()
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

    /// The bytes of its directory's epoch and of its tags, while they are charged to no stored
    /// object.
    pub(super) fn uncharged_bytes(&self) -> usize {
        let epochs = self.charged_epochs().into_iter().flatten();
        epochs.map(Epoch::uncharged_bytes).sum()
    }

    /// Records that the bytes of its directory's epoch and of its tags are charged to a stored
    /// object.
    pub(super) fn charge(&self) {
        let epochs = self.charged_epochs().into_iter().flatten();
        epochs.for_each(Epoch::charge);
    }

    fn charged_epochs(&self) -> [Option<&Epoch>; 2] {
        fn epoch(mark: Option<&EpochMark>) -> Option<&Epoch> {
            mark.map(|mark| &*mark.epoch)
        }
        match &self.0 {
            EpochBinding::Directory { epoch, .. } => [Some(epoch), None],
            EpochBinding::Marks(marks) => {
                [epoch(marks.directory.as_ref()), epoch(marks.tags.as_ref())]
            }
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

    pub(super) fn is_dry_run(&self) -> bool {
        self.is_dry_run
    }

    pub(super) fn end(&mut self, epoch: Arc<Epoch>) {
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
        EpochMark::now(known.unwrap_or_else(|| table.insert(key)))
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

impl EpochMark {
    /// A mark of the epoch as it is now.
    pub(super) fn now(epoch: Arc<Epoch>) -> EpochMark {
        let number = epoch.number.load(Ordering::Acquire);
        EpochMark { epoch, number }
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
mod tests;
