//! The viewers: each polls one playlist once in a target duration, and fetches each new segment.
//! Also their origin. Knows what a right response is, and records how long each took.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use super::plan::{Object, Plan, read_mark};
use super::timer_wheel::TimerWheel;
use crate::event_loop::{EventLoop, Failure, RequestId, ResponseReader, Script, Source, response};

/// A viewer whose connection is in use tries again after this, in milliseconds.
const BUSY_FOR: u64 = 1;
/// Segments that a viewer may lack before it skips to the live edge.
const BEHIND_MAX: u64 = 3;

/// Response times of one kind of object, in microseconds.
#[derive(Default)]
pub struct Times {
    pub from_memory: Vec<u32>,
    pub others: Vec<u32>,
}

/// What was counted since the measured time began.
#[derive(Default)]
pub struct Tally {
    pub playlists: Times,
    pub segments: Times,
    /// Polls that found no new segment.
    pub unchanged: u64,
    /// How late requests were sent, in microseconds.
    pub lags: Vec<u32>,
    /// For how long the loop served sockets at a time, in microseconds.
    pub steps: Vec<u32>,
    /// Requests that found their connection in use by another viewer.
    pub collisions: u64,
    pub errors: Errors,
    pub origin_playlists: u64,
    pub origin_segments: u64,
    pub origin_missing: u64,
}

/// Responses that were not right.
#[derive(Clone, Debug, Default)]
pub struct Errors {
    /// Statuses other than 200, and how many of each.
    pub statuses: BTreeMap<u16, u64>,
    /// Another object, another length, or an older version than this viewer has seen.
    pub body: u64,
    pub truncated: u64,
    /// The connection ended before the response.
    pub unanswered: u64,
    /// The connection ended while no request was sent.
    pub closed: u64,
}

impl Errors {
    /// All of them.
    pub fn sum(&self) -> u64 {
        let statuses = self.statuses.values().sum::<u64>();
        statuses + self.body + self.truncated + self.unanswered + self.closed
    }
}

struct Viewer {
    playlist: usize,
    /// The newest segment that it has, and the newest that it knows of.
    has: u64,
    knows: u64,
    poll_due: Instant,
    wants: Object,
    /// When the request was due, and when it was sent.
    due: Instant,
    sent: Instant,
}

/// All viewers and their origin.
pub struct Viewers {
    plan: Plan,
    start: Instant,
    all: Vec<Viewer>,
    /// The viewer whose request is on a connection.
    in_flight: Vec<Option<u32>>,
    wheel: TimerWheel,
    /// Viewers who want a segment at once.
    ready: Vec<u32>,
    request: Vec<u8>,
    pub tally: Tally,
}

impl Viewers {
    /// The first polls are spread over a target duration.
    pub fn new(plan: Plan, viewers: usize, connections: usize, start: Instant) -> Viewers {
        let mut wheel = TimerWheel::new();
        let all = (0..viewers).map(|number| {
            let playlist = number % plan.playlists();
            // Other viewers of the same playlist poll at another time.
            let share = (number as f64 * 0.618_033_988_75).fract();
            let due = start + plan.segment.mul_f64(share);
            wheel.add(number as u32, millis_between(start, due));
            Viewer {
                playlist,
                has: 0,
                knows: 0,
                poll_due: due,
                wants: Object::Playlist(playlist),
                due,
                sent: due,
            }
        });
        Viewers {
            all: all.collect(),
            plan,
            start,
            in_flight: vec![None; connections],
            wheel,
            ready: Vec::new(),
            request: Vec::new(),
            tally: Tally::default(),
        }
    }

    /// Serves until this time.
    pub async fn watch(
        &mut self,
        event_loop: &mut EventLoop,
        until: Instant,
    ) -> anyhow::Result<()> {
        const TICK: Duration = Duration::from_millis(1);
        let mut due = Vec::new();
        loop {
            let now = Instant::now();
            if now >= until {
                return Ok(());
            }
            let millis = millis_between(self.start, now);
            self.wheel.take_due(millis, &mut due);
            due.append(&mut self.ready);
            for viewer in due.drain(..) {
                self.send(viewer, event_loop);
            }
            let took = event_loop.step(TICK, self)?;
            self.tally.steps.push(micros(took));
            event_loop.rest().await;
        }
    }

    /// Requests that were sent before this time and are not answered.
    pub fn overdue(&self, sent_before: Instant) -> u64 {
        let waiting = self.in_flight.iter().flatten();
        let sent = waiting.map(|number| self.all[*number as usize].sent);
        sent.filter(|sent| *sent < sent_before).count() as u64
    }

    /// Half a segment, as packagers say, in whole seconds.
    fn max_age(&self) -> u64 {
        (self.plan.segment / 2).as_secs().max(1)
    }

