//! When a body is too slow or stalls, another endpoint gets the request, and viewers get the body
//! that is further; a body at its encoder's pace is left alone.
//!
//! No origin deadline passes within these scenarios.

use std::time::Duration;

use bytes::Bytes;

use crate::low_latency_hls;
use seawall_manifest::Kind;

use crate::support::metrics::{TAKEOVERS, TAKEOVERS_REFUSED};
use crate::support::origin::Reply;
use crate::support::shield::{Builder, endpoint};
use crate::support::{
    End, Origin, Shield, eventually, get, manifest, noise, playlist, reply, status,
};

const HOUR: Duration = Duration::from_hours(1);
const PATH: &str = "/live/index.m3u8";
const SEGMENT: &str = "/live/seg1.ts";
const LENGTH: usize = 600_000;

/// The first endpoint is preferred.
fn in_front_of(origins: &[&Origin]) -> Builder {
    let others: Vec<_> = origins[1..].iter().map(|other| endpoint(other)).collect();
    Shield::in_front_of(origins[0])
        .origin(|group| {
            group.endpoints.extend(others);
            group.deadlines.between_bytes = HOUR;
            group.deadlines.total = HOUR;
        })
        .route(|route| {
            route.live.cadence = false;
            route.live.prefetch = false;
        })
        .proxy_settings(|waits| waits.wait_max = HOUR)
}

fn media() -> Reply {
    reply().content_type("video/mp2t")
}

