//! A purge by path or host takes what it names and nothing beside it. A dry run counts the same and
//! changes nothing. The bytes that a purge reports are those that memory has again.

use serde_json::Value;

use crate::support::metrics::{PURGED_BYTES, PURGED_OBJECTS, PURGES, STORED_BYTES};
use crate::support::{
    Ask, Gate, Origin, Shield, ask, ended_playlist, get, manifest, noise, percent_encoded, segment,
};

/// The query of a purge of this target, as viewers know it.
fn of(scope: &str, target: &str) -> String {
    let url = format!("http://shield.test{target}");
    format!("{scope}={}", percent_encoded(&url))
}

fn count(answer: &Value) -> (u64, u64) {
    let number = |name: &str| answer[name].as_u64().expect("a number");
    (number("objects"), number("bytes"))
}

#[tokio::test]
async fn all_queries_of_a_path_go_and_neighbours_stay() {
    let gone = ["/a/b.ts", "/a/b.ts?x=1", "/a/b.ts?x=2&y=3"];
    let stay = ["/a/b.ts.1", "/a/b", "/a/b/1.ts", "/a/c.ts?x=1"];
    let mut origin = Origin::start().await;
    for target in gone.iter().chain(&stay) {
        origin = origin.on(target, segment("x"));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    shield.are_hits(&[&gone[..], &stay].concat()).await;
    assert_eq!(shield.purge_query(&of("path", "/a/b.ts?any")).await, 3);
    assert_eq!(shield.are_hits(&stay).await, [true; 4]);
    assert_eq!(shield.are_hits(&gone).await, [false; 3]);
}

/// The path of a directory is also the beginning of all paths in it.
#[tokio::test]
async fn path_purge_of_a_directory_index_keeps_what_lies_in_it() {
    let origin = Origin::start()
        .await
        .on("/a/", segment("index"))
        .on("/a/?x=1", segment("index"))
        .on("/a/1.ts", segment("x"));
    let shield = Shield::in_front_of(&origin).start().await;
    let targets = ["/a/", "/a/?x=1", "/a/1.ts"];
    shield.are_hits(&targets).await;
    assert_eq!(shield.purge_query(&of("path", "/a/")).await, 2);
    assert_eq!(shield.are_hits(&targets).await, [false, false, true]);
}

#[tokio::test]
async fn fill_of_a_purged_path_or_host_is_not_stored() {
    for purge in [of("path", "/a.ts"), "host=shield.test".to_owned()] {
        let (gate, old) = (Gate::new(), noise(1, 1000));
        let half = segment(old.slice(..500)).hold(&gate).send(old.slice(500..));
        let origin = Origin::start()
            .await
            .on("/a.ts?x=1", half.then(segment("new")));
        let shield = Shield::in_front_of(&origin).start().await;
        let mut before = shield.begin(get("/a.ts?x=1")).await;
        before.read(500).await;
        shield.purge_query(&purge).await;
        shield.get("/a.ts?x=1").await.assert_whole("new");
        gate.open();
        before.finish().await.assert_whole(&old);
        let after = shield.get("/a.ts?x=1").await;
        after.assert_whole("new");
        assert!(after.is_hit(), "{purge}");
    }
}

#[tokio::test]
async fn host_purge_tells_of_shared_objects() {
    let by = |host: &str| get("/a.ts").host(host);
    for forwards in [true, false] {
        let origin = Origin::start().await.on("/a.ts", segment("x"));
        let shield = Shield::in_front_of(&origin)
            .route(|route| {
                route.forward_host = forwards;
                route.hosts = vec!["a.test".to_owned(), "b.test".to_owned()];
            })
            .start()
            .await;
        for host in ["a.test", "b.test"] {
            shield.ask(by(host)).await.assert_whole("x");
        }
        let answer = shield.purge_answer("host=A.test").await;
        assert_eq!(count(&answer).0, 1, "{answer}");
        assert_eq!(answer["shared_with_other_hosts"], !forwards, "{answer}");
        assert_eq!(shield.ask(by("b.test")).await.is_hit(), forwards);
        assert!(!forwards || !shield.ask(by("a.test")).await.is_hit());
        let unknown = shield.admin(ask("POST", "/purge?host=c.test")).await;
        assert_eq!(unknown.status, 404);
    }
}

/// Every scope, over variants, slices, keys of forwarded headers and a stream.
#[tokio::test]
async fn dry_run_changes_nothing_and_counts_the_same() {
    let large = noise(1, 1 << 20);
    let sliced = segment(bytes::Bytes::new())
        .etag("\"1\"")
        .with_ranges(large.clone());
    let origin = Origin::start()
        .await
        .on("/film/i.m3u8", manifest(ended_playlist(1)))
        .on("/film/seg1.ts", segment("x"))
        .on(
            "/film/1.vtt",
            segment("x").header("Vary", "Accept-Encoding"),
        )
        .on("/film/large.ts", sliced);
    let shield = Shield::in_front_of(&origin)
        .route(|route| route.forward_headers = vec!["x-token".parse().unwrap()])
        .proxy_settings(|settings| {
            settings.whole_fetch_max = 256 << 10;
            settings.slice_bytes = 128 << 10;
        })
        .start()
        .await;
    let requests = || -> Vec<Ask> {
        vec![
            get("/film/i.m3u8"),
            get("/film/seg1.ts").header("X-Token", "a"),
            get("/film/seg1.ts").header("X-Token", "b"),
            get("/film/1.vtt").header("Accept-Encoding", "gzip"),
            get("/film/1.vtt").header("Accept-Encoding", "identity"),
            get("/film/large.ts"),
        ]
    };
    let fill = async || {
        for request in requests() {
            assert_eq!(shield.ask(request).await.status, 200);
        }
    };
    for (purge, objects) in [
        (of("url", "/film/seg1.ts"), 2),
        (of("url", "/film/1.vtt"), 2),
        (of("url", "/film/large.ts"), 8),
        (of("path", "/film/seg1.ts"), 2),
        (of("stream", "/film/i.m3u8"), 13),
        (of("prefix", "/film/"), 13),
        ("host=shield.test".to_owned(), 13),
        ("all".to_owned(), 13),
    ] {
        fill().await;
        let stored = shield.gauge(STORED_BYTES).await;
        let dry = shield.purge_answer(&format!("{purge}&dry_run")).await;
        assert_eq!(
            (&dry["dry_run"], &dry["purged"]),
            (&true.into(), &false.into())
        );
        assert_eq!(shield.gauge(STORED_BYTES).await, stored, "{purge}");
        for request in requests() {
            assert!(shield.ask(request).await.is_hit(), "{purge}");
        }
        let purged = shield.purge_answer(&purge).await;
        assert_eq!(count(&dry), count(&purged), "{purge}");
        assert_eq!(count(&purged).0, objects, "{purge}: {purged}");
    }
}

#[tokio::test]
async fn dry_run_stores_a_fill_in_progress_and_keeps_a_memo() {
    let (gate, body) = (Gate::new(), noise(1, 1000));
    let half = segment(body.slice(..500))
        .hold(&gate)
        .send(body.slice(500..));
    let failing = crate::support::status(500).then(segment("late"));
    let origin = Origin::start().await.on("/a.ts", half).on("/b.ts", failing);
    let shield = Shield::in_front_of(&origin)
        .origin(|group| group.retry.attempts_max = 0)
        .with(|config| config.proxy.failure_backoff = std::time::Duration::from_mins(1))
        .start()
        .await;
    assert_eq!(shield.get("/b.ts").await.status, 500);
    let mut before = shield.begin(get("/a.ts")).await;
    before.read(500).await;
    for purge in [of("url", "/a.ts"), of("path", "/a.ts"), "all".to_owned()] {
        let dry = shield.purge_answer(&format!("{purge}&dry_run=1")).await;
        assert_eq!(count(&dry), (0, 0), "{purge}");
    }
    gate.open();
    before.finish().await.assert_whole(&body);
    assert!(shield.get("/a.ts").await.assert_whole(&body).is_hit());
    assert_eq!(shield.get("/b.ts").await.status, 500);
}

#[tokio::test]
async fn purged_bytes_equal_what_the_store_frees() {
    let mut origin = Origin::start().await;
    let targets: Vec<String> = (0..20).map(|number| format!("/a/{number}.ts")).collect();
    for (seed, target) in targets.iter().enumerate() {
        origin = origin.on(target, segment(noise(seed as u64, 1000 * seed + 1)));
    }
    let shield = Shield::in_front_of(&origin).start().await;
    for target in &targets {
        shield.get(target).await;
    }
    let (mut objects, mut bytes) = (0, 0);
    for purge in [
        of("url", "/a/19.ts"),
        of("path", "/a/18.ts"),
        of("prefix", "/a/1"),
        "all".to_owned(),
    ] {
        let before = shield.gauge(STORED_BYTES).await;
        let answer = shield.purge_answer(&purge).await;
        let freed = before - shield.gauge(STORED_BYTES).await;
        assert_eq!(count(&answer).1, freed, "{purge}");
        objects += count(&answer).0;
        bytes += freed;
    }
    assert_eq!((objects, shield.gauge(STORED_BYTES).await), (20, 0));
    shield.purge_answer("all&dry_run").await;
    assert_eq!(shield.counter(PURGED_OBJECTS, &[]).await, objects);
    assert_eq!(shield.counter(PURGED_BYTES, &[]).await, bytes);
    for (scope, mode, purges) in [
        ("all", "hard", 1),
        ("all", "dry_run", 1),
        ("url", "hard", 1),
    ] {
        let labels = [("scope", scope), ("mode", mode)];
        assert_eq!(shield.counter(PURGES, &labels).await, purges, "{scope}");
    }
}
