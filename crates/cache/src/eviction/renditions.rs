//! Estimates how often a live segment will be requested, from the requests for earlier segments.
//!
//! Each viewer of a live rendition requests each segment once, usually just after its publication.
//! Two figures predict a segment's demand: how often a segment of its rendition is requested in
//! all, and the share of these requests at each distance from the live edge, which is similar for
//! all renditions. A prefetched segment is not requested yet but will be soon. So the estimate is
//! not the rate at the present distance, but the requests per second if the segment is stored until
//! its best time.

#![expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    reason = "estimates, and indices that are bounded first"
)]

use std::collections::HashMap;

use super::hits::HitCounter;
use super::queues::NodeId;

/// The position of a segment in a live stream.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LivePosition {
    /// Identifies the rendition.
    pub rendition: u64,
    /// Number of newer segments that the rendition lists.
    pub segments_from_edge: u64,
}

/// What a new version of a live playlist says about a rendition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Advance {
    /// Identifies the rendition.
    pub rendition: u64,
    /// Number of new segments.
    pub segments: u64,
    /// Number of segments that the playlist lists.
    pub listed: u64,
    /// Time between two new segments, in milliseconds.
    pub segment_interval_ms: u64,
}

/// Distances from the live edge below this are separate classes; greater ones are classed by power
/// of two.
const NEAR: u64 = 8;
const DISTANCES: usize = 20;
/// At these distances requests are expected before any were counted.
const EXPECTED: usize = NEAR as usize;
/// Weight of the newest segment in the estimate of a rendition's demand.
const NEWEST_SHARE: f32 = 0.3;
/// The estimate begins as the mean of this many segments.
const FIRST_SEGMENTS: f32 = 3.0;
/// When the count exceeds this, all counts are halved.
const COUNTED_MAX: f32 = 1e6;
/// Maximum number of tracked renditions.
const RENDITIONS_MAX: usize = 1 << 16;
/// Segments listed before the first counted one need numbers too.
const FIRST_NUMBER: u64 = 1 << 32;
const SWEEP_MIN: usize = 1024;

#[derive(Debug, Default)]
struct TrackedRendition {
    /// Number of its newest segment, counted from [`FIRST_NUMBER`].
    newest: u64,
    advanced_ms: u64,
    segment_interval_ms: u64,
    /// Number of segments that it lists.
    listed: u64,
    /// Requests for one segment in all, estimated over `segments` segments.
    demand: f32,
    segments: f32,
    /// Requests since its last segment.
    requests: f32,
    /// Its stored segments near the live edge.
    near: Vec<(u64, NodeId)>,
    /// Number of stored segments.
    stored: u32,
}

/// All renditions with stored or listed segments.
#[derive(Debug)]
pub(super) struct Renditions {
    known: HashMap<u64, TrackedRendition, ahash::RandomState>,
    /// Requests by distance from the live edge, and the number there would be if all requests for a
    /// segment came at that distance.
    requests: [f32; DISTANCES],
    possible: [f32; DISTANCES],
    sweep_at: usize,
}

impl Renditions {
    pub(super) fn new() -> Renditions {
        Renditions {
            known: HashMap::default(),
            requests: std::array::from_fn(|at| if at < EXPECTED { 1.0 } else { 0.0 }),
            possible: [1.0; DISTANCES],
            sweep_at: SWEEP_MIN,
        }
    }

    /// Records a stored segment with `requests` requests so far. Returns its number; `None` if
    /// there are too many renditions.
    pub(super) fn record_stored(
        &mut self,
        LivePosition {
            rendition,
            segments_from_edge,
        }: LivePosition,
        (id, requests): (NodeId, f32),
        now_ms: u64,
    ) -> Option<u64> {
        let tracked = self.known(rendition, now_ms)?;
        let number = tracked.newest.saturating_sub(segments_from_edge);
        tracked.stored += 1;
        tracked.requests += requests;
        if segments_from_edge < NEAR {
            tracked.near.retain(|(other, _)| *other != number);
            tracked.near.push((number, id));
        }
        self.requests[distance_class(segments_from_edge)] += requests;
        Some(number)
    }

    /// Records that a segment was removed from the store.
    pub(super) fn record_removed(&mut self, rendition: u64, requests: f32) {
        if let Some(tracked) = self.known.get_mut(&rendition) {
            tracked.stored = tracked.stored.saturating_sub(1);
            tracked.requests += requests;
        }
    }

