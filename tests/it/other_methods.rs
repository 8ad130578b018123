//! A method other than GET and HEAD gets 405, a CORS preflight gets its answer from Seawall, and a
//! route with `pass_methods` forwards the rest.

use seawall_policy::route::Cors;

use crate::support::{End, Origin, Shield, ask, get, reply, segment, status};

const PATH: &str = "/live/seg1.ts";
const SITE: &str = "https://player.test";

/// By default: 405 with `Allow`, and no origin request.
#[tokio::test]
async fn other_methods_get_405_by_default() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    for method in ["POST", "PUT", "DELETE", "PATCH", "PURGE", "TRACE"] {
        let answer = shield.ask(ask(method, PATH)).await;
        assert_eq!(answer.status, 405, "{method}: {answer:?}");
        let allowed = answer.header("allow").expect("Allow");
        assert!(
            allowed.contains("GET") && !allowed.contains(method),
            "{allowed}"
        );
    }
    assert_eq!(origin.hits(PATH), 0);
}

/// A refused body does not disturb the next request on the connection.
#[tokio::test]
async fn refused_request_body_is_not_read_as_next_request() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    let refused = viewer
        .ask(ask("POST", PATH).body(b"GET /other HTTP/1.1\r\n\r\n"))
        .await;
    assert_eq!(refused.status, 405);
    if refused.header("connection") != Some("close") {
        viewer.get(PATH).await.assert_whole("x");
    }
    assert_eq!(origin.hits("/other"), 0);
}

/// Where the route passes them: to the origin and back, with bodies, never stored.
#[tokio::test]
async fn pass_methods_forwards_post_and_stores_nothing() {
    let accepted = status(201).cache_control("max-age=60").body("made");
    let origin = Origin::start().await.on("/api", accepted);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    for fetch in 1..=2 {
        let answer = shield.ask(ask("POST", "/api").body(b"please")).await;
        answer.assert_is(201, "made");
        assert_eq!(origin.hits("/api"), fetch);
    }
    let asked = origin.latest("/api");
    assert_eq!(
        (asked.method.as_str(), &asked.body[..]),
        ("POST", &b"please"[..])
    );
}

/// A successful write invalidates the object stored for its URI; a failed one does not.
#[tokio::test]
async fn successful_write_invalidates_stored_object() {
    for (code, fetches) in [(204, 2), (200, 2), (303, 2), (403, 1), (500, 1)] {
        for method in ["POST", "PUT", "DELETE"] {
            let origin = Origin::start().await.on(
                PATH,
                crate::support::computed(move |request| match request.method.as_str() {
                    "GET" => segment("x"),
                    _ => status(code),
                }),
            );
            let shield = Shield::in_front_of(&origin)
                .route(|route| route.pass_methods = true)
                .start()
                .await;
            shield.get(PATH).await.assert_whole("x");
            assert_eq!(shield.ask(ask(method, PATH)).await.status, code);
            shield.get(PATH).await.assert_whole("x");
            let gets = origin
                .requests(PATH)
                .into_iter()
                .filter(|asked| asked.method == "GET");
            assert_eq!(gets.count(), fetches, "{method} answered {code}");
        }
    }
}

/// A CORS preflight is answered here.
#[tokio::test]
async fn cors_preflight_causes_no_origin_request() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let preflight = ask("OPTIONS", PATH)
        .header("Origin", SITE)
        .header("Access-Control-Request-Method", "GET")
        .header("Access-Control-Request-Headers", "Range");
    let answer = shield.ask(preflight).await;
    assert_eq!((answer.status, answer.end), (204, End::Whole), "{answer:?}");
    assert_eq!(answer.header("access-control-allow-origin"), Some("*"));
    let methods = answer
        .header("access-control-allow-methods")
        .expect("methods");
    assert!(
        methods.contains("GET") && methods.contains("HEAD"),
        "{methods}"
    );
    let fields = answer
        .header("access-control-allow-headers")
        .expect("headers");
    assert!(
        fields == "*" || fields.to_ascii_lowercase().contains("range"),
        "{fields}"
    );
    assert_eq!(origin.hits(PATH), 0);
}

