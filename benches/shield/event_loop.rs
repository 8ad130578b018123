//! Many viewers and their origin in one thread: an event loop over raw sockets, so that the load
//! generator costs little, and one clock says when the origin wrote and when each viewer had read.
//! Knows no scenario: a [`Script`] says what the origin answers and what viewers do next.

mod origin_side;
mod response_reader;

use std::io::{self, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::Context;
use mio::net::TcpStream;
use mio::{Events, Interest, Poll, Token};
use socket2::{Domain, Protocol, Socket, Type};

pub use self::origin_side::{OriginSide, RequestId};
pub use self::response_reader::{ResponseReader, Source};

/// Sockets that are served between two looks at the clock's due work.
const EVENTS_PER_STEP: usize = 256;
/// The tokens below are viewers.
const ORIGIN_TOKENS_FROM: usize = 1 << 40;
/// The read buffer: a whole response of most scenarios.
const BUFFER_BYTES: usize = 128 << 10;
/// Viewers of one source address: an address pair has about 28,000 ports.
const VIEWERS_PER_ADDRESS: usize = 10_000;
/// The longest time between two moments in which the rest of this program may act, such as on a
/// signal.
const YIELD_EVERY: Duration = Duration::from_millis(50);

/// What the origin answers, and what happens to viewers.
pub trait Script {
    /// The origin got a request; `None` leaves it unanswered until [`OriginSide::send`].
    fn on_request(&mut self, request: RequestId, target: &str) -> Option<Vec<u8>>;

    /// A viewer has read something of its response. Whether that is whole is the reader's to say.
    fn on_read(&mut self, viewer: usize, reader: &ResponseReader, at: Instant);

    /// A viewer's connection ended, or what it read is not HTTP. It has been connected again.
    fn on_failure(&mut self, viewer: usize, failure: Failure);
}

/// What a connection that ended left behind.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// A part of a body.
    Truncated,
    /// A request without a response.
    Unanswered,
    /// No request.
    Closed,
}

/// The loop, its origin and its viewers.
pub struct EventLoop {
    poll: Poll,
    events: Events,
    buffer: Box<[u8]>,
    pub origin: OriginSide,
    viewers: Vec<ViewerConnection>,
    yielded: Instant,
}

struct ViewerConnection {
    stream: TcpStream,
    server: SocketAddr,
    reader: ResponseReader,
    waits: bool,
}

impl EventLoop {
    /// With an origin, and without viewers.
    pub fn new() -> io::Result<EventLoop> {
        let poll = Poll::new()?;
        let origin = OriginSide::listen(poll.registry(), ORIGIN_TOKENS_FROM)?;
        Ok(EventLoop {
            poll,
            events: Events::with_capacity(EVENTS_PER_STEP),
            buffer: vec![0; BUFFER_BYTES].into(),
            origin,
            viewers: Vec::new(),
            yielded: Instant::now(),
        })
    }

    /// Connects one more viewer.
    pub fn connect(&mut self, server: SocketAddr) -> anyhow::Result<()> {
        let viewer = self.viewers.len();
        let mut stream = connect(server, viewer).with_context(|| {
            format!("viewer {viewer} cannot connect: too few ports or open files, or refused")
        })?;
        self.poll
            .registry()
            .register(&mut stream, Token(viewer), Interest::READABLE)?;
        self.viewers.push(ViewerConnection {
            stream,
            server,
            reader: ResponseReader::default(),
            waits: false,
        });
        Ok(())
    }

    pub fn viewers(&self) -> usize {
        self.viewers.len()
    }

    /// Sends the request of a viewer that waits for nothing.
    pub fn send(&mut self, viewer: usize, request: &[u8], script: &mut impl Script) {
        let connection = &mut self.viewers[viewer];
        connection.reader.begin();
        connection.waits = true;
        // A request always fits into an empty socket.
        let sent = connection.stream.write(request);
        if !sent.is_ok_and(|bytes| bytes == request.len()) {
            self.fail(viewer, script);
        }
    }

