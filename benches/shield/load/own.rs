//! A simple load generator: persistent connections, one request after another; only status and
//! length are checked.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep};

use super::{Load, Paths, Yield};
use crate::origin::head_end;
use crate::viewer::Head;

/// The delay before a lost connection is opened again.
const PAUSE: Duration = Duration::from_millis(10);
const BUFFER_BYTES: usize = 64 << 10;

/// State shared by all connections.
struct Tally {
    address: SocketAddr,
    paths: Paths,
    sent: AtomicU64,
    whole: AtomicU64,
    failed: AtomicU64,
}

pub(super) async fn run(load: &Load, lasting: Duration) -> Yield {
    let tally = Arc::new(Tally {
        address: load.address,
        paths: load.paths.clone(),
        sent: AtomicU64::new(0),
        whole: AtomicU64::new(0),
        failed: AtomicU64::new(0),
    });
    let began = Instant::now();
    let mut connections = JoinSet::new();
    for _ in 0..load.connections {
        connections.spawn(send_requests(Arc::clone(&tally)));
    }
    sleep(lasting).await;
    connections.shutdown().await;
    let requests = tally.whole.load(Ordering::Relaxed);
    Yield {
        requests,
        failed: tally.failed.load(Ordering::Relaxed),
        rate: requests as f64 / began.elapsed().as_secs_f64(),
    }
}

/// Until it is stopped.
async fn send_requests(tally: Arc<Tally>) {
    loop {
        if send_on_one_connection(&tally).await.is_err() {
            tally.failed.fetch_add(1, Ordering::Relaxed);
        }
        sleep(PAUSE).await;
    }
}

/// Until the connection ends.
async fn send_on_one_connection(tally: &Tally) -> io::Result<()> {
    let mut stream = TcpStream::connect(tally.address).await?;
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(BUFFER_BYTES);
    loop {
        let path = tally.paths.path(tally.sent.fetch_add(1, Ordering::Relaxed));
        let request = format!("GET {path} HTTP/1.1\r\nHost: localhost\r\n\r\n");
        stream.write_all(request.as_bytes()).await?;
        read.clear();
        let head = loop {
            match head_end(&read) {
                Some(end) => break end,
                None => read_more(&mut stream, &mut read).await?,
            };
        };
        let answer = Head::read(&read[..head]);
        let length = answer.length.filter(|_| answer.ok);
        let mut left = length.ok_or(io::ErrorKind::InvalidData)?;
        left = left.saturating_sub((read.len() - head) as u64);
        while left > 0 {
            read.clear();
            left = left.saturating_sub(read_more(&mut stream, &mut read).await? as u64);
        }
        tally.whole.fetch_add(1, Ordering::Relaxed);
    }
}

async fn read_more(stream: &mut TcpStream, read: &mut Vec<u8>) -> io::Result<usize> {
    match stream.read_buf(read).await? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        bytes => Ok(bytes),
    }
}
