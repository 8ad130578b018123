//! Each request counts for the class of its client, such as the CDN that sends it, however it is
//! answered; what classes share is counted once for each of them.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use seawall::frontend::ClientAuthority;
use seawall_policy::access_rules::RequiredHeader;
use seawall_policy::rate_limit::{Allowance, RateLimit};
use seawall_policy::{ClientClass, ClientClasses, RequiredCertificate, Route};

use crate::support::authority::Authority;
use crate::support::metrics::{
    ACCESS_REFUSED, CLASS_COLLAPSED, CLASS_ORIGIN_BYTES, CLASS_ORIGIN_REQUESTS, CLASS_REQUESTS,
    CLASS_SENT_BYTES, REPEATED, REQUESTS_LIMITED, WAITERS,
};
use crate::support::shield::{Builder, address_list};
use crate::support::viewer::{Ask, Identity, TlsViewer, Viewer};
use crate::support::{Gate, Origin, Shield, eventually, get, noise, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";
const HEADER: &str = "X-Cdn-Secret";

/// An address of this machine that is of the class `near`.
const NEAR: [u8; 4] = [127, 0, 0, 2];

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

fn secret_file(folder: &Path, secret: &str) -> PathBuf {
    let path = folder.join(secret);
    std::fs::write(&path, format!("{secret}\n")).unwrap();
    path
}

fn by_secret(name: &str, folder: &Path) -> ClientClass {
    ClientClass {
        header: Some(RequiredHeader {
            name: HEADER.parse().unwrap(),
            secret_files: vec![secret_file(folder, &secret_of(name))],
        }),
        ..ClientClass::named(name, 0)
    }
}

fn secret_of(name: &str) -> String {
    format!("the-secret-of-{name}")
}

fn near() -> ClientClass {
    ClientClass {
        addresses: Some(address_list(&["127.0.0.2/32"])),
        ..ClientClass::named("near", 0)
    }
}

/// The classes `one` and `two`, each with a secret in the same header, and `near`.
fn three_classes(folder: &Path) -> ClientClasses {
    ClientClasses::of(vec![
        by_secret("one", folder),
        by_secret("two", folder),
        near(),
    ])
}

fn shield_for(origin: &Origin, classes: ClientClasses) -> Builder {
    Shield::in_front_of(origin).with(|config| config.rules.client_classes = classes)
}

fn get_as(name: &str) -> Ask {
    get(PATH).header(HEADER, &secret_of(name))
}

async fn of(shield: &Shield, metric: &str, class: &str) -> u64 {
    shield.counter(metric, &[("client_class", class)]).await
}

#[tokio::test]
async fn repeated_responses_count_for_the_class_of_their_own_request() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let shield = shield_for(&origin, three_classes(folder.path()))
        .start()
        .await;
    let mut http1 = shield.viewer().await;
    let mut near = shield.viewer_from(NEAR).await;
    let http2 = shield.h2_viewer().await;
    let near_http2 = shield.h2_viewer_from(NEAR).await;
    for _ in 0..20 {
        for name in ["one", "two"] {
            http1.ask(get_as(name)).await.assert_whole(BODY);
            http2.ask(get_as(name)).await.assert_whole(BODY);
        }
        // The wrong secret is nobody's, and the right one counts before the address.
        http1.ask(get_as("nobody")).await.assert_whole(BODY);
        near.ask(get(PATH)).await.assert_whole(BODY);
        near_http2.ask(get(PATH)).await.assert_whole(BODY);
        near.ask(get_as("one")).await.assert_whole(BODY);
    }
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    for (class, requests) in [("one", 60), ("two", 40), ("near", 40), ("other", 20)] {
        assert_eq!(
            of(&shield, CLASS_REQUESTS, class).await,
            requests,
            "{class}"
        );
        let bytes = of(&shield, CLASS_SENT_BYTES, class).await;
        assert_eq!(bytes, 10 * requests, "{class}");
    }
    let misses = shield
        .counter(CLASS_REQUESTS, &[("source", "origin")])
        .await;
    assert_eq!((misses, origin.hits(PATH)), (1, 1));
    let sent = origin.latest(PATH);
    assert_eq!(sent.header(HEADER), None, "{sent:?}");
}

