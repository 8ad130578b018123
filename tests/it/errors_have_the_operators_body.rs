//! The shield's own errors have the body that the operator wrote for their status, and nothing else
//! of them changes. What an origin sent is never replaced.

use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use http::{HeaderValue, StatusCode};
use seawall_policy::rate_limit::{Allowance, RateLimit};
use seawall_policy::{ErrorPage, ErrorPages, ErrorStatus, RateLimits, Route};

use crate::support::operated::Operated;
use crate::support::shield::{Builder, NAME, address_list};
use crate::support::{
    Ask, Gate, Origin, Response, Shield, ask, get, hang_up, head, segment, status,
};

const PATH: &str = "/live/seg1.ts";
const JSON: &str = "application/json";

fn page(status: ErrorStatus, body: &'static str) -> ErrorPage {
    ErrorPage {
        statuses: vec![status],
        file: "page".into(),
        content_type: HeaderValue::from_static(JSON),
        body: Bytes::from_static(body.as_bytes()),
    }
}

fn one(status: u16, body: &'static str) -> ErrorPage {
    page(
        ErrorStatus::One(StatusCode::from_u16(status).unwrap()),
        body,
    )
}

/// A page for both classes of errors.
fn general() -> ErrorPages {
    let client = page(ErrorStatus::Client, "{\"by\":\"4xx\"}");
    ErrorPages::general(vec![client, page(ErrorStatus::Server, "{\"by\":\"5xx\"}")])
}

/// The general pages, and these of the one route.
fn with_pages(shield: Builder, own: Vec<ErrorPage>) -> Builder {
    let pages = ErrorPages {
        own: own.into(),
        ..general()
    };
    let shield = shield.route(|route| route.error_pages = pages);
    shield.with(|config| config.proxy.error_pages = general())
}

fn assert_page(response: &Response, ask: &Ask, status: u16, body: &str) {
    assert_eq!(response.status, status, "{ask:?}: {response:?}");
    assert_eq!(response.header("content-type"), Some(JSON), "{ask:?}");
    assert_eq!(
        response.header("cache-control"),
        Some("no-store"),
        "{ask:?}"
    );
    assert!(response.header("x-request-id").is_some(), "{ask:?}");
    let length = body.len().to_string();
    assert_eq!(response.header("content-length"), Some(&*length), "{ask:?}");
    let sent = if ask.is_head() { "" } else { body };
    response.assert_is(status, sent);
}

/// Asks over both protocols.
async fn assert_page_for(shield: &Shield, ask: &Ask, status: u16, body: &str) -> Response {
    assert_page(
        &shield.h2_viewer().await.ask(ask.clone()).await,
        ask,
        status,
        body,
    );
    let response = shield.ask(ask.clone()).await;
    assert_page(&response, ask, status, body);
    response
}

#[tokio::test]
async fn refusals_have_the_page_of_their_route() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin).route(|route| {
        "/live".clone_into(&mut route.path_prefix);
        route.access.deny = Some(address_list(&["127.0.0.0/8"]));
    });
    let shield = with_pages(shield, vec![one(403, "{\"by\":\"route\"}")]);
    let shield = shield.start().await;
    for ask in [
        get(PATH),
        head(PATH),
        ask("OPTIONS", PATH),
        ask("POST", PATH),
    ] {
        let refused = assert_page_for(&shield, &ask, 403, "{\"by\":\"route\"}").await;
        assert_eq!(refused.header("cache-status"), None);
    }
    // No route, and no host.
    for ask in [get("/vod/a"), head("/vod/a")] {
        assert_page_for(&shield, &ask, 421, "{\"by\":\"4xx\"}").await;
    }
    let lost = get(PATH).host("..");
    assert_page(
        &shield.ask(lost.clone()).await,
        &lost,
        400,
        "{\"by\":\"4xx\"}",
    );
    assert_eq!(origin.connections(), 0);
}

