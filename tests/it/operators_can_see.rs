//! Each request is counted once, by outcome and kind, and the admin pages answer only on the admin
//! listener.

use crate::support::metrics::{FILLS, REQUESTS, STORED, WAITERS};
use crate::support::{
    Gate, Origin, Shield, ask, ended_playlist, eventually, get, manifest, playlist, segment, status,
};

const PATH: &str = "/live/seg1.ts";

/// Waits until this many requests have this outcome, and fails if there are more.
async fn are_counted(shield: &Shield, outcome: &str, expected: u64) {
    eventually(format!("{expected} counted as {outcome}"), async || {
        let counted = shield.counter(REQUESTS, &[("outcome", outcome)]).await;
        assert!(counted <= expected, "{counted} counted as {outcome}");
        counted >= expected
    })
    .await;
}

#[tokio::test]
async fn every_request_outcome_is_counted_once() {
    let gate = Gate::new();
    let stale = manifest(playlist(1))
        .cache_control("max-age=1, stale-if-error=60")
        .age(10);
    let origin = Origin::start()
        .await
        .on(PATH, segment("x"))
        .on("/held.ts", segment("x").hold_head(&gate))
        .on("/private.ts", segment("x").cache_control("no-store"))
        .on("/live/index.m3u8", stale);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..3 {
        shield.get(PATH).await.assert_whole("x");
    }
    are_counted(&shield, "miss", 1).await;
    are_counted(&shield, "hit", 2).await;
    let crowd = shield.crowd(5, get("/held.ts")).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 5).await;
    assert_eq!(shield.gauge(FILLS).await, 1);
    gate.open();
    crowd.read_all().await;
    are_counted(&shield, "coalesced", 4).await;
    are_counted(&shield, "miss", 2).await;
    shield.ask(ask("DELETE", PATH)).await;
    are_counted(&shield, "refused", 1).await;
    shield.ask(ask("OPTIONS", PATH)).await;
    are_counted(&shield, "local", 1).await;
    shield
        .get("/live/index.m3u8")
        .await
        .assert_whole(playlist(1));
    origin.stop().await;
    shield
        .get("/live/index.m3u8")
        .await
        .assert_whole(playlist(1));
    are_counted(&shield, "stale_error", 1).await;
    assert_eq!(shield.get("/nowhere.ts").await.status / 100, 5);
    are_counted(&shield, "failed", 1).await;
}

/// Counts by kind, and the size of the store.
#[tokio::test]
async fn requests_are_counted_by_kind() {
    let origin = Origin::start()
        .await
        .on(PATH, segment("x"))
        .on("/live/index.m3u8", manifest(ended_playlist(1)));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    let ended = shield.get("/live/index.m3u8").await;
    ended.assert_whole(ended_playlist(1));
    for kind in ["hls", "segment"] {
        let labels = [("kind", kind), ("outcome", "miss")];
        eventually(format!("a miss of {kind}"), async || {
            shield.counter(REQUESTS, &labels).await > 0
        })
        .await;
    }
    shield.wait_gauge(STORED, |objects| objects >= 2).await;
}

/// A missing object counts as the kind that it would have, not as its error page.
#[tokio::test]
async fn missing_segment_is_counted_as_segment() {
    let page = status(404).content_type("text/html").body("<p>none</p>");
    let origin = Origin::start().await.on("/live/seg9.m4s", page);
    let shield = Shield::in_front_of(&origin).start().await;
    assert_eq!(shield.get("/live/seg9.m4s").await.status, 404);
    eventually("a miss of a segment", async || {
        let labels = [("kind", "segment"), ("outcome", "miss")];
        shield.counter(REQUESTS, &labels).await == 1
    })
    .await;
}

/// `/healthz` and `/readyz`.
#[tokio::test]
async fn healthz_and_readyz_answer_200() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).start().await;
    for path in ["/healthz", "/readyz"] {
        assert_eq!(shield.admin(get(path)).await.status, 200, "{path}");
    }
    assert_eq!(shield.admin(get("/elsewhere")).await.status, 404);
    assert_eq!(
        shield
            .admin(get("/purge?url=http%3A%2F%2Fa%2F"))
            .await
            .status,
        405
    );
}

