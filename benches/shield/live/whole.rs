//! Streams of whole segments: cost, age of the responses, and waits.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use seawall_simulator::{DemoRendition, Resource, Utc};

use super::{Evening, Note, Programme};
use crate::figures::{Spread, millis, percent, ratio};
use crate::table::Table;

/// A longer wait for a manifest is noticeable.
const NOTICEABLE_WAIT: Duration = Duration::from_millis(5);

pub fn description(programme: Programme) -> String {
    format!(
        "{} players of {} renditions, segments of {} s, an origin that takes {} ms, {} s. Ideal: one\n\
         request for each version of each playlist and for each segment. Old: how long a newer version had\n\
         existed when a playlist arrived, on average; beyond: without the origin's delay, as a share of a segment.\n\
         There: segments that were stored at their first viewer's request.",
        programme.players,
        DemoRendition::ALL.len(),
        programme.segment.as_secs(),
        programme.thinks.as_millis(),
        programme.lasts.as_secs(),
    )
}

pub fn table() -> Table {
    Table::new(&[
        "live",
        "server",
        "answers",
        "failed",
        "manifests",
        "segments",
        "÷ ideal",
        "twice",
        "wait p99/max",
        "> 5 ms",
        "old ms",
        "beyond",
        "out of date",
        "there",
        "first viewer p50",
        "p99/max",
        "CPU µs",
    ])
}

pub fn row(name: &'static str, programme: Programme, evening: &Evening) -> Vec<String> {
    let notes = evening.counted();
    let playlists: Vec<&Note> = notes
        .iter()
        .copied()
        .filter(|note| matches!(note.resource, Resource::Playlist(..)) && note.good)
        .collect();
    let waits = Spread::of(playlists.iter().map(|note| note.waited()));
    let ages: Vec<Duration> = playlists
        .iter()
        .map(|note| age_beyond_newer(note, evening))
        .collect();
    let thinks = programme.thinks;
    let beyond = Spread::of(ages.iter().map(|age| age.saturating_sub(thinks)));
    let outdated = beyond.count_over(Duration::ZERO);
    let old = Spread::of(ages.into_iter());
    let first = first_viewers(evening);
    let asked = evening.asked;
    let answers = notes.iter().filter(|note| note.good).count();
    vec![
        String::new(),
        name.to_owned(),
        answers.to_string(),
        (notes.len() - answers).to_string(),
        asked.manifests.to_string(),
        asked.segments.to_string(),
        ratio(asked.manifests + asked.segments, ideal_requests(evening)),
        evening.twice.to_string(),
        waits.percentile_and_max(99),
        waits.count_over(NOTICEABLE_WAIT).to_string(),
        millis(old.mean()),
        format!(
            "{:.2} %",
            100.0 * beyond.mean().as_secs_f64() / programme.segment.as_secs_f64()
        ),
        percent(outdated, beyond.count()),
        percent(
            first.count() - first.count_over(NOTICEABLE_WAIT),
            first.count(),
        ),
        first.median(),
        first.percentile_and_max(99),
        evening.cpu_micros(answers),
    ]
}

/// New versions, and new segments, of each rendition.
fn ideal_requests(evening: &Evening) -> u64 {
    2 * evening.new_segments() * DemoRendition::ALL.len() as u64
}

/// How long a newer version had existed.
fn age_beyond_newer(note: &Note, evening: &Evening) -> Duration {
    let newer = |(last, _)| evening.broadcast.segment_due(last + 1);
    let newer: Option<Utc> = note.reach.map(newer);
    newer.map_or(Duration::ZERO, |newer| note.answered.saturating_sub(newer))
}

/// The waits of the first viewer of each segment.
fn first_viewers(evening: &Evening) -> Spread {
    let mut early: HashSet<Resource> = HashSet::new();
    let mut first: HashMap<Resource, &Note> = HashMap::new();
    for note in &evening.notes {
        if !matches!(note.resource, Resource::Segment(..)) {
            continue;
        }
        if note.asked < evening.from {
            early.insert(note.resource);
        }
        let known = first.entry(note.resource).or_insert(note);
        if note.asked < known.asked {
            *known = note;
        }
    }
    let counted = first.iter().filter(|(place, _)| !early.contains(*place));
    Spread::of(counted.map(|(_, note)| note.waited()))
}
