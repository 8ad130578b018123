//! What does a version of a manifest list that the one before did not, and where does that lie?

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Instant;

use super::lanes::{Coming, Lanes};
use super::watch::Course;
use super::window::Slide;
use crate::media::{Listed, Listing, Manifest};
use crate::policy::access::Entry;
use crate::policy::{Key, Rules};

/// What was listed so many segments' time ago is not new any more: players start about there.
const NEW_SEGMENTS: u32 = 3;

/// So many names are remembered of a manifest that leaves out what was listed before.
const REMEMBERED_MAX: usize = 1024;

/// What a manifest lists lies in so many directories, as far as is remembered.
const PLACES_MAX: usize = 256;

/// Something that may be asked for before it is there (`EXT-X-PRELOAD-HINT`).
pub(in crate::shield) struct Announced {
    pub(in crate::shield) entry: Entry,
    /// All of it, and not a part of something that grows.
    pub(in crate::shield) whole: bool,
    /// The version before did not announce it.
    pub(in crate::shield) new: bool,
}

/// What a version brought.
pub(in crate::shield) struct News {
    /// What it lists whole that the one before did not.
    pub(in crate::shield) listed: Vec<Key>,
    /// So long that counts as new.
    pub(in crate::shield) new_until: Instant,
    /// What of that is to be fetched, if anybody wants it; nothing for the first version.
    pub(in crate::shield) coming: Vec<Coming>,
    /// When it was found.
    pub(in crate::shield) found: Instant,
    /// What it announces that is not there yet.
    pub(in crate::shield) announced: Vec<Announced>,
    /// What the one before announced and this one does not.
    pub(in crate::shield) withdrawn: Vec<Key>,
    /// Where what it lists lies, as far as that was not known.
    pub(in crate::shield) places: Vec<Key>,
    /// Places whose epoch has ended: it is the first version of a new generation.
    pub(in crate::shield) left: Vec<Key>,
    /// Segments that came and went.
    pub(in crate::shield) slide: Slide,
}

impl Course {
    /// Compares a version with the one before it. `left`: the places of a generation that has ended.
    pub(super) fn news(
        &mut self,
        entry: &Entry,
        rules: &Rules,
        manifest: &Manifest,
        (first, left, sent): (bool, Vec<Key>, Instant),
    ) -> News {
        let Manifest { facts, listing } = manifest;
        let slide = self.window.slide((entry, rules), manifest, self.segment);
        let known = self.places.len();
        self.lanes = Arc::new(Lanes::of(listing));
        let is_delta = facts.edge.as_ref().is_some_and(|edge| edge.skipped > 0);
        let low_latency = facts.part_target.is_some();
        let mut new = self.list(entry, rules, listing, low_latency, is_delta);
        let (announced, past) = self.announce(entry, rules, listing);
        // What was announced and is so no more is there: listed, or a part of a segment that is whole now.
        let come = past.iter().filter(|(_, whole)| *whole);
        for (entry, _) in come {
            if new.iter().all(|(_, new)| new.key != entry.key) {
                new.push((u64::MAX, entry.clone()));
            }
        }
        let numbered = facts.edge.as_ref().filter(|edge| edge.numbered);
        let reached = numbered.map(|edge| edge.last);
        let before = std::mem::replace(&mut self.reached, reached);
        // A name that is signed anew with each version is no new segment.
        let goes_on = |sequence: u64| before.is_none_or(|before| sequence > before);
        let listed: Vec<Key> = new.iter().map(|(_, entry)| entry.key.clone()).collect();
        let coming = match (first, numbered) {
            (true, _) => Vec::new(),
            (_, Some(_)) => {
                let new = new.into_iter().filter(|(sequence, _)| goes_on(*sequence));
                new.map(|(_, entry)| Coming::surely(entry)).collect()
            }
            (_, None) => {
                let new: HashSet<&Key> = listed.iter().collect();
                let is_new = |key: &Key| new.contains(key);
                Coming::listed(rules, entry, listing, is_new)
            }
        };
        News {
            listed,
            new_until: sent + self.segment * NEW_SEGMENTS,
            coming,
            found: sent,
            announced,
            withdrawn: past.into_iter().map(|(entry, _)| entry.key).collect(),
            places: self.places[known..].to_vec(),
            left,
            slide,
        }
    }

    /// Resolves what is listed whole, remembers it and where it lies, and says which of it has a new name,
    /// with its number. Of a low-latency playlist viewers want the parts; who wants whole segments is behind, and asks for them.
    fn list(
        &mut self,
        entry: &Entry,
        rules: &Rules,
        listing: &Listing,
        low_latency: bool,
        is_delta: bool,
    ) -> Vec<(u64, Entry)> {
        let segments: &[Listed] = if low_latency { &[] } else { &listing.segments };
        let listed = listing.inits.iter().chain(segments).chain(&listing.parts);
        let before = std::mem::take(&mut self.listed);
        if is_delta && before.len() < REMEMBERED_MAX {
            // What it leaves out is listed all the same.
            self.listed.clone_from(&before);
        }
        let mut new = Vec::new();
        for Listed {
            uri,
            range,
            sequence,
            ..
        } in listed
        {
            let whole = range.is_none();
            let fingerprint = self.hasher.hash_one((uri, whole));
            if !self.listed.insert(fingerprint) || before.contains(&fingerprint) {
                continue;
            }
            self.lies(entry.namesake(rules, uri));
            let sibling = entry.sibling(rules, uri).filter(|_| whole);
            new.extend(sibling.map(|sibling| (*sequence, sibling)));
        }
        // Segments that are not fetched ahead have their place all the same.
        let last = listing.segments.last().filter(|_| low_latency);
        self.lies(last.and_then(|last| entry.namesake(rules, &last.uri)));
        let lanes = Arc::clone(&self.lanes);
        for example in lanes.examples() {
            self.lies(entry.namesake(rules, &example));
        }
        new
    }

    /// It belongs to what the manifest lists.
    fn lies(&mut self, listed: Option<Entry>) {
        let place = listed.map(|listed| listed.place());
        let place = place.filter(|place| !self.places.contains(place));
        if self.places.len() < PLACES_MAX {
            self.places.extend(place);
        }
    }

    /// What is announced now, and what is no more.
    fn announce(
        &mut self,
        entry: &Entry,
        rules: &Rules,
        listing: &Listing,
    ) -> (Vec<Announced>, Vec<(Entry, bool)>) {
        let mut past = std::mem::take(&mut self.announced);
        let mut announced = Vec::new();
        for Listed { uri, range, .. } in &listing.coming {
            let Some(entry) = entry.sibling(rules, uri) else {
                continue;
            };
            let whole = range.is_none();
            self.announced.push((entry.clone(), whole));
            announced.push(Announced {
                new: past.iter().all(|(before, _)| before.key != entry.key),
                whole,
                entry,
            });
        }
        let still = |key: &Key| self.announced.iter().any(|(one, _)| one.key == *key);
        past.retain(|(entry, _)| !still(&entry.key));
        (announced, past)
    }
}
