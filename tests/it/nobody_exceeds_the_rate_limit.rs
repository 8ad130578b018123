//! A rate limit counts each request once, however it is answered: by a fetch, from memory, with a
//! response that is sent again or shared, and over every transport.

use std::sync::Arc;

use futures_util::future::join_all;
use seawall_policy::rate_limit::{Allowance, RateLimit};
use seawall_policy::{RateLimits, Route, TrustedProxies};

use crate::support::metrics::{REPEATED, REQUESTS_LIMITED, WAITERS};
use crate::support::shield::{Builder, address_list};
use crate::support::viewer::{Ask, Viewer};
use crate::support::{
    Gate, Origin, Response, Shield, ask, eventually, get, head, noise, reply, segment,
};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";

/// The addresses of two viewers on this machine.
const ONE: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

/// So slow that nothing is added while a scenario runs.
const HARDLY_ANYTHING: f64 = 0.001;

fn requests(burst: u32) -> RateLimit {
    RateLimit {
        requests: Some(Allowance {
            per_second: HARDLY_ANYTHING,
            burst: burst.into(),
        }),
        bytes: None,
    }
}

fn bytes(burst: u32) -> RateLimit {
    RateLimit {
        requests: None,
        bytes: Some(Allowance {
            per_second: HARDLY_ANYTHING,
            burst: burst.into(),
        }),
    }
}

fn per_client(limit: RateLimit) -> RateLimits {
    RateLimits {
        per_client: Some(limit),
        per_route: None,
    }
}

fn per_route(limit: RateLimit) -> RateLimits {
    RateLimits {
        per_client: None,
        per_route: Some(limit),
    }
}

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

fn limited(origin: &Origin, limits: RateLimits) -> Builder {
    Shield::in_front_of(origin).route(|route| route.rate_limits = limits)
}

/// Whether the request was admitted; a refusal tells nothing but when to return.
fn is_admitted(response: &Response) -> bool {
    if response.status != 429 {
        return true;
    }
    let wait = response.header("retry-after").expect("a time to return");
    let wait: u64 = wait.parse().expect("seconds");
    assert!((1..=100_000).contains(&wait), "{response:?}");
    assert_eq!(response.header("cache-control"), Some("no-store"));
    for name in ["cache-status", "via", "x-cache", "etag"] {
        assert_eq!(response.header(name), None, "{response:?}");
    }
    assert!(
        ["", "too many requests\n"].contains(&response.text()),
        "{response:?}"
    );
    false
}

/// How many of `count` requests on one connection are admitted.
async fn admitted(viewer: &mut Viewer, request: &Ask, count: usize) -> usize {
    let mut admitted = 0;
    for _ in 0..count {
        admitted += usize::from(is_admitted(&viewer.ask(request.clone()).await));
    }
    admitted
}

async fn refused(shield: &Shield, per: &str, quantity: &str) -> u64 {
    let labels = [("per", per), ("quantity", quantity)];
    shield.counter(REQUESTS_LIMITED, &labels).await
}

#[tokio::test]
async fn repeated_responses_count_over_http1() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(20))).start().await;
    let mut viewer = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut viewer, &get(PATH), 50).await, 20);
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    assert_eq!(refused(&shield, "client", "requests").await, 30);
    let mut other = shield.viewer_from(OTHER).await;
    assert_eq!(admitted(&mut other, &get(PATH), 21).await, 20);
    let mut same_address = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut same_address, &get(PATH), 5).await, 0);
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn repeated_responses_count_over_http2() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(20))).start().await;
    let viewer = shield.h2_viewer_from(ONE).await;
    let mut count = 0;
    for _ in 0..50 {
        count += usize::from(is_admitted(&viewer.ask(get(PATH)).await));
    }
    assert_eq!(count, 20);
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    assert_eq!(refused(&shield, "client", "requests").await, 30);
}

#[tokio::test]
async fn streams_of_one_connection_count_each() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(20))).start().await;
    let viewer = shield.h2_viewer_from(ONE).await;
    let responses = join_all((0..60).map(|_| viewer.ask(get(PATH)))).await;
    assert_eq!(responses.iter().filter(|&it| is_admitted(it)).count(), 20);
}

/// hyper reads these requests after the fast path has looked them up in vain.
#[tokio::test]
async fn miss_counts_once() {
    let mut origin = Origin::start().await;
    let paths: Vec<_> = (0..15).map(|number| format!("/vod/{number}.ts")).collect();
    for path in &paths {
        origin = origin.on(path, segment(BODY).cache_control("max-age=600"));
    }
    let shield = limited(&origin, per_client(requests(10))).start().await;
    let mut viewer = shield.viewer_from(ONE).await;
    let mut count = 0;
    for path in &paths {
        count += usize::from(is_admitted(&viewer.get(path).await));
    }
    assert_eq!(count, 10);
    assert_eq!(origin.hits(&paths[9]), 1);
    assert_eq!(origin.hits(&paths[10]), 0, "a refused request is fetched");
}

