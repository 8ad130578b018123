//! The eviction policies under comparison, each as a memory on which a trace is replayed.

use std::collections::HashMap;
use std::sync::Arc;

use fastrand::Rng;
use moka::policy::EvictionPolicy;
use moka::sync::Cache as Map;
use seawall_cache::eviction::{
    Advance, Candidate, HitCounter, LivePosition, MemoryBounds, ObjectClass, Policy,
};

use crate::audience::{Event, Item, LiveItem, SEGMENT_MS, Trace, request_share_at};

/// The result of a trace.
#[derive(Clone, Copy, Default)]
pub struct Tally {
    pub asked: u64,
    pub hits: u64,
    pub asked_bytes: u64,
    pub hit_bytes: u64,
}

impl Tally {
    pub fn count(&mut self, item: Item, hit: bool) {
        let (hit, bytes) = (u64::from(hit), u64::from(item.bytes));
        self.asked += 1;
        self.asked_bytes += bytes;
        self.hits += hit;
        self.hit_bytes += hit * bytes;
    }
}

/// A memory with a limit.
pub trait Memory {
    /// A viewer requests an item: is it stored?
    fn ask(&mut self, id: u32) -> bool;
    /// Is it stored? Not a request.
    fn holds(&self, id: u32) -> bool;
    /// Stores a fetched item, for a viewer's request or (not `asked`) a prefetch.
    fn store(&mut self, id: u32, asked: bool);
    /// A playlist lists it as its newest segment.
    fn publish(&mut self, _id: u32) {}
    /// No playlist lists it any more.
    fn depart(&mut self, _id: u32) {}
    /// Advances the clock.
    fn tick(&mut self, _now_ms: u32) {}
}

/// Replays a trace on a memory.
pub fn replay(trace: &Trace, mut memory: impl Memory) -> Tally {
    let mut tally = Tally::default();
    for (at, event) in trace.events.iter().enumerate() {
        memory.tick(trace.times[at]);
        match *event {
            Event::Ask(id) => {
                let hit = memory.ask(id);
                if !hit {
                    memory.store(id, true);
                }
                if at >= trace.counted_from {
                    tally.count(trace.items[id as usize], hit);
                }
            }
            Event::Publish(id) => {
                memory.publish(id);
                if !memory.holds(id) {
                    memory.store(id, false);
                }
            }
            Event::Depart(id) => memory.depart(id),
        }
    }
    tally
}

/// moka with one of its policies.
pub struct Moka<'a> {
    trace: &'a Trace,
    map: Map<u32, u32, ahash::RandomState>,
}

impl Moka<'_> {
    pub fn tiny_lfu(bytes: u64, trace: &Trace) -> Moka<'_> {
        Moka::new(bytes, trace, EvictionPolicy::tiny_lfu())
    }

    pub fn lru(bytes: u64, trace: &Trace) -> Moka<'_> {
        Moka::new(bytes, trace, EvictionPolicy::lru())
    }

    fn new(bytes: u64, trace: &Trace, policy: EvictionPolicy) -> Moka<'_> {
        /// moka weighs in `u32`, as the store did when it used moka.
        const UNIT: u32 = 64;
        let map = Map::builder()
            .max_capacity(bytes / u64::from(UNIT))
            .weigher(|_, bytes: &u32| bytes / UNIT)
            .eviction_policy(policy)
            .build_with_hasher(ahash::RandomState::with_seed(1));
        Moka { trace, map }
    }
}

impl Memory for Moka<'_> {
    fn ask(&mut self, id: u32) -> bool {
        self.map.get(&id).is_some()
    }

    fn holds(&self, id: u32) -> bool {
        self.map.contains_key(&id)
    }

    fn store(&mut self, id: u32, _: bool) {
        self.map.insert(id, self.trace.items[id as usize].bytes);
        self.map.run_pending_tasks();
    }
}

/// One half of memory for live segments, the other half for the rest.
pub struct Split<'a> {
    live: Moka<'a>,
    rest: Moka<'a>,
}

impl Split<'_> {
    pub fn new(bytes: u64, trace: &Trace) -> Split<'_> {
        Split {
            live: Moka::lru(bytes / 2, trace),
            rest: Moka::tiny_lfu(bytes / 2, trace),
        }
    }

    fn is_live(&self, id: u32) -> bool {
        self.live.trace.items[id as usize].live.is_some()
    }
}

impl Memory for Split<'_> {
    fn ask(&mut self, id: u32) -> bool {
        let half = if self.is_live(id) {
            &mut self.live
        } else {
            &mut self.rest
        };
        half.ask(id)
    }

    fn holds(&self, id: u32) -> bool {
        self.live.holds(id) || self.rest.holds(id)
    }

    fn store(&mut self, id: u32, asked: bool) {
        let half = if self.is_live(id) {
            &mut self.live
        } else {
            &mut self.rest
        };
        half.store(id, asked);
    }
}

