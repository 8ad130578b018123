//! Each version of a low-latency playlist comes from the origin and is stored only as long as the
//! origin allows; viewers cannot invent versions.

use crate::low_latency_hls::{NEXT, PATH, holding, passive, version};

use crate::support::{Gate, Origin, Shield, get, manifest, reply, segment, status};

/// An origin that stops blocking early answers with the current version. Later viewers do not get
/// that response.
#[tokio::test]
async fn early_blocking_response_is_not_reused_for_later_viewers() {
    let now = || manifest(version(20, 2)).cache_control("max-age=1");
    let early = now().then(status(503));
    let origin = Origin::start().await.on(PATH, now()).on(NEXT, early);
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    shield.get(NEXT).await.assert_whole(version(20, 2));
    let failed = |answer: &crate::support::Response| answer.status == 503;
    shield.repeat_until(get(NEXT), failed).await;
    shield.get(PATH).await.assert_whole(version(20, 2));
}

/// Manifests are requested in plain text: `Vary: Accept-Encoding` makes no variants.
#[tokio::test]
async fn vary_accept_encoding_makes_no_playlist_variants() {
    let vary = |text: String| {
        let reply = manifest(text).cache_control("max-age=2");
        reply.header("Vary", "Accept-Encoding")
    };
    let origin = Origin::start()
        .await
        .on(PATH, vary(version(20, 2)))
        .on(NEXT, vary(version(20, 3)));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    let older = format!("{PATH}?_HLS_msn=21&_HLS_part=1");
    for target in [PATH, &older] {
        let answer = shield.get(target).await;
        answer.assert_whole(version(20, 3));
        assert!(answer.is_hit(), "{answer:?}");
        assert_eq!(answer.header("vary"), Some("Accept-Encoding"));
    }
    let coded = shield.ask(get(PATH).header("accept-encoding", "gzip"));
    assert_eq!(coded.await.header("content-encoding"), Some("gzip"));
    assert_eq!(origin.hits(PATH), 2);
}

#[tokio::test]
async fn invented_part_numbers_are_one_origin_request() {
    let gate = Gate::new();
    let first_of_next = "/live/index.m3u8?_HLS_msn=22&_HLS_part=0";
    let origin = holding(&gate).await;
    let next = manifest(version(21, 1)).cache_control("max-age=1");
    origin.set_script(first_of_next, next.hold_head(&gate));
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    let mut crowds = Vec::new();
    for part in [100, 2000, 6000] {
        let made_up = get(&format!("{PATH}?_HLS_msn=21&_HLS_part={part}"));
        crowds.push(shield.crowd(1, made_up).await);
    }
    gate.wait_arrived(1).await;
    gate.open();
    for crowd in crowds {
        crowd.read_all().await[0].assert_whole(version(21, 1));
    }
    assert_eq!((origin.hits(first_of_next), origin.hits(PATH)), (1, 2));
}

/// While a playlist is refreshed, no request is needed to learn which versions exist.
#[tokio::test]
async fn reload_too_far_ahead_gets_400_without_origin_request() {
    let gate = Gate::new();
    let far = "/live/index.m3u8?_HLS_msn=23&_HLS_part=0";
    let slow = |parts| version(20, parts).replace("PART-TARGET=1.0", "PART-TARGET=4.0");
    let overdue = manifest(slow(2)).cache_control("max-age=2").age(2);
    let origin = Origin::start()
        .await
        .on(PATH, overdue)
        .on(NEXT, manifest(slow(3)).hold_head(&gate))
        .on(far, status(404));
    let shield = Shield::in_front_of(&origin).start().await;
    // The first request is answered, the second causes a refresh, and from then on it is refreshed
    // by itself.
    shield.get(PATH).await;
    shield.get(PATH).await;
    gate.wait_arrived(1).await;
    assert_eq!(shield.get(far).await.status, 400);
    assert_eq!(origin.hits(far), 0);
}

/// A blocking request without viewers would keep others waiting.
#[tokio::test]
async fn blocking_reload_is_cancelled_when_its_viewers_leave() {
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let shield = passive(&origin).start().await;
    shield.get(PATH).await;
    let leaving = shield.crowd(2, get(NEXT)).await;
    gate.wait_arrived(1).await;
    drop(leaving);
    origin.wait_abandoned(1).await;
    shield
        .wait_gauge("seawall_origin_blocking", |blocking| blocking == 0)
        .await;
}

