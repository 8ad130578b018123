//! The bound: what a hit costs the kernel, without any HTTP. One thread waits for readiness, and
//! answers whatever it reads with the same bytes: one `recv` and one `send` per request.

use std::io::{self, Read, Write};
use std::net::SocketAddr;
use std::sync::Arc;

use mio::net::{TcpListener, TcpStream};
use mio::{Events, Interest, Poll, Token};

use crate::scenario::{PLAYLIST_BYTES, SEGMENT_BYTES};

/// The argument that makes this program the bound; an address follows.
pub const ARGUMENT: &str = "--be-the-bound";

const LISTENER: Token = Token(usize::MAX);

/// Serves until the process is ended.
pub fn serve(address: SocketAddr) -> io::Result<()> {
    let mut poll = Poll::new()?;
    let mut listener = TcpListener::bind(address)?;
    poll.registry()
        .register(&mut listener, LISTENER, Interest::READABLE)?;
    let responses = Responses {
        playlist: response("application/vnd.apple.mpegurl", PLAYLIST_BYTES).into(),
        segment: response("video/mp2t", SEGMENT_BYTES).into(),
    };
    let mut connections: Vec<Option<Connection>> = Vec::new();
    let mut events = Events::with_capacity(256);
    loop {
        match poll.poll(&mut events, None) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            polled => polled?,
        }
        for event in &events {
            let Token(index) = event.token();
            if event.token() == LISTENER {
                while let Ok((mut stream, _)) = listener.accept() {
                    stream.set_nodelay(true)?;
                    let both = Interest::READABLE | Interest::WRITABLE;
                    let token = Token(connections.len());
                    poll.registry().register(&mut stream, token, both)?;
                    connections.push(Some(Connection::new(stream, &responses)));
                }
            } else if let Some(connection) = &mut connections[index]
                && connection.answer(&responses).is_err()
            {
                connections[index] = None;
            }
        }
    }
}

struct Responses {
    playlist: Arc<[u8]>,
    segment: Arc<[u8]>,
}

fn response(content_type: &str, body_bytes: usize) -> Vec<u8> {
    let head = format!(
        "HTTP/1.1 200 OK\r\nContent-Type: {content_type}\r\nCache-Control: max-age=3600\r\n\
         Date: Sat, 28 Nov 2026 23:00:00 GMT\r\nAge: 10\r\nCache-Status: bound; hit; ttl=1000\r\n\
         Via: 1.1 bound\r\nContent-Length: {body_bytes}\r\n\r\n"
    );
    let mut response = head.into_bytes();
    response.resize(response.len() + body_bytes, b'x');
    response
}

struct Connection {
    stream: TcpStream,
    response: Arc<[u8]>,
    /// Bytes of the response that have been sent; all of them while no request is answered.
    sent: usize,
    /// The viewer wants no further response.
    is_last: bool,
}

impl Connection {
    fn new(stream: TcpStream, responses: &Responses) -> Connection {
        let response = Arc::clone(&responses.playlist);
        Connection {
            stream,
            sent: response.len(),
            is_last: false,
            response,
        }
    }

    /// Answers requests until the socket blocks. An error ends the connection.
    fn answer(&mut self, responses: &Responses) -> io::Result<()> {
        let mut request = [0; 16 << 10];
        loop {
            while self.sent < self.response.len() {
                match self.stream.write(&self.response[self.sent..]) {
                    Ok(bytes) => self.sent += bytes,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                    Err(error) => return Err(error),
                }
            }
            if self.is_last {
                return Err(io::ErrorKind::ConnectionAborted.into());
            }
            let bytes = match self.stream.read(&mut request) {
                Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                Ok(bytes) => bytes,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            let request = &request[..bytes];
            let is_segment = request.starts_with(b"GET /seg");
            self.is_last = request.ends_with(b"Connection: close\r\n\r\n");
            self.response = Arc::clone(if is_segment {
                &responses.segment
            } else {
                &responses.playlist
            });
            self.sent = 0;
        }
    }
}