/// Those that wait together are handed to hyper when the body begins to arrive.
#[tokio::test]
async fn viewer_of_a_shared_wait_counts_once() {
    let (at_head, at_body) = (Gate::new(), Gate::new());
    let body = noise(1, 300_000);
    let held = reply()
        .content_type("video/mp2t")
        .content_length(600_000)
        .hold_head(&at_head)
        .send(body.clone())
        .hold(&at_body)
        .send(body.clone());
    let origin = Origin::start().await.on(PATH, held);
    let shield = limited(&origin, per_client(requests(6))).start().await;
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let mut viewer = shield.viewer_from(ONE).await;
        viewer.send(&get(PATH)).await;
        waiting.push(viewer);
        shield.wait_gauge(WAITERS, |waiters| waiters == count).await;
    }
    at_head.open();
    at_body.open();
    for viewer in &mut waiting {
        let response = viewer.receive(&get(PATH)).await;
        assert_eq!(response.status, 200, "{response:?}");
    }
    let mut viewer = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 2);
}

#[tokio::test]
async fn viewer_over_the_limit_shares_no_wait() {
    let gate = Gate::new();
    let held = segment(BODY).cache_control("max-age=600").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let shield = limited(&origin, per_client(requests(4))).start().await;
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let mut viewer = shield.viewer_from(ONE).await;
        viewer.send(&get(PATH)).await;
        waiting.push(viewer);
        shield.wait_gauge(WAITERS, |waiters| waiters == count).await;
    }
    let mut late = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut late, &get(PATH), 3).await, 0);
    assert_eq!(refused(&shield, "client", "requests").await, 3);
    gate.open();
    for viewer in &mut waiting {
        viewer.receive(&get(PATH)).await.assert_whole(BODY);
    }
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was shared");
}

#[tokio::test]
async fn every_method_counts_and_refusals_by_access_rules_do_not() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(5)))
        .route(|route| {
            route.pass_methods = true;
            route.access.deny = Some(address_list(&["127.0.0.2/32"]));
        })
        .start()
        .await;
    let mut viewer = shield.viewer_from(ONE).await;
    let preflight = ask("OPTIONS", PATH)
        .header("Origin", "https://player.test")
        .header("Access-Control-Request-Method", "GET");
    let each = [
        get(PATH),
        head(PATH),
        preflight,
        ask("POST", PATH).body(b"upload"),
        // An invalid request of a route.
        get("/live/../../a.ts"),
    ];
    for request in each.clone() {
        assert_ne!(shield.viewer_from(ONE).await.ask(request).await.status, 429);
    }
    for request in each {
        let response = shield.viewer_from(ONE).await.ask(request).await;
        assert_eq!(response.status, 429, "{response:?}");
    }
    // The limit is not used up by those who may not enter.
    let mut denied = shield.viewer_from(OTHER).await;
    for _ in 0..20 {
        assert_eq!(denied.get(PATH).await.status, 403);
    }
    assert_eq!(viewer.get(PATH).await.status, 429);
    assert_eq!(refused(&shield, "client", "requests").await, 6);
}

#[tokio::test]
async fn bytes_count_when_they_are_sent_however_they_are_sent() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(bytes(95))).start().await;
    // 10 responses of 10 bytes: the last one is admitted because 5 are left.
    let mut viewer = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut viewer, &head(PATH), 30).await, 30, "no bytes");
    assert_eq!(admitted(&mut viewer, &get(PATH), 30).await, 10);
    assert_eq!(refused(&shield, "client", "bytes").await, 20);
    let http2 = shield.h2_viewer_from(OTHER).await;
    let mut count = 0;
    for _ in 0..30 {
        count += usize::from(is_admitted(&http2.ask(get(PATH)).await));
    }
    assert_eq!(count, 10);
}

#[tokio::test]
async fn running_response_ends_whole_and_the_next_request_is_refused() {
    let body = noise(1, 300_000);
    let origin = Origin::start()
        .await
        .on(PATH, segment(body.clone()).cache_control("max-age=600"));
    let shield = limited(&origin, per_client(bytes(1000))).start().await;
    for address in [ONE, OTHER] {
        let mut viewer = shield.viewer_from(address).await;
        viewer.get(PATH).await.assert_whole(&body);
        assert_eq!(admitted(&mut viewer, &get(PATH), 3).await, 0);
    }
}

