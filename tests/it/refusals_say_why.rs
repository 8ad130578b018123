//! A refused request says to the operator which route refused it, and why; to pages, its status;
//! and to nobody else more than a preflight says.

use std::path::Path;
use std::sync::Arc;

use seawall_policy::rate_limit::{Allowance, RateLimit};
use seawall_policy::route::Cors;
use seawall_policy::{ClientClass, ClientClasses, RateLimits, Route, TokenKind};
use serde_json::Value;

use crate::support::metrics::{CLASS_REFUSED, REQUESTS};
use crate::support::shield::{Builder, address_list};
use crate::support::tokens::{SECRET, required, signed, valid, write_key};
use crate::support::{Ask, Origin, Response, Shield, ask, eventually, get, segment, status};

const PAGE: &str = "https://player.test";

/// An address of this machine that is of the class `near`.
const NEAR: [u8; 4] = [127, 0, 0, 2];

fn route(path: &str, change: impl FnOnce(&mut Route)) -> Route {
    let mut route = Route {
        name: path.trim_matches('/').into(),
        path_prefix: path.to_owned(),
        cors: Cors::Only {
            origins: vec![PAGE.to_owned()],
            credentials: false,
        },
        ..Route::everything("only")
    };
    change(&mut route);
    route
}

/// One request of each client, and hardly any after it.
fn one_request() -> RateLimits {
    let requests = Allowance {
        per_second: 0.001,
        burst: 1.0,
    };
    RateLimits {
        per_client: Some(RateLimit {
            requests: Some(requests),
            bytes: None,
        }),
        per_route: None,
    }
}

/// A route for each rule, and none for the rest.
fn guarded(origin: &Origin, folder: &Path) -> Builder {
    let key = write_key(folder, "key", SECRET);
    let token = Arc::new(required(TokenKind::SignedUrl, key));
    let routes = [
        route("/token", |route| route.access.token = Some(token)),
        route("/closed", |route| {
            route.access.allow = Some(address_list(&["192.0.2.1/32"]));
        }),
        route("/limited", |route| route.rate_limits = one_request()),
        route("/open", |_| {}),
    ];
    let near = ClientClass {
        addresses: Some(address_list(&["127.0.0.2/32"])),
        ..ClientClass::named("near", 0)
    };
    Shield::in_front_of(origin).with(|config| {
        let numbered = routes.into_iter().enumerate();
        let numbered = numbered.map(|(index, route)| Arc::new(Route { index, ..route }));
        config.rules.routes = numbered.collect();
        config.rules.client_classes = ClientClasses::of(vec![near]);
    })
}

async fn origin() -> Origin {
    Origin::start().await.on("/limited/a.ts", segment("whole"))
}

