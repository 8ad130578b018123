//! HTTP/2 frame by frame, for what a client library never sends or does not show.

use std::net::SocketAddr;
use std::path::Path;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream, UnixStream};

use super::patience::within;
use super::viewer::{Duplex, HOST};

const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

pub const DATA: u8 = 0;
pub const HEADERS: u8 = 1;
pub const PRIORITY: u8 = 2;
pub const RST_STREAM: u8 = 3;
pub const SETTINGS: u8 = 4;
pub const PING: u8 = 6;
pub const GOAWAY: u8 = 7;
pub const WINDOW_UPDATE: u8 = 8;
pub const CONTINUATION: u8 = 9;

pub const ACK: u8 = 0x1;
pub const END_STREAM: u8 = 0x1;
pub const END_HEADERS: u8 = 0x4;

pub const ENHANCE_YOUR_CALM: u32 = 11;

/// A frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Frame {
    pub kind: u8,
    pub flags: u8,
    pub stream: u32,
    pub payload: Vec<u8>,
}

/// A frame to send.
pub fn frame(kind: u8, flags: u8, stream: u32, payload: &[u8]) -> Frame {
    Frame {
        kind,
        flags,
        stream,
        payload: payload.to_vec(),
    }
}

/// A `WINDOW_UPDATE`.
pub fn window_update(stream: u32, bytes: u32) -> Frame {
    frame(WINDOW_UPDATE, 0, stream, &bytes.to_be_bytes())
}

/// A SETTINGS frame with the initial window of new streams; it also changes the windows of open
/// ones.
pub fn initial_window(bytes: u32) -> Frame {
    let mut payload = vec![0, 4];
    payload.extend_from_slice(&bytes.to_be_bytes());
    frame(SETTINGS, 0, 0, &payload)
}

/// A request's HEADERS. With `is_whole` it ends the stream.
pub fn request(stream: u32, method: &str, path: &str, is_whole: bool) -> Frame {
    let flags = END_HEADERS | if is_whole { END_STREAM } else { 0 };
    frame(HEADERS, flags, stream, &fields(method, path, HOST))
}

/// A request's fields in HPACK, without tables.
pub fn fields<'a>(method: &str, path: &str, host: impl Into<Option<&'a str>>) -> Vec<u8> {
    // Index 6 is `:scheme: http`; 1, 2 and 4 name `:authority`, `:method` and `:path`.
    let mut block = vec![0x86];
    let host = host.into().map(|host| (1, host));
    for (name, value) in host.into_iter().chain([(2, method), (4, path)]) {
        block.push(name);
        block.extend(text(value));
    }
    block
}

/// One more field in HPACK.
pub fn field(name: &str, value: &str) -> Vec<u8> {
    [vec![0], text(name), text(value)].concat()
}

fn text(text: &str) -> Vec<u8> {
    let length = u8::try_from(text.len()).ok();
    let length = length.filter(|length| *length < 127).expect("a short text");
    [&[length], text.as_bytes()].concat()
}

impl Frame {
    pub fn to_bytes(&self) -> Vec<u8> {
        let [_, l2, l1, l0] = u32::try_from(self.payload.len())
            .expect("a payload that fits")
            .to_be_bytes();
        let mut bytes = vec![l2, l1, l0, self.kind, self.flags];
        bytes.extend_from_slice(&self.stream.to_be_bytes());
        bytes.extend_from_slice(&self.payload);
        bytes
    }

    /// The error code of a GOAWAY or a `RST_STREAM`.
    pub fn error_code(&self) -> u32 {
        let start = if self.kind == GOAWAY { 4 } else { 0 };
        let code = self.payload[start..].first_chunk();
        u32::from_be_bytes(*code.expect("an error code"))
    }
}

/// An HTTP/2 connection that sends and receives single frames.
pub struct FrameViewer {
    stream: Box<dyn Duplex>,
}

impl FrameViewer {
    /// By prior knowledge, over TCP, with a small receive buffer.
    pub async fn connect(address: SocketAddr) -> FrameViewer {
        let socket = TcpSocket::new_v4().expect("a socket");
        socket
            .set_recv_buffer_size(64 << 10)
            .expect("a buffer size");
        let stream = within("a connection", socket.connect(address)).await;
        let stream = stream.expect("the shield accepts viewers");
        stream.set_nodelay(true).ok();
        FrameViewer::over(stream).await
    }

    /// By prior knowledge, over a Unix socket.
    pub async fn connect_unix(path: &Path) -> FrameViewer {
        let stream = within("a connection", UnixStream::connect(path)).await;
        FrameViewer::over(stream.expect("the socket accepts viewers")).await
    }

    /// Sends the preface and empty settings.
    pub async fn over(stream: impl Duplex + 'static) -> FrameViewer {
        let mut viewer = FrameViewer::without_preface(stream);
        viewer.send_raw(PREFACE).await;
        viewer.send(&[frame(SETTINGS, 0, 0, &[])]).await;
        viewer
    }

    /// Sends nothing by itself.
    pub fn without_preface(stream: impl Duplex + 'static) -> FrameViewer {
        FrameViewer {
            stream: Box::new(stream),
        }
    }

    /// Connects and sends nothing by itself.
    pub async fn connect_without_preface(address: SocketAddr) -> FrameViewer {
        let stream = within("a connection", TcpStream::connect(address)).await;
        FrameViewer::without_preface(stream.expect("the shield accepts viewers"))
    }

    /// Sends frames; only responses show whether they arrived.
    pub async fn send(&mut self, frames: &[Frame]) {
        let bytes: Vec<u8> = frames.iter().flat_map(Frame::to_bytes).collect();
        self.send_raw(&bytes).await;
    }

    /// Sends raw bytes.
    pub async fn send_raw(&mut self, bytes: &[u8]) {
        let sending = async {
            // The shield may have closed the connection.
            let _ = self.stream.write_all(bytes).await;
            let _ = self.stream.flush().await;
        };
        within("frames to be taken", sending).await;
    }

    /// The next frame; `None` when the connection ends, cleanly or not.
    pub async fn next(&mut self) -> Option<Frame> {
        within("a frame", self.read()).await
    }

    /// Reads up to a frame for which this holds; `None` if the connection ends before.
    pub async fn read_until(&mut self, wanted: impl Fn(&Frame) -> bool) -> Option<Frame> {
        let reading = async {
            loop {
                let frame = self.read().await?;
                if wanted(&frame) {
                    return Some(frame);
                }
            }
        };
        within("that frame, or the end", reading).await
    }

    /// All remaining frames.
    pub async fn read_rest(&mut self) -> Vec<Frame> {
        let reading = async {
            let mut frames = Vec::new();
            while let Some(frame) = self.read().await {
                frames.push(frame);
            }
            frames
        };
        within("the end of the connection", reading).await
    }

    async fn read(&mut self) -> Option<Frame> {
        let mut head = [0; 9];
        self.stream.read_exact(&mut head).await.ok()?;
        let [l2, l1, l0, kind, flags, s3, s2, s1, s0] = head;
        let length = u32::from_be_bytes([0, l2, l1, l0]);
        let mut payload = vec![0; length as usize];
        self.stream.read_exact(&mut payload).await.ok()?;
        Some(Frame {
            kind,
            flags,
            stream: u32::from_be_bytes([s3, s2, s1, s0]),
            payload,
        })
    }
}