/// The policy of the program.
pub struct Seawall<'a> {
    trace: &'a Trace,
    held: Vec<Option<Arc<HitCounter>>>,
    departed: Vec<bool>,
    newest: HashMap<u32, u32>,
    policy: Policy<u32, Arc<HitCounter>>,
    evicted: Vec<u32>,
    now_ms: u64,
}

impl Seawall<'_> {
    pub fn new(bytes: u64, trace: &Trace) -> Seawall<'_> {
        Seawall {
            trace,
            held: vec![None; trace.items.len()],
            departed: vec![false; trace.items.len()],
            newest: HashMap::new(),
            policy: Policy::new(MemoryBounds::of(bytes, false)),
            evicted: Vec::new(),
            now_ms: 0,
        }
    }

    fn class(&self, id: u32) -> ObjectClass {
        match self.trace.items[id as usize].live {
            Some(LiveItem { rendition, .. }) if !self.departed[id as usize] => {
                let newest = self.newest.get(&rendition).copied().unwrap_or(id);
                ObjectClass::Live(LivePosition {
                    rendition: u64::from(rendition),
                    segments_from_edge: u64::from(newest.saturating_sub(id)),
                })
            }
            _ => ObjectClass::OnDemand,
        }
    }
}

impl Memory for Seawall<'_> {
    fn ask(&mut self, id: u32) -> bool {
        let held = self.held[id as usize].as_ref();
        held.inspect(|hits| hits.add()).is_some()
    }

    fn holds(&self, id: u32) -> bool {
        self.held[id as usize].is_some()
    }

    fn store(&mut self, id: u32, asked: bool) {
        let hits = Arc::new(HitCounter::default());
        let candidate = Candidate {
            key: id,
            fingerprint: u64::from(id),
            bytes: u64::from(self.trace.items[id as usize].bytes),
            class: self.class(id),
            hits: Some(Arc::clone(&hits)),
            requests: u32::from(asked),
            marker: None,
            kept_until_ms: u64::MAX,
        };
        let evicted = &mut self.evicted;
        let stored = self.policy.insert(candidate, None, self.now_ms, evicted);
        for other in evicted.drain(..) {
            self.held[other as usize] = None;
        }
        self.held[id as usize] = stored.map(|_| hits);
    }

    fn publish(&mut self, id: u32) {
        let Some(LiveItem { rendition, .. }) = self.trace.items[id as usize].live else {
            return;
        };
        self.newest.insert(rendition, id);
        let advance = Advance {
            rendition: u64::from(rendition),
            segments: 1,
            listed: u64::from(self.trace.window),
            segment_interval_ms: u64::from(SEGMENT_MS),
        };
        self.policy.advance(advance, self.now_ms);
    }

    fn depart(&mut self, id: u32) {
        self.departed[id as usize] = true;
        self.policy.depart(u64::from(id));
    }

    fn tick(&mut self, now_ms: u32) {
        self.now_ms = u64::from(now_ms);
    }
}

/// A policy that knows how many viewers each rendition has and how far behind they are, but not
/// their future requests: of some items drawn at random, the one with the lowest request rate is
/// evicted.
pub struct Told<'a> {
    trace: &'a Trace,
    places: Vec<Option<usize>>,
    held: Vec<u32>,
    bytes: u64,
    bytes_max: u64,
    rng: Rng,
    now_ms: u32,
}

impl Told<'_> {
    pub fn new(bytes_max: u64, trace: &Trace) -> Told<'_> {
        Told {
            trace,
            places: vec![None; trace.items.len()],
            held: Vec::new(),
            bytes: 0,
            bytes_max,
            rng: Rng::with_seed(1),
            now_ms: 0,
        }
    }

    fn rate(&self, id: u32) -> f32 {
        self.trace.items[id as usize].live.map_or(0.0, |live| {
            let age = (self.now_ms as f32 - live.published_ms) / SEGMENT_MS as f32;
            live.viewers * request_share_at(age)
        })
    }
}

impl Memory for Told<'_> {
    fn ask(&mut self, id: u32) -> bool {
        self.holds(id)
    }

    fn holds(&self, id: u32) -> bool {
        self.places[id as usize].is_some()
    }

    fn store(&mut self, id: u32, _: bool) {
        const DRAWN: usize = 100;
        self.bytes += u64::from(self.trace.items[id as usize].bytes);
        self.places[id as usize] = Some(self.held.len());
        self.held.push(id);
        while self.bytes > self.bytes_max {
            let mut least = (f32::MAX, id);
            for _ in 0..DRAWN {
                let drawn = self.held[self.rng.usize(..self.held.len())];
                let rate = self.rate(drawn);
                if rate < least.0 {
                    least = (rate, drawn);
                }
            }
            let place = self.places[least.1 as usize].take().unwrap_or_default();
            self.held.swap_remove(place);
            if let Some(&moved) = self.held.get(place) {
                self.places[moved as usize] = Some(place);
            }
            self.bytes -= u64::from(self.trace.items[least.1 as usize].bytes);
        }
    }

    fn tick(&mut self, now_ms: u32) {
        self.now_ms = now_ms;
    }
}