/// Blocking requests take no permit; but `blocking_max` bounds them.
#[tokio::test]
async fn blocking_max_limits_concurrent_blocking_reloads() {
    let gate = Gate::new();
    let (plain, other) = ("/live/b.m3u8", "/live/b.m3u8?_HLS_msn=21&_HLS_part=2");
    let origin = holding(&gate)
        .await
        .on(plain, manifest(version(20, 2)).cache_control("max-age=60"))
        .on(other, manifest(version(20, 3)).hold_head(&gate));
    let shield = passive(&origin)
        .origin(|group| group.blocking_max = 1)
        .start()
        .await;
    shield.get(PATH).await;
    shield.get(plain).await;
    let one = shield.crowd(1, get(NEXT)).await;
    gate.wait_arrived(1).await;
    let two = shield.crowd(1, get(other)).await;
    shield.wait_queued("manifest", 1).await;
    assert_eq!(origin.hits(other), 0);
    gate.open();
    for crowd in [one, two] {
        crowd.read_all().await[0].assert_whole(version(20, 3));
    }
}

/// A directive with an escaped name may still be one for the origin. No stored playlist confirms
/// that it blocks: it needs a permit like any other request.
#[tokio::test]
async fn percent_encoded_directive_takes_a_concurrency_permit() {
    let gate = Gate::new();
    let disguised = "/live/index.m3u8?%5FHLS_msn=21&_HLS_part=2";
    let next = manifest(version(20, 3)).cache_control("max-age=1");
    let origin = Origin::start()
        .await
        .on(disguised, next.hold_head(&gate))
        .on("/live/20.mp4", segment("media"));
    let shield = passive(&origin)
        .origin(|group| group.concurrency_max = 1)
        .start()
        .await;
    let waiting = shield.crowd(1, get(disguised)).await;
    gate.wait_arrived(1).await;
    let media = shield.crowd(1, get("/live/20.mp4")).await;
    shield.wait_queued("segment", 1).await;
    gate.open();
    waiting.read_all().await[0].assert_whole(version(20, 3));
    media.read_all().await[0].assert_whole("media");
    assert_eq!(origin.concurrent_max(), 1);
}

/// Blocking requests count against the rate limit too, but never take a permit.
#[tokio::test]
async fn blocking_reload_takes_no_permit_with_rate_limit() {
    let gate = Gate::new();
    let origin = holding(&gate)
        .await
        .on("/live/20.mp4", segment("media").hold_head(&gate));
    let shield = passive(&origin)
        .origin(|group| {
            group.concurrency_max = 1;
            group.requests_per_second_max = Some(1000);
        })
        .start()
        .await;
    shield.get(PATH).await;
    let media = shield.crowd(1, get("/live/20.mp4")).await;
    gate.wait_arrived(1).await;
    let waiting = shield.crowd(1, get(NEXT)).await;
    gate.wait_arrived(2).await;
    gate.open();
    media.read_all().await[0].assert_whole("media");
    waiting.read_all().await[0].assert_whole(version(20, 3));
}

/// With `no-cache` each request for a version is revalidated too.
#[tokio::test]
async fn no_cache_playlist_is_revalidated_for_each_reload() {
    let asked = |text: String| manifest(text).cache_control("no-cache");
    let origin = Origin::start()
        .await
        .on(PATH, asked(version(20, 3)))
        .on(NEXT, asked(version(20, 3)));
    let shield = passive(&origin).start().await;
    shield.get(NEXT).await.assert_whole(version(20, 3));
    let older = format!("{PATH}?_HLS_msn=21&_HLS_part=1");
    for hits in 2..4 {
        let answer = shield.get(&older).await;
        answer.assert_whole(version(20, 3));
        assert!(!answer.is_hit(), "{answer:?}");
        assert_eq!(origin.hits(PATH), hits);
    }
}

/// Parts of a large segment are ranges far into it.
#[tokio::test]
async fn range_far_into_growing_segment_is_served() {
    const PIECE: usize = 3 << 20;
    let gate = Gate::new();
    let piece = |letter: u8| vec![letter; PIECE];
    let growing = reply()
        .content_type("video/mp4")
        .chunked()
        .send(piece(b'a'))
        .send(piece(b'b'))
        .send(piece(b'c'))
        .send(piece(b'd'))
        .hold(&gate);
    let origin = Origin::start().await.on("/live/21.mp4", growing);
    let shield = passive(&origin).start().await;
    let first = 3 * PIECE;
    let ask = get("/live/21.mp4").range(&format!("{first}-{}", first + 9));
    shield.ask(ask).await.assert_is(206, "dddddddddd");
    gate.open();
}
