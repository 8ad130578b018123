//! Drops all objects of a directory in one step, by increasing the directory's epoch. A packager
//! that restarts reuses its segment names, so everything stored before is invalid.
//!
//! The caller chooses the key of a directory. The slices of one object have a directory of their
//! own. No list of the objects in a directory is needed.

use std::collections::{HashMap, HashSet};
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, OnceLock, Weak};

use parking_lot::Mutex;

use super::epoch_bits::EpochBits;
use super::epoch_span::EpochSpan;
use super::purge_mode::PurgeMode;
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
    /// The same for soft purges.
    pub(super) soft_purged_at: AtomicU64,
    /// The sets that it is in.
    pub(super) sets: Mutex<Vec<Weak<Epoch>>>,
    is_charged: AtomicBool,
    /// The number of all tags.
    count: Arc<AtomicU64>,
    key: Key,
}

#[derive(Debug, Default)]
pub(super) struct Epoch {
    /// The bits of an [`EpochSpan`].
    span: AtomicU64,
    /// The weight of this epoch is already charged to a stored object.
    is_charged: AtomicBool,
    /// The keys of one URL that may have stored objects. A directory has none.
    keys: OnceLock<Box<Mutex<HashSet<Key, ahash::RandomState>>>>,
    /// Of a set of tags: these tags.
    tags: Box<[Arc<Tag>]>,
}

impl Tag {
    /// A tag under this key.
    pub(super) fn new(key: Key, count: &Arc<AtomicU64>) -> Tag {
        count.fetch_add(1, Ordering::Relaxed);
        Tag {
            purged_at: AtomicU64::new(0),
            soft_purged_at: AtomicU64::new(0),
            sets: Mutex::default(),
            is_charged: AtomicBool::new(false),
            count: Arc::clone(count),
            key,
        }
    }

    fn bytes(&self) -> usize {
        TAG_BYTES + allocated(self.key.bytes().len())
    }
}

impl Drop for Tag {
    fn drop(&mut self) {
        self.count.fetch_sub(1, Ordering::Relaxed);
    }
}

/// Bytes of an epoch and its table entry, with a share of the ended epochs that are still listed.
pub(super) const EPOCH_BYTES: usize = 216;

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
        let tag_bytes = tags.map(|tag| tag.bytes()).sum::<usize>();
        EPOCH_BYTES + TAG_IN_SET_BYTES * self.tags.len() + tag_bytes
    }

    fn charge(&self) {
        self.is_charged.store(true, Ordering::Relaxed);
        for tag in &self.tags {
            tag.is_charged.store(true, Ordering::Relaxed);
        }
    }

    fn span(&self) -> EpochSpan {
        EpochSpan::of(self.span.load(Ordering::Acquire))
    }

    fn is_at(&self, number: u32) -> bool {
        self.span().number == number
    }
}

impl EpochToken {
    pub(super) fn of(directory: Option<EpochMark>, url: Option<EpochMark>) -> EpochToken {
        EpochToken::from(EpochMarks {
            directory,
            url,
            ..EpochMarks::default()
        })
    }

    /// Whether none of its epochs has ended.
    pub fn is_valid(&self) -> bool {
        self.all_marks(Epoch::is_at)
    }

    /// The token as of now for an object that a soft purge made stale. `None`: one of its epochs
    /// has ended for good.
    pub(super) fn renewed(&self) -> Option<EpochToken> {
        let mut marks = self.marks();
        let EpochMarks {
            directory,
            url,
            whole,
            parent,
            tags,
        } = &mut marks;
        for mark in [directory, url, whole, parent, tags].into_iter().flatten() {
            *mark = mark.renewed()?;
        }
        Some(EpochToken::from(marks))
    }

    /// The keys of its tags, as they were bound.
    pub fn tag_keys(&self) -> Vec<Key> {
        let EpochBinding::Marks(marks) = &self.0 else {
            return Vec::new();
        };
        let tags = marks.tags.iter().flat_map(|mark| mark.epoch.tags());
        tags.map(|tag| tag.key.clone()).collect()
    }

    /// Whether it is of a slice.
    pub(super) fn is_of_slice(&self) -> bool {
        match &self.0 {
            EpochBinding::Directory { .. } => false,
            EpochBinding::Marks(marks) => marks.whole.is_some(),
        }
    }

