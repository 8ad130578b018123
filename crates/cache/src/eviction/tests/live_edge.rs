//! Hit ratios when memory holds a third of the segments of live streams.

use super::*;

/// Number of segments of each rendition.
const SEGMENTS: u64 = 150;
const KEYS: u64 = 1_000_000;

/// Live streams whose segments are prefetched when they are new, and requested later.
#[derive(Debug)]
struct Streams {
    renditions: u64,
    /// Number of segments listed at once.
    listed: u64,
    /// How many segments behind the newest one viewers are.
    viewers_behind: &'static [u64],
    /// Number of segments of each rendition that fit in memory.
    held: u64,
    /// Once per this many segments, a viewer seeks back to an old segment.
    rewinds_every: u64,
}

impl Streams {
    /// The share of requests that are hits, in percent, once memory is full.
    fn hit_percent(&self) -> f64 {
        // 1/32 is for errors.
        let memory = self.held * self.renditions * KIB * 32 / 31;
        let mut shelf = Shelf::of(memory);
        let (mut hits, mut asked) = (0_u32, 0_u32);
        for newest in 1..=SEGMENTS {
            shelf.now_ms += 2000;
            for rendition in 0..self.renditions {
                let advance = Advance {
                    rendition,
                    segments: 1,
                    listed: self.listed,
                    segment_interval_ms: 2000,
                };
                shelf.policy.advance(advance, shelf.now_ms);
                if let Some(gone) = newest.checked_sub(self.listed) {
                    shelf.policy.depart(key(rendition, gone));
                }
                shelf.fetch_ahead(rendition, newest);
            }
            let is_full = shelf.policy.bytes() >= memory * 9 / 10;
            for rendition in 0..self.renditions {
                let behind = self.viewers_behind.iter().copied();
                let rewinds = (newest + rendition) % self.rewinds_every == 0;
                let back = rewinds
                    .then_some(newest / 2)
                    .filter(|back| *back < self.listed);
                for behind in behind.filter(|behind| *behind < newest).chain(back) {
                    let is_hit = shelf.watch(rendition, newest, behind);
                    if is_full && Some(behind) != back {
                        asked += 1;
                        hits += u32::from(is_hit);
                    }
                }
            }
        }
        assert!(asked > 200, "memory is full for a while");
        f64::from(hits) * 100.0 / f64::from(asked)
    }
}

fn key(rendition: u64, number: u64) -> u64 {
    rendition * KEYS + number
}

impl Shelf {
    fn fetch_ahead(&mut self, rendition: u64, newest: u64) {
        self.store_asked(key(rendition, newest), live(rendition), 0);
    }

    /// A viewer requests a segment. On a miss it is fetched and stored.
    fn watch(&mut self, rendition: u64, newest: u64, segments_from_edge: u64) -> bool {
        let key = key(rendition, newest - segments_from_edge);
        let is_hit = self.ask(key);
        if !is_hit {
            let position = LivePosition {
                rendition,
                segments_from_edge,
            };
            self.store(key, ObjectClass::Live(position));
        }
        is_hit
    }
}

const BEHIND: [&[u64]; 3] = [&[3], &[2, 3, 3, 4], &[0, 1, 5, 6]];

fn every_audience_hits(listed: u64, held: u64) {
    let mut short = Vec::new();
    for viewers_behind in BEHIND {
        for renditions in [3, 30] {
            for rewinds_every in [7, u64::MAX] {
                let streams = Streams {
                    renditions,
                    listed,
                    viewers_behind,
                    held,
                    rewinds_every,
                };
                let percent = streams.hit_percent();
                if percent < 99.5 {
                    short.push((percent, streams));
                }
            }
        }
    }
    assert!(short.is_empty(), "{short:#?}");
}

#[test]
fn keeps_live_edge_segments_when_none_leave_the_playlist() {
    every_audience_hits(u64::MAX, SEGMENTS / 3);
}

#[test]
fn keeps_live_edge_segments_when_playlist_exceeds_memory() {
    every_audience_hits(100, SEGMENTS / 3);
}

#[test]
fn keeps_live_edge_segments_when_playlist_about_fills_memory() {
    every_audience_hits(52, SEGMENTS / 3);
}

/// Memory holds the segments of each rendition between the live edge and the last viewer, and few
/// more.
#[test]
fn keeps_segments_between_edge_and_last_viewer_in_small_memory() {
    for listed in [u64::MAX, 100, 30] {
        every_audience_hits(listed, 10);
    }
}
