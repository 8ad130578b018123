//! A response that is sent again without a lookup is the one that a lookup would give.

use std::sync::Arc;

use seawall_policy::{IGNORED_UNLESS_FORWARDED, Route};
use tokio::net::TcpStream;

use crate::support::metrics::{REPEATED, REPEATED_BYTES, REQUESTS};
use crate::support::viewer::{Ask, H2Viewer, Viewer};
use crate::support::{
    Origin, Response, Shield, computed, eventually, get, head, manifest, noise, playlist, segment,
};

const PATH: &str = "/live/index.m3u8";
const OBJECT: &str = "/vod/a.vtt";

/// A viewer of one worker, and what it got again.
struct Repeats {
    shield: Shield,
    viewer: Viewer,
}

impl Repeats {
    async fn of(shield: Shield) -> Repeats {
        let viewer = shield.viewer().await;
        Repeats { shield, viewer }
    }

    async fn count(&self) -> u64 {
        self.shield.counter(REPEATED, &[]).await
    }

    /// Sends the same request until its response is a repeated one.
    async fn ask(&mut self, ask: &Ask) -> Response {
        let mut last = None;
        let before = self.count().await;
        let viewer = &mut self.viewer;
        let shield = &self.shield;
        eventually(format!("a repeated response to {ask}"), async || {
            last = Some(viewer.ask(ask.clone()).await);
            shield.counter(REPEATED, &[]).await > before
        })
        .await;
        last.expect("it was sent")
    }

    /// Sends a request once: its response is no repeated one.
    async fn ask_anew(&mut self, ask: Ask) -> Response {
        let before = self.count().await;
        let response = self.viewer.ask(ask).await;
        assert_eq!(self.count().await, before, "{response:?}");
        response
    }
}

async fn one_object() -> (Origin, Shield) {
    let reply = segment("0123456789")
        .cache_control("max-age=600")
        .etag("\"1\"");
    let origin = Origin::start().await.on(OBJECT, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    (origin, shield)
}

#[tokio::test]
async fn repeated_response_equals_looked_up_one_but_for_its_id() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    repeats
        .viewer
        .ask(get(OBJECT))
        .await
        .assert_whole("0123456789");
    let looked_up = repeats.viewer.ask(get(OBJECT)).await;
    let first = repeats.ask(&get(OBJECT)).await;
    let second = repeats.ask(&get(OBJECT)).await;
    // These differ from second to second; the id differs always.
    let others = |response: &Response| {
        let changing = ["x-request-id", "age", "date", "cache-status"];
        for name in changing {
            assert_eq!(response.fields.all(name).len(), 1, "{name}: {response:?}");
        }
        let mut others = response.fields.0.clone();
        others.retain(|(name, _)| !changing.contains(&name.as_str()));
        others
    };
    for repeated in [&first, &second] {
        repeated.assert_whole("0123456789");
        assert!(repeated.is_hit(), "{repeated:?}");
        assert_eq!(others(repeated), others(&looked_up));
    }
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    assert_eq!(first.header("x-request-id").map(str::len), Some(16));
}

#[tokio::test]
async fn purged_object_is_not_repeated() {
    let (origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    repeats.ask(&get(OBJECT)).await.assert_whole("0123456789");
    origin.set_script(OBJECT, segment("new"));
    repeats.shield.purge(OBJECT).await;
    repeats.ask_anew(get(OBJECT)).await.assert_whole("new");
    repeats.ask(&get(OBJECT)).await.assert_whole("new");
    origin.set_script(OBJECT, segment("newest"));
    repeats.shield.purge_query("all").await;
    repeats.ask_anew(get(OBJECT)).await.assert_whole("newest");
}

#[tokio::test]
async fn replaced_playlist_is_not_repeated() {
    let version = |first| manifest(playlist(first)).cache_control("max-age=1");
    let origin = Origin::start().await.on(PATH, version(1));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut repeats = Repeats::of(shield).await;
    repeats.ask(&get(PATH)).await.assert_whole(playlist(1));
    origin.set_script(PATH, version(2));
    let viewer = &mut repeats.viewer;
    let mut newest = 1;
    eventually("the next version", async || {
        let response = viewer.ask(get(PATH)).await;
        let is_new = response.text() == playlist(2);
        assert!(is_new || newest == 1, "the stream went back: {response:?}");
        newest = if is_new { 2 } else { newest };
        is_new
    })
    .await;
    for _ in 0..20 {
        viewer.ask(get(PATH)).await.assert_whole(playlist(2));
    }
}

/// Each of these fields makes another response of the same object.
#[tokio::test]
async fn fields_that_matter_get_their_own_responses() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    repeats.ask(&get(OBJECT)).await.assert_whole("0123456789");
    let range = get(OBJECT).range("2-4");
    repeats.ask_anew(range.clone()).await.assert_is(206, "234");
    repeats.ask(&range).await.assert_is(206, "234");
    let known = get(OBJECT).header("If-None-Match", "\"1\"");
    repeats.ask_anew(known.clone()).await.assert_is(304, "");
    repeats.ask(&known).await.assert_is(304, "");
    let other = get(OBJECT).header("If-None-Match", "\"2\"");
    repeats.ask(&other).await.assert_whole("0123456789");
    // Twice the same field with another value is another request too.
    let both = known.header("If-None-Match", "\"3\"");
    let looked_up = repeats.ask_anew(both.clone()).await;
    assert_eq!(repeats.ask(&both).await.status, looked_up.status);
    repeats.ask(&get(OBJECT)).await.assert_whole("0123456789");
}