#[tokio::test]
async fn what_a_route_does_not_allow_has_its_page() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let shield = Shield::in_front_of(&origin);
    let shield = with_pages(shield, vec![one(405, "{\"by\":\"route\"}")]);
    let shield = shield
        .route(|route| route.honour_request_directives = true)
        .start()
        .await;
    let refused = assert_page_for(&shield, &ask("POST", PATH), 405, "{\"by\":\"route\"}").await;
    assert_eq!(refused.header("allow"), Some("GET, HEAD, OPTIONS"));
    let by_class = "{\"by\":\"5xx\"}";
    for ask in [get(PATH), head(PATH)] {
        let looped = ask.clone().header("CDN-Loop", NAME);
        let refused = assert_page_for(&shield, &looped, 508, by_class).await;
        assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
        let absent = ask.header("Cache-Control", "only-if-cached");
        let refused = assert_page_for(&shield, &absent, 504, by_class).await;
        assert!(refused.header("cache-status").is_some());
    }
    assert_eq!(origin.hits(PATH), 0);
}

#[tokio::test]
async fn limited_requests_have_the_page_and_the_time_to_return() {
    let origin = Origin::start().await.on(PATH, segment("whole"));
    let hardly_any = Allowance {
        per_second: 0.001,
        burst: 1.0,
    };
    let limits = RateLimits {
        per_client: Some(RateLimit {
            requests: Some(hardly_any),
            bytes: None,
        }),
        per_route: None,
    };
    let shield = Shield::in_front_of(&origin).route(|route| route.rate_limits = limits);
    let shield = with_pages(shield, vec![one(429, "{\"by\":\"route\"}")]);
    let shield = shield.start().await;
    shield.get(PATH).await.assert_whole("whole");
    for ask in [get(PATH), head(PATH)] {
        let refused = assert_page_for(&shield, &ask, 429, "{\"by\":\"route\"}").await;
        assert!(refused.header("retry-after").is_some());
    }
}

/// Errors of the origin are its own, with their bodies, at the first request and from memory; those
/// whose body must not be shared have the page.
#[tokio::test]
async fn errors_of_the_origin_keep_their_body() {
    let private = status(503).cache_control("private").body("secret");
    let origin = Origin::start()
        .await
        .on("/live/gone.ts", status(404).body("origin 404"))
        .on("/live/denied.ts", status(403).body("origin 403"))
        .on("/live/broken.ts", status(500).body("origin 500"))
        .on("/live/private.ts", private.header("Retry-After", "7"));
    let shield = with_pages(Shield::in_front_of(&origin), Vec::new());
    let shield = shield.start().await;
    for (path, code) in [("gone", 404), ("denied", 403), ("broken", 500)] {
        let path = format!("/live/{path}.ts");
        let h2 = shield.h2_viewer().await;
        for _ in 0..2 {
            let body = format!("origin {code}");
            shield.get(&path).await.assert_is(code, &body);
            h2.get(&path).await.assert_is(code, &body);
        }
    }
    let shared = get("/live/private.ts");
    let refused = assert_page_for(&shield, &shared, 503, "{\"by\":\"5xx\"}").await;
    assert_eq!(refused.header("retry-after"), Some("7"));
    let passed = shield.get(PATH).await;
    assert_ne!(passed.header("content-type"), Some(JSON));
}

