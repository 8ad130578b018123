//! Bodies of two endpoints are combined only if they are the same object, and one endpoint's
//! refusal does not hide the other's object.

use std::time::Duration;

use bytes::Bytes;
use seawall_upstream::Balance;

use crate::support::origin::{Reply, Script};
use crate::support::shield::Builder;
use crate::support::{
    End, Gate, Origin, Response, Shield, computed, get, manifest, noise, playlist, reply, segment,
    status,
};

const PATH: &str = "/live/index.m3u8";
const SEGMENT: &str = "/live/seg1.ts";

/// The first endpoint is preferred. No deadline passes within these scenarios.
fn in_front_of(endpoints: &[&Origin]) -> Builder {
    let first = Shield::in_front_of(endpoints[0]).without_deadlines();
    let others = endpoints[1..].iter();
    others.fold(first, |builder, other| builder.and_endpoint(other))
}

/// Objects above 256 KiB are fetched in slices of 64 KiB.
fn sliced(first: &Origin, second: &Origin) -> Builder {
    in_front_of(&[first, second]).proxy_settings(|settings| {
        settings.whole_fetch_max = 256 << 10;
        settings.slice_bytes = 64 << 10;
    })
}

/// How a slice ends after its first bytes: it gets the response so far and the rest of the body.
type SliceEnd = fn(Reply, &Bytes) -> Reply;

/// The slice stalls, is cut off, or becomes too slow.
const SLICE_ENDS: [SliceEnd; 3] = [
    |begun, _| begun.stall(),
    |begun, _| begun.close(),
    |begun, rest| begun.send_slowly(rest, 100, Duration::from_millis(100)),
];

/// An object whose slices all end that way after 1000 bytes.
fn with_slices_that(end: SliceEnd, body: &Bytes, etag: &'static str) -> Script {
    let body = body.clone();
    computed(move |asked| match asked.range(body.len()) {
        None => segment(Bytes::new()).etag(etag).with_ranges(body.clone()),
        Some((from, to)) => {
            let length = body.len();
            let begun = status(206)
                .header("ETag", etag)
                .header("Content-Range", format!("bytes {from}-{}/{length}", to - 1))
                .content_length((to - from) as u64)
                .send(body.slice(from..from + 1000));
            end(begun, &body.slice(from + 1000..to))
        }
    })
}

/// The first endpoint is a little late. The second is requested meanwhile and answers 404 at once;
/// nothing stored or listed says that the object exists.
#[tokio::test]
async fn refusal_does_not_win_while_other_endpoint_is_late() {
    for refusal in [403, 404, 410, 302, 416] {
        for (path, body) in [(PATH, playlist(1)), (SEGMENT, "segment".to_owned())] {
            let gate = Gate::new();
            let late = match path {
                PATH => manifest(body.clone()),
                _ => segment(body.clone()),
            };
            let first = Origin::start().await.on(path, late.hold_head(&gate));
            let second = Origin::start().await.on(path, status(refusal));
            let shield = in_front_of(&[&first, &second]).start().await;
            let waiting = shield.crowd(3, get(path)).await;
            second.wait_hits(path, 1).await;
            gate.open();
            for answer in waiting.read_all().await {
                answer.assert_whole(&body);
            }
            assert_eq!((first.hits(path), second.hits(path)), (1, 1));
        }
    }
}

/// Viewers do not wait long for an object that exists nowhere.
#[tokio::test]
async fn refusal_is_served_when_other_endpoint_hangs() {
    let never = Gate::new();
    let hung = segment("never").hold_head(&never);
    let first = Origin::start().await.on(SEGMENT, hung);
    let second = Origin::start().await.on(SEGMENT, status(404));
    let shield = in_front_of(&[&first, &second]).start().await;
    assert_eq!(shield.get(SEGMENT).await.status, 404);
}

