//! One viewer: a connection, one request, and its response time.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::{Instant, timeout};

use crate::origin::head_end;

/// The longest wait of a viewer.
const PATIENCE: Duration = Duration::from_secs(15);

/// The result of one request.
#[derive(Clone, Copy, Debug)]
pub struct Visit {
    /// The time of the connect.
    pub began: Instant,
    /// From there until it was connected.
    pub connected_in: Duration,
    /// From there to the last byte.
    pub took: Duration,
    /// Whether it was a complete 200.
    pub whole: bool,
}

/// Connects, sends the request, and reads to the end.
pub async fn visit(address: SocketAddr, path: &str) -> Visit {
    let began = Instant::now();
    let mut connected = None;
    let asked = timeout(PATIENCE, async {
        let stream = TcpStream::connect(address).await?;
        connected = Some(Instant::now());
        ask(stream, path).await
    })
    .await;
    let ended = Instant::now();
    Visit {
        began,
        connected_in: connected.unwrap_or(ended) - began,
        took: ended - began,
        whole: matches!(asked, Ok(Ok(true))),
    }
}

async fn ask(mut stream: TcpStream, path: &str) -> io::Result<bool> {
    stream.set_nodelay(true)?;
    let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await?;

    let mut read = Vec::with_capacity(16 << 10);
    let body_starts = loop {
        if let Some(end) = head_end(&read) {
            break end;
        }
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(false);
        }
    };
    let head = Head::read(&read[..body_starts]);
    let mut body = read.split_off(body_starts);
    let mut length = body.len() as u64;
    loop {
        // Chunked: the last chunk says that it is complete.
        let tail = body.len().saturating_sub(8);
        body.drain(..tail);
        match stream.read_buf(&mut body).await? {
            0 => break,
            more => length += more as u64,
        }
    }
    Ok(head.ok
        && match head.length {
            Some(promised) => length == promised,
            None => body.ends_with(b"\r\n0\r\n\r\n"),
        })
}

/// The relevant parts of a response head.
pub struct Head {
    /// Status 200.
    pub ok: bool,
    /// `Content-Length`, if there is one.
    pub length: Option<u64>,
}

impl Head {
    /// Parses it.
    pub fn read(head: &[u8]) -> Head {
        let text = String::from_utf8_lossy(head);
        let length = text.lines().find_map(|line| {
            let (name, value) = line.split_once(':')?;
            let named = name.eq_ignore_ascii_case("content-length");
            named.then(|| value.trim().parse().ok())?
        });
        Head {
            ok: text.starts_with("HTTP/1.1 200"),
            length,
        }
    }
}
