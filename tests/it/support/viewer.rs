//! The raw client of a scenario: it sees exactly what a player or a CDN would see.
//!
//! It decides itself whether a body ended by its framing or was cut off.

mod ask;
mod h2;
mod response;
mod tls;

use std::net::SocketAddr;
use std::path::Path;

use tokio::net::{TcpSocket, TcpStream, UnixStream};

pub use ask::{Ask, HOST, ask, get, head};
pub use h2::H2Viewer;
pub use response::{Arriving, CacheStatus, End, Response};
pub use tls::{ClientIdentity, Identity, TlsViewer};

use super::patience::within;
pub use super::wire::Duplex;
use super::wire::Wire;
use response::{Framing, Head, Source, read_head};

/// One HTTP/1.1 connection to the shield.
pub struct Viewer {
    wire: Wire,
}

impl Viewer {
    /// Connects over TCP.
    pub async fn connect(address: SocketAddr) -> Viewer {
        let stream = within("a connection", TcpStream::connect(address)).await;
        let stream = stream.unwrap_or_else(|why| panic!("{address} refused a viewer: {why}"));
        stream.set_nodelay(true).ok();
        Viewer::over(stream)
    }

    /// Connects over TCP with a small receive buffer, so that little is taken before it is read.
    pub async fn connect_with_small_buffer(address: SocketAddr) -> Viewer {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(32 << 10)
            .expect("a buffer size");
        let stream = within("a connection", socket.connect(address)).await;
        Viewer::over(stream.expect("the shield accepts viewers"))
    }

    /// Connects to a Unix socket.
    pub async fn connect_unix(path: &Path) -> Viewer {
        let stream = within("a connection", UnixStream::connect(path)).await;
        Viewer::over(stream.expect("the socket accepts viewers"))
    }

    /// Uses a stream that is already connected.
    pub fn over(stream: impl Duplex + 'static) -> Viewer {
        Viewer {
            wire: Wire::over(Box::new(stream)),
        }
    }

    /// GET and the whole response; the connection stays open for the next.
    pub async fn get(&mut self, target: &str) -> Response {
        self.ask(get(target)).await
    }

    /// A request and its whole response.
    pub async fn ask(&mut self, ask: Ask) -> Response {
        self.send(&ask).await;
        self.receive(&ask).await
    }

    /// Sends a request only: several in a row are a pipeline.
    pub async fn send(&mut self, ask: &Ask) {
        self.send_raw(&ask.to_bytes()).await;
    }

    /// Sends raw bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let sent = within("a request to be taken", self.wire.write(bytes)).await;
        sent.expect("the shield reads requests");
    }

    /// The whole response to this request, the oldest one without a response.
    pub async fn receive(&mut self, ask: &Ask) -> Response {
        let (head, mut framing) = self.head(ask).await;
        let mut body = Vec::new();
        let end = loop {
            let piece = framing.next(&mut self.wire);
            match within(format!("the body of {ask}"), piece).await {
                Ok(bytes) => body.extend_from_slice(&bytes),
                Err(end) => break end,
            }
        };
        Response::new(head, body.into(), end)
    }

    /// The head of a response; the scenario reads the body. Dropping it leaves early.
    pub async fn begin(mut self, ask: Ask) -> Arriving {
        self.send(&ask).await;
        self.receive_head(&ask).await
    }

    /// As [`Viewer::begin`], for a request that was sent already.
    pub async fn receive_head(mut self, ask: &Ask) -> Arriving {
        let (head, framing) = self.head(ask).await;
        Arriving::new(head, Source::H1(Box::new(self.wire), framing))
    }

    /// Waits until the shield closes the connection, and ignores the remaining bytes.
    pub async fn wait_closed(&mut self) {
        let closed =
            async { while matches!(self.wire.read_some(usize::MAX).await, Ok(Some(_))) {} };
        within("the shield to close the connection", closed).await;
    }

    async fn head(&mut self, ask: &Ask) -> (Head, Framing) {
        let head = within(
            format!("an answer to {ask}"),
            read_head(&mut self.wire, ask),
        )
        .await;
        head.unwrap_or_else(|why| panic!("no answer to {ask}: {why}"))
    }
}