    /// Serves what is ready; waits for it at most this long. Returns for how long sockets were
    /// served: what was ready in that time had to wait for this loop.
    pub fn step(&mut self, wait: Duration, script: &mut impl Script) -> io::Result<Duration> {
        match self.poll.poll(&mut self.events, Some(wait)) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Duration::ZERO),
            polled => polled?,
        }
        let began = Instant::now();
        let events = std::mem::replace(&mut self.events, Events::with_capacity(0));
        for event in &events {
            match event.token() {
                Token(ORIGIN_TOKENS_FROM) => self.origin.accept(self.poll.registry())?,
                Token(token) if token > ORIGIN_TOKENS_FROM => {
                    self.origin
                        .serve(token, &mut self.buffer, |request, target| {
                            script.on_request(request, target)
                        });
                }
                Token(viewer) => self.read(viewer, script),
            }
        }
        self.events = events;
        Ok(began.elapsed())
    }

    /// Lets the rest of this program act, if it could not for a while.
    pub async fn rest(&mut self) {
        if self.yielded.elapsed() > YIELD_EVERY {
            tokio::task::yield_now().await;
            self.yielded = Instant::now();
        }
    }

    /// Serves until this time.
    pub async fn serve_until(
        &mut self,
        until: Instant,
        script: &mut impl Script,
    ) -> io::Result<()> {
        while let Some(left) = until.checked_duration_since(Instant::now()) {
            self.step(left.min(YIELD_EVERY), script)?;
            self.rest().await;
        }
        Ok(())
    }

    /// Serves the origin while the rest of this program does something else.
    pub async fn serve_beside<T>(
        &mut self,
        script: &mut impl Script,
        other: impl Future<Output = T>,
    ) -> io::Result<T> {
        const PAUSE: Duration = Duration::from_millis(1);
        tokio::pin!(other);
        loop {
            tokio::select! {
                done = &mut other => return Ok(done),
                () = tokio::time::sleep(PAUSE) => { self.step(Duration::ZERO, script)?; }
            }
        }
    }

    /// Reads until the socket is empty. Events come once, when bytes arrive.
    fn read(&mut self, viewer: usize, script: &mut impl Script) {
        loop {
            let connection = &mut self.viewers[viewer];
            let read = connection.stream.read(&mut self.buffer);
            let at = Instant::now();
            let bytes = match read {
                Ok(0) => return self.fail(viewer, script),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return,
                Err(_) => return self.fail(viewer, script),
            };
            let read = connection.reader.read(&self.buffer[..bytes]);
            if read.is_err() || !connection.waits {
                return self.fail(viewer, script);
            }
            connection.waits = !connection.reader.is_whole();
            script.on_read(viewer, &connection.reader, at);
            if connection.reader.closes() && !connection.waits {
                return self.fail(viewer, script);
            }
            // A read that did not fill the buffer has emptied the socket.
            if bytes < self.buffer.len() {
                return;
            }
        }
    }

    /// Connects a viewer again, and says that its request failed.
    fn fail(&mut self, viewer: usize, script: &mut impl Script) {
        let connection = &mut self.viewers[viewer];
        let failure = match connection.waits {
            true if connection.reader.is_in_body() => Failure::Truncated,
            true => Failure::Unanswered,
            false => Failure::Closed,
        };
        connection.waits = false;
        connection.reader.begin();
        if let Ok(mut stream) = connect(connection.server, viewer) {
            let registered =
                self.poll
                    .registry()
                    .register(&mut stream, Token(viewer), Interest::READABLE);
            if registered.is_ok() {
                connection.stream = stream;
            }
        }
        script.on_failure(viewer, failure);
    }
}

/// A connected socket of this viewer, from an address that has a port left.
fn connect(server: SocketAddr, viewer: usize) -> io::Result<TcpStream> {
    const PATIENCE: Duration = Duration::from_secs(5);
    let socket = Socket::new(Domain::IPV4, Type::STREAM, Some(Protocol::TCP))?;
    let last = u8::try_from(1 + viewer / VIEWERS_PER_ADDRESS).map_err(io::Error::other)?;
    if last > 1 {
        let source = SocketAddr::new(IpAddr::V4(Ipv4Addr::new(127, 0, 0, last)), 0);
        socket.bind(&source.into())?;
    }
    socket.connect_timeout(&server.into(), PATIENCE)?;
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    Ok(TcpStream::from_std(socket.into()))
}

/// A response with a body, as the origin sends it.
pub fn response(content_type: &str, fields: &str, body: &[u8]) -> Vec<u8> {
    let date = httpdate::fmt_http_date(std::time::SystemTime::now());
    let length = body.len();
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {content_type}\r\n\
         Content-Length: {length}\r\n{fields}\r\n"
    );
    [head.as_bytes(), body].concat()
}
