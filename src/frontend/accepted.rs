//! An accepted connection, on its way to the worker that serves it.

use std::io::{self, Write as _};
use std::net::IpAddr;
use std::sync::Arc;

use tokio::net::{TcpStream, UnixStream};

use super::connection_table::ConnectionGuard;
use super::listen::ListeningSocket;
use super::listener_settings::ListenerSettings;

/// The response to a connection over the limit, if it does not use TLS.
const REFUSAL: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nretry-after: 1\r\n\
cache-control: no-store\r\nconnection: close\r\ncontent-length: 0\r\n\r\n";

/// A connection that is registered with the current runtime.
pub(super) enum Accepted {
    Tcp(TcpStream, IpAddr),
    Unix(UnixStream),
}

/// A connection that is registered with no runtime.
pub(super) enum UnregisteredConnection {
    Tcp(std::net::TcpStream, IpAddr),
    Unix(std::os::unix::net::UnixStream),
}

/// A connection within all limits, on its way to the worker that will serve it.
pub(super) struct AdmittedConnection {
    pub(super) connection: UnregisteredConnection,
    pub(super) guard: ConnectionGuard,
    /// Those of its listener when it was accepted.
    pub(super) settings: Arc<ListenerSettings>,
}

impl UnregisteredConnection {
    /// The next connection in the queue of a socket that is registered with no runtime: one that
    /// is may not know of it yet. An error if there is none.
    pub(super) fn accept(socket: &ListeningSocket) -> io::Result<UnregisteredConnection> {
        match socket {
            ListeningSocket::Tcp(socket) => {
                let (transport, peer) = retry_aborted(|| socket.accept())?;
                transport.set_nonblocking(true)?;
                let peer = peer.ip().to_canonical();
                Ok(UnregisteredConnection::Tcp(transport, peer))
            }
            ListeningSocket::Unix(socket) => {
                let (transport, _) = retry_aborted(|| socket.accept())?;
                transport.set_nonblocking(true)?;
                Ok(UnregisteredConnection::Unix(transport))
            }
        }
    }

    pub(super) fn register(self) -> io::Result<Accepted> {
        match self {
            UnregisteredConnection::Tcp(transport, peer) => {
                Ok(Accepted::Tcp(TcpStream::from_std(transport)?, peer))
            }
            UnregisteredConnection::Unix(transport) => {
                UnixStream::from_std(transport).map(Accepted::Unix)
            }
        }
    }
}

/// Ignores connections that were closed before they were accepted.
fn retry_aborted<T>(mut accept: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match accept() {
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => {}
            accepted => return accepted,
        }
    }
}

impl Accepted {
    pub(super) fn unregister(self) -> io::Result<UnregisteredConnection> {
        match self {
            Accepted::Tcp(transport, peer) => {
                Ok(UnregisteredConnection::Tcp(transport.into_std()?, peer))
            }
            Accepted::Unix(transport) => transport.into_std().map(UnregisteredConnection::Unix),
        }
    }

    pub(super) fn peer(&self) -> Option<IpAddr> {
        match self {
            Accepted::Tcp(_, peer) => Some(*peer),
            Accepted::Unix(_) => None,
        }
    }

    /// Sends [`REFUSAL`] if that is possible without waiting, and closes the connection.
    pub(super) fn reject(self) {
        // If the write fails, the connection is closed without a response.
        let _ = match self {
            Accepted::Tcp(transport, _) => transport
                .into_std()
                .and_then(|mut transport| transport.write(REFUSAL)),
            Accepted::Unix(transport) => transport
                .into_std()
                .and_then(|mut transport| transport.write(REFUSAL)),
        };
    }
}