#[tokio::test]
async fn certificate_tells_the_class_also_of_repeated_responses() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let ca = folder.path().join("clients.pem");
    let authority = Authority::new(&ca);
    let identity = Identity::new("media.test", folder.path());
    let by_certificate = |name: &str, required| ClientClass {
        certificate: Some(required),
        ..ClientClass::named(name, 0)
    };
    let one = RequiredCertificate::Named(["one.example".to_owned()].into());
    let shield = shield_for(
        &origin,
        ClientClasses::of(vec![
            by_certificate("one", one),
            by_certificate("certified", RequiredCertificate::Any),
        ]),
    );
    let shield = shield.with_tls(&[&identity]).with(|config| {
        let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
        tls.client = Some(ClientAuthority {
            ca,
            is_required: false,
        });
    });
    let shield = shield.start().await;
    let viewer = || TlsViewer::new_trusting(shield.address(), &identity);
    let as_named = |name: &str| viewer().with_certificate(authority.issue_to(name));
    let viewers = [as_named("one.example"), as_named("two.example"), viewer()];
    let mut connections = Vec::new();
    for viewer in &viewers {
        connections.push((viewer.h1().await, viewer.h2().await));
    }
    for _ in 0..20 {
        for (http1, http2) in &mut connections {
            http1.get(PATH).await.assert_whole(BODY);
            http2.get(PATH).await.assert_whole(BODY);
        }
    }
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    for class in ["one", "certified", "other"] {
        assert_eq!(of(&shield, CLASS_REQUESTS, class).await, 40, "{class}");
    }
}

#[tokio::test]
async fn class_that_shares_a_stored_object_is_spared_one_fetch() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let shield = shield_for(&origin, three_classes(folder.path()))
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    for name in ["one", "two", "one", "nobody"] {
        for _ in 0..5 {
            viewer.ask(get_as(name)).await.assert_whole(BODY);
        }
    }
    let collapsed = async || {
        let classes = ["one", "two", "near", "other"];
        let mut counts = [0; 4];
        for (count, class) in counts.iter_mut().zip(classes) {
            *count = of(&shield, CLASS_COLLAPSED, class).await;
        }
        counts
    };
    assert_eq!(collapsed().await, [0, 1, 0, 1]);
    assert_eq!(of(&shield, CLASS_ORIGIN_REQUESTS, "one").await, 1);
    assert_eq!(of(&shield, CLASS_ORIGIN_BYTES, "one").await, 10);
    // Another version is another fetch.
    shield.purge(PATH).await;
    for name in ["two", "one", "two"] {
        viewer.ask(get_as(name)).await.assert_whole(BODY);
    }
    assert_eq!(collapsed().await, [1, 1, 0, 1]);
    assert_eq!(of(&shield, CLASS_ORIGIN_REQUESTS, "two").await, 1);
    assert_eq!(shield.counter(CLASS_ORIGIN_REQUESTS, &[]).await, 2);
}

#[tokio::test]
async fn class_that_waits_for_the_fetch_of_another_is_spared_one() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let held = segment(BODY).cache_control("max-age=600").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let shield = shield_for(&origin, three_classes(folder.path()))
        .start()
        .await;
    let mut waiting = Vec::new();
    for (count, name) in (1..).zip(["one", "one", "two", "two", "two", "one"]) {
        let mut viewer = shield.viewer().await;
        viewer.send(&get_as(name)).await;
        waiting.push((viewer, name));
        shield.wait_gauge(WAITERS, |waiters| waiters == count).await;
    }
    gate.open();
    for (viewer, name) in &mut waiting {
        viewer.receive(&get_as(name)).await.assert_whole(BODY);
    }
    // Now from memory: they got it before.
    for name in ["two", "one", "two"] {
        shield.ask(get_as(name)).await.assert_whole(BODY);
    }
    assert_eq!(of(&shield, CLASS_COLLAPSED, "one").await, 0);
    assert_eq!(of(&shield, CLASS_COLLAPSED, "two").await, 1);
    assert_eq!(of(&shield, CLASS_ORIGIN_REQUESTS, "one").await, 1);
    assert_eq!(of(&shield, CLASS_ORIGIN_REQUESTS, "two").await, 0);
}