fn millis(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

async fn serving(path: &str, answer: Reply) -> Origin {
    let list = manifest(playlist(1)).cache_control("max-age=60");
    Origin::start().await.on(PATH, list).on(path, answer)
}

/// 8 and 4,000 bytes per second (1,000 without a length) where 100,000 are needed: viewers see no
/// delay.
#[tokio::test]
async fn takes_over_body_that_is_slow_from_first_byte() {
    let (one, other) = (noise(1, LENGTH), noise(2, LENGTH));
    let framed: [fn(Reply) -> Reply; 2] =
        [|reply| reply.content_length(LENGTH as u64), Reply::chunked];
    for (framed, more) in framed.into_iter().zip([400, 100]) {
        for (size, every) in [(2, 250), (more, 100)] {
            let dribble = framed(media()).send_slowly(&one, size, millis(every));
            let first = serving(SEGMENT, dribble).await;
            let second = serving(SEGMENT, media().body(other.clone())).await;
            let second = second.on("/live/seg2.ts", media().body("next"));
            let shield = in_front_of(&[&first, &second]).start().await;
            shield.get(PATH).await.assert_whole(playlist(1));
            shield.get(SEGMENT).await.assert_whole(&other);
            assert!(shield.get(SEGMENT).await.assert_whole(&other).is_hit());
            assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
            assert_eq!(shield.counter(TAKEOVERS, &[]).await, 1);
            // Other segments of the same playlist are requested from the other endpoint at once.
            shield.get("/live/seg2.ts").await.assert_whole("next");
            assert_eq!(first.hits("/live/seg2.ts"), 0);
        }
    }
}

/// What the route removes from responses is removed from the one that takes over, too.
#[tokio::test]
async fn response_that_takes_over_obeys_its_route() {
    let (one, other) = (noise(1, LENGTH), noise(2, LENGTH));
    let dribble = media().content_length(LENGTH as u64);
    let first = serving(SEGMENT, dribble.send_slowly(&one, 2, millis(250))).await;
    let answer = media()
        .body(other.clone())
        .header("set-cookie", "lb=2")
        .cache_control("private, max-age=60");
    let second = serving(SEGMENT, answer).await;
    let shield = in_front_of(&[&first, &second])
        .route(|route| {
            route.strip_set_cookie = vec!["lb".to_owned()];
            route.store_private = vec![Kind::Segment];
        })
        .start()
        .await;
    shield.get(PATH).await.assert_whole(playlist(1));
    let answer = shield.get(SEGMENT).await;
    answer.assert_whole(&other);
    assert_eq!(answer.header("set-cookie"), None);
    assert!(shield.get(SEGMENT).await.assert_whole(&other).is_hit());
    assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
}

/// An initialization segment is small, and nothing plays without it.
#[tokio::test]
async fn takes_over_slow_initialization_segment() {
    let (path, init) = ("/live/init.mp4", noise(3, 900));
    let dribble = reply().content_type("video/mp4").content_length(900);
    let dribble = dribble.send_slowly(&init, 2, millis(250));
    let first = serving(path, dribble).await;
    let second = serving(path, reply().content_type("video/mp4").body(init.clone())).await;
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(path).await.assert_whole(&init);
    assert_eq!((first.hits(path), second.hits(path)), (1, 1));
}

/// Viewers have half of it. The other endpoint has the same object and gets a request for the rest.
#[tokio::test]
async fn resumes_slow_body_at_endpoint_with_same_etag() {
    let body = noise(4, LENGTH);
    let half = LENGTH / 2;
    for length in [true, false] {
        let slow = media().header("ETag", "\"same\"");
        let slow = if length {
            slow.content_length(LENGTH as u64)
        } else {
            slow.chunked()
        };
        let slow = slow.send(body.slice(..half));
        let slow = slow.send_slowly(&body.slice(half..), 100, millis(100));
        let first = serving(SEGMENT, slow).await;
        let whole = media().etag("\"same\"").with_ranges(body.clone());
        let second = serving(SEGMENT, whole).await;
        let shield = in_front_of(&[&first, &second]).start().await;
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.get(SEGMENT).await.assert_whole(&body);
        assert!(second.latest(SEGMENT).header("range").is_some());
        assert!(shield.get(SEGMENT).await.assert_whole(&body).is_hit());
        assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
    }
}

/// No shared validator shows that both objects are the same: viewers are cut, and get the other
/// endpoint's body when they request again.
#[tokio::test]
async fn cuts_slow_body_without_shared_validator() {
    let (one, other) = (noise(5, LENGTH), noise(6, LENGTH));
    let half = LENGTH / 2;
    let ends: [fn(Reply, &Bytes) -> Reply; 2] = [
        |slow, rest| slow.send_slowly(rest, 100, millis(100)),
        |slow, rest| {
            slow.send_slowly(&rest.slice(..1_000), 100, millis(100))
                .stall()
        },
    ];
    let cases = ends.into_iter().flat_map(|end| [(end, false), (end, true)]);
    for (end, named) in cases {
        let slow = media().content_length(LENGTH as u64);
        let slow = if named {
            slow.header("ETag", "\"one\"")
        } else {
            slow
        };
        let slow = slow.send(one.slice(..half));
        let first = serving(SEGMENT, end(slow, &one.slice(half..))).await;
        let whole = media().etag("\"other\"").with_ranges(other.clone());
        let second = serving(SEGMENT, whole).await;
        let shield = in_front_of(&[&first, &second]).start().await;
        shield.get(PATH).await.assert_whole(playlist(1));
        shield.get(SEGMENT).await.assert_cut(&one);
        shield.get(SEGMENT).await.assert_whole(&other);
        let asked = if named { 2 } else { 1 };
        assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, asked));
    }
}

/// The other endpoint lacks the object: it is excluded for a while, the slow endpoint is not
/// requested for its own body, and the other one is used once it has the object.
#[tokio::test]
async fn refused_takeover_is_not_repeated_at_once() {
    for refusal in [404, 503] {
        let (one, other) = (noise(17, LENGTH), noise(18, LENGTH));
        let begun = media().content_length(LENGTH as u64);
        let begun = begun.send(one.slice(..8_000)).stall();
        let first = serving(SEGMENT, begun).await;
        let second = serving(SEGMENT, status(refusal)).await;
        let shield = in_front_of(&[&first, &second])
            .origin(|group| group.retry.attempts_max = 1)
            .start()
            .await;
        shield.get(PATH).await.assert_whole(playlist(1));
        let waiting = shield.crowd(1, get(SEGMENT)).await;
        second.wait_hits(SEGMENT, 1).await;
        // The promise is a rate: a refused endpoint is requested again, but seldom.
        tokio::time::sleep(millis(300)).await;
        assert!(second.hits(SEGMENT) <= 2, "{}", second.hits(SEGMENT));
        second.set_script(SEGMENT, media().body(other.clone()));
        for answer in waiting.read_all().await {
            answer.assert_whole(&other);
        }
        assert_eq!(first.hits(SEGMENT), 1, "{refusal}");
    }
}

