//! The origin of everything that is not live: a catalogue, uncacheable files, a manifest of 10 MB.
//! Its bytes can be checked from any offset.

use std::convert::Infallible;
use std::fmt::Write;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::{Request, Response, StatusCode, header};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// The distance of marks in a file; each mark names the file and the offset.
pub const MARK_EVERY: u64 = 4096;

/// The catalogue's smallest file, and the step to the next size.
const FILE_BYTES: u64 = 256 << 10;
const SIZES: u64 = 16;

/// The size of an uncacheable file.
pub const PASS_BYTES: u64 = 16 << 20;
/// The manifest's segments: 10 MB of text.
const HUGE_SEGMENTS: usize = 290_000;
/// One in this many responses from the catalogue breaks off in the middle.
const CUT_EVERY: u64 = 97;

/// The most bytes of one frame.
const FRAME_BYTES: u64 = 64 << 10;

/// The running library.
pub struct Library {
    pub address: SocketAddr,
    /// Files in the catalogue.
    pub files: u64,
    pub huge: Bytes,
    _tasks: JoinSet<()>,
}

struct Shelves {
    files: u64,
    huge: Bytes,
    asked: AtomicU64,
}

/// The length of a file of the catalogue.
pub fn file_bytes(file: u64) -> u64 {
    FILE_BYTES * (1 + file % SIZES) + 1
}

impl Library {
    /// Starts it, with a catalogue of twice the size of memory.
    pub async fn start(memory_bytes: u64) -> std::io::Result<Library> {
        let mut files = 0;
        let mut bytes = 0;
        while bytes < 2 * memory_bytes {
            bytes += file_bytes(files);
            files += 1;
        }
        let mut huge = String::from("#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:4\n");
        for number in 0..HUGE_SEGMENTS {
            // Writing to a string does not fail.
            let _ = write!(huge, "#EXTINF:4.0,\nhuge/segment-{number:06}.ts\n");
        }
        huge.push_str("#EXT-X-ENDLIST\n");
        let huge = Bytes::from(huge);
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let shelves = Arc::new(Shelves {
            files,
            huge: huge.clone(),
            asked: AtomicU64::new(0),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((wire, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let shelves = Arc::clone(&shelves);
                connections.spawn(async move {
                    let service = service_fn(move |request| {
                        let answer = shelves.answer(&request);
                        async move { Ok::<_, Infallible>(answer) }
                    });
                    // Connections that break off are expected.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(wire), service)
                        .await;
                });
            }
        });
        Ok(Library {
            address,
            files,
            huge,
            _tasks: tasks,
        })
    }
}

impl Shelves {
    fn answer<B>(&self, request: &Request<B>) -> Response<Text> {
        let path = request.uri().path();
        if path == "/vod/huge.m3u8" {
            let body = Text::Whole(Some(self.huge.clone()));
            return answer("application/vnd.apple.mpegurl", "max-age=10", body);
        }
        if path.starts_with("/pass/") {
            return answer(
                "application/octet-stream",
                "no-store",
                Text::file(u64::MAX, PASS_BYTES, None),
            );
        }
        let file = path
            .strip_prefix("/vod/")
            .and_then(|name| name.strip_suffix(".mp4"));
        let file = file
            .and_then(|name| name.parse::<u64>().ok())
            .filter(|file| *file < self.files);
        let Some(file) = file else {
            let mut missing = answer("text/plain", "max-age=1", Text::Whole(None));
            *missing.status_mut() = StatusCode::NOT_FOUND;
            return missing;
        };
        let bytes = file_bytes(file);
        let cut = self.asked.fetch_add(1, Ordering::Relaxed) % CUT_EVERY == CUT_EVERY - 1;
        answer(
            "video/mp4",
            "max-age=86400",
            Text::file(file, bytes, cut.then_some(bytes / 2)),
        )
    }
}

fn answer(content_type: &'static str, cache_control: &'static str, body: Text) -> Response<Text> {
    let mut response = Response::new(body);
    let headers = response.headers_mut();
    headers.insert(
        header::CONTENT_TYPE,
        header::HeaderValue::from_static(content_type),
    );
    headers.insert(
        header::CACHE_CONTROL,
        header::HeaderValue::from_static(cache_control),
    );
    response
}

/// The bytes of a file at an offset, up to the next mark or the file's end.
pub fn bytes_at(file: u64, at: u64, length: u64) -> Bytes {
    let start = at / MARK_EVERY * MARK_EVERY;
    let end = (start + MARK_EVERY).min(length);
    let mut block = vec![(file % 251) as u8; (end - start) as usize];
    let mark = [file.to_be_bytes(), start.to_be_bytes()].concat();
    let marked = mark.len().min(block.len());
    block[..marked].copy_from_slice(&mark[..marked]);
    Bytes::from(block).slice((at - start) as usize..)
}

/// A response body.
enum Text {
    Whole(Option<Bytes>),
    File {
        file: u64,
        at: u64,
        length: u64,
        cut: Option<u64>,
    },
}

impl Text {
    fn file(file: u64, length: u64, cut: Option<u64>) -> Text {
        Text::File {
            file,
            at: 0,
            length,
            cut,
        }
    }
}

impl Body for Text {
    type Data = Bytes;
    type Error = std::io::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<std::io::Result<Frame<Bytes>>>> {
        Poll::Ready(match &mut *self {
            Text::Whole(bytes) => bytes.take().map(|bytes| Ok(Frame::data(bytes))),
            Text::File { at, length, .. } if *at >= *length => None,
            Text::File {
                at, cut: Some(cut), ..
            } if *at >= *cut => Some(Err(std::io::ErrorKind::ConnectionReset.into())),
            Text::File {
                file, at, length, ..
            } => {
                let mut frame = Vec::with_capacity(FRAME_BYTES as usize);
                while *at < *length && (frame.len() as u64) < FRAME_BYTES {
                    let block = bytes_at(*file, *at, *length);
                    *at += block.len() as u64;
                    frame.extend_from_slice(&block);
                }
                Some(Ok(Frame::data(frame.into())))
            }
        })
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(match self {
            Text::Whole(bytes) => bytes.as_ref().map_or(0, |bytes| bytes.len() as u64),
            Text::File { at, length, .. } => *length - *at,
        })
    }
}
