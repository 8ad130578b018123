//! The origin: objects that may be kept for a day, whose bytes can be checked, and a count of the
//! requests for those that are requested again and again.

use std::convert::Infallible;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::task::{Context, Poll};

use bytes::Bytes;
use http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderValue};
use http::{Response, StatusCode};
use http_body::{Body, Frame, SizeHint};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use tokio::net::TcpListener;
use tokio::task::JoinSet;

/// Small objects.
pub const SMALL_OBJECTS: usize = 200;
/// Large ones.
pub const LARGE_OBJECTS: usize = 3;
/// Their length.
pub const LARGE_BYTES: usize = 24 << 20;
/// The length of an object that is requested once.
pub const PASSING_BYTES: usize = 512 << 10;

/// The running origin.
pub struct Origin {
    pub address: SocketAddr,
    requests: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

impl Origin {
    pub async fn start() -> std::io::Result<Origin> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let requests = Arc::new(AtomicU64::new(0));
        let mut tasks = JoinSet::new();
        let counted = Arc::clone(&requests);
        tasks.spawn(async move {
            let mut connections = JoinSet::new();
            while let Ok((stream, _)) = listener.accept().await {
                while connections.try_join_next().is_some() {}
                let requests = Arc::clone(&counted);
                connections.spawn(async move {
                    let service = service_fn(move |request: http::Request<_>| {
                        let path = request.uri().path();
                        let body = object(path);
                        let is_counted = body.is_some() && !path.starts_with(PASSING);
                        requests.fetch_add(u64::from(is_counted), Ordering::Relaxed);
                        async move { Ok::<_, Infallible>(response(body)) }
                    });
                    // The program closes connections that it does not need.
                    let _ = http1::Builder::new()
                        .serve_connection(TokioIo::new(stream), service)
                        .await;
                });
            }
        });
        Ok(Origin {
            address,
            requests,
            _tasks: tasks,
        })
    }

    /// Requests so far for small and large objects.
    pub fn requests(&self) -> u64 {
        self.requests.load(Ordering::Relaxed)
    }
}

/// The path of a small object.
pub fn small_path(number: usize) -> String {
    format!("/kept/small-{}.mp4", number % SMALL_OBJECTS)
}

/// The path of a large one.
pub fn large_path(number: usize) -> String {
    format!("/kept/large-{}.mp4", number % LARGE_OBJECTS)
}

const PASSING: &str = "/kept/passing-";

/// The path of an object that is requested once.
pub fn passing_path(number: usize) -> String {
    format!("{PASSING}{number}.mp4")
}

/// The bytes of such an object: others for each of the next ones.
pub fn passing_object(number: usize) -> Bytes {
    let begin = number % 1000 * 8;
    large_object(number).slice(begin..begin + PASSING_BYTES)
}

/// The bytes of a small object.
pub fn small_object(number: usize) -> Bytes {
    let number = number % SMALL_OBJECTS;
    let line = format!("small object {number}\n");
    Bytes::from(line.repeat(20 + number).into_bytes())
}

/// The bytes of a large one.
pub fn large_object(number: usize) -> Bytes {
    static OBJECTS: LazyLock<[Bytes; LARGE_OBJECTS]> = LazyLock::new(|| {
        std::array::from_fn(|number| {
            let mut bytes = Vec::with_capacity(LARGE_BYTES);
            for at in 0..LARGE_BYTES / 8 {
                bytes.extend_from_slice(&((at * LARGE_OBJECTS + number) as u64).to_be_bytes());
            }
            bytes.into()
        })
    });
    OBJECTS[number % LARGE_OBJECTS].clone()
}

fn object(path: &str) -> Option<Bytes> {
    let name = path.strip_prefix("/kept/")?.strip_suffix(".mp4")?;
    let (size, number) = name.split_once('-')?;
    let number = number.parse::<usize>().ok()?;
    match size {
        "small" => (number < SMALL_OBJECTS).then(|| small_object(number)),
        "passing" => Some(passing_object(number)),
        _ => (number < LARGE_OBJECTS).then(|| large_object(number)),
    }
}

fn response(body: Option<Bytes>) -> Response<Whole> {
    let status = match body {
        Some(_) => StatusCode::OK,
        None => StatusCode::NOT_FOUND,
    };
    let mut response = Response::new(Whole(body));
    *response.status_mut() = status;
    let headers = response.headers_mut();
    headers.insert(CONTENT_TYPE, HeaderValue::from_static("video/mp4"));
    headers.insert(CACHE_CONTROL, HeaderValue::from_static("max-age=86400"));
    response
}

/// A body that is sent at once.
struct Whole(Option<Bytes>);

impl Body for Whole {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        Poll::Ready(self.0.take().map(|bytes| Ok(Frame::data(bytes))))
    }

    fn is_end_stream(&self) -> bool {
        self.0.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.0.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}
