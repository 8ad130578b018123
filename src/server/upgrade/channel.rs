//! The channel between the process that serves and the one that an upgrade starts: a Unix socket
//! pair. Messages are JSON with their length before it; descriptors come with the first byte.
//!
//! The two processes may be of different versions: fields are only added, and unknown ones are
//! ignored.

use std::io::{self, IoSlice, IoSliceMut, Read, Write};
use std::mem::MaybeUninit;
use std::os::fd::{BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags, recvmsg, sendmsg,
};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// Descriptors of one message: no more fit into one.
pub(super) const DESCRIPTORS_MAX: usize = 250;

/// More than the longest message.
const MESSAGE_BYTES_MAX: usize = 1 << 20;

/// The message is in the buffer of the socket by then.
const SEND_MAX: Duration = Duration::from_secs(5);

/// What the process that serves tells the new one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UpgradeOrder {
    /// The first message. It comes with the descriptors of standard error, of each socket, and of
    /// each connection for objects.
    Inherit {
        /// The sockets' addresses, as in the configuration: port 0 is written as such.
        listen: Vec<String>,
        /// How many connections follow the sockets, over which stored objects can be had.
        #[serde(default)]
        objects: usize,
    },
    /// Begin to accept connections.
    Serve,
    /// From now on the new process is the server; the other one drains.
    TakeOver,
}

/// What the new process tells the one that serves.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum UpgradeProgress {
    /// Everything that can fail is done.
    Prepared {
        /// The version of the program.
        version: String,
    },
    /// Every worker accepts connections.
    Serving,
    /// The new process ends.
    Failed {
        /// Why, for operators.
        error: String,
    },
}

/// One end of the channel.
pub(super) struct UpgradeChannel(UnixStream);

impl UpgradeChannel {
    pub(super) fn new(socket: UnixStream) -> UpgradeChannel {
        UpgradeChannel(socket)
    }

    /// Another handle of the same end.
    pub(super) fn try_clone(&self) -> io::Result<UpgradeChannel> {
        self.0.try_clone().map(UpgradeChannel)
    }

    pub(super) fn send<M: Serialize>(&self, message: &M) -> io::Result<()> {
        self.send_with(message, &[])
    }

    /// Sends a message with descriptors, of which the other process gets duplicates.
    pub(super) fn send_with<M: Serialize>(
        &self,
        message: &M,
        descriptors: &[BorrowedFd<'_>],
    ) -> io::Result<()> {
        let body = serde_json::to_vec(message)?;
        let length = u32::try_from(body.len()).map_err(io::Error::other)?;
        self.0.set_write_timeout(Some(SEND_MAX))?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = SendAncillaryBuffer::new(&mut space);
        if !descriptors.is_empty() && !control.push(SendAncillaryMessage::ScmRights(descriptors)) {
            return Err(io::Error::other("too many sockets for one message"));
        }
        let length = length.to_be_bytes();
        let head = [IoSlice::new(&length)];
        let sent = sendmsg(&self.0, &head, &mut control, SendFlags::NOSIGNAL)?;
        (&self.0).write_all(&length[sent..])?;
        (&self.0).write_all(&body)
    }

    /// The next message. `UnexpectedEof`: the other process has closed its end.
    pub(super) fn receive<M: DeserializeOwned>(&self, deadline: Instant) -> io::Result<M> {
        self.receive_with(deadline).map(|(message, _)| message)
    }

    /// The next message, with its descriptors.
    pub(super) fn receive_with<M: DeserializeOwned>(
        &self,
        deadline: Instant,
    ) -> io::Result<(M, Vec<OwnedFd>)> {
        self.wait_until(deadline)?;
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(DESCRIPTORS_MAX))];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut length = [0; 4];
        let mut head = [IoSliceMut::new(&mut length)];
        let received = recvmsg(&self.0, &mut head, &mut control, RecvFlags::CMSG_CLOEXEC)?.bytes;
        let mut descriptors = Vec::new();
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(received) = message {
                descriptors.extend(received);
            }
        }
        if received == 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.read_exact(&mut length[received..], deadline)?;
        let length = u32::from_be_bytes(length) as usize;
        if length > MESSAGE_BYTES_MAX {
            return Err(io::Error::other("the message is too long"));
        }
        let mut body = vec![0; length];
        self.read_exact(&mut body, deadline)?;
        Ok((serde_json::from_slice(&body)?, descriptors))
    }

    fn read_exact(&self, mut bytes: &mut [u8], deadline: Instant) -> io::Result<()> {
        while !bytes.is_empty() {
            self.wait_until(deadline)?;
            match (&self.0).read(bytes)? {
                0 => return Err(io::ErrorKind::UnexpectedEof.into()),
                count => bytes = &mut bytes[count..],
            }
        }
        Ok(())
    }

    /// Limits the next wait.
    fn wait_until(&self, deadline: Instant) -> io::Result<()> {
        match deadline.saturating_duration_since(Instant::now()) {
            Duration::ZERO => Err(io::ErrorKind::TimedOut.into()),
            remaining => self.0.set_read_timeout(Some(remaining)),
        }
    }
}

/// Whether an error says that the deadline has passed.
pub(super) fn is_timeout(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::TimedOut | io::ErrorKind::WouldBlock
    )
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::fd::AsFd;

    use super::*;

    fn pair() -> (UpgradeChannel, UpgradeChannel) {
        let (one, other) = UnixStream::pair().unwrap();
        (UpgradeChannel(one), UpgradeChannel(other))
    }

    fn soon() -> Instant {
        Instant::now() + Duration::from_secs(10)
    }

    #[test]
    fn sockets_arrive_with_their_addresses() {
        let (old, new) = pair();
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let listen = vec!["127.0.0.1:0".to_owned()];
        let objects = 0;
        let order = UpgradeOrder::Inherit { listen, objects };
        old.send_with(&order, &[socket.as_fd()]).unwrap();
        old.send(&UpgradeOrder::Serve).unwrap();
        let (order, mut descriptors) = new.receive_with(soon()).unwrap();
        let UpgradeOrder::Inherit { listen, .. } = order else {
            panic!("{order:?}");
        };
        assert_eq!(listen, ["127.0.0.1:0"]);
        let received = TcpListener::from(descriptors.pop().unwrap());
        assert_eq!(received.local_addr().unwrap(), socket.local_addr().unwrap());
        assert!(descriptors.is_empty());
        assert!(matches!(new.receive(soon()), Ok(UpgradeOrder::Serve)));
    }

    #[test]
    fn end_of_the_other_process_and_its_silence_are_different() {
        let (old, new) = pair();
        let error = new.receive::<UpgradeOrder>(Instant::now() + Duration::from_millis(1));
        assert!(is_timeout(&error.unwrap_err()));
        drop(old);
        let error = new.receive::<UpgradeOrder>(soon()).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::UnexpectedEof);
    }

    #[test]
    fn rejects_what_is_no_message() {
        let (one, other) = UnixStream::pair().unwrap();
        (&one).write_all(b"HTTP/1.1 200 OK\r\n\r\n").unwrap();
        let new = UpgradeChannel(other);
        assert!(new.receive::<UpgradeOrder>(soon()).is_err());
    }
}
