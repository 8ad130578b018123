//! A route that demands a token lets nobody in without one, however a request is answered; and no
//! token reaches an origin, a key or a log.

use std::sync::Arc;

use http::StatusCode;
use seawall_policy::route::Redirect;
use seawall_policy::{RequiredToken, Route, TokenKind};
use tempfile::TempDir;

use crate::support::metrics::{ACCESS_REFUSED, REPEATED, TOKENS_REFUSED, TOKENS_VERIFIED};
use crate::support::shield::Builder;
use crate::support::tokens::{NEW_SECRET, SECRET, now, required, signed, valid, write_key};
use crate::support::viewer::Viewer;
use crate::support::{Origin, Response, Shield, ask, eventually, get, head, percent_encoded};
use crate::support::{manifest, playlist, segment};

const PATH: &str = "/live/seg1.ts";
const OTHER: &str = "/film/seg1.ts";
const BODY: &str = "0123456789";

async fn origin() -> Origin {
    let reply = || segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply()).on(OTHER, reply())
}

/// Every route demands a signed URL in its query.
fn guarded(origin: &Origin, change: impl FnOnce(&mut RequiredToken)) -> (Builder, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), "key", SECRET);
    let mut token = required(TokenKind::SignedUrl, key);
    change(&mut token);
    let shield = Shield::in_front_of(origin);
    let shield = shield.route(|route| route.access.token = Some(Arc::new(token)));
    (shield, folder)
}

fn with(token: &str, path: &str) -> String {
    format!("{path}?seawall={token}")
}

/// The same for every reason.
fn assert_denied(response: &Response) {
    response.assert_is(403, "access denied\n");
    for name in ["cache-status", "set-cookie", "via", "www-authenticate"] {
        assert_eq!(response.header(name), None, "{response:?}");
    }
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

/// A name, a request that is refused for it, and the word that counts it.
fn refused_targets() -> Vec<(String, &'static str)> {
    let token = valid("/live");
    let (mut forged, end) = (token.clone(), now() + 3600);
    let last = forged.pop().unwrap();
    forged.push(if last == 'A' { 'E' } else { 'A' });
    let unsigned = signed(NEW_SECRET, "/live", end, None);
    let unknown = token.replacen("1.k.", "1.other.", 1);
    let from_elsewhere = signed(SECRET, "/live", end, Some("192.0.2.7/32"));
    vec![
        (PATH.to_owned(), "missing"),
        (with("", PATH), "malformed"),
        (with("guess", PATH), "malformed"),
        (with(&forged, PATH), "signature"),
        (with(&unsigned, PATH), "signature"),
        (with(&unknown, PATH), "key"),
        (with(&signed(SECRET, "/live", now(), None), PATH), "expired"),
        (with(&valid("/film"), PATH), "url"),
        (with(&token, OTHER), "url"),
        (with(&valid("/live/seg"), PATH), "url"),
        (with(&from_elsewhere, PATH), "address"),
        (
            format!("{}&seawall={token}", with(&token, PATH)),
            "repeated",
        ),
        (format!("{PATH}?%73eawall={token}"), "missing"),
        (format!("{PATH}?SEAWALL={token}"), "missing"),
        (with(&"A".repeat(2049), PATH), "too_long"),
    ]
}

#[tokio::test]
async fn request_without_a_valid_token_gets_nothing_that_one_with_it_got() {
    let origin = origin().await;
    let (shield, folder) = guarded(&origin, |_| ());
    let socket = folder.path().join("viewers.sock");
    let shield = shield.on_unix(socket.clone()).start().await;
    let (mut http1, http2) = (shield.viewer().await, shield.h2_viewer().await);
    let mut unix = Viewer::connect_unix(&socket).await;
    let target = with(&valid("/live"), PATH);
    eventually("repeated responses over both protocols", async || {
        let before = shield.counter(REPEATED, &[]).await;
        http1.get(&target).await.assert_whole(BODY);
        unix.get(&target).await.assert_whole(BODY);
        http2.get(&target).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await >= before + 2
    })
    .await;
    let mut refused = 0;
    for (target, reason) in refused_targets() {
        let reasons = [("reason", reason)];
        let before = shield.counter(TOKENS_REFUSED, &reasons).await;
        for _ in 0..2 {
            assert_denied(&http1.get(&target).await);
            assert_denied(&http2.get(&target).await);
            assert_denied(&unix.get(&target).await);
            refused += 3;
        }
        let counted = shield.counter(TOKENS_REFUSED, &reasons).await - before;
        assert_eq!(counted, 6, "{target}: {reason}");
    }
    let by_token = [("reason", "token")];
    assert_eq!(shield.counter(ACCESS_REFUSED, &by_token).await, refused);
    assert_eq!((origin.hits(PATH), origin.hits(OTHER)), (1, 0));
    http1.get(&target).await.assert_whole(BODY);
}

#[tokio::test]
async fn all_methods_but_a_preflight_need_a_token() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |_| ());
    let shield = shield
        .route(|route| route.pass_methods = true)
        .start()
        .await;
    let (mut http1, http2) = (shield.viewer().await, shield.h2_viewer().await);
    let target = with(&valid("/live"), PATH);
    http1.get(&target).await.assert_whole(BODY);
    let preflight = |target: &str| {
        ask("OPTIONS", target)
            .header("Origin", "https://player.test")
            .header("Access-Control-Request-Method", "GET")
    };
    for request in [
        preflight(PATH),
        preflight(&target),
        preflight(&with("guess", PATH)),
    ] {
        for response in [http1.ask(request.clone()).await, http2.ask(request).await] {
            assert_eq!(response.status, 204);
            assert_eq!(response.header("access-control-allow-origin"), Some("*"));
        }
    }
    assert_eq!(http1.ask(head(&target)).await.status, 200);
    assert_eq!(http1.ask(head(PATH)).await.status, 403);
    for method in ["POST", "DELETE", "TRACE", "PURGE"] {
        let request = ask(method, PATH);
        assert_denied(&shield.ask(request.clone()).await);
        assert_denied(&http2.ask(request).await);
    }
    assert_eq!(origin.hits(PATH), 1);
    let passed = shield.ask(ask("POST", &target).body(b"upload")).await;
    assert_eq!(passed.status, 200);
    assert_eq!(origin.latest(PATH).method, "POST");
}

