//! A player's HTTP/1.1 connection, opened again when it is closed.

use std::future::poll_fn;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::time::Duration;

use bytes::{Bytes, BytesMut};
use http::header::HOST;
use http::{Request, StatusCode};
use http_body::Body;
use hyper::body::Incoming;
use hyper::client::conn::http1::{self, SendRequest};
use hyper_util::rt::TokioIo;
use tokio::net::TcpStream;
use tokio::task::JoinHandle;
use tokio::time::timeout;

/// Longer than any origin delays a response.
const RESPONSE_TIMEOUT: Duration = Duration::from_secs(40);

/// No body of the stream is larger.
const BODY_BYTES_MAX: usize = 64 << 20;

/// A connection, opened when it is needed.
pub(super) struct PlayerConnection {
    server: SocketAddr,
    open: Option<OpenConnection>,
}

struct OpenConnection {
    sender: SendRequest<String>,
    driver: JoinHandle<()>,
}

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.driver.abort();
    }
}

impl PlayerConnection {
    pub(super) fn to(server: SocketAddr) -> PlayerConnection {
        PlayerConnection { server, open: None }
    }

    /// Requests a target and reads the whole response.
    pub(super) async fn get(&mut self, target: &str) -> io::Result<(StatusCode, Bytes)> {
        let response = timeout(RESPONSE_TIMEOUT, self.answer(target)).await;
        let response = response.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        if response.is_err() {
            self.open = None;
        }
        response
    }

    async fn answer(&mut self, target: &str) -> io::Result<(StatusCode, Bytes)> {
        let request = Request::get(target)
            .header(HOST, self.server.to_string())
            .body(String::new())
            .map_err(io::Error::other)?;
        let sender = self.ready().await?;
        let response = sender.send_request(request).await;
        let (head, body) = response.map_err(io::Error::other)?.into_parts();
        Ok((head.status, read_body(body).await?))
    }

    /// The sender of a connection that can take a request.
    async fn ready(&mut self) -> io::Result<&mut SendRequest<String>> {
        let is_usable = match &mut self.open {
            Some(open) => open.sender.ready().await.is_ok(),
            None => false,
        };
        if !is_usable {
            self.open = None;
        }
        let open = match self.open.take() {
            Some(open) => open,
            None => OpenConnection::to(self.server).await?,
        };
        Ok(&mut self.open.insert(open).sender)
    }
}

impl OpenConnection {
    async fn to(server: SocketAddr) -> io::Result<OpenConnection> {
        let stream = TcpStream::connect(server).await?;
        stream.set_nodelay(true)?;
        let handshake = http1::handshake(TokioIo::new(stream)).await;
        let (sender, connection) = handshake.map_err(io::Error::other)?;
        let driver = tokio::spawn(async move {
            // An error also fails the response that is waited for.
            let _ = connection.await;
        });
        Ok(OpenConnection { sender, driver })
    }
}

async fn read_body(mut body: Incoming) -> io::Result<Bytes> {
    let mut bytes = BytesMut::new();
    while let Some(frame) = poll_fn(|context| Pin::new(&mut body).poll_frame(context)).await {
        let Ok(data) = frame.map_err(io::Error::other)?.into_data() else {
            continue;
        };
        if bytes.len() + data.len() > BODY_BYTES_MAX {
            return Err(io::Error::other("too large"));
        }
        bytes.extend_from_slice(&data);
    }
    Ok(bytes.freeze())
}
