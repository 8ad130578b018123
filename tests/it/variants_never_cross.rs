//! A viewer never gets a coding that it does not accept, and variants do not multiply without
//! limit.

use crate::support::origin::{Request, Script};
use crate::support::{Gate, Origin, Response, Shield, computed, get, reply, segment};

const PATH: &str = "/vod/seg1.vtt";

/// Sends `gzip` (in name only) to viewers who accept it.
fn coded_or_not(request: &Request) -> crate::support::origin::Reply {
    let plain = reply()
        .content_type("text/vtt")
        .cache_control("max-age=60")
        .header("Vary", "Accept-Encoding");
    if request
        .header("accept-encoding")
        .is_some_and(|codings| codings.contains("gzip"))
    {
        plain.header("Content-Encoding", "gzip").body("coded")
    } else {
        plain.body("plain")
    }
}

fn coded() -> Script {
    computed(coded_or_not)
}

#[track_caller]
fn is_coded(answer: &Response) {
    assert_eq!(
        answer.assert_whole("coded").header("content-encoding"),
        Some("gzip")
    );
}

#[track_caller]
fn is_plain(answer: &Response) {
    assert_eq!(
        answer.assert_whole("plain").header("content-encoding"),
        None
    );
}

/// `Vary: Accept-Encoding` never crosses, whatever the viewers' spelling.
#[tokio::test]
async fn accept_encoding_selects_the_variant() {
    let origin = Origin::start().await.on(PATH, coded());
    let shield = Shield::in_front_of(&origin).start().await;
    for codings in ["gzip", "GZIP", "gzip, br", "br;q=1.0, gzip;q=0.5", "*"] {
        is_coded(
            &shield
                .ask(get(PATH).header("Accept-Encoding", codings))
                .await,
        );
    }
    for codings in ["", "identity", "br", "gzip;q=0", "gzip;q=0.0, *"] {
        is_plain(
            &shield
                .ask(get(PATH).header("Accept-Encoding", codings))
                .await,
        );
    }
    is_plain(&shield.get(PATH).await);
    assert_eq!(
        origin.hits(PATH),
        2,
        "two variants, however they are asked for"
    );
}

/// Viewers with different `Accept-Encoding` who wait for one fill.
#[tokio::test]
async fn fill_is_not_shared_across_content_codings() {
    let gate = Gate::new();
    let held = gate.clone();
    let script = computed(move |request| coded_or_not(request).hold_head(&held));
    let origin = Origin::start().await.on(PATH, script);
    let shield = Shield::in_front_of(&origin).start().await;
    let modern = shield
        .crowd(5, get(PATH).header("Accept-Encoding", "gzip"))
        .await;
    origin.wait_hits(PATH, 1).await;
    let plain = shield.crowd(5, get(PATH)).await;
    gate.open();
    modern.read_all().await.iter().for_each(is_coded);
    plain.read_all().await.iter().for_each(is_plain);
    assert!(origin.hits(PATH) <= 6, "{} requests", origin.hits(PATH));
}

/// An origin that encodes without `Vary`.
#[tokio::test]
async fn content_encoding_implies_vary_accept_encoding() {
    let forgetful = computed(|request| match request.header("accept-encoding") {
        Some(_) => segment("coded").header("Content-Encoding", "gzip"),
        None => segment("plain"),
    });
    let origin = Origin::start().await.on(PATH, forgetful);
    let shield = Shield::in_front_of(&origin).start().await;
    is_coded(
        &shield
            .ask(get(PATH).header("Accept-Encoding", "gzip"))
            .await,
    );
    for _ in 0..3 {
        is_plain(&shield.get(PATH).await);
    }
}

/// `Vary: *` is not stored.
#[tokio::test]
async fn vary_star_is_not_stored() {
    let object = segment("whole")
        .cache_control("max-age=60")
        .header("Vary", "*");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for fetch in 1..=3 {
        shield.get(PATH).await.assert_whole("whole");
        assert_eq!(origin.hits(PATH), fetch);
    }
}

/// Variants of one key are limited.
#[tokio::test]
async fn variants_per_key_are_limited_by_variants_max() {
    let flavoured = computed(|request| {
        let flavour = request.header("x-flavour").unwrap_or("none").to_owned();
        segment(flavour).header("Vary", "X-Flavour")
    });
    let origin = Origin::start().await.on(PATH, flavoured);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-flavour".parse().unwrap()])
        .with(|config| config.cache.variants_max = 4)
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    for _round in 1..=2 {
        for flavour in 0..20 {
            let flavour = flavour.to_string();
            let answer = viewer.ask(get(PATH).header("X-Flavour", &flavour)).await;
            answer.assert_whole(&flavour);
        }
    }
    assert!(
        origin.hits(PATH) >= 20 + 16,
        "at most four of twenty were held"
    );
}

/// `Vary: Origin` names a field that the shield never forwards: one variant.
#[tokio::test]
async fn vary_on_origin_is_one_variant() {
    let object = segment("whole").header("Vary", "Origin");
    let origin = Origin::start().await.on(PATH, object);
    let shield = Shield::in_front_of(&origin).start().await;
    for site in ["https://a.test", "https://b.test"] {
        shield
            .ask(get(PATH).header("Origin", site))
            .await
            .assert_whole("whole");
    }
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(origin.latest(PATH).header("origin"), None);
}
