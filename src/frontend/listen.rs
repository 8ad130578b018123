//! Binds listeners, or returns an error that names the listener.

use std::fmt;
use std::io;
use std::net::{Shutdown, SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::certificate_error::CertificateError;
use super::certificates::Certificates;
use super::inherited_sockets::{HandedSocket, InheritedSockets};
use super::{ListenAddress, Listener};

/// Length of the accept queue; the limit of the system may be lower.
const BACKLOG: i32 = 8192;

/// Why a listener cannot be created.
#[derive(Debug, thiserror::Error)]
pub enum BindError {
    /// The socket cannot be bound.
    #[error("cannot listen on {address}: {reason}")]
    Socket {
        /// The listener.
        address: ListenAddress,
        /// The reason for operators.
        reason: String,
        /// The error of the system.
        #[source]
        source: io::Error,
    },
    /// The certificates cannot be used.
    #[error("cannot listen on {address}: {source}")]
    Tls {
        /// The listener.
        address: ListenAddress,
        /// The reason.
        source: Box<CertificateError>,
    },
}

impl fmt::Display for ListenAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            ListenAddress::Tcp(address) => write!(f, "{address}"),
            ListenAddress::Unix(path) => write!(f, "unix:{}", path.display()),
        }
    }
}

/// A bound listener. Connections wait in its queue until a [`super::Frontend`] serves it.
pub struct BoundListener {
    pub(super) socket: ListeningSocket,
    pub(super) certificates: Option<Arc<Certificates>>,
    /// What it was bound for.
    pub(super) listener: Listener,
    address: ListenAddress,
}

/// A listening socket.
pub(super) enum ListeningSocket {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl ListeningSocket {
    pub(super) fn try_clone(&self) -> io::Result<ListeningSocket> {
        match self {
            ListeningSocket::Tcp(socket) => socket.try_clone().map(ListeningSocket::Tcp),
            ListeningSocket::Unix(socket) => socket.try_clone().map(ListeningSocket::Unix),
        }
    }

    /// A duplicate for another process.
    pub(super) fn hand_over(&self, configured: String) -> io::Result<HandedSocket> {
        match self {
            ListeningSocket::Tcp(socket) => HandedSocket::of(configured, socket),
            ListeningSocket::Unix(socket) => HandedSocket::of(configured, socket),
        }
    }

    /// Ends the listening also where others have duplicates, so that its address is free. Resets
    /// the connections in the queue.
    pub(super) fn shut_down(&self) -> io::Result<()> {
        match self {
            ListeningSocket::Tcp(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
            ListeningSocket::Unix(socket) => SockRef::from(socket).shutdown(Shutdown::Both),
        }
    }
}

impl BoundListener {
    /// Binds a listener.
    pub fn bind(listener: &Listener) -> Result<BoundListener, BindError> {
        BoundListener::inherit(listener, &mut InheritedSockets::default())
    }

    /// Takes the socket of a listener from another process, or binds it if there is none.
    pub fn inherit(
        listener: &Listener,
        inherited: &mut InheritedSockets,
    ) -> Result<BoundListener, BindError> {
        let certificates = load_certificates(listener)?;
        let (socket, address) = bind_address(&listener.address, inherited)
            .map_err(|source| BindError::socket(listener, bind_error_reason(&source), source))?;
        Ok(BoundListener {
            socket,
            certificates,
            listener: listener.clone(),
            address,
        })
    }

    /// The address, with the port that the system chose if port 0 was requested.
    pub fn address(&self) -> &ListenAddress {
        &self.address
    }
}

/// Loads the certificates of a listener, if it uses TLS.
pub(super) fn load_certificates(
    listener: &Listener,
) -> Result<Option<Arc<Certificates>>, BindError> {
    let certificates = listener.tls.as_ref().map(Certificates::load).transpose();
    certificates.map_err(|source| BindError::tls(listener, source))
}

impl BindError {
    pub(super) fn socket(listener: &Listener, reason: String, source: io::Error) -> BindError {
        BindError::Socket {
            address: listener.address.clone(),
            reason,
            source,
        }
    }