/// A refused request, its status, and what the log says of it: route, reason and detail.
type Refusal = (Ask, u16, [Option<&'static str>; 3]);

fn refusals() -> Vec<Refusal> {
    let token = |name: &str, token: &str| get(&format!("/token/{name}?seawall={token}"));
    let (of_token, of_open) = (Some("token"), Some("open"));
    let expired = signed(SECRET, "/token", 7, None);
    vec![
        (
            get("/token/none"),
            403,
            [of_token, Some("token"), Some("missing")],
        ),
        (
            token("expired", &expired),
            403,
            [of_token, Some("token"), Some("expired")],
        ),
        (
            token("url", &valid("/open")),
            403,
            [of_token, Some("token"), Some("url")],
        ),
        (
            get("/closed/a"),
            403,
            [Some("closed"), Some("address"), None],
        ),
        (
            get("/limited/b"),
            429,
            [Some("limited"), Some("rate_limit"), Some("client_requests")],
        ),
        (
            ask("DELETE", "/open/a"),
            405,
            [of_open, Some("method"), Some("method not allowed here")],
        ),
        (
            get("/open/%00"),
            400,
            [of_open, Some("malformed"), Some("path contains a NUL byte")],
        ),
        (
            get("/elsewhere"),
            421,
            [
                None,
                Some("no_route"),
                Some("no route serves this host and path"),
            ],
        ),
        (
            get("/host").host("a..b"),
            400,
            [
                None,
                Some("malformed"),
                Some("Host is not a name or an address"),
            ],
        ),
    ]
}

#[tokio::test]
async fn access_log_has_the_route_and_the_reason() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let log = folder.path().join("access.log");
    let shield = guarded(&origin, folder.path()).with(|config| {
        let access_log = &mut config.telemetry.access_log;
        access_log.enabled = true;
        access_log.path = Some(log.clone());
    });
    let shield = shield.start().await;
    shield.get("/limited/a.ts").await.assert_whole("whole");
    let (refusals, http2) = (refusals(), shield.h2_viewer().await);
    for (request, status, _) in &refusals {
        let refused = shield.ask(request.clone()).await;
        assert_eq!(refused.status, *status, "{request:?}");
        // Whoever reads a malformed request otherwise may find another one behind it.
        let is_last = refused.header("connection") == Some("close");
        assert_eq!(is_last, *status == 400, "{request:?}");
        let refused = http2.ask(request.clone()).await;
        assert_eq!(refused.status, *status, "{request:?}");
    }
    shield.ask(ask("OPTIONS", "/open/preflight")).await;
    let mut lines: Vec<Value> = Vec::new();
    eventually("a line for each request", async || {
        let text = std::fs::read_to_string(&log).unwrap_or_default();
        // The last line may be written at this moment.
        let whole = text
            .split_inclusive('\n')
            .filter(|line| line.ends_with('\n'));
        lines = whole
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        lines.len() >= 2 * refusals.len() + 2
    })
    .await;
    let of_path = |path: &str| -> Vec<[Value; 3]> {
        let lines = lines.iter().filter(|line| line["path"] == path);
        let fields = ["route", "reason", "reason_detail"];
        lines
            .map(|line| fields.map(|field| line[field].clone()))
            .collect()
    };
    for (request, _, said) in &refusals {
        let said = said.map(Value::from);
        assert_eq!(of_path(request.path()), [said.clone(), said], "{request:?}");
    }
    let unrefused = |route: &str| [[route.into(), Value::Null, Value::Null]];
    assert_eq!(of_path("/limited/a.ts"), unrefused("limited"));
    assert_eq!(of_path("/open/preflight"), unrefused("open"));
    for (route, refused) in [("token", 6), ("closed", 2), ("limited", 2), ("open", 2)] {
        let of_route = [("route", route), ("outcome", "refused")];
        assert_eq!(
            shield.counter(REQUESTS, &of_route).await,
            refused,
            "{route}"
        );
    }
}

#[tokio::test]
async fn status_counts_refusals_by_client_class() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = guarded(&origin, folder.path()).start().await;
    let (mut near, mut other) = (shield.viewer_from(NEAR).await, shield.viewer().await);
    for path in [
        "/limited/a.ts",
        "/limited/a.ts",
        "/limited/a.ts",
        "/closed/a",
        "/token/a",
    ] {
        near.get(path).await;
    }
    for path in ["/closed/a", "/elsewhere", "/limited/a.ts"] {
        other.get(path).await;
    }
    let status = shield.admin(get("/status")).await;
    let status: Value = serde_json::from_slice(&status.body).expect("JSON");
    let classes = status["client_classes"].as_array().expect("a list");
    let counts = |name: &str| {
        let class = classes.iter().find(|class| class["name"] == name);
        let class = class.expect("a class");
        (class["denied"].clone(), class["rate_limited"].clone())
    };
    assert_eq!(counts("near"), (2.into(), 2.into()));
    assert_eq!(counts("other"), (1.into(), 0.into()));
    assert_eq!(counts("background"), (Value::Null, Value::Null));
    for (code, count) in [("403", 2), ("429", 2)] {
        let labels = [("client_class", "near"), ("status", code)];
        assert_eq!(
            shield.counter(CLASS_REFUSED, &labels).await,
            count,
            "{code}"
        );
    }
}

