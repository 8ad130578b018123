//! Live streams go on with the settings of a reload, and those whose route is gone are left alone.

use std::sync::Arc;
use std::time::{Duration, Instant};

use seawall_policy::Route;

use crate::support::shield::endpoint;
use crate::support::{Origin, Shield, computed, eventually, get, manifest};

const PATH: &str = "/live/index.m3u8";
const OTHER: &str = "/other/index.m3u8";
const REFRESHED: &str = "seawall_manifests_refreshed";
const BYTES: &str = "seawall_manifest_trackers_bytes";

/// Segments of a quarter of a second, without end.
fn quick(first: u64) -> String {
    let head = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n";
    let line = |number: u64| format!("#EXTINF:0.25,\nseg{number}.ts\n");
    let segments: String = (first..first + 3).map(line).collect();
    format!("{head}#EXT-X-MEDIA-SEQUENCE:{first}\n{segments}")
}

/// An origin whose playlist advances by itself.
async fn on_the_air(path: &str) -> Origin {
    let start = Instant::now();
    let version = move || u64::try_from(start.elapsed().as_millis() / 250).unwrap_or(0);
    let live = computed(move |_| manifest(quick(version())).cache_control("max-age=1"));
    Origin::start().await.on(path, live)
}

/// Watches a playlist until it is refreshed by itself.
async fn watch(shield: &Shield, origin: &Origin, path: &str) {
    let twice = origin.hits(path) + 2;
    shield
        .repeat_until(get(path), |_| origin.hits(path) >= twice)
        .await;
    origin.wait_hits(path, origin.hits(path) + 1).await;
}

#[tokio::test]
async fn stream_of_a_removed_route_is_polled_no_more_and_forgotten() {
    let (stays, removed) = (on_the_air(PATH).await, on_the_air(OTHER).await);
    let route = Route {
        name: "other".into(),
        path_prefix: "/other".to_owned(),
        origin_index: 1,
        ..Route::everything("other")
    };
    let group = seawall_upstream::Settings::single("other", endpoint(&removed));
    let mut shield = Shield::in_front_of(&stays)
        .with(|config| {
            config.rules.routes.insert(0, Arc::new(route));
            config.origins.push(group);
        })
        .start()
        .await;
    watch(&shield, &stays, PATH).await;
    watch(&shield, &removed, OTHER).await;
    assert_eq!(shield.gauge(REFRESHED).await, 2);
    shield.reload(|config| {
        config.rules.routes.remove(0);
        config.origins.pop();
    });
    assert_eq!(shield.gauge(REFRESHED).await, 1);
    // One poll may be under way.
    let polls_max = removed.hits(OTHER) + 1;
    stays.wait_hits(PATH, stays.hits(PATH) + 6).await;
    assert!(removed.hits(OTHER) <= polls_max);
}

#[tokio::test]
async fn stream_whose_key_changes_is_forgotten() {
    let origin = on_the_air(PATH).await;
    let mut shield = Shield::in_front_of(&origin).start().await;
    watch(&shield, &origin, PATH).await;
    shield.reload(|config| {
        config.origins[0].name = "renamed".into();
        Arc::make_mut(&mut config.rules.routes[0]).origin = "renamed".into();
    });
    assert_eq!(shield.gauge(BYTES).await, 0);
    watch(&shield, &origin, PATH).await;
    assert_eq!(shield.gauge(REFRESHED).await, 1);
}

#[tokio::test]
async fn stream_is_polled_at_the_endpoint_of_the_reload() {
    let (before, after) = (on_the_air(PATH).await, on_the_air(PATH).await);
    let mut shield = Shield::in_front_of(&before).start().await;
    watch(&shield, &before, PATH).await;
    shield.reload(|config| config.origins[0].endpoints = vec![endpoint(&after)]);
    after.wait_hits(PATH, 3).await;
    assert_eq!(shield.gauge(REFRESHED).await, 1);
}

/// Also of streams that were known before.
#[tokio::test]
async fn refreshes_begin_when_the_route_allows_them() {
    let origin = on_the_air(PATH).await;
    let mut shield = Shield::in_front_of(&origin)
        .route(|route| route.live.cadence = false)
        .start()
        .await;
    shield
        .repeat_until(get(PATH), |_| origin.hits(PATH) >= 2)
        .await;
    shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).live.cadence = true);
    let before = origin.hits(PATH);
    shield
        .repeat_until(get(PATH), |_| origin.hits(PATH) > before)
        .await;
    origin.wait_hits(PATH, origin.hits(PATH) + 3).await;
}

#[tokio::test]
async fn refreshes_end_when_the_route_forbids_them() {
    let origin = on_the_air(PATH).await;
    let mut shield = Shield::in_front_of(&origin).start().await;
    watch(&shield, &origin, PATH).await;
    shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).live.cadence = false);
    eventually("the refreshes to end", async || {
        shield.gauge(REFRESHED).await == 0
    })
    .await;
}

/// A stream goes on as long as the new `idle` says: longer than three reload intervals of 1 s.
#[tokio::test]
async fn refreshes_last_as_long_as_the_new_idle() {
    let origin = on_the_air(PATH).await;
    let mut shield = Shield::in_front_of(&origin)
        .route(|route| route.live.idle = Duration::from_millis(1))
        .start()
        .await;
    watch(&shield, &origin, PATH).await;
    shield.reload(|config| {
        Arc::make_mut(&mut config.rules.routes[0]).live.idle = Duration::from_hours(1);
    });
    // No viewer is left.
    let polls_in_four_seconds = 16;
    origin
        .wait_hits(PATH, origin.hits(PATH) + polls_in_four_seconds)
        .await;
}
