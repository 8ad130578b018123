//! The origin of an event loop: raw connections, of which a script decides what is answered and
//! when.

use std::io::{self, Read, Write};
use std::net::SocketAddr;

use mio::net::{TcpListener, TcpStream};
use mio::{Interest, Registry, Token};

use crate::origin::head_end;

/// A request head that does not end within this is no request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A request at the origin that has not been answered.
#[derive(Clone, Copy, Debug)]
pub struct RequestId(usize);

/// The connections of an origin. They keep their number until the origin is dropped, so that an
/// answer never goes to a connection that took another's place.
pub struct OriginSide {
    listener: TcpListener,
    connections: Vec<Option<OriginConnection>>,
    tokens_from: usize,
}

struct OriginConnection {
    stream: TcpStream,
    read: Vec<u8>,
    /// Bytes that the socket had no room for.
    unsent: Vec<u8>,
}

impl OriginSide {
    /// `tokens_from` is the token of its listener; those above it are of its connections.
    pub fn listen(registry: &Registry, tokens_from: usize) -> io::Result<OriginSide> {
        let mut listener = TcpListener::bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        registry.register(&mut listener, Token(tokens_from), Interest::READABLE)?;
        Ok(OriginSide {
            listener,
            connections: Vec::new(),
            tokens_from,
        })
    }

    pub fn address(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }

    /// Takes new connections.
    pub fn accept(&mut self, registry: &Registry) -> io::Result<()> {
        loop {
            let (mut stream, _) = match self.listener.accept() {
                Ok(accepted) => accepted,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(()),
                Err(error) => return Err(error),
            };
            stream.set_nodelay(true)?;
            let token = Token(self.tokens_from + 1 + self.connections.len());
            let both = Interest::READABLE | Interest::WRITABLE;
            registry.register(&mut stream, token, both)?;
            self.connections.push(Some(OriginConnection {
                stream,
                read: Vec::new(),
                unsent: Vec::new(),
            }));
        }
    }

    /// Serves the connection of this token. `answer` is called with the target of each request;
    /// `None` leaves it unanswered.
    pub fn serve(
        &mut self,
        token: usize,
        buffer: &mut [u8],
        mut answer: impl FnMut(RequestId, &str) -> Option<Vec<u8>>,
    ) {
        let place = token - self.tokens_from - 1;
        let Some(connection) = self.connections.get_mut(place).and_then(Option::as_mut) else {
            return;
        };
        let mut ends = connection.send(&[]).is_err();
        while !ends {
            match connection.stream.read(buffer) {
                Ok(0) => ends = true,
                Ok(bytes) => connection.read.extend(&buffer[..bytes]),
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
                Err(_) => ends = true,
            }
        }
        while let Some(end) = head_end(&connection.read) {
            let response =
                target(&connection.read[..end]).and_then(|target| answer(RequestId(place), target));
            connection.read.drain(..end);
            if let Some(response) = response {
                ends |= connection.send(&response).is_err();
            }
        }
        if ends || connection.read.len() > HEAD_BYTES_MAX {
            self.connections[place] = None;
        }
    }

    /// Sends an answer, or a part of it, to a request that was left unanswered. Nothing happens if
    /// its connection has ended.
    pub fn send(&mut self, request: RequestId, bytes: &[u8]) {
        if let Some(connection) = &mut self.connections[request.0]
            && connection.send(bytes).is_err()
        {
            self.connections[request.0] = None;
        }
    }
}

impl OriginConnection {
    fn send(&mut self, bytes: &[u8]) -> io::Result<()> {
        let mut rest = bytes;
        if !self.unsent.is_empty() {
            self.unsent.extend(bytes);
            rest = &[];
            let sent = write_some(&mut self.stream, &self.unsent)?;
            self.unsent.drain(..sent);
        }
        let sent = write_some(&mut self.stream, rest)?;
        self.unsent.extend(&rest[sent..]);
        Ok(())
    }
}

/// Writes until the socket has no more room.
fn write_some(stream: &mut TcpStream, bytes: &[u8]) -> io::Result<usize> {
    let mut sent = 0;
    while sent < bytes.len() {
        match stream.write(&bytes[sent..]) {
            Ok(bytes) => sent += bytes,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(error),
        }
    }
    Ok(sent)
}

/// The target of a request: its second word.
fn target(head: &[u8]) -> Option<&str> {
    let target = head.split(|byte| *byte == b' ').nth(1)?;
    std::str::from_utf8(target).ok()
}