    pub(super) fn tls(listener: &Listener, source: CertificateError) -> BindError {
        BindError::Tls {
            address: listener.address.clone(),
            source: Box::new(source),
        }
    }
}

fn bind_address(
    address: &ListenAddress,
    inherited: &mut InheritedSockets,
) -> io::Result<(ListeningSocket, ListenAddress)> {
    let inherited = inherited.take(address);
    match address {
        ListenAddress::Tcp(address) => {
            let socket = match inherited {
                Some(socket) => socket.into(),
                None => bind_tcp(*address)?,
            };
            let bound = ListenAddress::Tcp(socket.local_addr()?);
            Ok((ListeningSocket::Tcp(socket), bound))
        }
        ListenAddress::Unix(path) => {
            let socket = match inherited {
                Some(socket) => socket.into(),
                None => bind_unix(path)?,
            };
            Ok((ListeningSocket::Unix(socket), address.clone()))
        }
    }
}

fn bind_tcp(address: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(
        Domain::for_address(address),
        Type::STREAM,
        Some(Protocol::TCP),
    )?;
    socket.set_reuse_address(true)?;
    if address.is_ipv6() {
        // `0.0.0.0` and `[::]` can then both be bound, and peers have no mapped addresses.
        socket.set_only_v6(true)?;
    }
    // Accepted sockets inherit it: one system call instead of one per connection.
    socket.set_tcp_nodelay(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::from(address))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Binds a Unix socket that its owner and group may use, in place of one that a stopped server
/// left.
pub(crate) fn bind_unix(path: &Path) -> io::Result<UnixListener> {
    remove_stale(path)?;
    let socket = Socket::new(Domain::UNIX, Type::STREAM, None)?;
    socket.set_nonblocking(true)?;
    socket.bind(&SockAddr::unix(path)?)?;
    // Before `listen`, so that no client connects with other permissions.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o660))?;
    socket.listen(BACKLOG)?;
    Ok(socket.into())
}

/// Removes the socket file of a stopped server. Fails on a live socket and on any other file.
fn remove_stale(path: &Path) -> io::Result<()> {
    let Ok(metadata) = std::fs::symlink_metadata(path) else {
        return Ok(());
    };
    if !metadata.file_type().is_socket() {
        return Err(io::Error::new(
            io::ErrorKind::AlreadyExists,
            "the file is not a socket",
        ));
    }
    match UnixStream::connect(path) {
        Err(error) if error.kind() == io::ErrorKind::ConnectionRefused => {
            std::fs::remove_file(path)
        }
        Err(error) => Err(error),
        Ok(_) => Err(io::ErrorKind::AddrInUse.into()),
    }
}

/// Why an address cannot be had, for operators.
pub(super) fn bind_error_reason(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => "another program listens there already".to_owned(),
        io::ErrorKind::AddrNotAvailable => "this machine has no such address".to_owned(),
        io::ErrorKind::PermissionDenied => {
            "permission denied (ports below 1024 need CAP_NET_BIND_SERVICE)".to_owned()
        }
        io::ErrorKind::AlreadyExists => "a file that is not a socket has that name".to_owned(),
        io::ErrorKind::NotFound => "no such directory".to_owned(),
        _ => error.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn plain(address: ListenAddress) -> Listener {
        Listener {
            address,
            tls: None,
            proxy_protocol: None,
        }
    }

    fn local() -> Listener {
        plain(ListenAddress::Tcp("127.0.0.1:0".parse().unwrap()))
    }

    #[test]
    fn names_the_address_in_use() {
        let first = BoundListener::bind(&local()).unwrap();
        let error = BoundListener::bind(&plain(first.address().clone()))
            .err()
            .unwrap();
        let message = error.to_string();
        assert!(message.contains(&first.address().to_string()), "{message}");
        assert!(
            message.contains("another program listens there already"),
            "{message}"
        );
    }

    #[test]
    fn binds_ipv4_and_ipv6_to_the_same_port() {
        let v4 =
            BoundListener::bind(&plain(ListenAddress::Tcp("0.0.0.0:0".parse().unwrap()))).unwrap();
        let ListenAddress::Tcp(bound) = v4.address() else {
            unreachable!()
        };
        let v6 = SocketAddr::new("::".parse().unwrap(), bound.port());
        match BoundListener::bind(&plain(ListenAddress::Tcp(v6))) {
            Ok(_) => {}
            Err(BindError::Socket { source, .. }) => {
                // A machine without IPv6, or a port used by another process.
                assert_ne!(source.kind(), io::ErrorKind::InvalidInput, "{source}");
            }
            Err(other) => panic!("{other}"),
        }
    }

    #[test]
    fn replaces_a_stale_socket_file_but_not_one_in_use() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("edge.sock");
        let listener = plain(ListenAddress::Unix(path.clone()));
        let live = BoundListener::bind(&listener).unwrap();
        let mode = std::fs::metadata(&path).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o660);
        assert!(
            BoundListener::bind(&listener).is_err(),
            "a server accepts connections"
        );
        drop(live);
        BoundListener::bind(&listener).unwrap();
    }

    #[test]
    fn keeps_a_file_that_is_not_a_socket() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        std::fs::write(&path, "keep").unwrap();
        assert!(BoundListener::bind(&plain(ListenAddress::Unix(path.clone()))).is_err());
        assert_eq!(std::fs::read_to_string(path).unwrap(), "keep");
    }
}