fn from_page(request: &Ask, page: &str) -> Ask {
    request.clone().header("Origin", page)
}

fn allowed_page(response: &Response) -> Option<&str> {
    response.header("access-control-allow-origin")
}

/// A page may read what was refused exactly where its preflight is answered: then the fields say
/// nothing new.
#[tokio::test]
async fn pages_read_a_refusal_where_their_preflight_is_answered() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = guarded(&origin, folder.path()).start().await;
    let http2 = shield.h2_viewer().await;
    for page in [PAGE, "https://elsewhere.test"] {
        for (request, status, _) in refusals() {
            let preflight = ask("OPTIONS", request.path()).host(request.host_name());
            let preflight = preflight.header("Access-Control-Request-Method", "GET");
            let preflight = shield.ask(from_page(&preflight, page)).await;
            let preflight_allows = allowed_page(&preflight).map(str::to_owned);
            let request = from_page(&request, page);
            for refused in [
                shield.ask(request.clone()).await,
                http2.ask(request.clone()).await,
            ] {
                assert_eq!(refused.status, status, "{request:?}");
                let is_expected = page == PAGE && ![400, 421].contains(&status);
                let is_closed = request.path() == "/closed/a";
                let expected = (is_expected && !is_closed).then_some(PAGE);
                if status != 400 {
                    assert_eq!(allowed_page(&refused), expected, "{request:?}");
                }
                if status != 429 && status != 400 {
                    assert_eq!(preflight_allows.as_deref(), expected, "{request:?}");
                }
            }
        }
    }
    let mut limited = shield.viewer().await;
    let limited = limited.ask(from_page(&get("/limited/b"), PAGE)).await;
    let exposed = limited.fields.all("access-control-expose-headers");
    let [exposed] = exposed[..] else {
        panic!("not one line: {limited:?}");
    };
    let is_named = |name: &str| exposed.split(", ").any(|exposed| exposed == name);
    assert!(
        is_named("Retry-After") && is_named("X-Request-Id"),
        "{exposed}"
    );
    assert_eq!(limited.header("vary"), Some("Origin"));
}

/// Without CORS of its own a route adds none.
#[tokio::test]
async fn refusals_of_a_route_without_cors_have_no_fields_of_it() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let shield = guarded(&origin, folder.path()).with(|config| {
        for route in &mut config.rules.routes {
            Arc::make_mut(route).cors = Cors::Off;
        }
    });
    let shield = shield.start().await;
    shield.get("/limited/a.ts").await.assert_whole("whole");
    for (request, status, _) in refusals() {
        let refused = shield.ask(from_page(&request, PAGE)).await;
        assert_eq!(refused.status, status, "{request:?}");
        assert_eq!(allowed_page(&refused), None, "{request:?}");
        assert_eq!(refused.header("access-control-expose-headers"), None);
    }
}

/// The origin's own error keeps the fields that it has, where the route leaves CORS to the origin.
#[tokio::test]
async fn pages_read_when_to_return_after_an_error_of_the_origin() {
    let own = "access-control-expose-headers";
    let busy = status(503).header("Retry-After", "7").header(own, "X-Own");
    let origin = Origin::start().await.on("/busy.ts", busy);
    for cors in [Cors::Any, Cors::Off] {
        let is_off = cors == Cors::Off;
        let shield = Shield::in_front_of(&origin).route(|route| route.cors = cors);
        let refused = shield.start().await.get("/busy.ts").await;
        assert_eq!(
            (refused.status, refused.header("retry-after")),
            (503, Some("7"))
        );
        let exposed = refused.fields.all(own);
        let [exposed] = exposed[..] else {
            panic!("not one line: {exposed:?}");
        };
        let is_named = exposed.contains("Retry-After");
        assert_eq!(
            (is_named, exposed == "X-Own"),
            (!is_off, is_off),
            "{exposed}"
        );
    }
}