    fn send(&mut self, number: u32, event_loop: &mut EventLoop) {
        let connection = number as usize % self.in_flight.len();
        let now = Instant::now();
        if self.in_flight[connection].is_some() {
            self.tally.collisions += 1;
            let at = millis_between(self.start, now) + BUSY_FOR;
            return self.wheel.add(number, at);
        }
        self.in_flight[connection] = Some(number);
        let viewer = &mut self.all[number as usize];
        viewer.sent = now;
        self.tally
            .lags
            .push(micros(now.saturating_duration_since(viewer.due)));
        let mut request = std::mem::take(&mut self.request);
        request.clear();
        request.extend(b"GET ");
        self.plan.write_target(viewer.wants, &mut request);
        request.extend(b" HTTP/1.1\r\nHost: localhost\r\n\r\n");
        event_loop.send(connection, &request, self);
        self.request = request;
    }

    /// Records the response that this viewer has read, and plans its next request.
    fn finish(&mut self, number: u32, reader: &ResponseReader, at: Instant) {
        let viewer = &mut self.all[number as usize];
        let mark = read_mark(reader.start());
        let is_right = match viewer.wants {
            Object::Playlist(playlist) => {
                mark.is_some_and(|(of, newest)| of == playlist && newest >= viewer.knows)
            }
            Object::Segment(playlist, segment) => {
                mark == Some((playlist, segment))
                    && reader.body_bytes() == self.plan.segment_bytes(playlist) as u64
            }
        };
        if reader.status() != 200 {
            let statuses = &mut self.tally.errors.statuses;
            *statuses.entry(reader.status()).or_default() += 1;
        } else if !is_right {
            self.tally.errors.body += 1;
        } else {
            let times = match viewer.wants {
                Object::Playlist(_) => &mut self.tally.playlists,
                Object::Segment(..) => &mut self.tally.segments,
            };
            let times = match reader.source() {
                Source::Memory => &mut times.from_memory,
                Source::Joined | Source::Other => &mut times.others,
            };
            times.push(micros(at.saturating_duration_since(viewer.sent)));
        }
        let listed = mark.filter(|_| is_right).map(|(_, number)| number);
        self.plan_next(number, listed, at);
    }

    /// Plans the next request after one that ended: a segment that the viewer lacks, else the
    /// playlist when that is due. `named` is what the response named, if it was right.
    fn plan_next(&mut self, number: u32, named: Option<u64>, now: Instant) {
        let segment = self.plan.segment;
        let viewer = &mut self.all[number as usize];
        match (viewer.wants, named) {
            // Not asked for again.
            (Object::Segment(_, number), _) => viewer.has = number,
            (Object::Playlist(_), Some(newest)) if newest > viewer.knows => {
                viewer.poll_due += segment;
                viewer.knows = newest;
                // Who has just begun, or has missed some, goes on at the live edge.
                if viewer.has + BEHIND_MAX < newest {
                    viewer.has = newest - 1;
                }
            }
            (Object::Playlist(_), named) => {
                self.tally.unchanged += u64::from(named.is_some());
                viewer.poll_due += segment / 2;
            }
        }
        if viewer.has < viewer.knows {
            viewer.wants = Object::Segment(viewer.playlist, viewer.has + 1);
            viewer.due = now;
            self.ready.push(number);
        } else {
            viewer.wants = Object::Playlist(viewer.playlist);
            viewer.poll_due = viewer.poll_due.max(now);
            viewer.due = viewer.poll_due;
            let at = millis_between(self.start, viewer.due);
            self.wheel.add(number, at);
        }
    }
}

impl Script for Viewers {
    fn on_request(&mut self, _: RequestId, target: &str) -> Option<Vec<u8>> {
        const MISSING: &[u8] = b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n";
        let elapsed = self.start.elapsed();
        Some(match self.plan.object(target) {
            Some(Object::Playlist(playlist)) => {
                self.tally.origin_playlists += 1;
                let newest = self.plan.newest(playlist, elapsed);
                let text = self.plan.playlist_text(playlist, newest);
                let fields = format!("Cache-Control: max-age={}\r\n", self.max_age());
                response("application/vnd.apple.mpegurl", &fields, text.as_bytes())
            }
            Some(Object::Segment(playlist, number))
                if number <= self.plan.newest(playlist, elapsed) =>
            {
                self.tally.origin_segments += 1;
                let body = self.plan.segment_body(playlist, number);
                response("video/mp4", "Cache-Control: max-age=86400\r\n", &body)
            }
            _ => {
                self.tally.origin_missing += 1;
                MISSING.into()
            }
        })
    }

    fn on_read(&mut self, connection: usize, reader: &ResponseReader, at: Instant) {
        if reader.is_whole()
            && let Some(number) = self.in_flight[connection].take()
        {
            self.finish(number, reader, at);
        }
    }

    fn on_failure(&mut self, connection: usize, failure: Failure) {
        let errors = &mut self.tally.errors;
        let count = match failure {
            Failure::Truncated => &mut errors.truncated,
            Failure::Unanswered => &mut errors.unanswered,
            Failure::Closed => &mut errors.closed,
        };
        *count += 1;
        if let Some(number) = self.in_flight[connection].take() {
            self.plan_next(number, None, Instant::now());
        }
    }
}

fn micros(duration: Duration) -> u32 {
    u32::try_from(duration.as_micros()).unwrap_or(u32::MAX)
}

fn millis_between(start: Instant, at: Instant) -> u64 {
    at.saturating_duration_since(start).as_millis() as u64
}
