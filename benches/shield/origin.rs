//! The origin behind the servers: raw sockets, and a count of its requests.
//!
//! `/live/` has 2.7 KB live playlists, `/vod/` the same with an end, and any other path a 1 MiB
//! segment. The query may contain `max-age=SECONDS` and `delay=MILLISECONDS`.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use bytes::Bytes;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::task::JoinSet;

/// A request head that does not end within this is no request.
const HEAD_BYTES_MAX: usize = 64 << 10;

/// A running origin. Dropping it closes it.
pub struct Origin {
    /// Its address.
    pub address: SocketAddr,
    asked: Arc<AtomicU64>,
    _tasks: JoinSet<()>,
}

/// The content that it serves.
struct Content {
    live: Bytes,
    ended: Bytes,
    segment: Bytes,
    asked: Arc<AtomicU64>,
}

impl Origin {
    /// Starts it on the current runtime.
    pub async fn start() -> io::Result<Origin> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let address = listener.local_addr()?;
        let asked = Arc::<AtomicU64>::default();
        let content = Arc::new(Content {
            live: playlist(""),
            ended: playlist("#EXT-X-ENDLIST\n"),
            segment: vec![0x47; 1 << 20].into(),
            asked: Arc::clone(&asked),
        });
        let mut tasks = JoinSet::new();
        tasks.spawn(accept(listener, content));
        Ok(Origin {
            address,
            asked,
            _tasks: tasks,
        })
    }

    /// The number of requests with a delay, which are those of crowds. Fills that a load left
    /// behind are not counted.
    pub fn delayed_requests(&self) -> u64 {
        self.asked.load(Ordering::Relaxed)
    }
}

fn playlist(end: &str) -> Bytes {
    const HEAD: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n";
    let mut text = format!("{HEAD}#EXT-X-MEDIA-SEQUENCE:4711\n");
    for number in 4711..4743 {
        let name = format!("video_1080p_6000k_segment_{number:043}.ts");
        text.extend(["#EXTINF:6.000,\n", &name, "\n"]);
    }
    text += end;
    text.into()
}

async fn accept(listener: TcpListener, content: Arc<Content>) {
    let mut connections = JoinSet::new();
    while let Ok((stream, _)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        let content = Arc::clone(&content);
        connections.spawn(async move {
            // A peer that disconnects is no error.
            let _ = serve_connection(stream, &content).await;
        });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve_connection(mut stream: TcpStream, content: &Content) -> io::Result<()> {
    let mut read = Vec::with_capacity(8 << 10);
    loop {
        let Some(end) = head_end(&read) else {
            if read.len() > HEAD_BYTES_MAX || stream.read_buf(&mut read).await? == 0 {
                return Ok(());
            }
            continue;
        };
        let Some(wish) = Wish::read(&read[..end]) else {
            return Ok(());
        };
        if !wish.delay.is_zero() {
            content.asked.fetch_add(1, Ordering::Relaxed);
            tokio::time::sleep(wish.delay).await;
        }
        let (head, body) = answer(&wish, content);
        send(&mut stream, head.as_bytes(), &body).await?;
        if wish.last {
            return Ok(());
        }
        read.drain(..end);
    }
}

/// The offset of a message's body.
pub fn head_end(read: &[u8]) -> Option<usize> {
    let end = read.windows(4).position(|four| four == b"\r\n\r\n")?;
    Some(end + 4)
}

/// One request.
struct Wish {
    path: String,
    max_age: u64,
    delay: Duration,
    last: bool,
}

impl Wish {
    fn read(head: &[u8]) -> Option<Wish> {
        let head = std::str::from_utf8(head).ok()?;
        let target = head.split(' ').nth(1)?;
        let (path, query) = target.split_once('?').unwrap_or((target, ""));
        let number = |name: &str| {
            query
                .split('&')
                .filter_map(|pair| pair.split_once('='))
                .find(|(key, _)| *key == name)
                .and_then(|(_, value)| value.parse().ok())
        };
        Some(Wish {
            path: path.to_owned(),
            max_age: number("max-age").unwrap_or(86_400),
            delay: Duration::from_millis(number("delay").unwrap_or(0)),
            last: head.to_ascii_lowercase().contains("\r\nconnection: close"),
        })
    }
}

fn answer(wish: &Wish, content: &Content) -> (String, Bytes) {
    let (kind, body) = match wish.path.split('/').nth(1) {
        Some("live") => ("application/vnd.apple.mpegurl", &content.live),
        Some("vod") => ("application/vnd.apple.mpegurl", &content.ended),
        _ => ("video/mp2t", &content.segment),
    };
    let (length, max_age) = (body.len(), wish.max_age);
    let date = httpdate::fmt_http_date(SystemTime::now());
    let head = format!(
        "HTTP/1.1 200 OK\r\nDate: {date}\r\nContent-Type: {kind}\r\n\
         Content-Length: {length}\r\nCache-Control: max-age={max_age}\r\n\r\n"
    );
    (head, body.clone())
}

async fn send(stream: &mut TcpStream, head: &[u8], body: &[u8]) -> io::Result<()> {
    let sent = stream
        .write_vectored(&[IoSlice::new(head), IoSlice::new(body)])
        .await?;
    let Some(of_body) = sent.checked_sub(head.len()) else {
        stream.write_all(&head[sent..]).await?;
        return stream.write_all(body).await;
    };
    stream.write_all(&body[of_body..]).await
}
