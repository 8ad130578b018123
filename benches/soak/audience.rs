//! All clients of the soak: players of live streams, and in the storm the other clients.

use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use seawall_simulator::{Broadcast, DemoRendition, Packaging, Player, PlayerFetch, Resource};
use tokio::task::JoinSet;
use tokio::time::sleep;

use crate::STREAMS;
use crate::book::{Book, Class, End};
use crate::download;
use crate::library::{self, Library};
use crate::program::Program;
use crate::streams::{Stream, Streams};

/// 200 viewers, of whom 20 are slow.
const PLAYERS: usize = 180;
const SLOW_VIEWERS: usize = 20;
const SLOW_BYTES_PER_SECOND: u64 = 4 << 10;
/// Downloads of uncacheable files.
const DOWNLOADS: usize = 20;
const DOWNLOAD_BYTES_PER_SECOND: u64 = 1 << 20;
/// Viewers of the catalogue, and the pause between their requests.
const CATALOGUE_VIEWERS: usize = 10;
const BROWSE: Duration = Duration::from_millis(100);
/// The pause between two requests for the huge manifest, and between two purges.
const HUGE_PAUSE: Duration = Duration::from_secs(3);
const PURGE_PAUSE: Duration = Duration::from_secs(5);
/// One in this many media objects is compared with the packager's bytes.
const COMPARED_EVERY: u64 = 7;

/// All clients. Dropping it ends them.
pub struct Audience {
    doors: Vec<SocketAddr>,
    admin: SocketAddr,
    streams: Vec<Arc<Stream>>,
    files: u64,
    huge: Bytes,
    book: Book,
    tasks: Mutex<JoinSet<()>>,
}

impl Audience {
    pub fn new(program: &Program, streams: &Streams, library: &Library, book: &Book) -> Audience {
        Audience {
            doors: (0..=STREAMS)
                .map(|number| program.viewer_address(number))
                .collect(),
            admin: program.admin,
            streams: streams.iter().cloned().collect(),
            files: library.files,
            huge: library.huge.clone(),
            book: book.clone(),
            tasks: Mutex::default(),
        }
    }

    /// Ends all clients.
    pub async fn stop(&self) {
        let mut tasks = std::mem::take(&mut *self.tasks.lock());
        tasks.shutdown().await;
    }

    /// Starts the live audience, some viewers at each stream.
    pub fn watch_live(&self) {
        for number in 0..PLAYERS {
            let place = number % self.streams.len();
            let stream = Arc::clone(&self.streams[place]);
            let renditions: Vec<_> = DemoRendition::ALL
                .into_iter()
                .filter(|one| stream.form.has_rendition(*one))
                .collect();
            let rendition = renditions[number / self.streams.len() % renditions.len()];
            let (door, book) = (self.doors[place], self.book.clone());
            self.tasks.lock().spawn(async move {
                sleep(Duration::from_millis(10) * number as u32).await;
                let player = Player {
                    server: door,
                    packaging: stream.form,
                    rendition,
                    clock: stream.clock.clone(),
                    on_fetch: Arc::new(move |fetch| record_fetch(&book, &stream, fetch)),
                };
                player.play().await;
            });
        }
    }

    /// Starts the other clients.
    pub fn start_storm(&self) {
        let door = self.doors[STREAMS];
        let mut tasks = self.tasks.lock();
        for number in 0..CATALOGUE_VIEWERS {
            tasks.spawn(browse(door, self.files, number as u64, self.book.clone()));
        }
        for number in 0..SLOW_VIEWERS {
            tasks.spawn(read_slowly(
                door,
                self.files,
                number as u64,
                self.book.clone(),
            ));
        }
        for number in 0..DOWNLOADS {
            tasks.spawn(download_uncacheable(door, number, self.book.clone()));
        }
        tasks.spawn(request_huge_manifest(
            door,
            self.huge.clone(),
            self.book.clone(),
        ));
        tasks.spawn(purge(
            self.admin,
            self.doors.clone(),
            self.streams.clone(),
            self.files,
            self.book.clone(),
        ));
    }
}

