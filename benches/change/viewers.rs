//! The viewers: 1,000 requests a second for what the program holds, downloads of a minute, and one
//! viewer who requests other objects without end, so that memory is full all the time.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use anyhow::ensure;
use bytes::Bytes;
use http_body::Body;
use hyper::client::conn::http2::{self, SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, AsyncWriteExt, BufReader};
use tokio::net::{TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, sleep_until, timeout};

use crate::origin;
use crate::tally::{Class, Tally};

/// Viewers on a connection each, and the pause between two requests of one: 800 a second.
const KEPT: u32 = 40;
const KEPT_PAUSE: Duration = Duration::from_millis(50);
/// The same for viewers who connect anew: 100 a second.
const NEW: u32 = 10;
const NEW_PAUSE: Duration = Duration::from_millis(100);
/// The same over HTTP/2: 100 a second.
const HTTP2: u32 = 5;
const HTTP2_PAUSE: Duration = Duration::from_millis(50);
/// Downloads in progress at once.
const DOWNLOADS: u32 = 30;
/// Objects that are requested once: 8 MiB a second. As many before the test fill the memory.
const PASSING_PAUSE: Duration = Duration::from_micros(62_500);
const PASSING_AT_START: usize = 600;
/// Viewers who request, and as many downloads, of a listener that comes and goes.
const VISITORS: u32 = 5;
/// A download reads this often.
const READ_EVERY: Duration = Duration::from_millis(100);

/// The longest wait for a connection, a response, or the next bytes.
const PATIENCE: Duration = Duration::from_secs(5);

/// The viewers of one address.
pub struct Viewers {
    server: SocketAddr,
    download_lasts: Duration,
}

impl Viewers {
    pub fn new(server: SocketAddr, download_lasts: Duration) -> Viewers {
        Viewers {
            server,
            download_lasts,
        }
    }

    /// Fills the memory with what nobody requests again. Then requests every other object twice:
    /// what is requested again stays.
    pub async fn fill_memory(&self) -> anyhow::Result<()> {
        let passing = (0..PASSING_AT_START)
            .map(|number| (origin::passing_path(number), origin::passing_object(number)));
        let small = (0..origin::SMALL_OBJECTS)
            .map(|number| (origin::small_path(number), origin::small_object(number)));
        let large = (0..origin::LARGE_OBJECTS)
            .map(|number| (origin::large_path(number), origin::large_object(number)));
        let kept = small.chain(large);
        let mut connection = Http1Connection::open(self.server).await?;
        for (path, bytes) in passing.chain(kept.clone()).chain(kept) {
            let response = connection.get(self.server, &path).await?;
            ensure!(response.body == bytes, "wrong bytes of {path} at the start");
        }
        Ok(())
    }

    /// Starts all of them. They watch until this moment, and finish the downloads that they began
    /// before it.
    pub fn watch(&self, tally: &Tally, until: Instant) -> JoinSet<()> {
        let server = self.server;
        let begun = Instant::now();
        let mut tasks = JoinSet::new();
        for number in 0..KEPT {
            let pace = Pace::new(begun, KEPT_PAUSE, number, KEPT, until);
            tasks.spawn(watch_on_kept_connection(server, pace, tally.clone()));
        }
        for number in 0..NEW {
            let pace = Pace::new(begun, NEW_PAUSE, number, NEW, until);
            tasks.spawn(watch_on_new_connections(server, pace, tally.clone()));
        }
        for number in 0..HTTP2 {
            let pace = Pace::new(begun, HTTP2_PAUSE, number, HTTP2, until);
            tasks.spawn(watch_over_http2(server, pace, tally.clone()));
        }
        let pace = Pace::new(begun, PASSING_PAUSE, 0, 1, until);
        tasks.spawn(request_passing_objects(server, pace, tally.clone()));
        let lasts = self.download_lasts;
        for number in 0..DOWNLOADS {
            // Evenly over the time of a download: some are at their start at any moment, some at
            // their end.
            let begin = begun + lasts * number / DOWNLOADS;
            let tally = tally.clone();
            tasks.spawn(async move {
                sleep_until(begin).await;
                while Instant::now() < until {
                    tally.record(
                        Class::Download,
                        download(server, number as usize, lasts).await,
                    );
                }
            });
        }
        tasks
    }
}

