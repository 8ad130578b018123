//! Generates request traces of live streams and other traffic from a seed.

use fastrand::Rng;

/// Streams, and renditions of each.
const STREAMS: u32 = 500;
/// The share of the audience and the bytes per second of each rendition.
const RENDITIONS: [(f64, u32); 3] = [(0.6, 625_000), (0.3, 312_000), (0.1, 100_000)];
/// The length of a segment in milliseconds.
pub const SEGMENT_MS: u32 = 4_000;
/// Segments in a live playlist.
pub const WINDOW: u32 = 6;
/// Segments in a playlist with a seek window.
const DVR_WINDOW: u32 = 60;
/// The length of a trace in segment durations; requests in its first part are not counted.
const SEGMENTS: u32 = 9;
const WARM_UP_SEGMENTS: u32 = 4;

/// On-demand titles, and segments in each.
const TITLES: u32 = 300;
const TITLE_SEGMENTS: u32 = 60;
const TITLE_VIEWERS: u32 = 20_000;
/// The exponent of the titles' popularity.
const ZIPF: f64 = 0.9;
/// Cold files that a scan requests per segment duration.
const SCANNED: u32 = 5_000;
/// The share of viewers who have sought.
const SEEKERS: f64 = 0.1;

/// A segment or file that can be stored.
#[derive(Clone, Copy)]
pub struct Item {
    pub bytes: u32,
    pub live: Option<LiveItem>,
}

/// A segment of a live rendition.
#[derive(Clone, Copy)]
pub struct LiveItem {
    pub rendition: u32,
    pub viewers: f32,
    pub published_ms: f32,
}

/// What happens to an item.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Event {
    /// A viewer requests it.
    Ask(u32),
    /// It is published, and prefetched.
    Publish(u32),
    /// No playlist lists it any more.
    Depart(u32),
}

/// The traffic of a trace.
#[derive(Clone, Copy, PartialEq, Eq)]
pub enum Scene {
    Live,
    Catalogue,
    Scan,
    Dvr,
}

impl Scene {
    pub const ALL: [Scene; 4] = [Scene::Live, Scene::Catalogue, Scene::Scan, Scene::Dvr];

    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Scene::Live => "live",
            Scene::Catalogue => "catalogue",
            Scene::Scan => "scan",
            Scene::Dvr => "dvr",
        }
    }

    pub fn title(self) -> &'static str {
        match self {
            Scene::Live => "live: 500 streams in 3 renditions, 1 to 1000 viewers each",
            Scene::Catalogue => "live beside a catalogue on demand (Zipf 0.9)",
            Scene::Scan => "live beside a scan of cold files",
            Scene::Dvr => "live with a long window in which a tenth of the viewers seek",
        }
    }
}

/// The events of a trace, in order of time.
pub struct Trace {
    pub items: Vec<Item>,
    pub events: Vec<Event>,
    /// The time, in milliseconds.
    pub times: Vec<u32>,
    /// Segments that each live playlist lists.
    pub window: u32,
    /// Earlier events are not counted.
    pub counted_from: usize,
}

/// The share of a live segment's requests that arrive in each segment duration after its
/// publication.
pub fn request_share_at(segments: f32) -> f32 {
    const JITTER: f32 = 0.05;
    let late = 0.05 / WINDOW as f32;
    match segments - JITTER {
        ..1.0 => 0.8 + 0.15 / 3.0 + late,
        ..3.0 => 0.15 / 3.0 + late,
        age if age < WINDOW as f32 => late,
        _ => 0.0,
    }
}

struct Making {
    rng: Rng,
    items: Vec<Item>,
    timed: Vec<(u32, Event)>,
}

impl Trace {
    pub fn generate(scene: Scene, seed: u64) -> Trace {
        let mut making = Making {
            rng: Rng::with_seed(seed),
            items: Vec::new(),
            timed: Vec::new(),
        };
        let window = if scene == Scene::Dvr {
            DVR_WINDOW
        } else {
            WINDOW
        };
        making.add_live_streams(window);
        match scene {
            Scene::Live | Scene::Dvr => {}
            Scene::Catalogue => making.add_catalogue(),
            Scene::Scan => making.add_scan(),
        }
        let Making {
            items, mut timed, ..
        } = making;
        timed.sort_by_key(|(at, _)| *at);
        let warm = WARM_UP_SEGMENTS * SEGMENT_MS;
        Trace {
            items,
            counted_from: timed.partition_point(|(at, _)| *at < warm),
            window,
            times: timed.iter().map(|(at, _)| *at).collect(),
            events: timed.into_iter().map(|(_, event)| event).collect(),
        }
    }

