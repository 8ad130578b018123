//! What a time server that an MPD names (`UTCTiming`) answers is never stored, nor a key that a
//! playlist names (`EXT-X-KEY`), whatever their names are.

use crate::support::{Origin, Shield, manifest, playlist, reply};

const TIME_SERVER: &str = "/live/now";
const KEY: &str = "/live/k1.bin";

/// An MPD that names its time server.
const MPD: &str = "<MPD type=\"dynamic\" minimumUpdatePeriod=\"PT2S\">\
                   <UTCTiming schemeIdUri=\"urn:mpeg:dash:utc:http-iso:2014\" value=\"now\"/>\
                   </MPD>";

#[tokio::test]
async fn time_server_named_by_utc_timing_is_not_stored() {
    let time = reply()
        .content_type("text/plain")
        .cache_control("max-age=60")
        .body("2026-01-01T00:00:00Z");
    let mpd = reply().content_type("application/dash+xml").body(MPD);
    let origin = Origin::start()
        .await
        .on(TIME_SERVER, time)
        .on("/live/a.mpd", mpd);
    let shield = Shield::in_front_of(&origin).start().await;
    for _ in 0..2 {
        shield.get(TIME_SERVER).await;
    }
    assert_eq!(origin.hits(TIME_SERVER), 1, "nothing tells what it is");
    shield.get("/live/a.mpd").await;
    for hits in 2..4 {
        shield.get(TIME_SERVER).await;
        assert_eq!(origin.hits(TIME_SERVER), hits, "what was held is gone too");
    }
}

/// An MPD may name itself as the time server (any response has a date). It is stored all the same.
#[tokio::test]
async fn mpd_that_names_itself_as_time_server_is_stored() {
    let own = MPD.replace("\"now\"", "\"?utc\"");
    let mpd = reply().content_type("application/dash+xml").body(own);
    let origin = Origin::start().await.on("/live/a.mpd", mpd);
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/live/a.mpd").await;
    assert!(shield.get("/live/a.mpd").await.is_hit());
}

/// A key URL with a host is the same key.
#[tokio::test]
async fn key_named_with_another_host_is_not_stored() {
    assert_key_is_not_stored("https://another.name/live/k1.bin").await;
}

#[tokio::test]
async fn key_named_by_ext_x_key_is_not_stored() {
    assert_key_is_not_stored("k1.bin?v=1").await;
}

/// Requests the key again and again after a playlist has named it by this URI.
async fn assert_key_is_not_stored(uri: &str) {
    let key = reply()
        .content_type("application/octet-stream")
        .cache_control("max-age=60")
        .body("0123456789abcdef");
    let named = format!("#EXT-X-KEY:METHOD=AES-128,URI=\"{uri}\"\n#EXTINF:4,\ns.ts\n");
    let origin = Origin::start()
        .await
        .on(KEY, key)
        .on("/live/a.m3u8", manifest(playlist(1) + &named));
    let shield = Shield::in_front_of(&origin).start().await;
    shield.get("/live/a.m3u8").await;
    for hits in 1..3 {
        shield.get(KEY).await;
        assert_eq!(origin.hits(KEY), hits);
    }
}
