//! A range gets exactly its bytes, from memory or from a fill in progress.

use bytes::Bytes;

use crate::support::origin::Reply;
use crate::support::{End, Gate, Origin, Response, Shield, get, noise, reply, segment};

const PATH: &str = "/vod/seg1.ts";

async fn holding(body: &Bytes) -> (Origin, Shield) {
    let object = segment(body.clone()).etag("\"1\"");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(body);
    (origin, shield)
}

#[track_caller]
fn is_part(answer: &Response, body: &Bytes, start: usize, end: usize) {
    answer.assert_is(206, &body[start..end]);
    let range = format!("bytes {start}-{}/{}", end - 1, body.len());
    assert_eq!(answer.header("content-range"), Some(&*range));
}

/// Single, open and suffix ranges from memory.
#[tokio::test]
async fn single_open_and_suffix_ranges_get_206() {
    let body = noise(1, 1000);
    let (origin, shield) = holding(&body).await;
    let cases = [
        ("0-99", 0, 100),
        ("100-199", 100, 200),
        ("999-999", 999, 1000),
        ("900-", 900, 1000),
        ("-10", 990, 1000),
        ("-5000", 0, 1000),
        ("500-9999", 500, 1000),
    ];
    for (range, start, end) in cases {
        is_part(&shield.ask(get(PATH).range(range)).await, &body, start, end);
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// A range behind the end: 416 and the length.
#[tokio::test]
async fn range_beyond_the_end_gets_416() {
    let (_origin, shield) = holding(&noise(1, 1000)).await;
    for range in ["1000-", "2000-3000", "-0"] {
        let answer = shield.ask(get(PATH).range(range)).await;
        assert_eq!(
            (answer.status, answer.end),
            (416, End::Whole),
            "{range}: {answer:?}"
        );
        assert_eq!(answer.header("content-range"), Some("bytes */1000"));
    }
}

/// Invalid ranges and too many ranges get the whole object.
#[tokio::test]
async fn invalid_or_too_many_ranges_get_whole_object() {
    let body = noise(1, 1000);
    let (_origin, shield) = holding(&body).await;
    let thousand = vec!["0-0"; 1000].join(",");
    let past_u64 = "0-18446744073709551616, 1";
    for range in [
        "",
        "5-1",
        "a-b",
        "1",
        past_u64,
        "0-999,0-999,0-999",
        &thousand,
    ] {
        shield.ask(get(PATH).range(range)).await.assert_whole(&body);
    }
    shield
        .ask(get(PATH).header("Range", "lines=1-2"))
        .await
        .assert_whole(&body);
}

/// Several ranges: `multipart/byteranges`, each part with its own `Content-Range`.
#[tokio::test]
async fn several_ranges_get_multipart_byteranges() {
    let body = Bytes::from("0123456789".repeat(100));
    let (_origin, shield) = holding(&body).await;
    let answer = shield.ask(get(PATH).range("0-4,100-104,-3")).await;
    assert_eq!((answer.status, answer.end), (206, End::Whole), "{answer:?}");
    let media_type = answer.header("content-type").unwrap();
    let boundary = media_type
        .strip_prefix("multipart/byteranges; boundary=")
        .unwrap();
    let boundary = boundary.trim_matches('"');
    let parts: Vec<&str> = answer.text().split(&format!("--{boundary}")).collect();
    let wanted = [("bytes 0-4/1000", "01234"), ("bytes 100-104/1000", "01234")];
    for ((range, bytes), part) in wanted
        .into_iter()
        .chain([("bytes 997-999/1000", "789")])
        .zip(&parts[1..])
    {
        assert!(
            part.to_ascii_lowercase()
                .contains(&format!("content-range: {range}")),
            "{part}"
        );
        assert!(part.contains("video/mp2t"), "{part}");
        assert!(
            part.trim_end_matches("\r\n")
                .ends_with(&format!("\r\n\r\n{bytes}")),
            "{part}"
        );
    }
    assert_eq!(parts.len(), 5, "a preamble, three parts and the end");
    assert_eq!(parts[4].trim_end(), "--");
}

/// `If-Range`: the part while the object is unchanged, the whole otherwise.
#[tokio::test]
async fn if_range_mismatch_gets_whole_object() {
    let body = noise(1, 1000);
    let (_origin, shield) = holding(&body).await;
    let ask = |etag| get(PATH).range("0-99").header("If-Range", etag);
    is_part(&shield.ask(ask("\"1\"")).await, &body, 0, 100);
    shield.ask(ask("\"2\"")).await.assert_whole(&body);
    shield.ask(ask("W/\"1\"")).await.assert_whole(&body);
}

/// A range of an object that is not stored fetches the whole object, once, without `Range`.
#[tokio::test]
async fn range_miss_fetches_whole_object_once() {
    let body = noise(1, 100_000);
    let origin = Origin::start().await.on(
        PATH,
        reply().content_type("video/mp2t").with_ranges(body.clone()),
    );
    let shield = Shield::in_front_of(&origin).start().await;
    is_part(
        &shield.ask(get(PATH).range("500-999")).await,
        &body,
        500,
        1000,
    );
    assert_eq!(origin.latest(PATH).header("range"), None);
    is_part(
        &shield.ask(get(PATH).range("90000-")).await,
        &body,
        90_000,
        100_000,
    );
    assert!(shield.get(PATH).await.assert_whole(&body).is_hit());
    assert_eq!(origin.hits(PATH), 1);
}

/// A range during a fill gets its bytes as soon as they have arrived.
#[tokio::test]
async fn range_is_served_from_fill_in_progress() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let half = segment(body.slice(..500)).content_length(1000).hold(&gate);
    let origin = Origin::start().await.on(PATH, half.send(body.slice(500..)));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut whole = shield.begin(get(PATH)).await;
    whole.read(500).await;
    is_part(
        &shield.ask(get(PATH).range("100-199")).await,
        &body,
        100,
        200,
    );
    let mut across = shield.begin(get(PATH).range("400-599")).await;
    assert_eq!(across.read(100).await, body.slice(400..500));
    let behind = shield.crowd(1, get(PATH).range("600-699")).await;
    gate.open();
    is_part(&across.finish().await, &body, 400, 600);
    is_part(&behind.read_all().await[0], &body, 600, 700);
    whole.finish().await.assert_whole(&body);
    assert_eq!(origin.hits(PATH), 1);
}

/// A range from a fill that breaks is cut, never ended.
#[tokio::test]
async fn range_from_broken_fill_is_cut() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let half = segment(body.slice(..500)).content_length(1000).hold(&gate);
    let origin = Origin::start().await.on(PATH, half.close());
    let shield = Shield::in_front_of(&origin).start().await;
    let mut across = shield.begin(get(PATH).range("400-599")).await;
    across.read(100).await;
    gate.open();
    across.finish().await.assert_cut(&body[400..600]);
}

