//! What is under way when the settings change ends with the settings with which it began, and what
//! comes later meets the new ones.

use std::sync::Arc;

use seawall_policy::Route;

use crate::low_latency_hls;
use crate::support::metrics::{REQUESTS, WAITERS};
use crate::support::shield::endpoint;
use crate::support::{
    Gate, Origin, Shield, eventually, get, manifest, noise, playlist, reply, segment,
};

const PATH: &str = "/live/seg1.ts";
const LENGTH: usize = 300_000;

/// Half of a body, then the rest when the gate opens.
fn held_body(body: &bytes::Bytes, gate: &Gate) -> crate::support::origin::Reply {
    let (half, rest) = (body.slice(..LENGTH / 2), body.slice(LENGTH / 2..));
    let head = reply().content_type("video/mp2t").etag("\"same\"");
    head.content_length(LENGTH as u64)
        .send(half)
        .hold(gate)
        .send(rest)
}

#[tokio::test]
async fn fill_ends_with_the_origin_it_began_with() {
    let (body, gate) = (noise(1, LENGTH), Gate::new());
    let old = Origin::start().await.on(PATH, held_body(&body, &gate));
    let new = Origin::start().await.on("/live/seg2.ts", segment("new"));
    let mut shield = Shield::in_front_of(&old).without_deadlines().start().await;
    let arriving = shield.begin(get(PATH)).await;
    shield.reload(|config| config.origins[0].endpoints = vec![endpoint(&new)]);
    shield.get("/live/seg2.ts").await.assert_whole("new");
    gate.open();
    arriving.finish().await.assert_whole(&body);
    let again = shield.get(PATH).await;
    assert!(again.assert_whole(&body).is_hit(), "the store stays");
    assert_eq!((old.hits(PATH), new.hits(PATH)), (1, 0));
    assert_eq!(old.hits("/live/seg2.ts"), 0);
}

/// Also with viewers of before and after the change in one fill.
#[tokio::test]
async fn viewer_of_new_settings_joins_the_fill_of_before() {
    let gate = Gate::new();
    let held = segment("whole")
        .cache_control("max-age=60")
        .hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let mut shield = Shield::in_front_of(&origin).start().await;
    let before = shield.crowd(3, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting == 3).await;
    shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).x_cache = true);
    let after = shield.crowd(3, get(PATH)).await;
    shield.wait_gauge(WAITERS, |waiting| waiting == 6).await;
    gate.open();
    for response in before.read_all().await {
        response.assert_whole("whole");
        assert_eq!(response.header("x-cache"), None, "its route said nothing");
    }
    for response in after.read_all().await {
        response.assert_whole("whole");
        assert_eq!(response.header("x-cache"), Some("MISS"));
    }
    assert_eq!(origin.hits(PATH), 1);
}

/// The route of `/other` to an origin of its own.
fn other_route(origin: &Origin) -> (Arc<Route>, seawall_upstream::Settings) {
    let route = Route {
        name: "other".into(),
        path_prefix: "/other".to_owned(),
        origin_index: 1,
        ..Route::everything("other")
    };
    let group = seawall_upstream::Settings::single("other", endpoint(origin));
    (Arc::new(route), group)
}

#[tokio::test]
async fn request_of_removed_route_in_flight_is_answered() {
    const OTHER: &str = "/other/seg1.ts";
    let gate = Gate::new();
    let removed = Origin::start()
        .await
        .on(OTHER, segment("other").hold_head(&gate));
    let only = Origin::start().await.on(OTHER, segment("only"));
    let (route, group) = other_route(&removed);
    let mut shield = Shield::in_front_of(&only)
        .with(|config| {
            config.rules.routes.insert(0, route);
            config.origins.push(group);
        })
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    viewer.send(&get(OTHER)).await;
    removed.wait_hits(OTHER, 1).await;
    shield.reload(|config| {
        config.rules.routes.remove(0);
        config.origins.pop();
    });
    shield.get(OTHER).await.assert_whole("only");
    gate.open();
    viewer.receive(&get(OTHER)).await.assert_whole("other");
    shield.get(OTHER).await.assert_whole("only");
    assert_eq!((removed.hits(OTHER), only.hits(OTHER)), (1, 1));
    let labels = |route| [("outcome", "miss"), ("route", route)];
    for route in ["other", "only"] {
        let what = format!("the miss of route {route}");
        eventually(what, async || {
            shield.counter(REQUESTS, &labels(route)).await == 1
        })
        .await;
    }
}

