//! A low-latency stream: how often is the origin asked for a part, and when does a viewer hear of it?

use std::collections::HashMap;
use std::time::Duration;

use seawall::demo::{Place, Rendition, Utc};

use super::figures::{Spread, ratio};
use super::{Evening, Note, Programme};
use crate::table::Table;

pub fn told(programme: Programme) -> String {
    format!(
        "{} players of {} renditions with blocking reload, parts of a third of a second, an origin that takes\n\
         {} ms, {} s. A version's wait: from when it was made to when a viewer had it; added: beyond when a\n\
         player straight at the origin had it. The first of those who wait for a version, and all of them.",
        programme.players,
        Rendition::ALL.len(),
        programme.thinks.as_millis(),
        programme.lasts.as_secs(),
    )
}

pub fn table() -> Table {
    Table::new(&[
        "low latency",
        "server",
        "answers",
        "failed",
        "playlists ÷ parts",
        "parts ÷ parts",
        "twice",
        "first added p50",
        "p99/max",
        "all added p50",
        "p99/max",
        "part after made p50",
        "p99/max",
        "CPU µs",
    ])
}

/// A version: a rendition's playlist as it was when a part came.
type Version = (Rendition, u64, u64);

pub fn row(name: &'static str, evening: &Evening) -> Vec<String> {
    let notes = evening.counted();
    let waits = waits_by_version(&evening.notes, evening);
    let straight = waits_by_version(&evening.straight, evening);
    let mut first = Vec::new();
    let mut all = Vec::new();
    for (version, times) in &waits {
        let Some(straight) = straight.get(version).and_then(|times| times.iter().min()) else {
            continue;
        };
        let added = times.iter().map(|time| time.saturating_sub(*straight));
        first.extend(added.clone().min());
        all.extend(added);
    }
    let (first, all) = (Spread::of(first.into_iter()), Spread::of(all.into_iter()));
    let parts = Spread::of(notes.iter().filter_map(|note| after_made(note, evening)));
    let made = made(evening);
    let answers = notes.iter().filter(|note| note.good).count();
    vec![
        String::new(),
        name.to_owned(),
        answers.to_string(),
        (notes.len() - answers).to_string(),
        ratio(evening.asked.manifests, made),
        ratio(evening.asked.parts, made),
        evening.origin.tally().duplicates().len().to_string(),
        first.median(),
        first.told(99),
        all.median(),
        all.told(99),
        parts.median(),
        parts.told(99),
        evening.cpu_micros(answers),
    ]
}

/// Parts of all renditions that were made in the time that counts.
fn made(evening: &Evening) -> u64 {
    let parts = evening.origin.broadcast().parts_per_segment();
    evening.new_segments() * parts * Rendition::ALL.len() as u64
}

/// When those who waited for a version had it.
fn waits_by_version(notes: &[Note], evening: &Evening) -> HashMap<Version, Vec<Utc>> {
    let mut waits: HashMap<Version, Vec<Utc>> = HashMap::new();
    for note in notes {
        let (Place::Playlist(_, rendition), Some((last, parts))) = (note.place, note.reach) else {
            continue;
        };
        let due = due(evening, last, parts);
        let waited = note.good && note.asked < due;
        if waited && due >= evening.from && due < evening.until {
            let version = (rendition, last, parts);
            waits.entry(version).or_default().push(note.answered);
        }
    }
    waits
}

/// When the last part of a version was made.
fn due(evening: &Evening, last: u64, parts: u64) -> Utc {
    let broadcast = evening.origin.broadcast();
    match parts.checked_sub(1) {
        Some(part) => broadcast.part_due(last + 1, part),
        None => broadcast.segment_due(last),
    }
}

/// How long after it was made a part was had by somebody who waited for it.
fn after_made(note: &Note, evening: &Evening) -> Option<Duration> {
    let Place::Part(_, _, segment, part) = note.place else {
        return None;
    };
    let made = evening.origin.broadcast().part_due(segment, part);
    (note.good && note.asked < made).then(|| note.answered.saturating_sub(made))
}