/// A download that has not ended counts too: nobody gains by many at once.
#[tokio::test]
async fn bytes_of_a_running_download_count() {
    let gate = Gate::new();
    let (begin, rest) = (noise(1, 50_000), noise(2, 50_000));
    let held = reply().content_type("video/mp2t").content_length(100_000);
    let held = held.send(begin).hold(&gate).send(rest);
    let origin = Origin::start().await.on(PATH, held);
    let shield = limited(&origin, per_client(bytes(10_000))).start().await;
    let arriving = shield.begin(get(PATH)).await;
    shield
        .repeat_until(get(PATH), |response| response.status == 429)
        .await;
    gate.open();
    assert_eq!(arriving.finish().await.body.len(), 100_000);
}

#[tokio::test]
async fn limit_per_route_counts_all_clients_of_that_route_alone() {
    let origin = origin().await.on("/free/seg1.ts", segment(BODY));
    let limits = RateLimits {
        per_client: Some(requests(8)),
        per_route: Some(requests(12)),
    };
    let free = Route {
        name: "free".into(),
        path_prefix: "/free".to_owned(),
        ..Route::everything("only")
    };
    let shield = limited(&origin, limits)
        .with(|config| config.rules.routes.insert(0, Arc::new(free)))
        .start()
        .await;
    let (mut one, mut other) = (
        shield.viewer_from(ONE).await,
        shield.viewer_from(OTHER).await,
    );
    assert_eq!(admitted(&mut one, &get(PATH), 20).await, 8);
    assert_eq!(admitted(&mut other, &get(PATH), 20).await, 4);
    assert_eq!(refused(&shield, "client", "requests").await, 12);
    assert_eq!(refused(&shield, "route", "requests").await, 16);
    assert_eq!(admitted(&mut one, &get("/free/seg1.ts"), 20).await, 20);
}

#[tokio::test]
async fn reload_changes_a_limit_and_forgets_nothing_that_was_used() {
    let origin = origin().await;
    let mut shield = limited(&origin, per_client(requests(10))).start().await;
    let mut viewer = shield.viewer_from(ONE).await;
    assert_eq!(admitted(&mut viewer, &get(PATH), 7).await, 7);
    let set = |shield: &mut Shield, limits: RateLimits| {
        shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).rate_limits = limits);
    };
    set(&mut shield, per_client(requests(10)));
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 3);
    set(&mut shield, per_client(requests(15)));
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 5);
    set(&mut shield, RateLimits::default());
    assert_eq!(admitted(&mut viewer, &get(PATH), 30).await, 30);
    set(&mut shield, per_client(requests(15)));
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 0);
    set(&mut shield, per_route(requests(5)));
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 5);
    set(&mut shield, per_route(requests(6)));
    assert_eq!(admitted(&mut viewer, &get(PATH), 10).await, 1);
}

/// They come over one connection, and the field does not make their requests different ones.
#[tokio::test]
async fn client_behind_a_trusted_proxy_has_a_limit_of_its_own() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(10)))
        .with(|config| {
            config.rules.trusted_proxies = TrustedProxies {
                addresses: Some(address_list(&["127.0.0.1/32"])),
                ..TrustedProxies::default()
            };
        })
        .start()
        .await;
    let mut proxy = shield.viewer_from(ONE).await;
    let of = |client: &str| get(PATH).header("X-Forwarded-For", client);
    assert_eq!(admitted(&mut proxy, &of("192.0.2.1"), 30).await, 10);
    assert_eq!(admitted(&mut proxy, &of("192.0.2.2"), 30).await, 10);
    // A client has all addresses of its network.
    assert_eq!(admitted(&mut proxy, &of("2001:db8::1"), 6).await, 6);
    assert_eq!(admitted(&mut proxy, &of("2001:db8::2"), 6).await, 4);
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    // Nobody else gets more by inventing addresses.
    let mut viewer = shield.viewer_from(OTHER).await;
    let mut count = 0;
    for number in 0..30 {
        let invented = of(&format!("192.0.2.{number}"));
        count += usize::from(is_admitted(&viewer.ask(invented).await));
    }
    assert_eq!(count, 10);
}

/// Both workers take from the same buckets.
#[tokio::test]
async fn workers_share_a_limit() {
    let origin = origin().await;
    let shield = limited(&origin, per_client(requests(40)))
        .with(|config| config.threads = 2)
        .start()
        .await;
    let mut viewers = Vec::new();
    for _ in 0..8 {
        viewers.push(shield.viewer_from(ONE).await);
    }
    let counts = viewers
        .iter_mut()
        .map(async |viewer| admitted(viewer, &get(PATH), 20).await);
    assert_eq!(join_all(counts).await.iter().sum::<usize>(), 40);
    eventually("all refusals are counted", async || {
        refused(&shield, "client", "requests").await == 120
    })
    .await;
}