/// A segment that arrives in chunks at the pace of its encoder, with nothing that says it is
/// complete.
#[tokio::test]
async fn no_takeover_of_segment_sent_at_encoder_pace() {
    let body = noise(7, 3_000);
    let flowing = media().chunked().send_slowly(&body, 250, millis(200));
    let first = serving("/live/next.m4s", flowing).await;
    let second = serving("/live/next.m4s", media().body("other")).await;
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get("/live/next.m4s").await.assert_whole(&body);
    assert_eq!(second.hits("/live/next.m4s"), 0);
}

/// An announced part that is sent while it is produced.
#[tokio::test]
async fn no_takeover_of_preload_hinted_part_sent_at_encoder_pace() {
    let (body, part) = (noise(14, 3_000), "/live/21.2.mp4");
    let version = low_latency_hls::version(20, 2);
    let list = || manifest(version.clone()).cache_control("max-age=60");
    let flowing = reply().content_type("video/mp4").chunked();
    let flowing = flowing.send_slowly(&body, 250, millis(100));
    let first = Origin::start().await.on(PATH, list()).on(part, flowing);
    let other = reply().content_type("video/mp4").body("other");
    let second = Origin::start().await.on(PATH, list()).on(part, other);
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(PATH).await.assert_whole(&version);
    shield.get(part).await.assert_whole(&body);
    assert_eq!((first.hits(part), second.hits(part)), (1, 0));
}

/// A slow body is better than none: a second request is served at the same pace.
#[tokio::test]
async fn second_slow_body_is_not_cut_when_all_endpoints_are_slow() {
    let body = noise(15, LENGTH);
    let slow = || {
        let slow = media().content_length(LENGTH as u64);
        let slow = slow.send(body.slice(..500_000));
        let slow = slow.send_slowly(&body.slice(500_000..505_000), 100, millis(100));
        slow.send(body.slice(505_000..))
    };
    let (first, second) = (
        serving(SEGMENT, slow()).await,
        serving(SEGMENT, slow()).await,
    );
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get(SEGMENT).await.assert_cut(&body);
    shield.get(SEGMENT).await.assert_whole(&body);
    assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
}

/// With one endpoint, viewers get the body as it arrives.
#[tokio::test]
async fn no_takeover_of_slow_body_with_a_single_endpoint() {
    let body = noise(8, 20_000);
    let slow = media().content_length(20_000);
    let slow = slow.send_slowly(&body, 1_000, millis(100));
    let only = serving(SEGMENT, slow).await;
    let shield = in_front_of(&[&only]).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get(SEGMENT).await.assert_whole(&body);
    assert_eq!(only.hits(SEGMENT), 1);
    assert_eq!(shield.counter(TAKEOVERS, &[]).await, 0);
}

/// The other endpoint is slower still: the first endpoint's body continues.
#[tokio::test]
async fn slow_body_continues_when_other_endpoint_is_slower() {
    let (one, other) = (noise(9, LENGTH), noise(10, LENGTH));
    let slow = media().content_length(LENGTH as u64);
    let slow = slow.send_slowly(&one.slice(..30_000), 2_000, millis(100));
    let slow = slow.send(one.slice(30_000..));
    let first = serving(SEGMENT, slow).await;
    let slower = media().content_length(LENGTH as u64);
    let slower = slower.send(other.slice(..10)).stall();
    let second = serving(SEGMENT, slower).await;
    let shield = in_front_of(&[&first, &second]).start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield.get(SEGMENT).await.assert_whole(&one);
    assert_eq!((first.hits(SEGMENT), second.hits(SEGMENT)), (1, 1));
}