#[tokio::test]
async fn refusals_and_abandoned_requests_count_for_their_class() {
    let (folder, gate) = (tempfile::tempdir().unwrap(), Gate::new());
    let held = segment(BODY).hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let shield = shield_for(&origin, three_classes(folder.path()))
        .route(|route| route.access.deny = Some(address_list(&["127.0.0.2/32"])))
        .start()
        .await;
    let mut near = shield.viewer_from(NEAR).await;
    for _ in 0..3 {
        assert_eq!(near.ask(get(PATH)).await.status, 403);
    }
    let mut leaving = shield.viewer().await;
    leaving.send(&get_as("two")).await;
    origin.wait_hits(PATH, 1).await;
    drop(leaving);
    let by_shield = |class| [("client_class", class), ("source", "shield")];
    eventually("the abandoned request is counted", async || {
        shield.counter(CLASS_REQUESTS, &by_shield("two")).await == 1
    })
    .await;
    assert_eq!(shield.counter(CLASS_REQUESTS, &by_shield("near")).await, 3);
    gate.open();
}

#[tokio::test]
async fn reload_changes_classes_and_keeps_their_counters() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let classes = |names: &[&str]| {
        let class = |name: &&str| by_secret(name, folder.path());
        ClientClasses::of(names.iter().map(class).collect())
    };
    let mut shield = Shield::in_front_of(&origin).start().await;
    let mut viewer = shield.viewer().await;
    viewer.ask(get_as("one")).await.assert_whole(BODY);
    assert_eq!(shield.counter(CLASS_REQUESTS, &[]).await, 0, "no classes");
    let steps: [(&[&str], [u64; 3]); 4] = [
        (&["one", "two"], [5, 5, 0]),
        (&["two", "one"], [10, 10, 0]),
        (&["two"], [10, 15, 5]),
        (&[], [10, 15, 5]),
    ];
    for (names, counts) in steps {
        shield.reload(|config| config.rules.client_classes = classes(names));
        for _ in 0..5 {
            viewer.ask(get_as("one")).await.assert_whole(BODY);
            viewer.ask(get_as("two")).await.assert_whole(BODY);
        }
        for (class, count) in ["one", "two", "other"].into_iter().zip(counts) {
            assert_eq!(of(&shield, CLASS_REQUESTS, class).await, count, "{class}");
        }
    }
    let status = shield.admin(get("/status")).await;
    let status: serde_json::Value = serde_json::from_slice(&status.body).expect("JSON");
    let one = &status["client_classes"][1];
    assert_eq!(
        (&one["name"], &one["requests"]),
        (&"one".into(), &10.into())
    );
    assert_eq!(one["hit_ratio"], 1.0);
}

/// 20 requests at once, and then hardly anything is added while a scenario runs.
const QUOTA: Allowance = Allowance {
    per_second: 0.001,
    burst: 20.0,
};

/// The same three classes, with a quota for `one`.
fn classes_with_quota(folder: &Path, quota: RateLimit) -> ClientClasses {
    let one = ClientClass {
        rate_limit: Some(quota),
        ..by_secret("one", folder)
    };
    ClientClasses::of(vec![one, by_secret("two", folder), near()])
}

async fn statuses(viewer: &mut Viewer, request: &Ask, count: usize) -> Vec<u16> {
    let mut statuses = Vec::new();
    for _ in 0..count {
        statuses.push(viewer.ask(request.clone()).await.status);
    }
    statuses
}

async fn refused_over_quota(shield: &Shield, quantity: &str) -> u64 {
    let labels = [("per", "client_class"), ("quantity", quantity)];
    shield.counter(REQUESTS_LIMITED, &labels).await
}