    /// The memory with which the optimum loses nothing: the most bytes of items that are between
    /// their first and last request at one time.
    pub fn working_set(&self) -> u64 {
        let mut spans = vec![(usize::MAX, 0); self.items.len()];
        for (at, event) in self.events.iter().enumerate() {
            if let Event::Ask(id) | Event::Publish(id) = event {
                let span = &mut spans[*id as usize];
                *span = (span.0.min(at), at);
            }
        }
        let mut steps: Vec<(usize, i64)> = Vec::new();
        for (item, (first, last)) in self.items.iter().zip(spans) {
            if first < last {
                steps.push((first, i64::from(item.bytes)));
                steps.push((last, -i64::from(item.bytes)));
            }
        }
        steps.sort_unstable();
        let mut bytes = 0_i64;
        let most = steps.iter().map(|(_, by)| {
            bytes += by;
            bytes
        });
        most.max().unwrap_or(0).unsigned_abs()
    }
}

impl Making {
    fn new_item(&mut self, bytes_a_second: u32) -> u32 {
        let bytes = f64::from(bytes_a_second) * f64::from(SEGMENT_MS) / 1000.0;
        let bytes = (bytes * (0.8 + 0.4 * self.rng.f64())) as u32;
        self.items.push(Item { bytes, live: None });
        self.items.len() as u32 - 1
    }

    fn push_event(&mut self, at: i64, event: Event) {
        if (0..i64::from(SEGMENTS * SEGMENT_MS)).contains(&at) {
            self.timed.push((at as u32, event));
        }
    }

    fn add_live_streams(&mut self, window: u32) {
        for _ in 0..STREAMS {
            let audience = 10_f64.powf(3.0 * self.rng.f64());
            let phase = i64::from(self.rng.u32(..SEGMENT_MS));
            for (share, rate) in RENDITIONS {
                let exact = audience * share;
                let viewers = exact as u32 + u32::from(self.rng.f64() < exact.fract());
                self.add_rendition(viewers, rate, window, phase);
            }
        }
    }

    fn add_rendition(&mut self, viewers: u32, rate: u32, window: u32, phase: i64) {
        let step = i64::from(SEGMENT_MS);
        let segments: Vec<u32> = (0..window + SEGMENTS)
            .map(|_| self.new_item(rate))
            .collect();
        // The first `window` of them were published before the trace begins.
        let published = |number: usize| phase + (number as i64 - i64::from(window)) * step;
        for (number, &id) in segments.iter().enumerate() {
            self.items[id as usize].live = Some(LiveItem {
                rendition: segments[0],
                viewers: viewers as f32,
                published_ms: published(number) as f32,
            });
            if viewers > 0 {
                self.push_event(published(number), Event::Publish(id));
            }
            self.push_event(
                published(number) + i64::from(window) * step,
                Event::Depart(id),
            );
        }
        for _ in 0..viewers {
            let lag = self.draw_lag(window) * step as f64;
            for (number, &id) in segments.iter().enumerate() {
                let jitter = f64::from(SEGMENT_MS) * 0.05 * self.rng.f64();
                self.push_event(published(number) + (lag + jitter) as i64, Event::Ask(id));
            }
        }
    }

    /// The number of segments that a viewer is behind the newest: players with a full buffer
    /// request a segment when their next poll of the playlist shows it; some have stalled or
    /// paused, and some have sought. [`share_asked_at`] is the distribution over a whole audience.
    fn draw_lag(&mut self, window: u32) -> f64 {
        let (whom, lag) = (self.rng.f64(), self.rng.f64());
        if window > WINDOW && whom < SEEKERS {
            return lag * f64::from(window);
        }
        lag * match whom {
            0.2.. => 1.0,
            0.05.. => 3.0,
            _ => f64::from(WINDOW),
        }
    }

    fn add_catalogue(&mut self) {
        let weights = (1..=TITLES).map(|rank| f64::from(rank).powf(-ZIPF));
        let mut sum = 0.0;
        let sums: Vec<f64> = weights
            .map(|weight| {
                sum += weight;
                sum
            })
            .collect();
        let first: Vec<u32> = (0..TITLES * TITLE_SEGMENTS)
            .map(|_| self.new_item(RENDITIONS[0].1 / 2))
            .collect();
        for _ in 0..TITLE_VIEWERS {
            let drawn = self.rng.f64() * sum;
            let title = sums
                .partition_point(|sum| *sum < drawn)
                .min(TITLES as usize - 1);
            let begun = self.rng.u32(..TITLE_SEGMENTS);
            let phase = i64::from(self.rng.u32(..SEGMENT_MS));
            for number in 0..SEGMENTS.min(TITLE_SEGMENTS - begun) {
                let place = title * TITLE_SEGMENTS as usize + (begun + number) as usize;
                let at = phase + i64::from(number * SEGMENT_MS);
                self.push_event(at, Event::Ask(first[place]));
            }
        }
    }

    fn add_scan(&mut self) {
        for _ in 0..SCANNED * SEGMENTS {
            let id = self.new_item(RENDITIONS[1].1);
            let at = i64::from(self.rng.u32(..SEGMENTS * SEGMENT_MS));
            self.push_event(at, Event::Ask(id));
        }
    }
}