    /// Records new segments of a rendition. `take` returns the hits of a stored segment and resets
    /// them.
    pub(super) fn advance(
        &mut self,
        advance: Advance,
        take: impl Fn(NodeId) -> Option<f32>,
        now_ms: u64,
    ) {
        let Some(tracked) = self.known(advance.rendition, now_ms) else {
            return;
        };
        let newest = tracked.newest;
        let mut by_distance = [0.0; DISTANCES];
        tracked.near.retain(|(number, id)| {
            let hits = take(*id);
            by_distance[distance_class(newest - number)] += hits.unwrap_or(0.0);
            hits.is_some()
        });
        let demand = tracked.demand;
        tracked.requests += by_distance.iter().sum::<f32>();
        tracked.newest += advance.segments;
        tracked.advanced_ms = now_ms;
        tracked.segment_interval_ms = advance.segment_interval_ms.max(1);
        tracked.listed = advance.listed;
        let newest = tracked.newest;
        tracked.near.retain(|(number, _)| newest - number < NEAR);
        tracked.update_demand(advance.segments);
        for (at, requests) in by_distance.into_iter().enumerate() {
            self.requests[at] += requests;
            self.possible[at] += demand * width(at, advance.listed);
        }
        if self.possible[0] > COUNTED_MAX {
            let counts = self.requests.iter_mut().chain(&mut self.possible);
            counts.for_each(|count| *count /= 2.0);
        }
    }

    /// Expected requests per second for a stored segment until its best time is over.
    pub(super) fn rate(
        &mut self,
        (rendition, number): (u64, u64),
        counter: &HitCounter,
        now_ms: u64,
    ) -> f32 {
        let Some(tracked) = self.known.get_mut(&rendition) else {
            return 0.0;
        };
        let segments_from_edge = tracked.newest.saturating_sub(number);
        let at = distance_class(segments_from_edge);
        if segments_from_edge >= NEAR {
            let requests = counter.take();
            tracked.requests += requests;
            self.requests[at] += requests;
        }
        // More requests came since the last segment than for earlier ones: viewers have just begun.
        let requests = tracked.requests.max(counter.count());
        let expected = if tracked.segments > 0.0 {
            tracked.demand
        } else {
            1.0
        };
        let demand = expected.max(requests);
        // A rendition without new segments loses its viewers, or has lost them.
        let since_ms = now_ms
            .saturating_sub(tracked.advanced_ms)
            .max(tracked.segment_interval_ms);
        let listed = tracked.listed;
        demand * self.share_from(at, listed) / seconds(since_ms)
    }

    /// The expected share of a segment's requests per new segment, from a distance on: the maximum
    /// over all periods in which the segment is still listed.
    fn share_from(&self, at: usize, listed: u64) -> f32 {
        let (mut requests, mut segments, mut rate_max) = (0.0, 0.0, 0.0_f32);
        for at in at..DISTANCES {
            let width = width(at, listed);
            if segments > 0.0 && width == 0.0 {
                break;
            }
            let width = width.max(1.0);
            requests += width * self.requests[at] / self.possible[at].max(1.0);
            segments += width;
            rate_max = rate_max.max(requests / segments);
        }
        rate_max
    }

    fn known(&mut self, rendition: u64, now_ms: u64) -> Option<&mut TrackedRendition> {
        if !self.known.contains_key(&rendition) {
            self.make_room();
            if self.known.len() >= RENDITIONS_MAX {
                return None;
            }
        }
        let fresh = || TrackedRendition {
            newest: FIRST_NUMBER,
            advanced_ms: now_ms,
            segment_interval_ms: 1000,
            ..TrackedRendition::default()
        };
        Some(self.known.entry(rendition).or_insert_with(fresh))
    }

    fn make_room(&mut self) {
        if self.known.len() >= self.sweep_at {
            self.known.retain(|_, tracked| tracked.stored > 0);
            self.sweep_at = SWEEP_MIN.max(2 * self.known.len());
        }
    }
}

impl TrackedRendition {
    /// The requests since the last segment estimate the requests for one segment in all, as all
    /// segments are requested alike.
    fn update_demand(&mut self, new: u64) {
        let requests = std::mem::take(&mut self.requests);
        if new == 0 {
            self.requests = requests;
            return;
        }
        let each = requests / new as f32;
        self.segments = (self.segments + 1.0).min(FIRST_SEGMENTS);
        let share = if self.segments < FIRST_SEGMENTS {
            1.0 / self.segments
        } else {
            NEWEST_SHARE
        };
        self.demand += (each - self.demand) * share;
    }
}

/// The class of a distance from the live edge.
fn distance_class(segments_from_edge: u64) -> usize {
    let at = match segments_from_edge.checked_ilog2() {
        Some(power) if segments_from_edge >= NEAR => {
            NEAR as usize + (power - NEAR.ilog2()) as usize
        }
        _ => segments_from_edge as usize,
    };
    at.min(DISTANCES - 1)
}

/// Number of segments in a class, for a playlist with `listed` segments.
fn width(at: usize, listed: u64) -> f32 {
    let at = at as u64;
    let (from, to) = match at.checked_sub(NEAR) {
        None => (at, at + 1),
        Some(power) => (NEAR << power, NEAR << (power + 1)),
    };
    listed.min(to).saturating_sub(from) as f32
}

fn seconds(ms: u64) -> f32 {
    ms as f32 / 1000.0
}