/// A segment that no playlist lists yet may still be produced: it arrives in chunks, with pauses.
/// The endpoint is not blamed: it gets the next request too, and the second endpoint gets none.
#[tokio::test]
async fn pause_in_unlisted_chunked_segment_causes_no_takeover() {
    let (gate, next) = (Gate::new(), "/live/seg2.ts");
    let growing = || reply().content_type("video/mp2t").chunked().send("one ");
    let paused = growing().hold(&gate).send("two");
    let first = Origin::start()
        .await
        .on(SEGMENT, paused)
        .on(next, growing());
    let second = Origin::start()
        .await
        .on(SEGMENT, segment("other"))
        .on(next, segment("other"));
    let shield = in_front_of(&[&first, &second]).start().await;
    let waiting = shield.crowd(1, get(SEGMENT)).await;
    gate.wait_arrived(1).await;
    // The pause itself: only time makes a body late.
    tokio::time::sleep(Duration::from_secs(2)).await;
    gate.open();
    for answer in waiting.read_all().await {
        answer.assert_whole("one two");
    }
    shield.get(next).await.assert_whole("one ");
    assert_eq!((second.hits(SEGMENT), second.hits(next)), (0, 0));
}

/// The second endpoint is as far as the first: it has a head and no byte yet. The first body byte
/// decides.
#[tokio::test]
async fn response_head_without_body_does_not_take_over() {
    for framing in [Reply::chunked as fn(Reply) -> Reply, |reply| {
        reply.content_length(7)
    }] {
        let gate = Gate::new();
        let begun = || framing(reply().content_type("video/mp2t"));
        let first = Origin::start()
            .await
            .on(SEGMENT, begun().hold(&gate).send("segment"));
        let second = Origin::start().await.on(SEGMENT, begun().stall());
        let shield = in_front_of(&[&first, &second]).start().await;
        let waiting = shield.crowd(2, get(SEGMENT)).await;
        second.wait_hits(SEGMENT, 1).await;
        gate.wait_arrived(1).await;
        // The second head is judged; a takeover that must not happen has no event.
        tokio::time::sleep(Duration::from_millis(300)).await;
        gate.open();
        for answer in waiting.read_all().await {
            answer.assert_whole("segment");
        }
        assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
    }
}

/// Some servers use one `ETag` for the compressed and the plain file.
#[tokio::test]
async fn body_is_not_resumed_in_another_content_coding() {
    let (plain, coded) = (noise(1, 300_000), noise(2, 300_000));
    for (one, other) in [(None, Some("gzip")), (Some("gzip"), None)] {
        let in_coding = |reply: Reply, coding: Option<&str>| match coding {
            Some(coding) => reply.header("Content-Encoding", coding),
            None => reply,
        };
        let half = reply()
            .content_type("video/mp4")
            .header("ETag", "\"same\"")
            .content_length(300_000)
            .send(plain.slice(..123_456))
            .close();
        let whole = reply()
            .content_type("video/mp4")
            .etag("\"same\"")
            .with_ranges(coded.clone());
        let first = Origin::start().await.on("/1.m4s", in_coding(half, one));
        let second = Origin::start().await.on("/1.m4s", in_coding(whole, other));
        let shield = in_front_of(&[&first, &second]).start().await;
        let answer = shield.get("/1.m4s").await;
        if answer.end == End::Whole {
            answer.assert_whole(&coded);
        } else {
            answer.assert_cut(&plain);
        }
    }
}

/// The second endpoint's rest is longer than it should be: the viewer gets no byte beyond the end,
/// and nothing of it is stored.
#[tokio::test]
async fn resumed_body_beyond_content_range_is_not_stored() {
    let body = noise(1, 300_000);
    let half = reply()
        .content_type("video/mp4")
        .header("ETag", "\"same\"")
        .content_length(300_000)
        .send(body.slice(..123_456))
        .close();
    let rest = status(206)
        .content_type("video/mp4")
        .header("ETag", "\"same\"")
        .header("Content-Range", "bytes 123456-299999/300000")
        .chunked()
        .send(body.slice(123_456..))
        .send(noise(2, 100_000));
    let first = Origin::start()
        .await
        .on("/1.m4s", half.then(segment(body.clone())));
    let second = Origin::start().await.on("/1.m4s", rest);
    let shield = in_front_of(&[&first, &second]).start().await;
    let answer = shield.get("/1.m4s").await;
    assert!(body.starts_with(&answer.body), "{answer:?}");
    let again = shield.get("/1.m4s").await;
    assert!(again.status != 200 || !again.is_hit(), "{again:?}");
}