/// Viewers of a listener that was opened now, and that the reload after the next one closes. Those
/// that send requests leave when the server tells them that it closes the connection; downloads
/// last longer than that.
pub fn visit(
    server: SocketAddr,
    reload_every: Duration,
    (tally, until): (&Tally, Instant),
    tasks: &mut JoinSet<()>,
) {
    for number in 0..VISITORS {
        let pace = Pace::new(Instant::now(), KEPT_PAUSE, number, VISITORS, until);
        tasks.spawn(request_until_told_to_close(server, pace, tally.clone()));
        let tally = tally.clone();
        tasks.spawn(async move {
            let downloaded = download(server, number as usize, reload_every * 3).await;
            tally.record(Class::Spare, downloaded);
        });
    }
}

async fn request_until_told_to_close(server: SocketAddr, mut pace: Pace, tally: Tally) {
    let mut connection = match Http1Connection::open(server).await {
        Ok(connection) => connection,
        Err(why) => return tally.record(Class::Spare, Err(why.to_string())),
    };
    let mut is_kept = true;
    while is_kept && let Some(number) = pace.next().await {
        let began = Instant::now();
        let path = origin::small_path(number);
        let fetched = timeout(PATIENCE, connection.get(server, &path)).await;
        is_kept = matches!(&fetched, Ok(Ok(response)) if response.is_kept);
        let result = checked(fetched, &origin::small_object(number)).map(|()| began.elapsed());
        tally.record(Class::Spare, result);
    }
}

/// When a viewer requests, and what.
struct Pace {
    next: Instant,
    pause: Duration,
    until: Instant,
    requested: usize,
}

impl Pace {
    fn new(begun: Instant, pause: Duration, number: u32, viewers: u32, until: Instant) -> Pace {
        Pace {
            next: begun + pause * number / viewers,
            pause,
            until,
            requested: number as usize * 7,
        }
    }

    /// Waits for the next request, and returns the number of its object; nothing at the end.
    async fn next(&mut self) -> Option<usize> {
        sleep_until(self.next).await;
        // A viewer who was held up does not make up for it.
        self.next = (self.next + self.pause).max(Instant::now());
        self.requested += 1;
        (self.next < self.until).then_some(self.requested)
    }
}

async fn watch_on_kept_connection(server: SocketAddr, mut pace: Pace, tally: Tally) {
    let mut kept = None;
    while let Some(number) = pace.next().await {
        let began = Instant::now();
        let path = origin::small_path(number);
        let requests = kept
            .as_ref()
            .map_or(0, |one: &Http1Connection| one.requests);
        let fetched = timeout(PATIENCE, async {
            let mut connection = match kept.take() {
                Some(connection) => connection,
                None => Http1Connection::open(server).await?,
            };
            let response = connection.get(server, &path).await?;
            if response.is_kept {
                kept = Some(connection);
            }
            Ok(response)
        });
        let result =
            checked(fetched.await, &origin::small_object(number)).map(|()| began.elapsed());
        let result = result.map_err(|why| format!("request {requests} of a connection: {why}"));
        tally.record(Class::Kept, result);
    }
}

async fn watch_on_new_connections(server: SocketAddr, mut pace: Pace, tally: Tally) {
    while let Some(number) = pace.next().await {
        let began = Instant::now();
        let path = origin::small_path(number);
        let fetched = timeout(PATIENCE, async {
            let mut connection = Http1Connection::open(server).await?;
            connection.get(server, &path).await
        });
        let result =
            checked(fetched.await, &origin::small_object(number)).map(|()| began.elapsed());
        tally.record(Class::New, result);
    }
}

