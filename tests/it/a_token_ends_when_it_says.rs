//! A token lets nobody in once it has expired, its key is withdrawn, or the rules have changed,
//! also where a response is sent again; and a token for one address helps no other.

use std::path::PathBuf;
use std::sync::Arc;

use seawall_policy::TokenKind;
use tempfile::TempDir;
use tokio::io::AsyncWriteExt;

use crate::support::metrics::{REPEATED, TOKENS_VERIFIED, WAITERS};
use crate::support::shield::{Builder, address_list};
use crate::support::tokens::write_key;
use crate::support::tokens::{NEW_SECRET, SECRET, now, required, signed, signed_by, valid};
use crate::support::viewer::{H2Viewer, Viewer};
use crate::support::{Gate, Origin, Response, Shield, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";

const HERE: [u8; 4] = [127, 0, 0, 1];
const ELSEWHERE: [u8; 4] = [127, 0, 0, 2];

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

fn guarded(origin: &Origin) -> (Builder, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), "key", SECRET);
    (demanding(origin, key), folder)
}

fn demanding(origin: &Origin, key: PathBuf) -> Builder {
    let token = required(TokenKind::SignedUrl, key);
    Shield::in_front_of(origin).route(|route| route.access.token = Some(Arc::new(token)))
}

fn with(token: &str) -> String {
    format!("{PATH}?seawall={token}")
}

fn is_denied(response: &Response) -> bool {
    response.status == 403
}

/// Both viewers ask all the time; what is sent after the end is refused.
#[tokio::test]
async fn response_is_not_repeated_after_the_token_has_expired() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin);
    let shield = shield.start().await;
    let (mut http1, http2) = (shield.viewer().await, shield.h2_viewer().await);
    let end = now() + 3;
    let target = with(&signed(SECRET, "/live", end, None));
    let mut answered = 0;
    eventually("the end of the token", async || {
        for _ in 0..50 {
            let has_ended = now() >= end;
            let responses = [http1.get(&target).await, http2.get(&target).await];
            for response in &responses {
                assert!(!has_ended || is_denied(response), "{response:?}");
            }
            if has_ended {
                return true;
            }
            answered += 1;
        }
        false
    })
    .await;
    let repeated = shield.counter(REPEATED, &[]).await;
    assert!(
        repeated > answered,
        "{repeated} of {answered} requests of each were repeated"
    );
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn withdrawn_key_ends_its_tokens() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let mut token = required(
        TokenKind::SignedUrl,
        write_key(folder.path(), "key", SECRET),
    );
    let second = write_key(folder.path(), "second", SECRET);
    token.keys.push(("second".to_owned(), second));
    let shield = Shield::in_front_of(&origin);
    let shield = shield.route(|route| route.access.token = Some(Arc::new(token)));
    let shield = shield.start().await;
    let end = now() + 3600;
    let old = with(&valid("/live"));
    let by_second = |secret| with(&signed_by(("second", secret), "/live", end, None));
    let mut viewer = shield.viewer().await;
    for _ in 0..5 {
        viewer.get(&old).await.assert_whole(BODY);
        viewer.get(&by_second(SECRET)).await.assert_whole(BODY);
        assert!(is_denied(&viewer.get(&by_second(NEW_SECRET)).await));
    }
    // A file that is empty or too short takes no key away, while the others are read.
    let is_accepted = |response: &Response| response.status == 200;
    for (unusable, secret) in [("", NEW_SECRET), ("short", SECRET)] {
        std::fs::write(folder.path().join("key"), unusable).unwrap();
        write_key(folder.path(), "second", secret);
        shield
            .repeat_until(get(&by_second(secret)), is_accepted)
            .await;
        viewer.get(&old).await.assert_whole(BODY);
    }
    write_key(folder.path(), "key", NEW_SECRET);
    let new = with(&signed(NEW_SECRET, "/live", end, None));
    shield.repeat_until(get(&new), is_accepted).await;
    eventually("the end of the old key", async || {
        is_denied(&viewer.get(&old).await)
    })
    .await;
    viewer.get(&by_second(SECRET)).await.assert_whole(BODY);
}