/// Two viewers with tokens of their own, and one with a token in each place, share one object; the
/// origin sees none of them.
#[tokio::test]
async fn no_token_reaches_the_origin_or_the_key() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |token| {
        token.cookie = Some("seawall".to_owned());
        token.header = Some("x-token".parse().unwrap());
        token.path = Some("seawall".to_owned());
    });
    let forwarding = |route: &mut Route| {
        route.forward_headers = vec!["cookie".parse().unwrap(), "x-token".parse().unwrap()];
    };
    let shield = shield.route(forwarding).start().await;
    let token = valid("/live");
    let cookie = |ask: crate::support::Ask, token: &str| {
        ask.header("Cookie", &format!("a=1; seawall={token}; b=2"))
    };
    let plain = |target: &str| get(target).header("Cookie", "a=1; b=2");
    let in_path = format!("/seawall={token}{PATH}");
    let everywhere = format!("/seawall={token}{}", with(&token, PATH));
    let requests = [
        plain(&with(&token, PATH)),
        plain(&with(&signed(SECRET, "/live", now() + 7200, None), PATH)),
        cookie(get(PATH), &token),
        plain(PATH).header("X-Token", &token),
        plain(&in_path),
        cookie(get(&everywhere), &token).header("X-Token", &token),
    ];
    for request in &requests {
        let http2 = shield.h2_viewer().await;
        for _ in 0..3 {
            shield.ask(request.clone()).await.assert_whole(BODY);
            http2.ask(request.clone()).await.assert_whole(BODY);
        }
    }
    assert_eq!(origin.hits(PATH), 1);
    let sent = origin.latest(PATH);
    assert_eq!(sent.target, PATH);
    assert_eq!(sent.header("cookie"), Some("a=1; b=2"));
    assert_eq!(sent.header("x-token"), None);
    let verified = shield.counter(TOKENS_VERIFIED, &[]).await;
    assert_eq!(verified, 2, "each token once");
    // The newer carrier counts: a good token in the query does not help a bad one in the cookie.
    for request in [
        cookie(get(&with(&token, PATH)), "guess"),
        cookie(get(PATH), &token).header("X-Token", "guess"),
        plain(PATH)
            .header("X-Token", &token)
            .header("X-Token", &token),
        plain(&format!("/seawall={token}{in_path}")),
    ] {
        assert_denied(&shield.ask(request).await);
    }
}

#[tokio::test]
async fn what_surrounds_a_token_in_the_query_stays_in_its_order() {
    let origin = Origin::start().await;
    let (shield, _folder) = guarded(&origin, |_| ());
    let shield = shield.start().await;
    let token = valid("/live");
    let rows = [
        (format!("seawall={token}"), ""),
        (format!("b=2&seawall={token}&a=1"), "?b=2&a=1"),
        (format!("seawall={token}&CMCD=sid%3D2&c=%26"), "?c=%26"),
        (
            format!("_HLS_msn=9&seawall={token}&_HLS_part=0"),
            "?_HLS_msn=9&_HLS_part=0",
        ),
        (
            format!("_HLS_part=0&x=y&_HLS_msn=9&seawall={token}"),
            "?x=y&_HLS_msn=9&_HLS_part=0",
        ),
    ];
    for (number, (query, expected)) in rows.iter().enumerate() {
        let path = format!("/live/{number}.m3u8");
        let target = format!("{path}{expected}");
        origin.set_script(&target, manifest(playlist(7)));
        let response = shield.get(&format!("{path}?{query}")).await;
        response.assert_200_text();
        assert!(origin.hits(&target) > 0, "{query} is sent as {target}");
    }
}