/// Requests objects that nobody requests again. Each on a new connection: an upgrade concerns none.
async fn request_passing_objects(server: SocketAddr, mut pace: Pace, tally: Tally) {
    while let Some(number) = pace.next().await {
        let number = PASSING_AT_START + number;
        let began = Instant::now();
        let path = origin::passing_path(number);
        let fetched = timeout(PATIENCE, async {
            let mut connection = Http1Connection::open(server).await?;
            connection.get(server, &path).await
        });
        let expected = origin::passing_object(number);
        let result = checked(fetched.await, &expected).map(|()| began.elapsed());
        tally.record(Class::Passing, result);
    }
}

/// Whether an object arrived.
fn checked(
    fetched: Result<io::Result<Response>, tokio::time::error::Elapsed>,
    expected: &Bytes,
) -> Result<(), String> {
    match fetched {
        Err(_) => Err(format!("no response in {PATIENCE:?}")),
        Ok(Err(why)) => Err(why.to_string()),
        Ok(Ok(response)) if response.status != 200 => Err(format!("status {}", response.status)),
        Ok(Ok(response)) if response.body != *expected => {
            Err("other bytes than the origin's".to_owned())
        }
        Ok(Ok(_)) => Ok(()),
    }
}

/// An HTTP/1.1 connection.
struct Http1Connection {
    stream: BufReader<TcpStream>,
    requests: u64,
}

struct Response {
    status: u16,
    is_kept: bool,
    length: usize,
    body: Bytes,
}

impl Http1Connection {
    async fn open(server: SocketAddr) -> io::Result<Http1Connection> {
        let stream = TcpStream::connect(server)
            .await
            .map_err(|why| io::Error::new(why.kind(), format!("cannot connect: {why}")))?;
        Ok(Http1Connection {
            stream: BufReader::new(stream),
            requests: 0,
        })
    }

    async fn get(&mut self, server: SocketAddr, path: &str) -> io::Result<Response> {
        let mut response = self.head(server, path).await?;
        let mut body = vec![0; response.length];
        self.stream
            .read_exact(&mut body)
            .await
            .map_err(|why| io::Error::new(why.kind(), format!("a body was cut: {why}")))?;
        response.body = body.into();
        Ok(response)
    }

    /// Sends a request, and reads the head of its response.
    async fn head(&mut self, server: SocketAddr, path: &str) -> io::Result<Response> {
        self.requests += 1;
        let request = format!("GET {path} HTTP/1.1\r\nHost: {server}\r\n\r\n");
        self.stream.get_mut().write_all(request.as_bytes()).await?;
        let mut line = String::new();
        if self.stream.read_line(&mut line).await? == 0 {
            return Err(io::Error::other("closed without a response"));
        }
        let status = line
            .split(' ')
            .nth(1)
            .and_then(|status| status.parse().ok());
        let mut response = Response {
            status: status.unwrap_or(0),
            is_kept: true,
            length: 0,
            body: Bytes::new(),
        };
        loop {
            line.clear();
            if self.stream.read_line(&mut line).await? == 0 {
                return Err(io::Error::other("a head was cut"));
            }
            let field = line.trim_end().to_ascii_lowercase();
            match field.split_once(": ") {
                None => return Ok(response),
                Some(("content-length", length)) => {
                    response.length = length.parse().map_err(io::Error::other)?;
                }
                Some(("connection", "close")) => response.is_kept = false,
                Some(_) => {}
            }
        }
    }
}

