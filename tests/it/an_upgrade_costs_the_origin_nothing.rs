//! After an upgrade the new process gets from the old one what that has stored, and asks the origin
//! only for the rest. Nothing that was purged comes back that way, and an old process that hangs or
//! dies harms no viewer.

use std::process::Command;

use bytes::Bytes;

use crate::support::content::noise;
use crate::support::metrics::{UPGRADE_CONNECTIONS, UPGRADE_QUESTIONS};
use crate::support::operated::{Operated, PATH};
use crate::support::origin::{Reply, Request};
use crate::support::program::is_running;
use crate::support::viewer::HOST;
use crate::support::{
    Ask, Gate, Origin, Response, eventually, get, manifest, percent_encoded, segment, status,
};

impl Operated {
    /// Upgrades, and waits until the old process accepts no viewer any more.
    async fn replace(&mut self) -> i32 {
        let new = self.upgrade().await;
        self.log.read_until("the listeners are closed").await;
        new
    }

    async fn get(&self, path: &str) -> Response {
        self.ask(get(path)).await
    }

    async fn ask(&self, ask: Ask) -> Response {
        self.program.viewer().await.ask(ask).await
    }

    /// The questions to the process before, by their result.
    async fn questions(&self, result: &str) -> u64 {
        let name = format!("{UPGRADE_QUESTIONS}{{result=\"{result}\"}} ");
        self.metric(&name).await
    }

    /// The connections to the process before.
    async fn connections(&self) -> u64 {
        self.metric(&format!("{UPGRADE_CONNECTIONS} ")).await
    }

    async fn metric(&self, name: &str) -> u64 {
        let page = self.ask_admin(get("/metrics")).await;
        let mut lines = page.text().lines();
        let value = lines.find_map(|line| line.strip_prefix(name));
        value.expect("a sample").parse().expect("a number")
    }

    async fn purge(&self, query: &str) {
        let (status, answer) = self.post(&format!("/purge?{query}")).await;
        assert!((200..300).contains(&status), "{query}: {answer}");
    }
}

fn url(path: &str) -> String {
    percent_encoded(&format!("http://{HOST}{path}"))
}

/// An object that may be kept for a day.
fn kept(body: impl Into<Bytes>) -> Reply {
    segment(body).cache_control("max-age=86400")
}

fn signal(pid: i32, name: &str) {
    let sent = Command::new("kill")
        .args(["-s", name, &pid.to_string()])
        .status();
    assert!(sent.expect("a kill program").success());
}

const PLAYLIST: &str = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:120\n\
                        #EXT-X-MEDIA-SEQUENCE:7\n#EXTINF:120.0,\nseg7.ts\n";

#[tokio::test]
async fn held_objects_come_from_the_old_process() {
    let large = noise(1, 12 << 20);
    let origin = Origin::start().await;
    let origin = origin
        .on(PATH, kept("whole").age(100).header("Surrogate-Key", "a b"))
        .on("/live/large.ts", kept(large.clone()))
        .on("/live/index.m3u8", manifest(PLAYLIST))
        .on("/live/moved.ts", {
            let moved = status(302).header("Location", "/live/seg2.ts");
            moved.cache_control("max-age=600")
        });
    let paths = [PATH, "/live/large.ts", "/live/index.m3u8", "/live/moved.ts"];
    let mut upgraded = Operated::in_front_of(origin, "").await;
    let mut before = Vec::new();
    for path in paths {
        before.push(upgraded.get(path).await);
    }
    upgraded.replace().await;
    for (path, before) in paths.into_iter().zip(before) {
        let after = upgraded.get(path).await;
        assert_eq!(after.status, before.status, "{path}");
        assert_eq!(after.body, before.body, "{path}");
        assert_eq!(upgraded.origin.hits(path), 1, "{path}");
        for name in ["content-type", "cache-control", "via", "location"] {
            assert_eq!(after.header(name), before.header(name), "{path}: {name}");
        }
        assert!(after.age() >= before.age(), "{path}");
        assert!(upgraded.get(path).await.is_hit(), "{path} is stored");
    }
    assert!(upgraded.get(PATH).await.age() >= 100);
    assert_eq!(upgraded.questions("given").await, paths.len() as u64);
    assert_eq!(upgraded.program.wait_end().await, Some(0));
    let told = upgraded.log.read_until("went to the new process").await;
    assert!(told.contains("4 objects ("), "{told}");
}