#[tokio::test]
async fn quota_of_a_class_counts_all_its_requests_and_those_of_no_other() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let origin = origin.on("/other.ts", segment(BODY).cache_control("max-age=600"));
    let quota = RateLimit {
        requests: Some(QUOTA),
        bytes: None,
    };
    let elsewhere = |of_all: &Route| Route {
        name: "elsewhere".into(),
        path_prefix: "/other.ts".to_owned(),
        ..of_all.clone()
    };
    let mut shield = shield_for(&origin, classes_with_quota(folder.path(), quota))
        .with(|config| {
            let routes = &mut config.rules.routes;
            routes.insert(0, Arc::new(elsewhere(&routes[0])));
        })
        .start()
        .await;
    let (mut viewer, mut other_viewer) = (shield.viewer().await, shield.viewer().await);
    // A miss, hits that are looked up, and hits that are repeated; over both protocols.
    let mut all = statuses(&mut viewer, &get_as("one"), 8).await;
    all.extend(statuses(&mut other_viewer, &get_as("one"), 4).await);
    let http2 = shield.h2_viewer().await;
    for _ in 0..4 {
        all.push(http2.ask(get_as("one")).await.status);
    }
    let other_route = get("/other.ts").header(HEADER, &secret_of("one"));
    all.extend(statuses(&mut viewer, &other_route, 4).await);
    assert_eq!(all, [200; 20]);
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    assert_eq!(statuses(&mut viewer, &get_as("one"), 3).await, [429; 3]);
    assert_eq!(statuses(&mut viewer, &other_route, 2).await, [429; 2]);
    assert_eq!(http2.ask(get_as("one")).await.status, 429);
    assert_eq!(refused_over_quota(&shield, "requests").await, 6);
    for request in [get_as("two"), get(PATH), get_as("nobody")] {
        assert_eq!(statuses(&mut viewer, &request, 30).await, [200; 30]);
    }
    // A reload does not fill the bucket; without the quota, requests are admitted.
    let folder = folder.path();
    shield.reload(|config| config.rules.client_classes = classes_with_quota(folder, quota));
    assert_eq!(statuses(&mut viewer, &get_as("one"), 2).await, [429; 2]);
    shield.reload(|config| config.rules.client_classes = three_classes(folder));
    assert_eq!(statuses(&mut viewer, &get_as("one"), 2).await, [200; 2]);
}

#[tokio::test]
async fn bytes_of_all_clients_of_a_class_use_up_its_quota() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let quota = RateLimit {
        requests: None,
        bytes: Some(Allowance {
            burst: 15.0,
            ..QUOTA
        }),
    };
    let shield = shield_for(&origin, classes_with_quota(folder.path(), quota))
        .start()
        .await;
    let (mut viewer, mut other_viewer) = (shield.viewer().await, shield.viewer().await);
    // Two responses of 10 bytes: the second one is admitted because 5 are left.
    assert_eq!(
        statuses(&mut viewer, &get_as("one"), 3).await,
        [200, 200, 429]
    );
    assert_eq!(statuses(&mut other_viewer, &get_as("one"), 1).await, [429]);
    assert_eq!(refused_over_quota(&shield, "bytes").await, 2);
    assert_eq!(statuses(&mut viewer, &get_as("two"), 9).await, [200; 9]);
}

/// The quota counts only what the route's own limit admits, and the other way round.
#[tokio::test]
async fn request_that_one_limit_refuses_uses_up_no_other() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let limit = |burst| RateLimit {
        requests: Some(Allowance { burst, ..QUOTA }),
        bytes: None,
    };
    let shield = shield_for(&origin, classes_with_quota(folder.path(), limit(2.0)))
        .route(|route| route.rate_limits.per_route = Some(limit(5.0)))
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    let of_one = statuses(&mut viewer, &get_as("one"), 9).await;
    assert_eq!(of_one[..2], [200; 2]);
    assert_eq!(of_one[2..], [429; 7]);
    let of_two = statuses(&mut viewer, &get_as("two"), 5).await;
    assert_eq!(of_two, [200, 200, 200, 429, 429]);
}

