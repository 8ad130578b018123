//! Access rules hold however a request is answered: by a fetch, from memory, with a response that
//! is sent again or shared, and over every transport.

use std::path::{Path, PathBuf};

use seawall_policy::access_rules::RequiredHeader;

use crate::support::metrics::{ACCESS_REFUSED, REPEATED, WAITERS};
use crate::support::shield::address_list;
use crate::support::viewer::{Ask, Viewer};
use crate::support::{Gate, Origin, Response, Shield, ask, eventually, get, head, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";

/// The addresses of two viewers on this machine.
const ALLOWED: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 2];

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// Only [`ALLOWED`] may enter.
async fn guarded(origin: &Origin) -> Shield {
    Shield::in_front_of(origin)
        .route(|route| route.access.allow = Some(address_list(&["127.0.0.1/32"])))
        .start()
        .await
}

/// Nothing in it tells what would be accepted.
fn assert_denied(response: &Response) {
    response.assert_is(403, "access denied\n");
    let tells = [
        "cache-status",
        "access-control-allow-origin",
        "via",
        "x-cache",
    ];
    for name in tells {
        assert_eq!(response.header(name), None, "{response:?}");
    }
    assert_eq!(response.header("cache-control"), Some("no-store"));
}

#[tokio::test]
async fn refused_address_gets_no_repeated_response_over_http1() {
    let origin = origin().await;
    let shield = guarded(&origin).await;
    let mut allowed = shield.viewer_from(ALLOWED).await;
    let mut other = shield.viewer_from(OTHER).await;
    eventually("a repeated response", async || {
        allowed.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
    let repeated = shield.counter(REPEATED, &[]).await;
    for _ in 0..5 {
        assert_denied(&other.get(PATH).await);
    }
    assert_eq!(shield.counter(REPEATED, &[]).await, repeated);
    let by_address = [("reason", "address")];
    assert_eq!(shield.counter(ACCESS_REFUSED, &by_address).await, 5);
    allowed.get(PATH).await.assert_whole(BODY);
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn refused_address_gets_no_repeated_response_over_http2() {
    let origin = origin().await;
    let shield = guarded(&origin).await;
    let allowed = shield.h2_viewer_from(ALLOWED).await;
    let other = shield.h2_viewer_from(OTHER).await;
    eventually("a repeated response", async || {
        allowed.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
    let repeated = shield.counter(REPEATED, &[]).await;
    for _ in 0..5 {
        assert_denied(&other.get(PATH).await);
    }
    assert_eq!(shield.counter(REPEATED, &[]).await, repeated);
    allowed.get(PATH).await.assert_whole(BODY);
    assert_eq!(origin.hits(PATH), 1);
}

/// Two addresses on which all lists agree share a response.
#[tokio::test]
async fn allowed_addresses_share_a_repeated_response() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.access.allow = Some(address_list(&["127.0.0.0/24"])))
        .start()
        .await;
    let mut one = shield.viewer_from(ALLOWED).await;
    eventually("a repeated response", async || {
        one.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > 0
    })
    .await;
    let mut other = shield.viewer_from(OTHER).await;
    eventually("a response of the same second for the other", async || {
        one.get(PATH).await.assert_whole(BODY);
        let before = shield.counter(REPEATED, &[]).await;
        other.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > before
    })
    .await;
}

#[tokio::test]
async fn refused_address_shares_no_wait() {
    let gate = Gate::new();
    let held = segment(BODY).hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let shield = guarded(&origin).await;
    let mut waiting = Vec::new();
    for count in 1..=4 {
        let mut viewer = shield.viewer_from(ALLOWED).await;
        viewer.send(&get(PATH)).await;
        waiting.push(viewer);
        shield.wait_gauge(WAITERS, |waiters| waiters == count).await;
    }
    let mut other = shield.viewer_from(OTHER).await;
    for _ in 0..3 {
        assert_denied(&other.get(PATH).await);
    }
    gate.open();
    for viewer in &mut waiting {
        viewer.receive(&get(PATH)).await.assert_whole(BODY);
    }
    assert!(
        shield.counter(REPEATED, &[]).await > 0,
        "the scenario shows what its name says only if they share"
    );
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn refused_address_reaches_the_origin_with_no_method() {
    let origin = origin().await;
    let shield = Shield::in_front_of(&origin)
        .route(|route| {
            route.pass_methods = true;
            route.access.deny = Some(address_list(&["127.0.0.2/32"]));
        })
        .start()
        .await;
    let preflight = ask("OPTIONS", PATH)
        .header("Origin", "https://player.test")
        .header("Access-Control-Request-Method", "GET");
    let requests = [get(PATH), ask("POST", PATH).body(b"upload"), preflight];
    for request in requests {
        let mut viewer = shield.viewer_from(OTHER).await;
        assert_denied(&viewer.ask(request.clone()).await);
        let http2 = shield.h2_viewer_from(OTHER).await;
        assert_denied(&http2.ask(request).await);
    }
    let mut viewer = shield.viewer_from(OTHER).await;
    viewer.ask(head(PATH)).await.assert_is(403, "");
    assert_eq!(origin.hits(PATH), 0);
    assert_eq!(shield.counter(ACCESS_REFUSED, &[]).await, 7);
    let mut allowed = shield.viewer_from(ALLOWED).await;
    let passed = allowed.ask(ask("POST", PATH).body(b"upload")).await;
    assert_eq!(passed.status, 200, "{passed:?}");
}

#[tokio::test]
async fn unix_socket_enters_only_with_the_word_unix() {
    let folder = tempfile::tempdir().unwrap();
    for (entries, may_enter) in [
        (&["127.0.0.1/32"][..], false),
        (&["127.0.0.1/32", "unix"][..], true),
    ] {
        let socket = folder.path().join(format!("{}.sock", entries.len()));
        let origin = origin().await;
        let shield = Shield::in_front_of(&origin)
            .route(|route| route.access.allow = Some(address_list(entries)))
            .on_unix(socket.clone())
            .start()
            .await;
        let mut viewer = shield.viewer_from(ALLOWED).await;
        let mut local = Viewer::connect_unix(&socket).await;
        for _ in 0..5 {
            viewer.get(PATH).await.assert_whole(BODY);
            let response = local.get(PATH).await;
            if may_enter {
                response.assert_whole(BODY);
            } else {
                assert_denied(&response);
            }
        }
    }
}

const HEADER: &str = "X-Origin-Secret";
const FIRST: &str = "the-first-secret-of-the-cdn";
const SECOND: &str = "the-second-secret-of-the-cdn";

/// Replaces a file as an operator does: at no time is there half a secret.
fn write_secret(folder: &Path, file: &str, secret: &str) -> PathBuf {
    let (path, new) = (folder.join(file), folder.join("new"));
    std::fs::write(&new, format!("{secret}\n")).unwrap();
    std::fs::rename(&new, &path).unwrap();
    path
}

async fn requiring(origin: &Origin, secret_files: Vec<PathBuf>) -> Shield {
    Shield::in_front_of(origin)
        .route(|route| {
            route.access.require_header = Some(RequiredHeader {
                name: HEADER.parse().unwrap(),
                secret_files,
            });
        })
        .start()
        .await
}

fn with_secret(secret: &str) -> Ask {
    get(PATH).header(HEADER, secret)
}

#[tokio::test]
async fn request_without_the_secret_gets_nothing_that_one_with_it_got() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let file = write_secret(folder.path(), "one", FIRST);
    let shield = requiring(&origin, vec![file]).await;
    let (mut viewer, http2) = (shield.viewer().await, shield.h2_viewer().await);
    eventually("repeated responses over both protocols", async || {
        let before = shield.counter(REPEATED, &[]).await;
        viewer.ask(with_secret(FIRST)).await.assert_whole(BODY);
        http2.ask(with_secret(FIRST)).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await == before + 2
    })
    .await;
    let both = || with_secret("a-guess").header(HEADER, FIRST);
    for refused in [get(PATH), with_secret("a-guess"), with_secret(""), both()] {
        for _ in 0..3 {
            assert_denied(&viewer.ask(refused.clone()).await);
            assert_denied(&http2.ask(refused.clone()).await);
        }
    }
    let by_header = [("reason", "header")];
    assert_eq!(shield.counter(ACCESS_REFUSED, &by_header).await, 24);
    assert_eq!(origin.hits(PATH), 1, "the secret is not in the key");
    let sent = origin.latest(PATH);
    assert_eq!(sent.header("x-origin-secret"), None, "{sent:?}");
}

#[tokio::test]
async fn rotated_secret_is_accepted_beside_the_old_one_until_that_goes() {
    let folder = tempfile::tempdir().unwrap();
    let origin = origin().await;
    let files = vec![
        write_secret(folder.path(), "one", FIRST),
        write_secret(folder.path(), "two", FIRST),
    ];
    let shield = requiring(&origin, files).await;
    shield.ask(with_secret(FIRST)).await.assert_whole(BODY);
    assert_denied(&shield.ask(with_secret(SECOND)).await);

    write_secret(folder.path(), "two", SECOND);
    let is_accepted = |response: &Response| response.status == 200;
    shield.repeat_until(with_secret(SECOND), is_accepted).await;
    shield.ask(with_secret(FIRST)).await.assert_whole(BODY);

    // A file that is empty for a moment takes no secret away.
    std::fs::write(folder.path().join("one"), "").unwrap();
    write_secret(folder.path(), "two", "another-secret-of-the-cdn");
    let is_refused = |response: &Response| response.status == 403;
    shield.repeat_until(with_secret(SECOND), is_refused).await;
    shield.ask(with_secret(FIRST)).await.assert_whole(BODY);

    write_secret(folder.path(), "one", SECOND);
    let refused = shield.repeat_until(with_secret(FIRST), is_refused).await;
    assert_denied(&refused);
    shield.ask(with_secret(SECOND)).await.assert_whole(BODY);
}