/// Records a player's fetch.
fn record_fetch(book: &Book, stream: &Stream, fetch: &PlayerFetch) {
    let troubled = stream.is_troubled.load(Ordering::Relaxed);
    let class = if troubled {
        Class::Troubled
    } else {
        Class::Live
    };
    let waited = fetch.received_at.saturating_sub(fetch.requested_at);
    let end = match &fetch.response {
        None => End::Bad(format!(
            "{}: no whole answer after {waited:?}",
            fetch.resource.path()
        )),
        Some((status, body)) if *status == 200 => {
            let expected = expected_bytes(stream, fetch.resource);
            if expected.is_none_or(|expected| expected == *body) {
                End::Good
            } else {
                End::Bad(format!(
                    "{}: other bytes than the packager's",
                    fetch.resource.path()
                ))
            }
        }
        Some((status, _)) => End::Bad(format!(
            "{}: {status} after {waited:?}",
            fetch.resource.path()
        )),
    };
    // Waits for blocking requests and growing bodies are intended, and not recorded.
    let counts = !stream.form.is_low_latency_hls() && !stream.form.has_growing_segments();
    book.record(class, end, counts.then_some(waited));
}

/// The packager's bytes of some media objects.
fn expected_bytes(stream: &Stream, place: Resource) -> Option<Bytes> {
    let broadcast: &Broadcast = &stream.broadcast;
    match place {
        Resource::Segment(form, rendition, name) => {
            let segment = match form {
                Packaging::Timeline => broadcast.segment_at(rendition, name)?,
                _ => name,
            };
            let wanted = segment.is_multiple_of(COMPARED_EVERY);
            wanted.then(|| match form {
                Packaging::Ts => broadcast.ts_segment(rendition, segment),
                _ => broadcast.segment(rendition, segment),
            })
        }
        Resource::Part(_, rendition, segment, part) if segment.is_multiple_of(COMPARED_EVERY) => {
            Some(broadcast.part(rendition, segment, part))
        }
        _ => None,
    }
}

/// Whether these bytes belong to the file at this offset.
fn is_of_file(file: u64, length: u64) -> impl FnMut(u64, &[u8]) -> bool {
    move |offset, piece| {
        let mut at = offset;
        let end = offset + piece.len() as u64;
        while at < end {
            let block = library::bytes_at(file, at, length);
            let some = block.len().min((end - at) as usize);
            let from = (at - offset) as usize;
            if piece[from..from + some] != block[..some] {
                return false;
            }
            at += some as u64;
        }
        true
    }
}

/// The end of a download of this many bytes. The library breaks off now and then; such a download
/// may be cut, as long as the cut is visible.
fn end_of(
    answer: std::io::Result<download::Answer>,
    length: u64,
    is_slow: bool,
) -> (End, Option<Duration>) {
    let answer = match answer {
        Ok(answer) => answer,
        Err(why) => return (End::Bad(format!("no answer: {why}")), None),
    };
    let waited = Some(answer.waited);
    let end = match answer.status {
        200 if !answer.is_right => End::Bad("other bytes than the origin's".to_owned()),
        200 if answer.promised != Some(length) => {
            End::Bad(format!("{:?} bytes promised", answer.promised))
        }
        200 if answer.received == length => End::Good,
        200 if answer.ended_cleanly() => End::Bad(format!(
            "{} of {length} bytes ended cleanly",
            answer.received
        )),
        200 if is_slow => End::TooSlow,
        200 | 502 => End::OriginsFault,
        status => End::Bad(format!("status {status} after {:?}", answer.waited)),
    };
    (end, waited)
}