#[tokio::test]
async fn each_origin_gets_its_own_cors_fields() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    for page in ["https://a.test", "https://b.test"] {
        let ask = get(OBJECT).header("Origin", page);
        let looked_up = repeats.ask_anew(ask.clone()).await;
        let repeated = repeats.ask(&ask).await;
        for name in ["access-control-allow-origin", "vary"] {
            assert_eq!(repeated.header(name), looked_up.header(name));
        }
    }
}

/// Looked up each time: the viewer names the request.
#[tokio::test]
async fn ignored_field_changes_no_looked_up_response() {
    const VALUES: [&str; 5] = ["no-cache", "gzip", "bytes=0-1", "https://a.test", "\"1\""];
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    let named = || get(OBJECT).header("X-Request-Id", "mine");
    repeats.viewer.ask(named()).await;
    let plain = repeats.ask_anew(named()).await;
    for name in IGNORED_UNLESS_FORWARDED {
        for value in VALUES {
            let response = repeats.ask_anew(named().header(name, value)).await;
            response.assert_whole("0123456789");
            let names = |response: &Response| {
                let fields = response.fields.0.iter();
                fields.map(|(name, _)| name.clone()).collect::<Vec<_>>()
            };
            assert_eq!(names(&response), names(&plain), "{name}: {value}");
        }
    }
}

/// A field that nothing reads does not make another request, unless a route sends it upstream.
#[tokio::test]
async fn fields_that_nothing_reads_share_a_response() {
    let own =
        || computed(|request| segment(request.header("user-agent").unwrap_or("none").to_owned()));
    let origin = Origin::start().await.on(OBJECT, own());
    let agent = |name: &str| {
        get(OBJECT)
            .header("User-Agent", name)
            .header("X-Amz-Cf-Id", name)
    };
    let mut repeats = Repeats::of(Shield::in_front_of(&origin).start().await).await;
    // Each name comes once. A response may end at any moment, with its second.
    let mut number = 0;
    eventually("a repeated response to a name that is new", async || {
        let before = repeats.count().await;
        number += 1;
        let response = repeats.viewer.ask(agent(&format!("agent {number}"))).await;
        response.assert_whole("none");
        repeats.count().await > before
    })
    .await;

    let forwarding = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["user-agent".parse().unwrap()]);
    let mut repeats = Repeats::of(forwarding.start().await).await;
    repeats.ask(&agent("a")).await.assert_whole("a");
    repeats.ask_anew(agent("b")).await.assert_whole("b");
    repeats.ask(&agent("b")).await.assert_whole("b");
    repeats.ask(&agent("a")).await.assert_whole("a");
}

/// Changes the one route while the viewer stays connected.
fn change_route(shield: &mut Shield, change: impl FnOnce(&mut Route)) {
    shield.reload(|config| change(Arc::make_mut(&mut config.rules.routes[0])));
}

