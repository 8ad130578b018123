//! What an operator has fetched ahead leaves viewers their room: it waits for them, and gets their
//! priority as soon as one of them wants the same.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::metrics::STORED;
use crate::support::origin::Script;
use crate::support::{
    Ask, Gate, Origin, Shield, ask, computed, ended_playlist, get, manifest, noise, segment,
};

/// The origin takes two requests at a time: a viewer who comes later goes before what is to be
/// warmed.
#[tokio::test]
async fn viewers_go_first() {
    let (gate, order) = (Gate::new(), Arc::new(Mutex::new(Vec::new())));
    let noted = |target: &'static str| {
        let order = Arc::clone(&order);
        computed(move |_| {
            order.lock().push(target);
            segment("x")
        })
    };
    let held = || segment("x").hold_head(&gate);
    let origin = Origin::start()
        .await
        .on("/held1.ts", held())
        .on("/held2.ts", held())
        .on("/viewer.ts", noted("viewer"))
        .on("/warm.ts", noted("warm"));
    let shield = Shield::in_front_of(&origin)
        .without_deadlines()
        .origin(|group| group.concurrency_max = 2)
        .start()
        .await;
    let first = shield.crowd(1, get("/held1.ts")).await;
    let second = shield.crowd(1, get("/held2.ts")).await;
    gate.wait_arrived(2).await;
    let later = async {
        let viewer = shield.crowd(1, get("/viewer.ts")).await;
        shield.wait_queued("segment", 1).await;
        gate.open();
        viewer.read_all().await
    };
    let (warmed, _) = tokio::join!(shield.warm("/warm.ts"), later);
    assert_eq!(warmed["outcome"], "fetched", "{warmed}");
    assert_eq!(*order.lock(), ["viewer", "warm"]);
    first.read_all().await;
    second.read_all().await;
}

/// Three warm fetches at once, of which the origin takes two: the third waits. A viewer who wants
/// the same gives it a viewer's priority.
async fn joined_warm_fetch_has_priority(shield: &Shield, gate: &Gate, viewer: Ask, name: &str) {
    let suffix = if name == "manifest" { "m3u8" } else { "ts" };
    let urls = ["a", "b", "c"].map(|file| format!("url=http://shield.test/{file}.{suffix}"));
    let target = format!("/warm?{}", urls.join("&"));
    let joined = async {
        shield.wait_queued("prefetch", 1).await;
        let viewer = shield.crowd(1, viewer.clone()).await;
        shield.wait_queued(name, 1).await;
        shield.wait_queued("prefetch", 0).await;
        gate.open();
        viewer.read_all().await
    };
    let (warmed, _) = tokio::join!(shield.admin(ask("POST", &target)), joined);
    assert_eq!(warmed.status, 200, "{warmed:?}");
}

#[tokio::test]
async fn viewer_of_a_warmed_playlist_raises_its_priority() {
    let gate = Gate::new();
    let text = || manifest(ended_playlist(1)).hold_head(&gate);
    let origin = Origin::start()
        .await
        .on("/a.m3u8", text())
        .on("/b.m3u8", text())
        .on("/c.m3u8", manifest(ended_playlist(1)));
    let shield = Shield::in_front_of(&origin)
        .without_deadlines()
        .origin(|group| group.concurrency_max = 2)
        .start()
        .await;
    joined_warm_fetch_has_priority(&shield, &gate, get("/c.m3u8"), "manifest").await;
}

/// The slice size of these scenarios.
const SLICE: usize = 64 << 10;

/// An object of three slices. The second one is held at the gate.
fn sliced(gate: &Gate) -> Script {
    let body = noise(1, 3 * SLICE);
    let whole = segment(bytes::Bytes::new()).etag("\"1\"").with_ranges(body);
    let gate = gate.clone();
    computed(move |request| match request.header("range") {
        Some("bytes=65536-131071") => whole.clone().hold_head(&gate),
        _ => whole.clone(),
    })
}

async fn slicing(origin: &Origin) -> Shield {
    Shield::in_front_of(origin)
        .without_deadlines()
        .origin(|group| group.concurrency_max = 2)
        .proxy_settings(|settings| {
            settings.whole_fetch_max = SLICE as u64;
            settings.slice_bytes = SLICE as u64;
        })
        .start()
        .await
}

#[tokio::test]
async fn viewer_of_a_warmed_slice_raises_its_priority() {
    let gate = Gate::new();
    let origin = Origin::start()
        .await
        .on("/a.ts", sliced(&gate))
        .on("/b.ts", sliced(&gate))
        .on("/c.ts", sliced(&gate));
    let shield = slicing(&origin).await;
    for target in ["/a.ts", "/b.ts", "/c.ts"] {
        // The first slice is stored then.
        let first = get(target).host("shield.test").range("0-999");
        assert_eq!(shield.ask(first).await.status, 206);
    }
    let viewer = get("/c.ts").host("shield.test").range("70000-70999");
    joined_warm_fetch_has_priority(&shield, &gate, viewer, "segment").await;
}

/// A viewer's request leaves no room: the next slice waits for it.
#[tokio::test]
async fn slices_are_fetched_only_while_there_is_room() {
    let (slice, viewer) = (Gate::new(), Gate::new());
    let origin = Origin::start()
        .await
        .on("/a.ts", sliced(&slice))
        .on("/held.ts", segment("x").hold_head(&viewer))
        .on("/other.ts", segment("x").cache_control("no-store"));
    let shield = slicing(&origin).await;
    let order = async {
        slice.wait_arrived(1).await;
        let held = shield.crowd(1, get("/held.ts")).await;
        viewer.wait_arrived(1).await;
        let stored = shield.gauge(STORED).await;
        slice.open();
        shield.wait_gauge(STORED, |now| now > stored).await;
        let asked = origin.hits("/a.ts");
        for _ in 0..20 {
            shield.get("/other.ts").await;
        }
        assert_eq!(origin.hits("/a.ts"), asked, "fetched without room");
        viewer.open();
        held.read_all().await
    };
    let (warmed, _) = tokio::join!(shield.warm("/a.ts"), order);
    assert_eq!(warmed["outcome"], "fetched", "{warmed}");
}