/// Reads a large object evenly over this time.
async fn download(server: SocketAddr, number: usize, lasts: Duration) -> Result<Duration, String> {
    let began = Instant::now();
    let expected = origin::large_object(number);
    let mut connection = slow_connection(server)
        .await
        .map_err(|why| format!("cannot connect: {why}"))?;
    let path = origin::large_path(number);
    let response = timeout(PATIENCE, connection.head(server, &path)).await;
    let response = response.map_err(|_| format!("no response in {PATIENCE:?}"))?;
    let response = response.map_err(|why| why.to_string())?;
    if response.status != 200 || response.length != expected.len() {
        return Err(format!(
            "status {}, {} bytes promised",
            response.status, response.length
        ));
    }
    let mut received = 0;
    let mut buffer = vec![0; 64 << 10];
    while received < expected.len() {
        let share = began.elapsed().as_secs_f64() / lasts.as_secs_f64();
        if received as f64 > share * expected.len() as f64 {
            sleep(READ_EVERY).await;
            continue;
        }
        let read = timeout(PATIENCE, connection.stream.read(&mut buffer)).await;
        let at = format!("byte {received} of {}", expected.len());
        let read = read.map_err(|_| format!("{at}: nothing in {PATIENCE:?}"))?;
        let read = read.map_err(|why| format!("{at}: {why}"))?;
        if read == 0 {
            return Err(format!("{at}: cut"));
        }
        if buffer[..read] != expected[received..received + read] {
            return Err(format!("{at}: other bytes than the origin's"));
        }
        received += read;
    }
    Ok(began.elapsed())
}

/// A connection whose receive buffer is small: the kernel does not read ahead of its viewer.
async fn slow_connection(server: SocketAddr) -> io::Result<Http1Connection> {
    let socket = TcpSocket::new_v4()?;
    socket.set_recv_buffer_size(64 << 10)?;
    let stream = socket.connect(server).await?;
    Ok(Http1Connection {
        stream: BufReader::new(stream),
        requests: 0,
    })
}

async fn watch_over_http2(server: SocketAddr, mut pace: Pace, tally: Tally) {
    let mut kept: Option<SendRequest<Nothing>> = None;
    while let Some(number) = pace.next().await {
        let began = Instant::now();
        let fetched = timeout(PATIENCE, async {
            let mut sender = match kept.take() {
                Some(sender) => sender,
                None => connect_http2(server).await?,
            };
            // A client opens another connection once it was told that this one ends.
            if sender.ready().await.is_err() {
                sender = connect_http2(server).await?;
            }
            let response = get_over_http2(&mut sender, server, number).await?;
            kept = Some(sender);
            Ok(response)
        });
        let result =
            checked(fetched.await, &origin::small_object(number)).map(|()| began.elapsed());
        tally.record(Class::Http2, result);
    }
}

async fn connect_http2(server: SocketAddr) -> io::Result<SendRequest<Nothing>> {
    let stream = TcpStream::connect(server).await?;
    let handshake = http2::handshake(TokioExecutor::new(), TokioIo::new(stream));
    let (sender, connection) = handshake.await.map_err(io::Error::other)?;
    tokio::spawn(connection);
    Ok(sender)
}

async fn get_over_http2(
    sender: &mut SendRequest<Nothing>,
    server: SocketAddr,
    number: usize,
) -> io::Result<Response> {
    let uri = format!("http://{server}{}", origin::small_path(number));
    let request = http::Request::get(uri)
        .body(Nothing)
        .map_err(io::Error::other)?;
    let response = sender
        .send_request(request)
        .await
        .map_err(|why| io::Error::other(format!("{why:?}")))?;
    let status = response.status().as_u16();
    let mut body = Vec::new();
    let mut incoming = response.into_body();
    while let Some(frame) = poll_fn(|cx| Pin::new(&mut incoming).poll_frame(cx)).await {
        let frame = frame.map_err(|why| io::Error::other(format!("a body was cut: {why:?}")))?;
        if let Ok(data) = frame.into_data() {
            body.extend_from_slice(&data);
        }
    }
    Ok(Response {
        status,
        is_kept: true,
        length: body.len(),
        body: body.into(),
    })
}

/// The body of a GET.
struct Nothing;

impl Body for Nothing {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(
        self: Pin<&mut Self>,
        _cx: &mut std::task::Context<'_>,
    ) -> std::task::Poll<Option<io::Result<http_body::Frame<Bytes>>>> {
        std::task::Poll::Ready(None)
    }

    fn is_end_stream(&self) -> bool {
        true
    }
}
