//! Low-latency streams: origin requests per part, and the delay of versions and parts at viewers.

use std::collections::HashMap;
use std::time::Duration;

use seawall_simulator::{DemoRendition, Resource, Utc};

use super::{Evening, Note, Programme};
use crate::figures::{Spread, ratio};
use crate::table::Table;

pub fn description(programme: Programme) -> String {
    format!(
        "{} players of {} renditions with blocking reload, parts of a third of a second, an origin that takes\n\
         {} ms, {} s. Milliseconds from the making of a version to its arrival: at the first viewer who waited\n\
         for it, and at all; and the same for a part. The last row is the origin itself, with the same players.",
        programme.players,
        DemoRendition::ALL.len(),
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
        "first p50",
        "p99/max",
        "all p50",
        "p99/max",
        "part p50",
        "p99/max",
        "CPU µs",
    ])
}

/// A version: a rendition's playlist as it was when a part appeared.
type Version = (DemoRendition, u64, u64);

pub fn row(name: &'static str, evening: &Evening) -> Vec<String> {
    let notes = evening.counted();
    let waits = waits_by_version(evening);
    let first = Spread::of(
        waits
            .values()
            .filter_map(|waits| waits.iter().min().copied()),
    );
    let all = Spread::of(waits.values().flatten().copied());
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
        evening.twice.to_string(),
        first.median(),
        first.percentile_and_max(99),
        all.median(),
        all.percentile_and_max(99),
        parts.median(),
        parts.percentile_and_max(99),
        evening.cpu_micros(answers),
    ]
}

/// Parts of all renditions that were made in the measured time.
fn made(evening: &Evening) -> u64 {
    let parts = evening.broadcast.parts_per_segment();
    evening.new_segments() * parts * DemoRendition::ALL.len() as u64
}

/// The delay between a version and its arrival at viewers who waited for it.
fn waits_by_version(evening: &Evening) -> HashMap<Version, Vec<Duration>> {
    let mut waits: HashMap<Version, Vec<Duration>> = HashMap::new();
    for note in &evening.notes {
        let (Resource::Playlist(_, rendition), Some((last, parts))) = (note.resource, note.reach)
        else {
            continue;
        };
        let due = made_at(evening, last, parts);
        let waited = note.good && note.asked < due;
        if waited && due >= evening.from && due < evening.until {
            let version = (rendition, last, parts);
            let wait = note.answered.saturating_sub(due);
            waits.entry(version).or_default().push(wait);
        }
    }
    waits
}

/// The time at which the last part of a version was made.
fn made_at(evening: &Evening, last: u64, parts: u64) -> Utc {
    let broadcast = &evening.broadcast;
    match parts.checked_sub(1) {
        Some(part) => broadcast.part_due(last + 1, part),
        None => broadcast.segment_due(last),
    }
}

/// The delay between a part and its arrival at a viewer who waited for it.
fn after_made(note: &Note, evening: &Evening) -> Option<Duration> {
    let Resource::Part(_, _, segment, part) = note.resource else {
        return None;
    };
    let made = evening.broadcast.part_due(segment, part);
    (note.good && note.asked < made).then(|| note.answered.saturating_sub(made))
}