#[tokio::test]
async fn other_spelling_of_a_guarded_path_needs_the_token_too() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |token| token.path = Some("seawall".to_owned()));
    let open = Route {
        name: "open".into(),
        ..Route::everything("only")
    };
    let shield = shield
        .route(|route| "/live".clone_into(&mut route.path_prefix))
        .with(|config| config.rules.routes.push(Arc::new(open)));
    let shield = shield.start().await;
    shield.get(OTHER).await.assert_whole(BODY);
    let token = valid("/live");
    for path in [
        "/%6cive/seg1.ts",
        "//live/seg1.ts",
        "/./live/seg1.ts",
        "/%2e/live/seg1.ts",
        "/film/../live/seg1.ts",
        "/film/%2e%2e/live/seg1.ts",
        "/film/..%2flive/seg1.ts",
        "/live%2fseg1.ts",
        "/live;v=1/seg1.ts",
        "/live%5cseg1.ts",
    ] {
        assert_denied(&shield.get(path).await);
        // Nor is it below what the token permits, in its own words.
        assert_denied(&shield.get(&with(&token, path)).await);
        assert_denied(&shield.get(&format!("/seawall={token}{path}")).await);
    }
    assert_eq!(origin.hits(PATH), 0);
    // On other routes the segment is taken away: their playlists may be reached by relative URLs.
    shield
        .get(&format!("/seawall={token}{OTHER}"))
        .await
        .assert_whole(BODY);
    shield
        .get(&format!("/seawall={token}{PATH}"))
        .await
        .assert_whole(BODY);
    assert_eq!((origin.hits(PATH), origin.hits(OTHER)), (1, 1));
}

#[tokio::test]
async fn location_of_a_redirect_has_no_token() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |token| token.path = Some("seawall".to_owned()));
    let shield = shield.route(|route| {
        route.redirect = Some(Redirect {
            to: "https://new.test".to_owned(),
            status: StatusCode::FOUND,
        });
    });
    let shield = shield.start().await;
    assert_denied(&shield.get("/live/a?b=1").await);
    let token = valid("/live");
    for target in [
        format!("/live/a?seawall={token}&b=1"),
        format!("/seawall={token}/live/a?b=1"),
    ] {
        let response = shield.get(&target).await;
        assert_eq!(response.status, 302);
        assert_eq!(
            response.header("location"),
            Some("https://new.test/live/a?b=1")
        );
    }
}

#[tokio::test]
async fn operators_may_name_a_url_with_its_token() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin, |token| token.path = Some("seawall".to_owned()));
    let shield = shield.start().await;
    let token = valid("/live");
    let in_query = with(&token, PATH);
    let in_path = format!("/seawall={token}{PATH}");
    shield.get(&in_query).await.assert_whole(BODY);
    for target in [PATH, &in_query, &in_path] {
        let url = percent_encoded(&format!("http://media.test{target}"));
        let answer = shield.admin(get(&format!("/explain?url={url}"))).await;
        let explained: serde_json::Value = serde_json::from_str(answer.text()).unwrap();
        assert_eq!(explained["target"], PATH);
        assert_eq!(explained["held"]["state"], "fresh");
        assert!(!answer.text().contains(&token), "{}", answer.text());
    }
    for target in [PATH, &in_query, &in_path] {
        assert_eq!(shield.purge_counted("url", target).await, 1, "{target}");
        shield.get(&in_query).await.assert_whole(BODY);
    }
    assert_eq!(origin.hits(PATH), 4);
}

#[tokio::test]
async fn access_log_has_no_token() {
    let origin = origin().await;
    let (shield, folder) = guarded(&origin, |token| token.path = Some("seawall".to_owned()));
    let log = folder.path().join("access.log");
    let shield = shield.with(|config| {
        let access_log = &mut config.telemetry.access_log;
        access_log.enabled = true;
        access_log.path = Some(log.clone());
    });
    let shield = shield.start().await;
    let (token, expired) = (valid("/live"), signed(SECRET, "/live", 7, None));
    let mut requests = Vec::new();
    for token in [&token, &expired] {
        let in_path = format!("/seawall={token}{PATH}");
        requests.extend([
            get(&with(token, PATH)),
            get(&in_path),
            get(&in_path).header("X-Long", &"x".repeat(9000)),
            get(&in_path).host("a..b"),
            ask("BREW", &in_path),
            get(&format!("{in_path}?{}", "x".repeat(9000))),
            get(&format!("/seawall={token}")),
            get(&format!("/seawall={token}?a=1")),
        ]);
    }
    for request in &requests {
        shield.ask(request.clone()).await;
        shield.h2_viewer().await.ask(request.clone()).await;
    }
    let mut text = String::new();
    eventually("a line for each request", async || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() >= requests.len() * 2 - 4
    })
    .await;
    for token in [&token, &expired] {
        assert!(!text.contains(&token[..20]), "{text}");
    }
}