    /// Whether its object was usable until these epochs ended, or still is.
    pub(crate) fn was_valid_before(&self, ended: &EndedEpochs) -> bool {
        self.all_marks(|epoch, number| epoch.span().has(number) || ended.has(epoch, number))
    }

    /// Whether one of these ended epochs is its own.
    pub(crate) fn ended_with(&self, ended: &EndedEpochs) -> bool {
        !self.all_marks(|epoch, number| !ended.has(epoch, number))
    }

    /// Whether it was renewed after one of these epochs ended, and before the next one did.
    pub(crate) fn was_renewed_after(&self, ended: &EndedEpochs) -> bool {
        !self.all_marks(|epoch, number| !ended.begins(epoch, number))
    }

    /// The bits of its epochs.
    pub(super) fn bits(&self) -> EpochBits {
        let mut bits = EpochBits::default();
        self.all_marks(|epoch, _| {
            bits = bits.with(std::ptr::from_ref(epoch).addr());
            true
        });
        bits
    }

    fn all_marks(&self, mut holds: impl FnMut(&Epoch, u32) -> bool) -> bool {
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
pub(crate) struct EndedEpochs {
    /// Of a dry run, the epochs are listed and do not end.
    mode: PurgeMode,
    spans: HashMap<usize, EpochSpan, ahash::RandomState>,
    /// While they are kept here, no other epoch can have the same address.
    kept: Vec<Arc<Epoch>>,
}

impl EndedEpochs {
    pub(crate) fn new(mode: PurgeMode) -> EndedEpochs {
        EndedEpochs {
            mode,
            spans: HashMap::default(),
            kept: Vec::new(),
        }
    }

    fn has(&self, epoch: &Epoch, number: u32) -> bool {
        let ended = self.spans.get(&std::ptr::from_ref(epoch).addr());
        ended.is_some_and(|span| span.has(number))
    }

    /// Whether the end of this epoch began this number.
    fn begins(&self, epoch: &Epoch, number: u32) -> bool {
        let ended = self.spans.get(&std::ptr::from_ref(epoch).addr());
        ended.is_some_and(|span| span.ended(self.mode).number == number)
    }

    pub(super) fn mode(&self) -> PurgeMode {
        self.mode
    }

    pub(super) fn end(&mut self, epoch: Arc<Epoch>) {
        let before = match self.mode {
            PurgeMode::DryRun => epoch.span(),
            mode => epoch.end(mode),
        };
        // Later ends in the same purge do not count: the first one ended the objects.
        let address = Arc::as_ptr(&epoch).addr();
        self.spans.entry(address).or_insert(before);
        self.kept.push(epoch);
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.kept.is_empty()
    }

    pub(super) fn bits(&self) -> EpochBits {
        let addresses = self.kept.iter().map(|epoch| Arc::as_ptr(epoch).addr());
        addresses.fold(EpochBits::default(), EpochBits::with)
    }
}

impl Epoch {
    /// Returns its numbers before.
    pub(super) fn end(&self, mode: PurgeMode) -> EpochSpan {
        let end = |bits| Some(EpochSpan::of(bits).ended(mode).bits());
        let before = self
            .span
            .fetch_update(Ordering::AcqRel, Ordering::Acquire, end);
        // The objects of these keys are still stored after a soft purge.
        if mode != PurgeMode::Soft
            && let Some(keys) = self.keys.get()
        {
            keys.lock().clear();
        }
        EpochSpan::of(before.unwrap_or_else(|bits| bits))
    }

    /// The keys of a URL that may have stored objects.
    pub(super) fn stored_keys(&self) -> Vec<Key> {
        let keys = self.keys.get();
        keys.map_or_else(Vec::new, |keys| keys.lock().iter().cloned().collect())
    }
}

impl EpochMark {
    /// A mark of the epoch as it is now.
    pub(super) fn now(epoch: Arc<Epoch>) -> EpochMark {
        let number = epoch.span().number;
        EpochMark { epoch, number }
    }

    /// The mark as of now, unless the epoch has ended for good since.
    fn renewed(&self) -> Option<EpochMark> {
        let span = self.epoch.span();
        span.has(self.number).then(|| EpochMark {
            epoch: Arc::clone(&self.epoch),
            number: span.number,
        })
    }
}