#[tokio::test]
async fn route_admits_only_the_classes_that_it_names() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let mut shield = shield_for(&origin, three_classes(folder.path()))
        .route(|route| {
            route.access.client_classes = Some(vec!["one".into(), "near".into()]);
        })
        .start()
        .await;
    let mut viewer = shield.viewer().await;
    let http2 = shield.h2_viewer().await;
    let mut near = shield.viewer_from(NEAR).await;
    for _ in 0..10 {
        assert_eq!(viewer.ask(get_as("one")).await.status, 200);
        assert_eq!(near.ask(get(PATH)).await.status, 200);
        for request in [get_as("two"), get_as("nobody"), get(PATH)] {
            assert_eq!(viewer.ask(request.clone()).await.status, 403);
            assert_eq!(http2.ask(request).await.status, 403);
        }
        assert_eq!(http2.ask(get_as("one")).await.status, 200);
        // The secret of another class names it, whatever the address.
        assert_eq!(near.ask(get_as("two")).await.status, 403);
    }
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    let refused = [("reason", "client_class")];
    assert_eq!(shield.counter(ACCESS_REFUSED, &refused).await, 70);
    shield.reload(|config| {
        let route = Arc::make_mut(&mut config.rules.routes[0]);
        route.access.client_classes = Some(vec!["two".into(), "other".into()]);
    });
    for (request, status) in [(get_as("one"), 403), (get_as("two"), 200), (get(PATH), 200)] {
        assert_eq!(viewer.ask(request).await.status, status);
    }
}

/// Slices of a large object are fetched for the class that asks for it.
#[tokio::test]
async fn slices_count_for_the_class_that_asks() {
    const SLICE: usize = 64 << 10;
    let body = noise(1, 6 * SLICE);
    let whole = segment(bytes::Bytes::new())
        .etag("\"1\"")
        .with_ranges(body.clone());
    let origin = Origin::start().await.on("/large.ts", whole);
    let folder = tempfile::tempdir().unwrap();
    let shield = shield_for(&origin, three_classes(folder.path()))
        .proxy_settings(|settings| {
            settings.whole_fetch_max = SLICE as u64;
            settings.slice_bytes = SLICE as u64;
        })
        .start()
        .await;
    let of_one = get("/large.ts").header(HEADER, &secret_of("one"));
    shield.ask(of_one).await.assert_whole(&body);
    let requests = origin.hits("/large.ts") as u64;
    assert!(requests >= 6, "{requests}");
    assert_eq!(of(&shield, CLASS_ORIGIN_REQUESTS, "one").await, requests);
    let bytes = of(&shield, CLASS_ORIGIN_BYTES, "one").await;
    assert!(bytes >= body.len() as u64, "{bytes}");
}

/// A class for which no counters are left would have no quota: the reload says so.
#[tokio::test]
async fn reload_with_more_names_than_can_be_counted_changes_nothing() {
    let (folder, origin) = (tempfile::tempdir().unwrap(), origin().await);
    let class = |name: &str| by_secret(name, folder.path());
    let of_names = |from: usize| {
        let names = (from..from + 16).map(|number| class(&format!("cdn{number}")));
        ClientClasses::of(names.collect())
    };
    let mut shield = Shield::in_front_of(&origin).start().await;
    for from in [0, 15] {
        shield.reload(|config| config.rules.client_classes = of_names(from));
    }
    let error = shield
        .try_reload(|config| config.rules.client_classes = ClientClasses::of(vec![class("new")]))
        .unwrap_err();
    for part in ["`new`", "[[client_class]]", "31", "restart"] {
        assert!(error.contains(part), "{part}: {error}");
    }
    shield.ask(get_as("cdn30")).await.assert_whole(BODY);
    assert_eq!(of(&shield, CLASS_REQUESTS, "cdn30").await, 1);
    // The name of a removed class still has its counters.
    let known = || ClientClasses::of(vec![class("cdn0")]);
    shield.reload(|config| config.rules.client_classes = known());
}
