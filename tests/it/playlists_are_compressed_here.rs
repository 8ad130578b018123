//! Playlists are requested from the origin in plain text, and viewers get them in the best coding
//! that they accept.

use crate::support::{Origin, Shield, get, manifest, playlist};

const PATH: &str = "/live/index.m3u8";

/// Viewers who accept gzip get it from the shield: one origin request, for plain text.
#[tokio::test]
async fn playlist_is_sent_in_best_accepted_coding() {
    let long: String = playlist(1) + &"#EXT-X-COMMENT:x\n".repeat(60);
    let reply = manifest(long.clone()).header("etag", "\"v1\"");
    let origin = Origin::start().await.on(PATH, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get(PATH).await.assert_whole(long.clone());
    let coded = shield
        .ask(get(PATH).header("accept-encoding", "deflate, gzip"))
        .await;
    assert_eq!(coded.header("content-encoding"), Some("gzip"));
    assert_eq!(coded.header("etag"), Some("\"v1-gzip\""));
    assert_eq!(coded.header("vary"), Some("Accept-Encoding"));
    assert!(coded.body.len() < long.len() / 2);
    let modern = get(PATH).header("accept-encoding", "gzip, deflate, br, zstd");
    let best = shield.ask(modern).await;
    assert_eq!(best.header("content-encoding"), Some("br"));
    assert_eq!(best.header("etag"), Some("\"v1-br\""));
    let again = get(PATH)
        .header("accept-encoding", "gzip")
        .header("if-none-match", "\"v1-gzip\"");
    assert_eq!(shield.ask(again).await.status, 304);
    let plain = shield.get(PATH).await;
    assert_eq!(
        (plain.header("etag"), plain.header("vary")),
        (Some("\"v1\""), Some("Accept-Encoding"))
    );
    assert_eq!(origin.hits(PATH), 1);
    assert_eq!(origin.latest(PATH).header("accept-encoding"), None);
}

/// A response with `no-transform` is not compressed.
#[tokio::test]
async fn no_transform_playlist_is_not_compressed() {
    let long: String = playlist(1) + &"#EXT-X-COMMENT:x\n".repeat(60);
    let reply = manifest(long.clone()).cache_control("max-age=9, no-transform");
    let origin = Origin::start().await.on(PATH, reply);
    let shield = Shield::in_front_of(&origin).start().await;
    let answer = shield
        .ask(get(PATH).header("accept-encoding", "gzip"))
        .await;
    assert_eq!(answer.assert_whole(long).header("content-encoding"), None);
}