/// The keys of tags go with the object, although viewers see none.
#[tokio::test]
async fn objects_keep_their_tags_and_variants() {
    let tagged = || kept("tagged").header("Cache-Tag", "sport, final");
    let varied = || kept("varied").header("Vary", "Accept-Encoding");
    let origin = Origin::start().await;
    let origin = origin.on(PATH, tagged()).on("/vod/1.vtt", varied());
    let mut upgraded = Operated::in_front_of(origin, "").await;
    let modern = || get("/vod/1.vtt").header("Accept-Encoding", "gzip");
    upgraded.get(PATH).await.assert_whole("tagged");
    upgraded.get("/vod/1.vtt").await.assert_whole("varied");
    upgraded.replace().await;
    upgraded.get("/vod/1.vtt").await.assert_whole("varied");
    assert_eq!(upgraded.origin.hits("/vod/1.vtt"), 1);
    upgraded.ask(modern()).await.assert_whole("varied");
    assert_eq!(upgraded.origin.hits("/vod/1.vtt"), 2, "another variant");
    upgraded.get(PATH).await.assert_whole("tagged");
    assert_eq!(upgraded.origin.hits(PATH), 1);
    upgraded.purge("tag=final").await;
    upgraded.get(PATH).await.assert_whole("tagged");
    assert_eq!(upgraded.origin.hits(PATH), 2);
}

#[tokio::test]
async fn purge_ends_the_handover() {
    for query in [
        format!("url={}", url(PATH)),
        format!("soft=true&url={}", url(PATH)),
        "all=true".to_owned(),
        "tag=final".to_owned(),
    ] {
        let old = || kept("old").header("Cache-Tag", "final");
        let origin = Origin::start().await.on(PATH, old().then(kept("new")));
        let origin = origin.on("/live/other.ts", kept("other"));
        let mut upgraded = Operated::in_front_of(origin, "").await;
        upgraded.get(PATH).await.assert_whole("old");
        upgraded.get("/live/other.ts").await.assert_whole("other");
        upgraded.replace().await;
        // There is nothing of it in the new process yet.
        let (status, answer) = upgraded.post(&format!("/purge?{query}")).await;
        assert!(
            status < 500 && answer["error"].is_null(),
            "{query}: {answer}"
        );
        upgraded.get(PATH).await.assert_whole("new");
        upgraded.get("/live/other.ts").await.assert_whole("other");
        assert_eq!(upgraded.origin.hits("/live/other.ts"), 2, "{query}");
        assert_eq!(upgraded.questions("given").await, 0, "{query}");
        assert_eq!(upgraded.connections().await, 0, "{query}");
    }
}

#[tokio::test]
async fn dry_run_changes_nothing() {
    let mut upgraded = Operated::start("").await;
    upgraded.get(PATH).await.assert_whole("whole");
    upgraded.replace().await;
    upgraded.post("/purge?all=true&dry_run=true").await;
    upgraded.get(PATH).await.assert_whole("whole");
    assert_eq!(upgraded.origin.hits(PATH), 1);
}

#[tokio::test]
async fn what_was_purged_before_the_upgrade_stays_so() {
    for mode in ["", "soft=true&"] {
        let old = kept("old").etag("\"1\"");
        let old = old.cache_control("stale-while-revalidate=600");
        let origin = Origin::start().await.on(PATH, old.then(kept("new")));
        let mut upgraded = Operated::in_front_of(origin, "").await;
        upgraded.get(PATH).await.assert_whole("old");
        upgraded.purge(&format!("{mode}url={}", url(PATH))).await;
        upgraded.replace().await;
        upgraded.get(PATH).await.assert_whole("new");
    }
}

#[tokio::test]
async fn uncacheable_responses_are_the_origins_own() {
    let private = || segment("private").cache_control("private");
    let origin = Origin::start().await.on(PATH, private());
    let origin = origin.on("/live/kept.ts", kept("kept"));
    let mut upgraded = Operated::in_front_of(origin, "").await;
    upgraded.get(PATH).await.assert_whole("private");
    // Without it, the old process would have nothing to stay for.
    upgraded.get("/live/kept.ts").await.assert_whole("kept");
    upgraded.replace().await;
    for _ in 0..3 {
        let before = upgraded.origin.hits(PATH);
        upgraded.get(PATH).await.assert_whole("private");
        assert!(upgraded.origin.hits(PATH) > before);
    }
    assert_eq!(upgraded.questions("given").await, 0);
    let asked = upgraded.questions("absent").await;
    assert_eq!(asked, 1, "what is known to be uncacheable is not asked for");
}

