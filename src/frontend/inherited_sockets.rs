//! Listening sockets on their way from one process to another: those that this process hands over,
//! and those that it got, until a listener takes them. It does not know how they come there.

use std::io;
use std::os::fd::{AsFd, OwnedFd};

use rustix::net::sockopt::socket_acceptconn;
use socket2::Socket;

use super::ListenAddress;

/// A duplicate of a listening socket, for another process.
pub struct HandedSocket {
    /// The address as configured: with port 0 if that was requested.
    pub configured: String,
    /// The socket.
    pub socket: OwnedFd,
}

impl HandedSocket {
    /// A duplicate of this socket.
    pub fn of(configured: String, socket: &impl AsFd) -> io::Result<HandedSocket> {
        let socket = socket.as_fd().try_clone_to_owned()?;
        Ok(HandedSocket { configured, socket })
    }

    /// Another duplicate.
    pub fn try_clone(&self) -> io::Result<HandedSocket> {
        HandedSocket::of(self.configured.clone(), &self.socket)
    }
}

/// The sockets that no listener has taken yet.
#[derive(Default)]
pub struct InheritedSockets(Vec<InheritedSocket>);

struct InheritedSocket {
    /// The address as the other process was configured: with port 0 if that was requested.
    configured: String,
    /// The address of the socket.
    bound: String,
    socket: Socket,
}

impl InheritedSockets {
    /// Adds a socket that the other process was configured to have at this address. An error if it
    /// is no listening socket.
    pub fn add(&mut self, configured: String, socket: OwnedFd) -> io::Result<()> {
        let socket = Socket::from(socket);
        // What else is inherited must not be taken for a listener: it would be read for ever.
        if !socket_acceptconn(&socket)? {
            return Err(io::Error::other("this is no listening socket"));
        }
        let address = socket.local_addr()?;
        let path = address.as_pathname().map(ToOwned::to_owned);
        let bound = address.as_socket().map(ListenAddress::Tcp);
        let bound = bound.or(path.map(ListenAddress::Unix));
        let bound = bound.ok_or_else(|| io::Error::other("the socket has no address"))?;
        self.0.push(InheritedSocket {
            configured,
            bound: bound.to_string(),
            socket,
        });
        Ok(())
    }

    /// The number of sockets.
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Takes the socket for a configured address, if there is one.
    pub(crate) fn take(&mut self, address: &ListenAddress) -> Option<Socket> {
        let address = address.to_string();
        let is_same = |socket: &InheritedSocket| socket.configured == address;
        let found = self.0.iter().position(is_same);
        let found = found.or_else(|| self.0.iter().position(|socket| socket.bound == address))?;
        let socket = self.0.remove(found).socket;
        // As a new one; these do not fail on a socket that listens.
        let _ = socket.set_nonblocking(true);
        if matches!(socket.local_addr(), Ok(address) if !address.is_unix()) {
            let _ = socket.set_tcp_nodelay(true);
        }
        Some(socket)
    }

    /// The addresses of the sockets.
    pub fn addresses(&self) -> impl Iterator<Item = &str> {
        self.0.iter().map(|socket| &*socket.bound)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{SocketAddr, TcpListener, TcpStream};
    use std::os::unix::net::UnixListener;

    use super::*;

    fn any_port() -> ListenAddress {
        ListenAddress::Tcp(SocketAddr::from(([127, 0, 0, 1], 0)))
    }

    #[test]
    fn each_socket_is_taken_once_by_either_address() {
        let first = TcpListener::bind("127.0.0.1:0").unwrap();
        let second = TcpListener::bind("127.0.0.1:0").unwrap();
        let [one, two] = [&first, &second].map(|socket| socket.local_addr().unwrap());
        let mut inherited = InheritedSockets::default();
        inherited
            .add("127.0.0.1:0".to_owned(), first.into())
            .unwrap();
        inherited
            .add("127.0.0.1:0".to_owned(), second.into())
            .unwrap();
        assert!(inherited.take(&ListenAddress::Tcp(two)).is_some());
        let taken = inherited.take(&any_port()).unwrap();
        assert_eq!(taken.local_addr().unwrap().as_socket(), Some(one));
        assert!(inherited.take(&any_port()).is_none() && inherited.is_empty());
    }

    #[test]
    fn unix_socket_is_known_by_its_path() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("viewers.sock");
        let socket = UnixListener::bind(&path).unwrap();
        let mut inherited = InheritedSockets::default();
        inherited.add("other".to_owned(), socket.into()).unwrap();
        assert!(inherited.take(&any_port()).is_none());
        assert!(inherited.take(&ListenAddress::Unix(path)).is_some());
    }

    #[test]
    fn connection_is_no_listener() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let connection = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        let mut inherited = InheritedSockets::default();
        assert!(inherited.add(String::new(), connection.into()).is_err());
    }
}