#[tokio::test]
async fn response_of_old_rules_is_not_repeated_after_reload() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    let before = repeats.ask(&get(OBJECT)).await;
    assert_eq!(before.header("x-cache"), None);
    change_route(&mut repeats.shield, |route| route.x_cache = true);
    let after = repeats.ask_anew(get(OBJECT)).await;
    assert_eq!(after.header("x-cache"), Some("HIT"));
    let repeated = repeats.ask(&get(OBJECT)).await;
    assert_eq!(repeated.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn object_of_old_rules_is_not_repeated_after_reload_over_http2() {
    let (_origin, mut shield) = one_object().await;
    let viewer = shield.h2_viewer().await;
    eventually("a repeated response", async || {
        let response = viewer.ask(get(OBJECT)).await;
        assert_eq!(response.header("x-cache"), None);
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
    change_route(&mut shield, |route| route.x_cache = true);
    let after = viewer.ask(get(OBJECT)).await;
    assert_eq!(after.header("x-cache"), Some("HIT"));
}

#[tokio::test]
async fn field_that_a_route_forwards_after_reload_ends_sharing() {
    let origin = Origin::start().await.on(
        OBJECT,
        computed(|request| {
            let agent = request.header("user-agent").unwrap_or("none").to_owned();
            segment(agent).cache_control("max-age=600")
        }),
    );
    let agent = |name: &str| get(OBJECT).header("User-Agent", name);
    let mut repeats = Repeats::of(Shield::in_front_of(&origin).start().await).await;
    repeats.ask(&agent("a")).await.assert_whole("none");
    change_route(&mut repeats.shield, |route| {
        route.forward_headers = vec!["user-agent".parse().unwrap()];
    });
    repeats.ask(&agent("a")).await.assert_whole("a");
    repeats.ask_anew(agent("b")).await.assert_whole("b");
    repeats.ask(&agent("b")).await.assert_whole("b");
}

#[tokio::test]
async fn viewer_gets_its_own_request_id_back() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    for _ in 0..5 {
        let response = repeats
            .ask_anew(get(OBJECT).header("X-Request-Id", "mine"))
            .await;
        assert_eq!(response.fields.all("x-request-id"), ["mine"]);
    }
}

#[tokio::test]
async fn http2_repeats_follow_the_same_rules() {
    let (origin, shield) = one_object().await;
    let viewer = shield.h2_viewer().await;
    let count = async || shield.counter(REPEATED, &[]).await;
    let repeated = async |ask: Ask| {
        let before = count().await;
        let mut last = None;
        eventually(format!("a repeated response to {ask}"), async || {
            last = Some(viewer.ask(ask.clone()).await);
            count().await > before
        })
        .await;
        last.expect("it was sent")
    };
    let first = repeated(get(OBJECT)).await;
    let second = repeated(get(OBJECT)).await;
    for response in [&first, &second] {
        response.assert_whole("0123456789");
        for name in ["date", "age", "etag", "cache-status", "content-type"] {
            assert_eq!(response.fields.all(name).len(), 1, "{name}: {response:?}");
        }
    }
    assert_ne!(first.header("x-request-id"), second.header("x-request-id"));
    let known = get(OBJECT).header("if-none-match", "\"1\"");
    repeated(known).await.assert_is(304, "");
    repeated(get(OBJECT).range("2-4"))
        .await
        .assert_is(206, "234");
    repeated(get(OBJECT)).await.assert_whole("0123456789");
    origin.set_script(OBJECT, segment("new"));
    shield.purge(OBJECT).await;
    let before = count().await;
    viewer.ask(get(OBJECT)).await.assert_whole("new");
    assert_eq!(count().await, before);
    // A HEAD is no GET.
    let head = viewer.ask(head(OBJECT)).await;
    head.assert_is(200, "");
    assert_eq!(count().await, before);
}

/// `Host` without a port agrees with port 443 of the target only if the scheme is https.
#[tokio::test]
async fn http2_scheme_makes_another_request() {
    let (origin, _) = one_object().await;
    let shield = Shield::in_front_of(&origin).with(|config| config.threads = 1);
    let shield = shield.start().await;
    let viewer = async |scheme| {
        let stream = TcpStream::connect(shield.address()).await;
        H2Viewer::over(stream.expect("the shield accepts viewers"), scheme).await
    };
    let ask = || {
        let ask = get(OBJECT).host("shield.test:443");
        ask.header("host", "shield.test")
    };
    let (secure, plain) = (viewer("https").await, viewer("http").await);
    eventually("a repeated response", async || {
        secure.ask(ask()).await.assert_whole("0123456789");
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
    assert_eq!(plain.ask(ask()).await.status, 400);
}

/// Remembering it would keep the whole object in memory.
#[tokio::test]
async fn small_part_of_a_large_object_is_not_remembered() {
    let large = segment(noise(1, 1 << 20)).cache_control("max-age=600");
    let origin = Origin::start().await.on(OBJECT, large);
    let mut repeats = Repeats::of(Shield::in_front_of(&origin).start().await).await;
    repeats.viewer.ask(get(OBJECT)).await;
    for _ in 0..5 {
        let response = repeats.ask_anew(get(OBJECT).range("0-9")).await;
        response.assert_is(206, &noise(1, 1 << 20)[..10]);
    }
}

/// The viewers have gone on to requests that come only once.
#[tokio::test]
async fn ended_response_is_forgotten_though_none_is_remembered() {
    let (_origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    repeats.ask(&get(OBJECT)).await.assert_whole("0123456789");
    assert!(repeats.shield.gauge(REPEATED_BYTES).await > 0);
    let (shield, viewer) = (&repeats.shield, &mut repeats.viewer);
    let mut number = 0;
    eventually("nothing is remembered", async || {
        number += 1;
        viewer.ask(get(&format!("{OBJECT}?{number}"))).await;
        shield.gauge(REPEATED_BYTES).await == 0
    })
    .await;
}

#[tokio::test]
async fn repeated_responses_are_counted_as_hits() {
    let (origin, shield) = one_object().await;
    let mut repeats = Repeats::of(shield).await;
    for _ in 0..50 {
        repeats.viewer.ask(get(OBJECT)).await;
    }
    let hits = [("outcome", "hit")];
    assert!(repeats.count().await >= 40, "{}", repeats.count().await);
    assert_eq!(repeats.shield.counter(REQUESTS, &hits).await, 49);
    assert_eq!(origin.hits(OBJECT), 1);
}