#[tokio::test]
async fn token_that_a_reload_demands_ends_what_was_repeated_without() {
    let origin = origin().await;
    let folder = tempfile::tempdir().unwrap();
    let key = write_key(folder.path(), "key", SECRET);
    let mut shield = Shield::in_front_of(&origin).start().await;
    let (mut http1, http2) = (shield.viewer().await, shield.h2_viewer().await);
    eventually("repeated responses", async || {
        http1.get(PATH).await.assert_whole(BODY);
        http2.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await > 2
    })
    .await;
    let token = Arc::new(required(TokenKind::SignedUrl, key));
    let demand = |config: &mut seawall::config::Config| {
        Arc::make_mut(&mut config.rules.routes[0]).access.token = Some(token.clone());
    };
    shield.reload(demand);
    assert!(is_denied(&http1.get(PATH).await));
    assert!(is_denied(&http2.get(PATH).await));
    let target = with(&valid("/live"));
    for _ in 0..4 {
        http1.get(&target).await.assert_whole(BODY);
    }
    let verified = shield.counter(TOKENS_VERIFIED, &[]).await;
    // Rules that have not changed keep what they verified.
    shield.reload(|config| Arc::make_mut(&mut config.rules.routes[0]).x_cache = true);
    http1.get(&target).await.assert_whole(BODY);
    assert_eq!(shield.counter(TOKENS_VERIFIED, &[]).await, verified);
    // Another rule of the same route ends what the token opened.
    shield.reload(|config| {
        let access = &mut Arc::make_mut(&mut config.rules.routes[0]).access;
        access.deny = Some(address_list(&["127.0.0.0/8"]));
    });
    assert!(is_denied(&http1.get(&target).await));
}

#[tokio::test]
async fn token_for_one_address_helps_no_other() {
    let origin = origin().await;
    let (shield, folder) = guarded(&origin);
    let socket = folder.path().join("viewers.sock");
    let shield = shield.on_unix(socket.clone()).start().await;
    let target = with(&signed(SECRET, "/live", now() + 3600, Some("127.0.0.1/32")));
    let mut here = shield.viewer_from(HERE).await;
    let here2 = shield.h2_viewer_from(HERE).await;
    let mut elsewhere = shield.viewer_from(ELSEWHERE).await;
    let elsewhere2 = shield.h2_viewer_from(ELSEWHERE).await;
    let mut unix = Viewer::connect_unix(&socket).await;
    for _ in 0..5 {
        here.get(&target).await.assert_whole(BODY);
        here2.get(&target).await.assert_whole(BODY);
        assert!(is_denied(&elsewhere.get(&target).await));
        assert!(is_denied(&elsewhere2.get(&target).await));
        assert!(is_denied(&unix.get(&target).await), "it has no address");
    }
    assert_eq!(shield.counter(REPEATED, &[]).await, 0);
    assert_eq!(origin.hits(PATH), 1);
}

/// The address that counts is that of the viewer whom the PROXY protocol names.
#[tokio::test]
async fn token_for_one_address_is_compared_with_the_true_client() {
    let origin = origin().await;
    let (shield, _folder) = guarded(&origin);
    let shield = shield.with(|config| {
        let listener = &mut config.frontend.listeners[0];
        listener.proxy_protocol = Some(address_list(&["127.0.0.1/32"]));
    });
    let shield = shield.start().await;
    let target = with(&signed(SECRET, "/live", now() + 3600, Some("192.0.2.0/24")));
    for (viewer, is_permitted) in [("192.0.2.7", true), ("198.51.100.7", false)] {
        let proxied = async || {
            let mut stream = shield.stream_from(HERE).await;
            let header = format!("PROXY TCP4 {viewer} 192.0.2.99 4711 80\r\n");
            stream.write_all(header.as_bytes()).await.unwrap();
            stream
        };
        let mut http1 = Viewer::over(proxied().await);
        let http2 = H2Viewer::over(proxied().await, "http").await;
        for _ in 0..4 {
            for response in [http1.get(&target).await, http2.get(&target).await] {
                if is_permitted {
                    response.assert_whole(BODY);
                } else {
                    assert!(is_denied(&response));
                }
            }
        }
    }
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn viewers_share_a_wait_only_with_the_same_token_that_is_not_for_an_address() {
    for (network, is_shared) in [(None, true), (Some("127.0.0.1/32"), false)] {
        let gate = Gate::new();
        let held = segment(BODY).hold_head(&gate);
        let origin = Origin::start().await.on(PATH, held);
        let (shield, _folder) = guarded(&origin);
        let shield = shield.start().await;
        let target = with(&signed(SECRET, "/live", now() + 3600, network));
        let mut waiting = Vec::new();
        for count in 1..=4 {
            let mut viewer = shield.viewer().await;
            viewer.send(&get(&target)).await;
            waiting.push(viewer);
            shield.wait_gauge(WAITERS, |waiters| waiters == count).await;
        }
        let mut others = vec![shield.get(PATH).await, shield.get(&with("guess")).await];
        if network.is_some() {
            let mut elsewhere = shield.viewer_from(ELSEWHERE).await;
            others.push(elsewhere.get(&target).await);
        }
        assert!(others.iter().all(is_denied));
        gate.open();
        for viewer in &mut waiting {
            viewer.receive(&get(&target)).await.assert_whole(BODY);
        }
        assert_eq!(
            shield.counter(REPEATED, &[]).await > 0,
            is_shared,
            "{network:?}"
        );
        assert_eq!(origin.hits(PATH), 1);
    }
}