/// Requests one file after another; the first ones most often.
async fn browse(door: SocketAddr, files: u64, seed: u64, book: Book) {
    let mut random = fastrand::Rng::with_seed(seed);
    loop {
        let file = (files as f64).powf(random.f64()) as u64 % files;
        let length = library::file_bytes(file);
        let lines = format!("GET /vod/{file}.mp4 HTTP/1.1");
        let answer = download::get(door, &lines, None, is_of_file(file, length)).await;
        let (end, waited) = end_of(answer, length, false);
        book.record(Class::OnDemand, end, waited);
        sleep(BROWSE).await;
    }
}

/// Reads one large file after another, slowly.
async fn read_slowly(door: SocketAddr, files: u64, seed: u64, book: Book) {
    let mut random = fastrand::Rng::with_seed(1000 + seed);
    loop {
        let file = random.u64(..files);
        let length = library::file_bytes(file);
        let lines = format!("GET /vod/{file}.mp4 HTTP/1.1");
        let rate = Some(SLOW_BYTES_PER_SECOND);
        let answer = download::get(door, &lines, rate, is_of_file(file, length)).await;
        let (end, _) = end_of(answer, length, true);
        book.record(Class::Slow, end, None);
        sleep(BROWSE).await;
    }
}

/// Downloads an uncacheable file, again and again.
async fn download_uncacheable(door: SocketAddr, number: usize, book: Book) {
    let length = library::PASS_BYTES;
    loop {
        let lines = format!("GET /pass/{}.bin HTTP/1.1", number % 2);
        let rate = Some(DOWNLOAD_BYTES_PER_SECOND);
        let answer = download::get(door, &lines, rate, is_of_file(u64::MAX, length)).await;
        let (end, _) = end_of(answer, length, false);
        book.record(Class::Pass, end, None);
        sleep(BROWSE).await;
    }
}

/// Requests the huge manifest, in every coding in turn.
async fn request_huge_manifest(door: SocketAddr, text: Bytes, book: Book) {
    for coding in ["br", "gzip", "zstd", "identity"].into_iter().cycle() {
        let lines = format!("GET /vod/huge.m3u8 HTTP/1.1\r\nAccept-Encoding: {coding}");
        let mut received = Vec::new();
        let answer = download::get(door, &lines, None, |_, piece| {
            received.extend_from_slice(piece);
            true
        });
        let end = match answer.await {
            Ok(answer) if answer.status == 200 && answer.ended_cleanly() => {
                // Plain, or in the requested coding; a body that begins as the text must be all of
                // it.
                let plain = received.starts_with(b"#EXTM3U");
                if plain && received != text {
                    End::Bad(format!("{} bytes of the huge manifest", received.len()))
                } else {
                    End::Good
                }
            }
            Ok(answer) => End::Bad(format!("status {}, {:?}", answer.status, answer.broken)),
            Err(why) => End::Bad(format!("no answer: {why}")),
        };
        book.record(Class::Huge, end, None);
        sleep(HUGE_PAUSE).await;
    }
}

/// Purges files, and now and then a whole stream.
async fn purge(
    admin: SocketAddr,
    doors: Vec<SocketAddr>,
    streams: Vec<Arc<Stream>>,
    files: u64,
    book: Book,
) {
    let mut random = fastrand::Rng::with_seed(42);
    for round in 1_u64.. {
        let query = if round.is_multiple_of(10) {
            // One stream in five has a failing origin.
            let stream = random.usize(..streams.len()) / 5 * 5 + 1;
            format!(
                "stream=http://{}{}",
                doors[stream],
                streams[stream].form.entry()
            )
        } else {
            let host = doors[streams.len()];
            format!("url=http://{host}/vod/{}.mp4", random.u64(..files))
        };
        let lines = format!("POST /purge?{query} HTTP/1.1");
        let answer = download::get(admin, &lines, None, |_, _| true);
        let end = match answer.await {
            // 404: nothing of it was stored.
            Ok(answer) if matches!(answer.status, 200 | 404) => End::Good,
            Ok(answer) => End::Bad(format!("{query}: status {}", answer.status)),
            Err(why) => End::Bad(format!("{query}: {why}")),
        };
        book.record(Class::Purge, end, None);
        sleep(PURGE_PAUSE).await;
    }
}