/// Stale objects come too: they are revalidated, and served if the origin is dead.
#[tokio::test]
async fn stale_object_is_revalidated_or_served_on_error() {
    let stale = || {
        let stale = segment("whole").etag("\"1\"").age(10);
        stale.cache_control("max-age=5, stale-if-error=86400")
    };
    let origin = Origin::start().await.on(PATH, stale());
    let origin = origin.on("/live/seg2.ts", stale());
    let mut upgraded = Operated::in_front_of(origin, "").await;
    upgraded.get(PATH).await.assert_whole("whole");
    upgraded.get("/live/seg2.ts").await.assert_whole("whole");
    upgraded.replace().await;
    upgraded.get(PATH).await.assert_whole("whole");
    let latest = upgraded.origin.latest(PATH);
    assert_eq!(latest.header("if-none-match"), Some("\"1\""));
    upgraded.origin.stop().await;
    upgraded.get("/live/seg2.ts").await.assert_whole("whole");
}

/// The old process stands still: three questions are late, and it is not asked again.
#[tokio::test]
async fn old_process_that_hangs_is_not_asked_for_long() {
    let paths: Vec<String> = (0..8).map(|number| format!("/live/{number}.ts")).collect();
    let mut origin = Origin::start().await;
    for path in &paths {
        origin = origin.on(path, kept("whole"));
    }
    let mut upgraded = Operated::in_front_of(origin, "").await;
    for path in &paths {
        upgraded.get(path).await.assert_whole("whole");
    }
    upgraded.replace().await;
    upgraded.program.signal("STOP");
    for path in &paths {
        upgraded.get(path).await.assert_whole("whole");
        assert_eq!(upgraded.origin.hits(path), 2, "{path}");
    }
    assert_eq!(upgraded.questions("late").await, 3);
    assert_eq!(upgraded.connections().await, 0);
    upgraded.log.read_until("does not answer in time").await;
    upgraded.program.signal("CONT");
    assert_eq!(upgraded.program.wait_end().await, Some(0));
}

#[tokio::test]
async fn old_process_that_dies_is_not_asked() {
    let mut upgraded = Operated::start("").await;
    upgraded.get(PATH).await.assert_whole("whole");
    upgraded.replace().await;
    upgraded.program.signal("KILL");
    eventually("its end", async || !is_running(upgraded.program.pid())).await;
    upgraded.get(PATH).await.assert_whole("whole");
    assert_eq!(upgraded.origin.hits(PATH), 2);
    assert_eq!(upgraded.questions("failed").await, 1);
    assert_eq!(upgraded.connections().await, 0);
}

/// The third process asks the second one, which asks the first one.
#[tokio::test]
async fn second_upgrade_loses_nothing_that_the_first_process_has() {
    let gate = Gate::new();
    let slow = segment("").content_length(5).hold(&gate).send("whole");
    let large = noise(2, 600 << 10);
    let origin = Origin::start().await.on("/live/slow.ts", slow);
    let origin = origin.on(PATH, kept("whole"));
    let origin = origin.on("/live/large.ts", kept(large.clone()));
    let bounds = "[server]\ndrain_max = \"1h\"";
    let mut upgraded = Operated::in_front_of(origin, bounds).await;
    upgraded.get(PATH).await.assert_whole("whole");
    upgraded.get("/live/large.ts").await.assert_whole(&large);
    let viewer = upgraded.program.viewer().await;
    // It keeps the first process.
    let download = viewer.begin(get("/live/slow.ts")).await;
    let second = upgraded.replace().await;
    upgraded.get(PATH).await.assert_whole("whole");
    let third = upgraded.replace().await;
    assert!(is_running(upgraded.program.pid()) && is_running(second));
    upgraded.get(PATH).await.assert_whole("whole");
    upgraded.get("/live/large.ts").await.assert_whole(&large);
    let given = upgraded.questions("given").await;
    let late = upgraded.questions("late").await;
    assert_eq!((given, late), (2, 0));
    for path in [PATH, "/live/large.ts"] {
        assert_eq!(upgraded.origin.hits(path), 1, "{path}");
    }
    gate.open();
    download.finish().await.assert_whole("whole");
    eventually("the end of the second", async || !is_running(second)).await;
    assert_eq!(upgraded.pid().await, third);
    signal(third, "TERM");
}