/// Browsers may read the fields that players need, on misses and on hits.
#[tokio::test]
async fn age_is_exposed_to_cross_origin_pages() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        let answer = shield.ask(get(PATH).header("Origin", SITE)).await;
        assert_eq!(
            answer
                .assert_whole("x")
                .header("access-control-allow-origin"),
            Some("*")
        );
        let exposed = answer
            .header("access-control-expose-headers")
            .expect("exposed fields");
        assert!(
            exposed == "*" || exposed.to_ascii_lowercase().contains("age"),
            "{exposed}"
        );
    }
}

fn only(credentials: bool) -> Cors {
    Cors::Only {
        origins: vec![SITE.to_owned()],
        credentials,
    }
}

/// Pages whose players send cookies are allowed where the route says so, never by `*`.
#[tokio::test]
async fn allow_credentials_is_sent_only_if_route_allows_it() {
    let allowing = segment("x").header("Access-Control-Allow-Credentials", "true");
    let origin = Origin::start().await.on(PATH, allowing);
    for (cors, expected) in [
        (Cors::Any, None),
        (only(false), None),
        (only(true), Some("true")),
    ] {
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.cors = cors)
            .start()
            .await;
        let answer = shield.ask(get(PATH).header("Origin", SITE)).await;
        let allowed = answer.header("access-control-allow-credentials");
        assert_eq!(allowed, expected);
        let preflight = ask("OPTIONS", PATH).header("Origin", SITE);
        let allowed = shield.ask(preflight).await;
        assert_eq!(allowed.header("access-control-allow-credentials"), expected);
    }
}

/// Only the sites that a route names, where it names any.
#[tokio::test]
async fn cors_allows_only_named_origins() {
    let origin = Origin::start().await.on(PATH, segment("x"));
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.cors = only(false))
        .start()
        .await;
    let friend = shield.ask(get(PATH).header("Origin", SITE)).await;
    assert_eq!(friend.header("access-control-allow-origin"), Some(SITE));
    let stranger = shield
        .ask(get(PATH).header("Origin", "https://other.test"))
        .await;
    assert_eq!(
        stranger
            .assert_whole("x")
            .header("access-control-allow-origin"),
        None
    );
    assert_eq!(origin.hits(PATH), 1, "one object for both");
}

/// Off: the origin's own fields pass through.
#[tokio::test]
async fn cors_off_passes_on_origin_fields() {
    let own = reply()
        .content_type("video/mp2t")
        .header("Access-Control-Allow-Origin", SITE)
        .body("x");
    let origin = Origin::start().await.on(PATH, own);
    let shield = Shield::in_front_of(&origin).route(|route| route.cors = Cors::Off);
    let answer = shield.start().await.get(PATH).await;
    assert_eq!(answer.header("access-control-allow-origin"), Some(SITE));
}

/// Two routes share an object and apply their own CORS settings, whichever route fetched it.
#[tokio::test]
async fn routes_sharing_an_object_apply_their_own_cors() {
    use seawall_policy::route::Cors;
    const HOSTS: [(&str, &str); 2] = [("any.test", "*"), ("off.test", SITE)];
    let own = || {
        reply()
            .content_type("video/mp2t")
            .header("Access-Control-Allow-Origin", SITE)
            .body("x")
    };
    for first in [0, 1] {
        let origin = Origin::start().await.on(PATH, own());
        let shield = Shield::in_front_of(&origin)
            .with(|config| {
                let mut route = (*config.rules.routes[0]).clone();
                route.hosts = vec![HOSTS[0].0.to_owned()];
                let mut off = route.clone();
                off.hosts = vec![HOSTS[1].0.to_owned()];
                off.cors = Cors::Off;
                config.rules.routes = vec![route.into(), off.into()];
            })
            .start()
            .await;
        for turn in [first, 1 - first, first] {
            let (host, allowed) = HOSTS[turn];
            let answer = shield.ask(get(PATH).host(host)).await;
            let fields: Vec<_> = answer
                .assert_whole("x")
                .fields
                .all("access-control-allow-origin");
            assert_eq!(fields, [allowed], "{host} after {}", HOSTS[first].0);
        }
        assert_eq!(origin.hits(PATH), 1);
    }
}
