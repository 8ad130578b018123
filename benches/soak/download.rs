//! A downloading viewer: one request on its own connection, at a given rate.

use std::io;
use std::net::SocketAddr;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpSocket, TcpStream};
use tokio::time::{Instant, sleep, timeout};

/// The longest wait for a head, or for the next byte.
const PATIENCE: Duration = Duration::from_secs(40);
/// The size limit of a head.
const HEAD_BYTES_MAX: usize = 32 << 10;

/// The result of a download.
pub struct Answer {
    pub status: u16,
    /// The length that the head announced, if any.
    pub promised: Option<u64>,
    pub received: u64,
    /// From the request to the head.
    pub waited: Duration,
    /// Why the body is incomplete, if that was visible.
    pub broken: Option<io::Error>,
    /// Whether all bytes were the expected ones.
    pub is_right: bool,
}

impl Answer {
    /// Whether no cut was visible.
    pub fn ended_cleanly(&self) -> bool {
        self.broken.is_none()
    }
}

/// Sends the request, and reads at this many bytes per second if a rate is given. `expected` gets
/// each piece with its offset, and says whether the bytes are right.
pub async fn get(
    door: SocketAddr,
    lines: &str,
    rate: Option<u64>,
    expected: impl FnMut(u64, &[u8]) -> bool,
) -> io::Result<Answer> {
    let socket = TcpSocket::new_v4()?;
    if rate.is_some() {
        // A small receive buffer, so that the kernel does not read ahead at full speed.
        socket.set_recv_buffer_size(16 << 10)?;
    }
    let mut wire = socket.connect(door).await?;
    let asked = Instant::now();
    let request = format!("{lines}\r\nHost: {door}\r\nConnection: close\r\n\r\n");
    wire.write_all(request.as_bytes()).await?;
    let (head, begun) = read_head(&mut wire).await?;
    let text = String::from_utf8_lossy(&head).to_ascii_lowercase();
    let status = text
        .split(' ')
        .nth(1)
        .and_then(|status| status.parse().ok());
    let length = text
        .lines()
        .find_map(|line| line.strip_prefix("content-length:"));
    let answer = Answer {
        status: status.unwrap_or(0),
        promised: length.and_then(|length| length.trim().parse().ok()),
        received: 0,
        waited: asked.elapsed(),
        broken: None,
        is_right: true,
    };
    Ok(read_body(wire, answer, begun, rate, expected).await)
}

/// A head, and the body bytes that came with it.
async fn read_head(wire: &mut TcpStream) -> io::Result<(Vec<u8>, Vec<u8>)> {
    let mut buffer = vec![0; 16 << 10];
    let mut head = Vec::new();
    loop {
        if let Some(at) = head.windows(4).position(|four| four == b"\r\n\r\n") {
            let begun = head.split_off(at + 4);
            return Ok((head, begun));
        }
        if head.len() > HEAD_BYTES_MAX {
            return Err(io::Error::other("the head does not end"));
        }
        match timeout(PATIENCE, wire.read(&mut buffer)).await?? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            read => head.extend_from_slice(&buffer[..read]),
        }
    }
}

async fn read_body(
    mut wire: TcpStream,
    mut answer: Answer,
    mut piece: Vec<u8>,
    rate: Option<u64>,
    mut expected: impl FnMut(u64, &[u8]) -> bool,
) -> Answer {
    let mut buffer = vec![0; rate.map_or(64 << 10, |rate| rate.min(64 << 10) as usize)];
    loop {
        answer.is_right &= expected(answer.received, &piece);
        answer.received += piece.len() as u64;
        if answer
            .promised
            .is_some_and(|promised| answer.received >= promised)
        {
            return answer;
        }
        if let Some(rate) = rate {
            sleep(Duration::from_secs_f64(piece.len() as f64 / rate as f64)).await;
        }
        let read = timeout(PATIENCE, wire.read(&mut buffer)).await;
        match read.unwrap_or_else(|late| Err(late.into())) {
            Ok(0) => {
                let short = answer.promised.is_some();
                answer.broken = short.then(|| io::ErrorKind::UnexpectedEof.into());
                return answer;
            }
            Ok(read) => piece = buffer[..read].to_vec(),
            Err(why) => {
                answer.broken = Some(why);
                return answer;
            }
        }
    }
}

/// A whole small page.
pub async fn get_page(door: SocketAddr, target: &str) -> io::Result<String> {
    let mut page = Vec::new();
    let lines = format!("GET {target} HTTP/1.1");
    let answer = get(door, &lines, None, |_, piece| {
        page.extend_from_slice(piece);
        true
    });
    answer.await?;
    Ok(String::from_utf8_lossy(&page).into_owned())
}