/// Routes move, the numbers of their counters do not.
#[tokio::test]
async fn added_route_is_counted_under_its_name() {
    let origin = Origin::start().await.on(PATH, segment("a"));
    let added = Origin::start().await.on("/other/a.ts", segment("b"));
    let mut shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("a");
    shield.reload(|config| {
        let (route, group) = other_route(&added);
        config.rules.routes.insert(0, route);
        config.origins.push(group);
    });
    shield.get("/other/a.ts").await.assert_whole("b");
    shield.get(PATH).await.assert_whole("a");
    eventually("one miss and one hit of the first route", async || {
        let count = async |outcome, route| {
            let labels = [("outcome", outcome), ("route", route)];
            shield.counter(REQUESTS, &labels).await
        };
        let first = (count("miss", "only").await, count("hit", "only").await);
        (first, count("miss", "other").await) == ((1, 1), 1)
    })
    .await;
}

/// An endpoint that is gone keeps its place for what began before.
#[tokio::test]
async fn another_endpoint_takes_over_after_it_was_removed() {
    let (body, gate) = (noise(1, LENGTH), Gate::new());
    let half = reply()
        .content_type("video/mp2t")
        .header("ETag", "\"same\"")
        .content_length(LENGTH as u64)
        .send(body.slice(..LENGTH / 2))
        .hold(&gate)
        .close();
    let whole = reply().content_type("video/mp2t").etag("\"same\"");
    let first = Origin::start().await.on(PATH, half);
    let second = Origin::start()
        .await
        .on(PATH, whole.with_ranges(body.clone()));
    let mut shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .without_deadlines()
        .start()
        .await;
    let arriving = shield.begin(get(PATH)).await;
    shield.reload(|config| config.origins[0].endpoints.truncate(1));
    gate.open();
    arriving.finish().await.assert_whole(&body);
    assert_eq!(second.hits(PATH), 1);
}

/// What is remembered of endpoints names some that exist no more.
#[tokio::test]
async fn memo_of_a_removed_endpoint_stops_no_request() {
    let half = reply()
        .content_type("video/mp2t")
        .content_length(LENGTH as u64)
        .send(noise(1, LENGTH / 2))
        .close();
    let absent = crate::support::status(503);
    let first = Origin::start().await.on(PATH, absent);
    let second = Origin::start().await.on(PATH, half);
    let mut shield = Shield::in_front_of(&first)
        .and_endpoint(&second)
        .start()
        .await;
    // The second endpoint broke off inside the body: it is asked last.
    shield.get(PATH).await;
    first.set_script(PATH, segment("whole"));
    shield.reload(|config| config.origins[0].endpoints.truncate(1));
    let is_whole = |response: &crate::support::Response| response.text() == "whole";
    shield.repeat_until(get(PATH), is_whole).await;
}

#[tokio::test]
async fn stale_object_is_served_when_the_new_endpoint_is_down() {
    let stale = segment("old").cache_control("max-age=0, stale-if-error=600");
    let origin = Origin::start().await.on(PATH, stale);
    let down = Origin::start().await;
    down.stop().await;
    let mut shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("old");
    shield.reload(|config| config.origins[0].endpoints = vec![endpoint(&down)]);
    shield.get(PATH).await.assert_whole("old");
    assert_eq!(shield.get("/live/seg2.ts").await.status, 502);
}

/// A blocking request is answered by its origin, and has the route with which it began.
#[tokio::test]
async fn blocking_request_in_flight_is_answered() {
    use low_latency_hls::{NEXT, PATH, holding, passive, version};
    let gate = Gate::new();
    let origin = holding(&gate).await;
    let elsewhere = Origin::start().await;
    let mut shield = passive(&origin).start().await;
    shield.get(PATH).await.assert_whole(version(20, 2));
    let crowd = shield.crowd(3, get(NEXT)).await;
    gate.wait_arrived(1).await;
    shield.reload(|config| config.origins[0].endpoints = vec![endpoint(&elsewhere)]);
    gate.open();
    for response in crowd.read_all().await {
        response.assert_whole(version(20, 3));
    }
    assert_eq!(elsewhere.hits(PATH), 0);
}

/// Nothing keeps old settings in memory: neither a stored object nor a live stream.
#[tokio::test]
async fn old_settings_are_freed() {
    const LIVE: &str = "/live/index.m3u8";
    let live = manifest(playlist(1)).cache_control("max-age=1");
    let origin = Origin::start()
        .await
        .on(LIVE, live)
        .on(PATH, segment("whole").cache_control("max-age=60"));
    let mut shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole("whole");
    shield.get(LIVE).await.assert_whole(playlist(1));
    shield
        .repeat_until(get(LIVE), |_| origin.hits(LIVE) >= 2)
        .await;
    let before = shield.settings_in_use();
    shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).x_cache = true);
    eventually("the settings of before to be freed", async || {
        before.upgrade().is_none()
    })
    .await;
}