/// All endpoints are slow because they share a full link: duplicate requests would make it worse.
#[tokio::test]
async fn takeovers_of_slow_bodies_stay_within_retry_budget() {
    let body = noise(11, 60_000);
    let slow = || {
        let slow = media().content_length(LENGTH as u64);
        slow.send_slowly(&body, 3_000, millis(100))
    };
    let mut first = serving(SEGMENT, slow()).await;
    let second = serving(SEGMENT, slow()).await;
    for number in 10..20 {
        let path = format!("/live/{number}.ts");
        first = first.on(&path, slow());
        second.set_script(&path, slow());
    }
    let shield = in_front_of(&[&first, &second])
        .origin(|group| {
            group.retry.budget.share = 0.0;
            group.retry.budget.per_s_min = 0;
        })
        .start()
        .await;
    let mut waiting = Vec::new();
    for number in 10..20 {
        waiting.push(shield.begin(get(&format!("/live/{number}.ts"))).await);
    }
    for number in 10..20 {
        assert_eq!(second.hits(&format!("/live/{number}.ts")), 0);
    }
    drop(waiting);
    assert_eq!(shield.counter(TAKEOVERS, &[]).await, 0);
    assert!(shield.counter(TAKEOVERS_REFUSED, &[]).await > 0);
}

/// All endpoints stop in the middle, as under overload: they do not get every request again.
#[tokio::test]
async fn takeovers_of_stalled_bodies_stay_within_retry_budget() {
    const COUNT: usize = 60;
    let path = |number: usize| format!("/live/{number}.ts");
    let body = noise(13, 300_000);
    for second_is_well in [true, false] {
        let whole = || media().header("ETag", "\"same\"");
        let half = || {
            let half = whole().content_length(300_000);
            half.send(body.slice(..100_000)).stall()
        };
        let (mut first, mut second) = (Origin::start().await, Origin::start().await);
        for number in 0..COUNT {
            first = first.on(&path(number), half());
            second = second.on(
                &path(number),
                if second_is_well {
                    whole().with_ranges(body.clone())
                } else {
                    half()
                },
            );
        }
        let shield = in_front_of(&[&first, &second]).start().await;
        let mut begun = Vec::new();
        for number in 0..COUNT {
            begun.push(shield.begin(get(&path(number))).await);
        }
        if second_is_well {
            for answer in begun {
                answer.finish().await.assert_whole(&body);
            }
            continue;
        }
        // Takeovers for the bodies that were not requested again have been refused several times.
        eventually("refusals", async || {
            shield.counter(TAKEOVERS_REFUSED, &[]).await > 2 * COUNT as u64
        })
        .await;
        let asked: usize = (0..COUNT).map(|number| second.hits(&path(number))).sum();
        assert!(asked <= COUNT * 2 / 3, "{asked}");
    }
}

/// Two of three endpoints stop in the middle: the third gets the request for the rest, and all
/// following requests.
#[tokio::test]
async fn third_endpoint_takes_over_when_two_stall_mid_body() {
    let body = noise(12, LENGTH);
    for etag in [true, false] {
        let stalling = |at: usize| {
            let stalling = media().content_length(LENGTH as u64);
            let stalling = if etag {
                stalling.header("ETag", "\"same\"")
            } else {
                stalling
            };
            stalling.send(body.slice(..at)).stall()
        };
        let first = serving(SEGMENT, stalling(200_000)).await;
        let second = serving(SEGMENT, ranged_then_stalling(&body)).await;
        let second = if etag {
            second
        } else {
            second.on(SEGMENT, stalling(400_000))
        };
        let whole = media().etag("\"same\"").with_ranges(body.clone());
        let third = serving(SEGMENT, whole).await;
        let shield = in_front_of(&[&first, &second, &third]).start().await;
        shield.get(PATH).await.assert_whole(playlist(1));
        let mut asked = 1;
        while shield.get(SEGMENT).await.end != End::Whole {
            asked += 1;
            assert!(asked <= 3, "the same endpoints are asked again");
        }
        assert_eq!(asked, if etag { 1 } else { 3 });
        let hits = [&first, &second, &third].map(|origin| origin.hits(SEGMENT));
        assert_eq!(hits, [1, 1, 1]);
        shield.get(SEGMENT).await.assert_whole(&body);
    }
}

/// From the offset at which the first one stopped to the middle of the body.
fn ranged_then_stalling(body: &Bytes) -> Reply {
    let length = body.len();
    let told = format!("bytes 200000-{}/{length}", length - 1);
    status(206)
        .content_type("video/mp2t")
        .header("ETag", "\"same\"")
        .header("Content-Range", told)
        .content_length((length - 200_000) as u64)
        .send(body.slice(200_000..400_000))
        .stall()
}
