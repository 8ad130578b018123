//! A slow body continues when no other endpoint can send it sooner, and each other endpoint gets
//! one request for it.

use std::time::Duration;

use bytes::Bytes;

use crate::support::origin::{Reply, Request, Script};
use crate::support::shield::endpoint;
use crate::support::{End, Origin, Shield, computed, manifest, noise, playlist, segment, status};

const HOUR: Duration = Duration::from_hours(1);
const PATH: &str = "/live/index.m3u8";
const SEGMENT: &str = "/live/seg1.ts";
const LENGTH: usize = 4 << 20;
/// Up to this offset a body that is no slice arrives at full speed, so that viewers have a part of
/// it.
const SHOWN: usize = 1 << 20;
/// Bytes per tenth of a second.
const SLOW: usize = 20_000;

/// The first endpoint is preferred.
async fn in_front_of(origins: &[&Origin], is_sliced: bool) -> Shield {
    let others: Vec<_> = origins[1..].iter().map(|other| endpoint(other)).collect();
    let shield = Shield::in_front_of(origins[0]).origin(|group| {
        group.endpoints.extend(others);
        group.deadlines.between_bytes = HOUR;
        group.deadlines.total = HOUR;
        group.retry.budget.per_s_min = 100;
    });
    let shield = shield.proxy_settings(|waits| {
        waits.wait_max = HOUR;
        if is_sliced {
            waits.whole_fetch_max = SHOWN as u64;
            waits.slice_bytes = LENGTH as u64;
        }
    });
    let shield = shield.start().await;
    shield.get(PATH).await.assert_whole(playlist(1));
    shield
}

async fn serving(script: impl Into<Script>) -> Origin {
    let list = manifest(playlist(1)).cache_control("max-age=60");
    Origin::start().await.on(PATH, list).on(SEGMENT, script)
}

/// The requested range without any byte of it yet; nothing for requests that name another object.
fn part(asked: &Request, etag: &str) -> Option<(Reply, usize, usize)> {
    let wanted = asked.header("if-match");
    if wanted.is_some_and(|wanted| wanted != etag) {
        return None;
    }
    let Some((from, to)) = asked.range(LENGTH) else {
        let whole = segment(Bytes::new()).header("ETag", etag);
        return Some((whole.content_length(LENGTH as u64), 0, LENGTH));
    };
    let begun = status(206)
        .content_type("video/mp2t")
        .header("ETag", etag)
        .header("Content-Range", format!("bytes {from}-{}/{LENGTH}", to - 1))
        .content_length((to - from) as u64);
    Some((begun, from, to))
}

/// 200 kB per second for this long.
fn slow(body: &Bytes, etag: &'static str, is_sliced: bool, tenths: usize) -> Script {
    let body = body.clone();
    computed(move |asked| {
        let Some((begun, mut from, to)) = part(asked, etag) else {
            return status(412);
        };
        let begun = if is_sliced && asked.range(LENGTH).is_none() {
            return segment(Bytes::new()).etag(etag).with_ranges(body.clone());
        } else if is_sliced {
            begun
        } else {
            from += SHOWN;
            begun.send(body.slice(from - SHOWN..from))
        };
        let slow = from..from + tenths * SLOW;
        let begun = begun.send_slowly(&body.slice(slow), SLOW, Duration::from_millis(100));
        begun.send(body.slice(from + tenths * SLOW..to))
    })
}

/// The two endpoints use different `ETag`s, and neither can continue the other's body.
#[tokio::test]
async fn slow_body_is_not_cut_for_a_different_object() {
    for is_sliced in [true, false] {
        let body = noise(1, LENGTH);
        let first = serving(slow(&body, "\"one\"", is_sliced, 40)).await;
        let second = serving(slow(&body, "\"other\"", is_sliced, 40)).await;
        let shield = in_front_of(&[&first, &second], is_sliced).await;
        shield.get(SEGMENT).await.assert_whole(&body);
        assert_eq!(second.hits(SEGMENT), 1, "it was asked for the rest");
    }
}

/// The other endpoint has the same object and is no faster.
#[tokio::test]
async fn endpoint_that_is_no_faster_gets_one_request() {
    for is_sliced in [true, false] {
        let body = noise(2, LENGTH);
        let first = serving(slow(&body, "\"same\"", is_sliced, 60)).await;
        let second = serving(computed(|asked| match part(asked, "\"same\"") {
            Some((begun, ..)) => begun.stall(),
            None => status(412),
        }));
        let second = second.await;
        let shield = in_front_of(&[&first, &second], is_sliced).await;
        shield.get(SEGMENT).await.assert_whole(&body);
        assert_eq!(second.hits(SEGMENT), 1);
    }
}

/// The body breaks off. All other endpoints promise the rest and send none of it; the last one
/// stops long after the first.
#[tokio::test]
async fn each_endpoint_gets_one_request_for_rest_of_truncated_body() {
    let body = noise(3, LENGTH);
    let begun = body.slice(..SHOWN);
    let first = computed(move |asked| match part(asked, "\"same\"") {
        Some((reply, ..)) => reply.send(begun.clone()).close(),
        None => status(412),
    });
    let first = serving(first).await;
    let mut others = Vec::new();
    for _ in 0..4 {
        let other = computed(|asked| match part(asked, "\"same\"") {
            Some((begun, ..)) => begun.stall(),
            None => status(412),
        });
        others.push(serving(other).await);
    }
    let all: Vec<_> = std::iter::once(&first).chain(&others).collect();
    let shield = in_front_of(&all, false).await;
    let answer = shield.get(SEGMENT).await;
    assert_ne!(answer.end, End::Whole);
    for other in others {
        assert_eq!(other.hits(SEGMENT), 1);
    }
}