/// A body of unknown length, whose second half is sent when the gate opens.
fn growing(body: &Bytes, gate: &Gate) -> Reply {
    let half = body.len() / 2;
    let start = reply().content_type("video/mp2t").chunked();
    let start = start.send(body.slice(..half)).hold(gate);
    start.send(body.slice(half..))
}

/// While the length is unknown, an open or long range does not wait: the whole body follows the
/// fill at once.
#[tokio::test]
async fn open_range_of_unknown_length_streams_whole_body() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let origin = Origin::start().await.on(PATH, growing(&body, &gate));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewers = Vec::new();
    for range in ["0-", "200-", "-100", "0-99999999999"] {
        let mut viewer = shield.begin(get(PATH).range(range)).await;
        assert_eq!(viewer.status, 200, "{range}");
        assert_eq!(viewer.read(500).await, body.slice(..500), "{range}");
        viewers.push(viewer);
    }
    gate.open();
    for viewer in viewers {
        viewer.finish().await.assert_whole(&body);
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// A short range with an end is answered as soon as its bytes have arrived.
#[tokio::test]
async fn short_range_of_unknown_length_is_answered_at_once() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let origin = Origin::start().await.on(PATH, growing(&body, &gate));
    let shield = Shield::in_front_of(&origin).start().await;
    for (range, start, end) in [("0-99", 0, 100), ("100-299", 100, 300)] {
        let part = shield.ask(get(PATH).range(range)).await;
        part.assert_is(206, &body[start..end]);
        assert_eq!(
            part.header("content-range"),
            Some(&*format!("bytes {range}/*"))
        );
    }
    gate.open();
    shield.get(PATH).await.assert_whole(&body);
    assert_eq!(origin.hits(PATH), 1);
}

/// A 416 says nothing about the object: it may not be stored, and has none of the object's fields.
#[tokio::test]
async fn unsatisfiable_range_response_is_no_store() {
    let object = segment(noise(1, 1000))
        .cache_control("public, max-age=60")
        .header("ETag", "\"1\"")
        .header("Content-Encoding", "gzip");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        let ask = get(PATH).range("1000-").header("Accept-Encoding", "gzip");
        let answer = shield.ask(ask).await;
        assert_eq!(answer.status, 416, "{answer:?}");
        assert_eq!(answer.header("content-range"), Some("bytes */1000"));
        assert_eq!(answer.fields.all("cache-control"), ["no-store"]);
        for name in ["etag", "content-encoding", "content-type"] {
            assert_eq!(answer.header(name), None, "{name}");
        }
    }
}