/// The operators' paths have no meaning on a viewers' listener.
#[tokio::test]
async fn admin_paths_do_nothing_on_viewer_listener() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    for path in ["/metrics", "/healthz", "/readyz"] {
        assert_eq!(shield.get(path).await.status, 404, "{path} is the origin's");
        assert_eq!(origin.hits(path), 1);
    }
    let purge = ask(
        "POST",
        "/purge?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts",
    );
    assert_eq!(shield.ask(purge).await.status, 405);
    assert!(shield.get(PATH).await.is_hit());
}

/// `/metrics` has Prometheus's content type.
#[tokio::test]
async fn metrics_page_has_prometheus_content_type() {
    let origin = Origin::start().await;
    let shield = Shield::in_front_of(&origin).start().await;
    let page = shield.admin(get("/metrics")).await;
    let media_type = page.header("content-type").unwrap_or_default();
    assert!(media_type.starts_with("text/plain"), "{media_type}");
    for line in page
        .assert_200_text()
        .lines()
        .filter(|line| !line.starts_with('#'))
    {
        let (_series, value) = line.rsplit_once(' ').expect("a series and a value");
        assert!(value.parse::<f64>().is_ok(), "{line}");
    }
}

/// `/status` shows waiting and rejected requests, and the state of each endpoint.
#[tokio::test]
async fn status_page_shows_queue_and_endpoint_state() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    let page = shield.admin(get("/status")).await;
    let page: serde_json::Value = serde_json::from_slice(&page.body).expect("JSON");
    let group = &page["origins"][0];
    assert_eq!(group["queued_by_priority"]["manifest"], 0, "{page}");
    assert_eq!(group["rejected"]["deadline"], 0, "{page}");
    let endpoint = &group["endpoints"][0];
    assert_eq!(
        (&endpoint["ejections"], &endpoint["requests"]["2xx"]),
        (&0.into(), &1.into())
    );
}

/// A page of another site in an operator's browser can neither read nor purge.
#[tokio::test]
async fn admin_rejects_cross_site_and_rebound_requests() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("x");
    let purge = || {
        ask(
            "POST",
            "/purge?url=http%3A%2F%2Fmedia.test%2Flive%2Fseg1.ts",
        )
    };
    let cross_site = shield
        .admin(purge().header("Origin", "https://evil.example"))
        .await;
    assert_eq!(cross_site.status, 403, "{}", cross_site.text());
    let rebound = shield.admin_as("evil.example", purge()).await;
    assert_eq!(rebound.status, 421, "{}", rebound.text());
    assert_eq!(
        shield
            .admin_as("evil.example", get("/metrics"))
            .await
            .status,
        421
    );
    assert!(shield.get(PATH).await.is_hit(), "it was not purged");
    shield.purge(PATH).await;
    assert!(!shield.get(PATH).await.is_hit());
}

/// A viewer who waits for the origin is counted as such, whichever request caused the fetch.
#[tokio::test]
async fn origin_wait_is_counted_for_every_waiting_request() {
    const WAITED: &str = "seawall_origin_head_seconds_count";
    let gate = Gate::new();
    let script = segment("x").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, script);
    let shield = Shield::in_front_of(&origin).start().await;
    let crowd = shield.crowd(5, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting >= 5).await;
    gate.open();
    crowd.read_all().await;
    shield.get(PATH).await.assert_whole("x");
    are_counted(&shield, "hit", 1).await;
    are_counted(&shield, "coalesced", 4).await;
    assert_eq!(shield.counter(WAITED, &[]).await, 5);
}

/// The origin's response time is counted for pass-through requests, whether known in advance or
/// not.
#[tokio::test]
async fn origin_wait_is_counted_for_passed_requests() {
    let own = segment("own").cache_control("no-store");
    let origin = Origin::start().await.on("/own.ts", own);
    let shield = Shield::in_front_of(&origin).start().await;
    for asked in 1..=2 {
        shield.get("/own.ts").await.assert_whole("own");
        eventually("the origin's time to be counted", async || {
            shield
                .counter("seawall_origin_head_seconds_count", &[])
                .await
                == asked
        })
        .await;
    }
}