/// A failed fill is one object for all that wait for it, and for those that come soon after; each
/// of them gets the page of its own route.
#[tokio::test]
async fn a_shared_failure_has_the_page_of_each_route() {
    let gate = Gate::new();
    let origin = Origin::start().await.on(PATH, hang_up().hold_head(&gate));
    let route = |host: &str, body: &'static str| Route {
        name: host.into(),
        hosts: vec![host.to_owned()],
        error_pages: ErrorPages {
            own: [one(502, body)].into(),
            ..general()
        },
        ..Route::everything("only")
    };
    let shield = Shield::in_front_of(&origin)
        .without_deadlines()
        .proxy_settings(|settings| settings.failure_backoff = Duration::from_hours(1))
        .with(|config| {
            let routes = [
                route("a.test", "{\"by\":\"a\"}"),
                route("b.test", "{\"by\":\"b\"}"),
            ];
            let routes = routes.into_iter().enumerate();
            let numbered = routes.map(|(index, route)| Arc::new(Route { index, ..route }));
            config.rules.routes = numbered.collect();
        })
        .start()
        .await;
    let a = shield.crowd(2, get(PATH).host("a.test")).await;
    let b = shield.crowd(2, get(PATH).host("b.test")).await;
    shield
        .wait_gauge(crate::support::metrics::WAITERS, |waiting| waiting == 4)
        .await;
    gate.open();
    for (crowd, body) in [(a, "{\"by\":\"a\"}"), (b, "{\"by\":\"b\"}")] {
        for response in crowd.read_all().await {
            assert_page(&response, &get(PATH), 502, body);
        }
    }
    let fetches = origin.hits(PATH);
    for (host, body) in [("a.test", "{\"by\":\"a\"}"), ("b.test", "{\"by\":\"b\"}")] {
        for ask in [get(PATH), head(PATH)] {
            let failed = assert_page_for(&shield, &ask.host(host), 502, body).await;
            assert!(failed.cache_status().has_parameter("detail=back-off"));
        }
    }
    assert_eq!(origin.hits(PATH), fetches);
}

#[tokio::test]
async fn stale_object_is_better_than_a_page() {
    let stored = segment("whole").cache_control("max-age=0, stale-if-error=600");
    let origin = Origin::start().await.on(PATH, stored.then(hang_up()));
    let shield = with_pages(Shield::in_front_of(&origin), Vec::new());
    let shield = shield.start().await;
    shield.get(PATH).await.assert_whole("whole");
    for _ in 0..2 {
        shield.get(PATH).await.assert_whole("whole");
    }
}

/// One page of the file's route.
fn paged(route: &str) -> String {
    format!(
        "[[route]]\norigin = \"only\"\npath = \"/live\"\n{route}\n[[error_page]]\n\
         statuses = [\"4xx\"]\nfile = \"pages/4xx.txt\"\ncontent_type = \"text/plain\"\n"
    )
}

/// Another text of the same file is a change, and another file of the same text.
#[tokio::test]
async fn a_reload_reads_the_files_again() {
    let operated = Operated::start("").await;
    let folder = operated.program.folder().join("pages");
    std::fs::create_dir(&folder).expect("a writable folder");
    let write = |name: &str, text: &str| std::fs::write(folder.join(name), text).unwrap();
    let body = async || {
        let mut viewer = operated.program.viewer().await;
        viewer.get("/elsewhere").await.text().to_owned()
    };
    let missing = operated.change_refused(&paged("")).await;
    assert!(missing.contains("pages/4xx.txt"), "{missing}");
    write("4xx.txt", &"x".repeat((64 << 10) + 1));
    let too_large = operated.change_refused(&paged("")).await;
    assert!(too_large.contains("larger than 64 KiB"), "{too_large}");
    write("4xx.txt", "one");
    operated.change(&paged("")).await;
    assert_eq!(body().await, "one");
    write("4xx.txt", "two");
    let report = operated.change(&paged("")).await;
    assert_eq!(body().await, "two");
    let [change] = &report["changes"].as_array().expect("a list")[..] else {
        panic!("{report}")
    };
    assert_eq!(change["key"], "file.content", "{report}");
    assert_eq!(change["effect"], "live", "{report}");
    let own = "error_page = [{ statuses = [405], file = \"pages/405.txt\", \
               content_type = \"text/plain\" }]";
    write("405.txt", "own");
    operated.change(&paged(own)).await;
    let mut viewer = operated.program.viewer().await;
    viewer.ask(ask("POST", PATH)).await.assert_is(405, "own");
    assert_eq!(body().await, "two");
    operated.object().await;
}
