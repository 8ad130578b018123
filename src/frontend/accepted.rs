//! An accepted connection, on its way to the worker that serves it.

use std::io::{self, Write as _};
use std::net::IpAddr;

use tokio::net::{TcpStream, UnixStream};

use super::connection_table::ConnectionGuard;

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
}

impl UnregisteredConnection {
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