/// Endpoints with different `ETag`s for one file, used in turn: the slices of each object come from
/// the endpoint that has it.
#[tokio::test]
async fn slices_come_from_endpoint_with_matching_etag() {
    const LENGTH: usize = 1 << 20;
    let body = noise(1, LENGTH);
    let named = |etag| segment(Bytes::new()).etag(etag).with_ranges(body.clone());
    let first = Origin::start().await.on(SEGMENT, named("\"one\""));
    let second = Origin::start().await.on(SEGMENT, named("\"other\""));
    let shield = sliced(&first, &second)
        .origin(|group| group.balance = Balance::RoundRobin)
        .start()
        .await;
    for _ in 0..3 {
        shield.get(SEGMENT).await.assert_whole(&body);
    }
    assert!(shield.get(SEGMENT).await.is_hit(), "the slices are held");
}

/// One endpoint stops in the middle of each slice, or becomes too slow. The other one has the same
/// strong validator, continues the slice, and gets the requests for the next ones.
#[tokio::test]
async fn slice_is_resumed_at_endpoint_with_same_etag() {
    const LENGTH: usize = 1 << 20;
    let body = noise(1, LENGTH);
    for end in SLICE_ENDS {
        let whole = || {
            segment(Bytes::new())
                .etag("\"same\"")
                .with_ranges(body.clone())
        };
        let half = with_slices_that(end, &body, "\"same\"");
        let first = Origin::start().await.on(SEGMENT, half);
        let second = Origin::start().await.on(SEGMENT, whole());
        let shield = sliced(&first, &second).start().await;
        shield.get(SEGMENT).await.assert_whole(&body);
        assert!(first.hits(SEGMENT) <= 3, "it is not asked for each slice");
        assert!(shield.get(SEGMENT).await.is_hit());
    }
}

/// The same with another `ETag` at the other endpoint, so that it cannot continue: viewers are cut
/// soon, and a new request gets the other endpoint's object.
#[tokio::test]
async fn slice_is_cut_when_other_endpoint_has_different_etag() {
    const LENGTH: usize = 1 << 20;
    let body = noise(1, LENGTH);
    for end in SLICE_ENDS {
        let named = |etag| segment(Bytes::new()).etag(etag).with_ranges(body.clone());
        let half = with_slices_that(end, &body, "\"one\"");
        let first = Origin::start().await.on(SEGMENT, half);
        let other = named("\"other\"");
        let second = computed(move |asked| match asked.header("if-match") {
            Some("\"one\"") => status(412),
            _ => other.clone(),
        });
        let second = Origin::start().await.on(SEGMENT, second);
        let shield = sliced(&first, &second).start().await;
        shield.get(SEGMENT).await.assert_cut(&body);
        assert_eq!(second.hits(SEGMENT), 1, "it has said that it cannot go on");
        shield.get(SEGMENT).await.assert_whole(&body);
        assert!(shield.get(SEGMENT).await.is_hit());
    }
}

/// Both are slow, with different `ETag`s: viewers are cut once, and served at the slow pace when
/// they request again.
#[tokio::test]
async fn slow_slice_is_cut_only_once_when_all_endpoints_are_slow() {
    const LENGTH: usize = 1 << 20;
    let body = noise(1, LENGTH);
    let slow = |etag: &'static str| {
        let body = body.clone();
        computed(
            move |asked| match (asked.range(LENGTH), asked.header("if-match")) {
                (_, Some(wanted)) if wanted != etag => status(412),
                (Some((0, to)), _) => status(206)
                    .header("ETag", etag)
                    .header("Content-Range", format!("bytes 0-{}/{LENGTH}", to - 1))
                    .send_slowly(&body.slice(..4_000), 100, Duration::from_millis(100))
                    .send(body.slice(4_000..to)),
                _ => segment(Bytes::new()).etag(etag).with_ranges(body.clone()),
            },
        )
    };
    let first = Origin::start().await.on(SEGMENT, slow("\"one\""));
    let second = Origin::start().await.on(SEGMENT, slow("\"other\""));
    let shield = sliced(&first, &second).start().await;
    shield.get(SEGMENT).await.assert_cut(&body);
    shield.get(SEGMENT).await.assert_whole(&body);
}

