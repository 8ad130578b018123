//! The origin of the crowds that wait: a low-latency playlist that gets a new part when the bench
//! says so, objects that are answered when the bench says so, and one file that grows.

use std::time::Instant;

use super::playlist::{PLAYLIST, Version};
use crate::event_loop::{EventLoop, Failure, RequestId, ResponseReader, Script, Source, response};
use crate::scenario::PLAYLIST_BYTES;

/// An object that is answered at once, and fresh for an hour: the hit.
pub const HIT: &str = "/vod/hit.ts";
/// The file that grows.
pub const GROWING: &str = "/live/growing.m4s";
/// The paths of objects that are answered late begin like this.
pub const LATE: &str = "/late/";
/// A request that the origin has not answered.
struct Held {
    request: RequestId,
    target: String,
}

/// The origin's state, and what the viewers of a turn have read.
pub struct OriginScript {
    version: Version,
    held: Vec<Held>,
    /// When each chunk of the growing file was written; its requests are in `growing`.
    pub chunks_written: Vec<Instant>,
    growing: Vec<RequestId>,
    pub turn: Turn,
}

/// What the viewers of a turn have read.
#[derive(Default)]
pub struct Turn {
    /// How the body of each response begins.
    pub expected: String,
    /// When each viewer had read its whole response.
    pub done_at: Vec<Instant>,
    pub failed: usize,
    /// Viewers who joined the fetch of another.
    pub joined: usize,
    /// The first request for a late object.
    pub requested_at: Option<Instant>,
    /// The growing file: bytes that each viewer has.
    pub bytes_read: Vec<u64>,
    /// The growing file: what viewers have read, as (chunk, time).
    pub chunks_read: Vec<(usize, Instant)>,
}

/// The bytes of a chunk of the growing file.
pub const CHUNK_BYTES: u64 = 4096;

impl OriginScript {
    pub fn new() -> OriginScript {
        OriginScript {
            version: Version::first(),
            held: Vec::new(),
            chunks_written: Vec::new(),
            growing: Vec::new(),
            turn: Turn::default(),
        }
    }

    pub fn version(&self) -> Version {
        self.version
    }

    pub fn is_growing(&self) -> bool {
        !self.growing.is_empty()
    }

    /// Makes the next version of the playlist, and answers all that wait for it. Returns when the
    /// first of these answers was written.
    pub fn release_version(&mut self, event_loop: &mut EventLoop) -> Option<Instant> {
        self.version = self.version.next();
        self.release(event_loop, |held| held.target.starts_with(PLAYLIST))
    }

    /// Answers the requests for a late object.
    pub fn release_late(&mut self, event_loop: &mut EventLoop) -> Option<Instant> {
        self.release(event_loop, |held| held.target.starts_with(LATE))
    }

    /// Answers all held requests that can be answered, `first` ones first.
    fn release(
        &mut self,
        event_loop: &mut EventLoop,
        first: impl Fn(&Held) -> bool,
    ) -> Option<Instant> {
        let mut written = None;
        let mut held = std::mem::take(&mut self.held);
        held.sort_by_key(|held| !first(held));
        for held in held {
            let is_late = held.target.starts_with(LATE);
            let answer = if is_late {
                Some(late_object(&held.target))
            } else {
                self.answer(&held.target)
            };
            match answer {
                Some(answer) => {
                    event_loop.origin.send(held.request, &answer);
                    written = written.or_else(|| first(&held).then(Instant::now));
                }
                None => self.held.push(held),
            }
        }
        written
    }

    /// Writes one more chunk of the growing file.
    pub fn write_chunk(&mut self, event_loop: &mut EventLoop) {
        let body = vec![b'x'; CHUNK_BYTES as usize];
        let chunk = [
            format!("{CHUNK_BYTES:x}\r\n").as_bytes(),
            body.as_slice(),
            b"\r\n",
        ]
        .concat();
        for request in &self.growing {
            event_loop.origin.send(*request, &chunk);
        }
        self.chunks_written.push(Instant::now());
    }

    /// Ends the growing file.
    pub fn write_last_chunk(&mut self, event_loop: &mut EventLoop) {
        for request in self.growing.drain(..) {
            event_loop.origin.send(request, b"0\r\n\r\n");
        }
    }

    /// `None`: not before a later version.
    fn answer(&self, target: &str) -> Option<Vec<u8>> {
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        if path == PLAYLIST {
            let wanted = Version::requested(query).unwrap_or(self.version);
            let kind = "application/vnd.apple.mpegurl";
            let text = self.version.text();
            return (wanted <= self.version)
                .then(|| response(kind, "Cache-Control: max-age=1\r\n", text.as_bytes()));
        }
        if let Some(part) = path.strip_prefix("/live/part-") {
            let numbers = part.strip_suffix(".m4s")?.split_once('-')?;
            let (segment, part) = (numbers.0.parse().ok()?, numbers.1.parse().ok()?);
            if !self.version.has_part(segment, part) {
                return None;
            }
        }
        Some(late_object(target))
    }
}

/// An object of the size of the playlist in the other scenarios, which begins with its target.
fn late_object(target: &str) -> Vec<u8> {
    let mut body = target.as_bytes().to_vec();
    body.resize(PLAYLIST_BYTES, b'x');
    response("video/mp4", "Cache-Control: max-age=3600\r\n", &body)
}

impl Script for OriginScript {
    fn on_request(&mut self, request: RequestId, target: &str) -> Option<Vec<u8>> {
        if target == GROWING {
            self.growing.push(request);
            let head = "HTTP/1.1 200 OK\r\nContent-Type: video/mp4\r\n\
                        Cache-Control: max-age=3600\r\nTransfer-Encoding: chunked\r\n\r\n";
            return Some(head.into());
        }
        let is_late = target.starts_with(LATE);
        let answer = (!is_late).then(|| self.answer(target)).flatten();
        if answer.is_none() {
            self.turn.requested_at.get_or_insert_with(Instant::now);
            self.held.push(Held {
                request,
                target: target.to_owned(),
            });
        }
        answer
    }

    fn on_read(&mut self, viewer: usize, reader: &ResponseReader, at: Instant) {
        if let Some(read) = self.turn.bytes_read.get_mut(viewer) {
            let (before, now) = (*read / CHUNK_BYTES, reader.body_bytes() / CHUNK_BYTES);
            *read = reader.body_bytes();
            let chunks = before as usize..now as usize;
            self.turn
                .chunks_read
                .extend(chunks.map(|chunk| (chunk, at)));
        }
        if reader.is_whole() {
            self.turn.done_at.push(at);
            let is_right =
                reader.status() == 200 && reader.start().starts_with(self.turn.expected.as_bytes());
            self.turn.failed += usize::from(!is_right);
            self.turn.joined += usize::from(reader.source() == Source::Joined);
        }
    }

    fn on_failure(&mut self, _: usize, _: Failure) {
        self.turn.failed += 1;
    }
}
