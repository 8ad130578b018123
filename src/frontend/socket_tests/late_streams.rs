//! HTTP/2: many small responses share a connection, and the last of them waits long. The clock is
//! paused while any task can run.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use http::Request;
use parking_lot::Mutex;
use tokio::io::duplex;
use tokio::time::{Instant, sleep_until};

use crate::frontend::test_support::serve_duplex;
use crate::frontend::{ConnectionEvent, Limits};
use crate::proxy::ResponseBody;

/// One chunk, which h2 then has completely.
const BODY_BYTES: usize = 30_000;

/// What a viewer received.
struct Download {
    whole: usize,
    slow_viewers: u64,
    seconds: u64,
}

/// The read rate of a viewer, for all streams together.
struct Reader {
    bytes_per_second: u64,
    free_at: Mutex<Instant>,
}

impl Reader {
    async fn read(&self, bytes: usize) {
        let read_at = {
            let mut free_at = self.free_at.lock();
            let time =
                Duration::from_secs(bytes as u64) / u32::try_from(self.bytes_per_second).unwrap();
            *free_at = (*free_at).max(Instant::now()) + time;
            *free_at
        };
        sleep_until(read_at).await;
    }

    /// Whether the response is complete.
    async fn ask(&self, client: &SendRequest<Bytes>) -> Option<bool> {
        let mut client = client.clone().ready().await.ok()?;
        let request = Request::get("http://a.example/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).ok()?;
        let mut body = response.await.ok()?.into_body();
        let mut received = 0;
        while let Some(data) = body.data().await {
            let bytes = data.ok()?.len();
            received += bytes;
            self.read(bytes).await;
            body.flow_control().release_capacity(bytes).ok()?;
        }
        Some(received == BODY_BYTES)
    }
}

/// Sends `streams` requests at once, `each` times in turn, on a connection whose window is 64 KiB
/// and opens as the viewer reads. With `has_unread_stream` there is one more stream that is never
/// read; its window lacks one byte.
async fn download(
    streams: usize,
    each: usize,
    bytes_per_second: u64,
    has_unread_stream: bool,
) -> Download {
    let began = Instant::now();
    let (viewer, transport) = duplex(64 << 10);
    let (connections, _records) = serve_duplex(Limits::default(), transport, || {
        ResponseBody::Whole(Some(Bytes::from(vec![7; BODY_BYTES])))
    });
    let mut builder = h2::client::Builder::new();
    builder.initial_window_size(u32::try_from(BODY_BYTES).unwrap() - 1);
    let (client, connection) = builder.handshake::<_, Bytes>(viewer).await.unwrap();
    tokio::spawn(connection);
    let reader = Arc::new(Reader {
        bytes_per_second,
        free_at: Mutex::new(began),
    });
    let mut unread = None;
    if has_unread_stream {
        let mut client = client.clone().ready().await.unwrap();
        let request = Request::get("http://a.example/").body(()).unwrap();
        let (response, _) = client.send_request(request, true).unwrap();
        unread = Some(response.await.unwrap());
    }
    let asking = (0..streams).map(|_| {
        let (reader, client) = (reader.clone(), client.clone());
        tokio::spawn(async move {
            let mut whole = 0;
            for _ in 0..each {
                match reader.ask(&client).await {
                    Some(is_whole) => whole += usize::from(is_whole),
                    None => break,
                }
            }
            whole
        })
    });
    let mut whole = 0;
    for asking in asking.collect::<Vec<_>>() {
        whole += asking.await.unwrap();
    }
    drop(unread);
    Download {
        whole,
        slow_viewers: connections.stats().of(ConnectionEvent::SlowViewer),
        seconds: began.elapsed().as_secs(),
    }
}

/// All streams together are read at the minimum rate, so the last one ends after a minute.
#[tokio::test(start_paused = true)]
async fn keeps_a_stream_that_waits_for_other_streams() {
    for (streams, bytes_per_second) in [(100, 50_000), (30, 20_000), (12, 10_000)] {
        let download = download(streams, 1, bytes_per_second, false).await;
        let expected = (streams, 0);
        assert_eq!(
            (download.whole, download.slow_viewers),
            expected,
            "{} s",
            download.seconds
        );
    }
}

/// Other streams do not keep the connection open forever.
#[tokio::test(start_paused = true)]
async fn cuts_a_connection_with_a_never_read_stream_after_four_windows() {
    let download = download(20, 10_000, 20_000, true).await;
    assert_eq!(download.slow_viewers, 1, "{} s", download.seconds);
    assert!(
        (80..=100).contains(&download.seconds),
        "{} s",
        download.seconds
    );
    assert!(download.whole > 20, "{} responses", download.whole);
}
