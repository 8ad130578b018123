//! Manifests are compressed in the background: once per version, and in time for later viewers.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use crate::support::origin::Reply;
use crate::support::{Origin, Shield, computed, eventually, get, manifest};

const PATH: &str = "/vod/index.m3u8";
const MADE: &str = "seawall_codings_total";

/// An on-demand playlist of about this length; each version is another text.
fn text(version: usize, length: usize) -> String {
    let entry = |number| {
        format!(
            "#EXTINF:4.00000,\nv{version}-{number}-{:08x}.ts\n",
            number * 7919
        )
    };
    let entries: String = (0..length / 36).map(entry).collect();
    format!("#EXTM3U\n#EXT-X-TARGETDURATION:4\n{entries}#EXT-X-ENDLIST\n")
}

fn vod(version: usize, length: usize) -> Reply {
    manifest(text(version, length)).cache_control("max-age=600")
}

/// The first viewer who accepts a coding of a long text gets plain text; later viewers get the
/// coding.
#[tokio::test]
async fn long_manifest_is_sent_uncompressed_until_coding_is_ready() {
    for coding in ["br", "zstd", "gzip"] {
        let origin = Origin::start().await.on(PATH, vod(1, 1 << 20));
        let shield = Shield::in_front_of(&origin).start().await;
        let ask = || get(PATH).header("Accept-Encoding", coding);
        let first = shield.ask(ask()).await;
        let first = first.assert_whole(text(1, 1 << 20));
        assert_eq!(first.header("content-encoding"), None, "{coding}");
        let is_coded =
            |answer: &crate::support::Response| answer.header("content-encoding") == Some(coding);
        let coded = shield.repeat_until(ask(), is_coded).await;
        assert!(coded.body.len() < text(1, 1 << 20).len() / 2);
        for _ in 0..3 {
            assert!(is_coded(&shield.ask(ask()).await), "{coding}");
        }
        assert_eq!(shield.counter(MADE, &[]).await, 1, "{coding}: made once");
        assert_eq!(origin.hits(PATH), 1);
    }
}

/// While the best coding is being made, viewers get another one that is ready.
#[tokio::test]
async fn sends_ready_coding_while_best_coding_is_made() {
    let origin = Origin::start().await.on(PATH, vod(1, 1 << 20));
    let shield = Shield::in_front_of(&origin).start().await;
    let gzip = get(PATH).header("Accept-Encoding", "gzip");
    let coding =
        |answer: &crate::support::Response| answer.header("content-encoding").map(str::to_owned);
    shield
        .repeat_until(gzip, |answer| coding(answer).is_some())
        .await;
    let modern = get(PATH).header("Accept-Encoding", "gzip, br");
    let first = shield.ask(modern.clone()).await;
    assert_eq!(coding(&first).as_deref(), Some("gzip"));
    shield
        .repeat_until(modern, |answer| coding(answer).as_deref() == Some("br"))
        .await;
}

/// A text above the size limit is not compressed at all.
#[tokio::test]
async fn manifest_above_size_limit_is_never_compressed() {
    let origin = Origin::start().await.on(PATH, vod(1, 5 << 20));
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..3 {
        let answer = shield
            .ask(get(PATH).header("Accept-Encoding", "br, gzip"))
            .await;
        let answer = answer.assert_whole(text(1, 5 << 20));
        assert_eq!(answer.header("content-encoding"), None);
    }
    assert_eq!(shield.counter(MADE, &[]).await, 0);
    assert_eq!(shield.gauge("seawall_codings_queued").await, 0);
}

/// A coding that was requested for one version is made of the next one in advance.
#[tokio::test]
async fn next_version_is_compressed_in_advance() {
    let version = Arc::new(AtomicUsize::new(1));
    let current = Arc::clone(&version);
    let live = computed(move |_| {
        let version = current.load(Ordering::Relaxed);
        manifest(text(version, 200 << 10)).cache_control("max-age=0")
    });
    let origin = Origin::start().await.on(PATH, live);
    let shield = Shield::in_front_of(&origin).start().await;
    let modern = || get(PATH).header("Accept-Encoding", "br");
    shield.ask(modern()).await;
    let made = |count| {
        let shield = &shield;
        eventually(format!("{count} texts compressed"), async move || {
            shield.counter(MADE, &[("coding", "br")]).await == count
        })
    };
    made(1).await;
    version.store(2, Ordering::Relaxed);
    let next = text(2, 200 << 10);
    shield
        .repeat_until(get(PATH), |answer| answer.body == next)
        .await;
    made(2).await;
}

/// The first request for a coding of a short text gets it at once: low-latency players request a
/// new version each time.
#[tokio::test]
async fn short_manifest_is_compressed_for_first_request() {
    let origin = Origin::start().await.on(PATH, vod(1, 20 << 10));
    let shield = Shield::in_front_of(&origin).start().await;
    for coding in ["gzip", "br", "zstd"] {
        let answer = shield
            .ask(get(PATH).header("Accept-Encoding", coding))
            .await;
        assert_eq!(answer.header("content-encoding"), Some(coding));
    }
    assert_eq!(shield.counter(MADE, &[]).await, 3);
}