/// A live stream goes on: no version is fetched that viewers have seen, and none goes backwards.
#[tokio::test]
async fn live_playlist_goes_on_where_it_was() {
    let path = "/live/index.m3u8";
    let origin = Origin::start().await.on(path, manifest(PLAYLIST));
    let mut upgraded = Operated::in_front_of(origin, "").await;
    upgraded.get(path).await.assert_whole(PLAYLIST);
    upgraded.replace().await;
    let lagging = PLAYLIST.replace(":7\n", ":6\n").replace("seg7", "seg6");
    upgraded.origin.set_script(path, manifest(lagging));
    for _ in 0..3 {
        upgraded.get(path).await.assert_whole(PLAYLIST);
    }
    assert_eq!(upgraded.origin.hits(path), 1);
}

/// The old process lives on for its downloads, and polls no playlist.
#[tokio::test]
async fn only_the_new_process_refreshes_playlists() {
    let gate = Gate::new();
    let slow = segment("").content_length(5).hold(&gate).send("whole");
    let path = "/live/index.m3u8";
    let text = "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n1.ts\n#EXTINF:1,\n2.ts\n";
    let origin = Origin::start().await.on("/live/slow.ts", slow);
    let origin = origin.on(path, manifest(text));
    let mut upgraded = Operated::in_front_of(origin, "").await;
    let viewer = upgraded.program.viewer().await;
    let download = viewer.begin(get("/live/slow.ts")).await;
    watch_until(&upgraded, path, 3).await;
    let of_old = connections_of(&upgraded.origin.requests(path));
    upgraded.replace().await;
    for _ in 0..3 {
        upgraded.get(path).await.assert_whole(text);
    }
    let before = upgraded.origin.hits(path);
    watch_until(&upgraded, path, before + 3).await;
    let since = upgraded.origin.requests(path).split_off(before);
    let since = connections_of(&since);
    let of_old = { since.iter() }.filter(|connection| of_old.contains(connection));
    assert_eq!(of_old.count(), 0, "{since:?}");
    gate.open();
    download.finish().await.assert_whole("whole");
}

/// Requests a playlist until the origin has been asked for it this often.
async fn watch_until(upgraded: &Operated, path: &str, hits: usize) {
    eventually("the polls of a refresher", async || {
        upgraded.get(path).await;
        upgraded.origin.hits(path) >= hits
    })
    .await;
}

fn connections_of(requests: &[Request]) -> Vec<usize> {
    let requests = requests.iter();
    requests.map(|request| request.connection).collect()
}

/// Of a large object the head comes, and each slice by itself.
#[tokio::test]
async fn slices_come_from_the_old_process() {
    let body = noise(3, 3 << 20);
    let large = || segment("").etag("\"1\"").cache_control("max-age=86400");
    let origin = Origin::start().await;
    let origin = origin.on(PATH, large().with_ranges(body.clone()));
    let bounds = "[fill]\nwhole_max = \"1MiB\"\nslice = \"1MiB\"";
    let mut upgraded = Operated::in_front_of(origin, bounds).await;
    upgraded.get(PATH).await.assert_whole(&body);
    let held = upgraded.origin.hits(PATH);
    assert!(held >= 4, "{held} requests for the head and three slices");
    upgraded.replace().await;
    upgraded.get(PATH).await.assert_whole(&body);
    assert_eq!(upgraded.origin.hits(PATH), held);
    assert_eq!(upgraded.questions("given").await, 4);
}

/// What the old process stored although it was private is none of the new one's, which may not be
/// told to do so.
#[tokio::test]
async fn private_objects_that_were_stored_by_order_are_not_handed_over() {
    let private = || segment("private").cache_control("private, max-age=600");
    let origin = Origin::start().await.on(PATH, private());
    let order = "[[route]]\nstore_private = [\"segment\"]";
    let mut upgraded = Operated::in_front_of(origin, order).await;
    upgraded.get(PATH).await;
    assert!(upgraded.get(PATH).await.is_hit(), "stored by order");
    upgraded.write("");
    upgraded.replace().await;
    for _ in 0..2 {
        assert!(!upgraded.get(PATH).await.is_hit(), "private again");
    }
    assert_eq!(upgraded.questions("given").await, 0);
}