/// A slice in a content coding does not belong to an object that began in plain.
#[tokio::test]
async fn slices_in_different_content_codings_are_not_joined() {
    const LENGTH: usize = 1 << 20;
    let (plain, coded) = (noise(1, LENGTH), noise(2, LENGTH));
    let named = |body: &Bytes| {
        segment(Bytes::new())
            .etag("\"same\"")
            .with_ranges(body.clone())
    };
    let first = Origin::start().await.on(SEGMENT, named(&plain));
    let second = named(&coded).header("Content-Encoding", "gzip");
    let second = Origin::start().await.on(SEGMENT, second);
    let shield = sliced(&first, &second)
        .origin(|group| group.balance = Balance::RoundRobin)
        .start()
        .await;
    for _ in 0..3 {
        let answer = shield.get(SEGMENT).await;
        let is_of = |body: &Bytes| body.starts_with(&answer.body);
        assert!(is_of(&plain) || is_of(&coded), "{answer:?}");
    }
}

/// Viewers do not wait for the body of an error.
#[tokio::test]
async fn serves_error_status_when_all_error_bodies_stall() {
    for (refusal, cache_control) in [(500, "max-age=1"), (404, "no-store"), (403, "no-cache")] {
        let begun = || {
            status(refusal)
                .content_type("text/plain")
                .cache_control(cache_control)
                .content_length(100)
                .stall()
        };
        let first = Origin::start().await.on(SEGMENT, begun());
        let second = Origin::start().await.on(SEGMENT, begun());
        let shield = in_front_of(&[&first, &second]).start().await;
        assert_eq!(shield.get(SEGMENT).await.status, refusal);
    }
}

/// Stale on arrival, and refreshed in the background.
fn overdue(text: String) -> Reply {
    manifest(text).cache_control("max-age=1").age(1)
}

/// The packager of one endpoint ends its stream. The other one goes on, and so do the players, who
/// would never leave an ended playlist: also when the other endpoint is a little behind.
#[tokio::test]
async fn endlist_of_one_endpoint_does_not_end_the_stream() {
    let ended = |first| overdue(playlist(first) + "#EXT-X-ENDLIST\n");
    for (last, behind) in [(10, 9), (11, 10), (11, 11), (11, 12)] {
        let first = Origin::start().await.on(PATH, overdue(playlist(10)));
        let second = Origin::start().await.on(PATH, overdue(playlist(behind)));
        let shield = in_front_of(&[&first, &second]).start().await;
        shield.get(PATH).await.assert_whole(playlist(10));
        first.set_script(PATH, ended(last));
        let goes_on = |answer: &Response| {
            assert!(!answer.text().contains("ENDLIST"), "{answer:?}");
            second.hits(PATH) > 0
        };
        shield.repeat_until(get(PATH), goes_on).await;
        second.set_script(PATH, overdue(playlist(13)));
        let newest = |answer: &Response| {
            assert!(!answer.text().contains("ENDLIST"), "{answer:?}");
            answer.text() == playlist(13)
        };
        shield.repeat_until(get(PATH), newest).await;
    }
}

/// When all endpoints say so the stream has ended, and no viewer waits for it.
#[tokio::test]
async fn endlist_of_all_endpoints_ends_the_stream() {
    let first = Origin::start().await.on(PATH, overdue(playlist(10)));
    let second = Origin::start().await.on(PATH, overdue(playlist(10)));
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(PATH).await.assert_whole(playlist(10));
    let ended = playlist(11) + "#EXT-X-ENDLIST\n";
    for origin in [&first, &second] {
        origin.set_script(PATH, overdue(ended.clone()));
    }
    let is_over = |answer: &Response| answer.text() == ended;
    shield.repeat_until(get(PATH), is_over).await;
}
