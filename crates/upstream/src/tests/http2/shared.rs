//! Faults on shared HTTP/2 connections: of one stream, or of the whole connection.

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;
use crate::tests::LONG;

/// Applies this to the stream of the second request; answers all others.
async fn spoils_the_second(spoil: impl Fn(Stream) + Copy + Send + 'static) -> Scripted {
    let asked = Arc::new(AtomicUsize::new(0));
    play(usize::MAX, move |mut stream| {
        let number = asked.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 1 {
                spoil(stream);
            } else {
                stream.whole("hello");
            }
        }
    })
    .await
}

fn without_retries(script: &Scripted) -> Arc<Origin> {
    let mut settings = h2(script);
    settings.retry.attempts_max = 0;
    crate::tests::origin(settings)
}

#[tokio::test]
async fn stream_reset_is_not_resent_and_keeps_the_connection() {
    for reason in [
        Reason::INTERNAL_ERROR,
        Reason::CANCEL,
        Reason::ENHANCE_YOUR_CALM,
    ] {
        let script = spoils_the_second(move |mut stream| stream.respond.send_reset(reason)).await;
        let origin = without_retries(&script);
        assert_eq!(whole(&origin, get("/1")).await.unwrap().1, "hello");
        let (failure, _) = whole(&origin, get("/2")).await.unwrap_err();
        assert_eq!(failure, Failure::Reset);
        assert_eq!(origin.stats().total.resent, 0, "{reason:?}");
        assert_eq!(whole(&origin, get("/3")).await.unwrap().1, "hello");
        assert_eq!(script.accepted.load(Ordering::SeqCst), 1, "{reason:?}");
    }
}

#[tokio::test]
async fn reset_midway_through_a_body_keeps_the_connection() {
    let script = spoils_the_second(|mut stream| {
        let mut sending = stream.head(Some(10), false);
        sending.send_data("hello".into(), false).unwrap();
        sending.send_reset(Reason::INTERNAL_ERROR);
    })
    .await;
    let origin = without_retries(&script);
    assert_eq!(whole(&origin, get("/1")).await.unwrap().1, "hello");
    assert!(whole(&origin, get("/2")).await.is_err());
    assert_eq!(whole(&origin, get("/3")).await.unwrap().1, "hello");
    assert_eq!(script.accepted.load(Ordering::SeqCst), 1);
}

/// Never answers `/hangs`, and signals when it is requested; sends a chunk of `/long` on each
/// signal.
async fn hangs_and_flows(hung: &Arc<Notify>, more: &Arc<Notify>) -> Scripted {
    let (hung, more) = (hung.clone(), more.clone());
    play(usize::MAX, move |mut stream| {
        let (hung, more) = (hung.clone(), more.clone());
        async move {
            match stream.request.uri().path() {
                "/hangs" => {
                    hung.notify_one();
                    std::future::pending::<()>().await;
                }
                "/long" => {
                    let mut sending = stream.head(None, false);
                    loop {
                        sending.send_data("hello".into(), false).unwrap();
                        more.notified().await;
                    }
                }
                _ => stream.whole("hello"),
            }
        }
    })
    .await
}

#[tokio::test]
async fn late_stream_keeps_the_connection_only_if_others_progress() {
    for flows in [true, false] {
        let (hung, more) = (Arc::default(), Arc::default());
        let script = hangs_and_flows(&hung, &more).await;
        let mut settings = h2(&script);
        settings.retry.attempts_max = 0;
        settings.deadlines.first_byte = SHORT * 3;
        let origin = crate::tests::origin(settings);
        let mut long = origin.fetch(get("/long")).await.ok().unwrap();
        assert_eq!(long.body.next().await, Some(Ok("hello".into())));
        let (late, ()) = tokio::join!(whole(&origin, get("/hangs")), async {
            hung.notified().await;
            if flows {
                more.notify_one();
                assert_eq!(long.body.next().await, Some(Ok("hello".into())));
            }
        });
        assert_eq!(late.unwrap_err().0, Failure::Timeout);
        assert_eq!(whole(&origin, get("/x")).await.unwrap().1, "hello");
        let connections = if flows { 1 } else { 2 };
        assert_eq!(script.accepted.load(Ordering::SeqCst), connections);
        more.notify_one();
        assert_eq!(
            long.body.next().await,
            Some(Ok("hello".into())),
            "its open streams stay on it"
        );
    }
}

/// Frame types.
const HEADERS: u8 = 1;
const SETTINGS: u8 = 4;
const GOAWAY: u8 = 7;
/// `END_HEADERS` and `END_STREAM`; on SETTINGS the latter's bit means ACK.
const WHOLE: u8 = 5;
const READ: u8 = 1;

async fn say(wire: &mut TcpStream, kind: u8, flags: u8, stream: u32, payload: &[u8]) {
    let length = u32::try_from(payload.len()).unwrap().to_be_bytes();
    let mut frame = length[1..].to_vec();
    frame.extend([kind, flags]);
    frame.extend(stream.to_be_bytes());
    frame.extend(payload);
    wire.write_all(&frame).await.unwrap();
}

/// Fault for the second request of a connection.
#[derive(Clone, Copy, PartialEq)]
enum End {
    /// GOAWAY with an error that excludes the request.
    Goodbye,
    /// Close the connection.
    Close,
}

/// Writes frames directly: the first connection ends at its second request, the others answer all.
async fn speak(mut wire: TcpStream, end: Option<End>) -> std::io::Result<()> {
    wire.read_exact(&mut [0; 24]).await?;
    say(&mut wire, SETTINGS, 0, 0, &[]).await;
    loop {
        let mut head = [0; 9];
        wire.read_exact(&mut head).await?;
        let length = u32::from_be_bytes([0, head[0], head[1], head[2]]);
        let mut payload = vec![0; length as usize];
        wire.read_exact(&mut payload).await?;
        let stream = u32::from_be_bytes([head[5], head[6], head[7], head[8]]);
        match (head[3], end) {
            (SETTINGS, _) if head[4] & READ == 0 => say(&mut wire, SETTINGS, READ, 0, &[]).await,
            (HEADERS, Some(End::Close)) if stream > 1 => return Ok(()),
            (HEADERS, Some(End::Goodbye)) if stream > 1 => {
                let last = 1_u32.to_be_bytes();
                let why = u32::from(Reason::ENHANCE_YOUR_CALM).to_be_bytes();
                say(&mut wire, GOAWAY, 0, 0, &[last, why].concat()).await;
            }
            // Status 200, by its index in the HPACK static table.
            (HEADERS, _) => say(&mut wire, HEADERS, WHOLE, stream, &[0x88]).await,
            _ => {}
        }
    }
}

#[tokio::test]
async fn unanswered_request_on_lost_connection_is_resent() {
    for end in [End::Goodbye, End::Close] {
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let mut tasks = JoinSet::new();
        tasks.spawn(async move {
            let mut wires = JoinSet::new();
            let mut end = Some(end);
            while let Ok((wire, _)) = listener.accept().await {
                wires.spawn(speak(wire, end.take()));
            }
        });
        let mut settings = crate::tests::settings(address);
        settings.protocol = Protocol::H2;
        settings.retry.attempts_max = 0;
        settings.deadlines.first_byte = LONG;
        let origin = crate::tests::origin(settings);
        for _ in 0..3 {
            assert_eq!(whole(&origin, get("/x")).await.unwrap().0, 200);
        }
        let stats = origin.stats().total;
        assert_eq!((stats.resent, stats.connections_new), (1, 2));
    }
}
