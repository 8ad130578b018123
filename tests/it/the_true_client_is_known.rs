//! Behind proxies that are trusted, access rules, limits and the log concern the viewer whom they
//! name; nobody else can choose an address.

use std::time::Duration;

use seawall_policy::access_rules::{AddressList, AddressListEntry};
use seawall_policy::{ClientField, TrustedProxies};
use tokio::net::{TcpSocket, TcpStream};

use crate::support::metrics::{REPEATED, WITHOUT_VIEWERS};
use crate::support::patience::within;
use crate::support::shield::Builder;
use crate::support::viewer::{Ask, H2Viewer, Viewer};
use crate::support::{Gate, Origin, Shield, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";

/// A trusted proxy, another one, and an address that is none.
const PROXY: [u8; 4] = [127, 0, 0, 1];
const OTHER: [u8; 4] = [127, 0, 0, 9];

/// Viewers behind the proxies.
const WELCOME: &str = "192.0.2.1";
const ALSO_WELCOME: &str = "192.0.2.2";
const DENIED: &str = "192.0.2.66";

fn list(entries: &[&str]) -> AddressList {
    let entry = |text: &&str| match *text {
        "unix" => AddressListEntry::UnixSocket,
        network => AddressListEntry::Network(network.parse().expect("a network")),
    };
    entries.iter().map(entry).collect()
}

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// Behind proxies on 127.0.0.0/30 and on a Unix socket; [`DENIED`] may not enter.
fn behind_proxies(origin: &Origin, field: ClientField) -> Builder {
    let trusted_proxies = TrustedProxies {
        addresses: Some(list(&["127.0.0.0/30", "unix"])),
        field,
    };
    Shield::in_front_of(origin)
        .with(|config| config.rules.trusted_proxies = trusted_proxies)
        .route(|route| route.access.deny = Some(list(&["192.0.2.66/32"])))
}

async fn stream_from(shield: &Shield, address: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket
        .bind((address, 0).into())
        .expect("a loopback address");
    let stream = within("a connection", socket.connect(shield.address())).await;
    stream.expect("the shield accepts viewers")
}

async fn viewer_from(shield: &Shield, address: [u8; 4]) -> Viewer {
    Viewer::over(stream_from(shield, address).await)
}

/// A request that a proxy sends for these addresses.
fn get_for(addresses: &str) -> Ask {
    get(PATH).header("X-Forwarded-For", addresses)
}

#[tokio::test]
async fn access_rules_concern_the_viewer_behind_a_proxy() {
    let origin = origin().await;
    let shield = behind_proxies(&origin, ClientField::XForwardedFor);
    let shield = shield.start().await;
    let mut http1 = viewer_from(&shield, PROXY).await;
    let http2 = H2Viewer::over(stream_from(&shield, PROXY).await, "http").await;
    for _ in 0..5 {
        for welcome in [WELCOME, "192.0.2.66, 192.0.2.1", "192.0.2.1, 127.0.0.2"] {
            http1.ask(get_for(welcome)).await.assert_whole(BODY);
            http2.ask(get_for(welcome)).await.assert_whole(BODY);
        }
        for denied in [DENIED, "192.0.2.1, 192.0.2.66", "192.0.2.66, 127.0.0.2"] {
            assert_eq!(http1.ask(get_for(denied)).await.status, 403, "{denied}");
            assert_eq!(http2.ask(get_for(denied)).await.status, 403, "{denied}");
        }
        // The last line of the field is the last part of the list.
        let lines = get_for(WELCOME).header("X-Forwarded-For", DENIED);
        assert_eq!(http1.ask(lines.clone()).await.status, 403);
        assert_eq!(http2.ask(lines).await.status, 403);
    }
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn repeated_responses_are_shared_by_all_who_may_enter_and_by_nobody_else() {
    let origin = origin().await;
    let shield = behind_proxies(&origin, ClientField::XForwardedFor);
    let shield = shield.start().await;
    let mut http1 = viewer_from(&shield, PROXY).await;
    let http2 = H2Viewer::over(stream_from(&shield, PROXY).await, "http").await;
    eventually("responses of one viewer for another", async || {
        http1.ask(get_for(WELCOME)).await.assert_whole(BODY);
        http2.ask(get_for(WELCOME)).await.assert_whole(BODY);
        let before = shield.counter(REPEATED, &[]).await;
        http1.ask(get_for(ALSO_WELCOME)).await.assert_whole(BODY);
        http2.ask(get_for(ALSO_WELCOME)).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await == before + 2
    })
    .await;
    let before = shield.counter(REPEATED, &[]).await;
    for _ in 0..3 {
        assert_eq!(http1.ask(get_for(DENIED)).await.status, 403);
        assert_eq!(http2.ask(get_for(DENIED)).await.status, 403);
    }
    assert_eq!(shield.counter(REPEATED, &[]).await, before);
}

#[tokio::test]
async fn viewer_that_is_no_proxy_cannot_choose_its_address() {
    let origin = origin().await;
    let only_welcome =
        |shield: Builder| shield.route(|route| route.access.allow = Some(list(&["192.0.2.1/32"])));
    let shield = behind_proxies(&origin, ClientField::XForwardedFor);
    let shield = only_welcome(shield).start().await;
    let mut proxy = viewer_from(&shield, PROXY).await;
    let mut other = viewer_from(&shield, OTHER).await;
    for _ in 0..5 {
        proxy.ask(get_for(WELCOME)).await.assert_whole(BODY);
        assert_eq!(other.ask(get_for(WELCOME)).await.status, 403);
        // The other field is the viewer's own.
        let forwarded = get_for(DENIED).header("Forwarded", "for=192.0.2.1");
        assert_eq!(proxy.ask(forwarded).await.status, 403);
        assert_eq!(proxy.get(PATH).await.status, 403, "the proxy itself");
    }
    let without_proxies = only_welcome(Shield::in_front_of(&origin)).start().await;
    let refused = without_proxies.ask(get_for(WELCOME)).await;
    assert_eq!(refused.status, 403);
}

#[tokio::test]
async fn forwarded_names_the_viewer_also_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("viewers.sock");
    let origin = origin().await;
    let shield = behind_proxies(&origin, ClientField::Forwarded).on_unix(socket.clone());
    let shield = shield.start().await;
    let mut tcp = viewer_from(&shield, PROXY).await;
    let mut unix = Viewer::connect_unix(&socket).await;
    let forwarded = |text: &str| get(PATH).header("Forwarded", text);
    for _ in 0..5 {
        for viewer in [&mut tcp, &mut unix] {
            let welcome = forwarded("for=192.0.2.66;proto=https, For=\"192.0.2.1:4711\"");
            viewer.ask(welcome).await.assert_whole(BODY);
            let denied = forwarded("for=\", for=192.0.2.66;by=127.0.0.1");
            assert_eq!(viewer.ask(denied).await.status, 403);
        }
    }
}

/// Each of two viewers behind one proxy abandons fewer fetches than one client may.
#[tokio::test]
async fn limit_on_abandoned_fetches_counts_the_viewer_behind_the_proxy() {
    const OF_EACH: u64 = 12;
    let gate = Gate::new();
    let path = |number: u64| format!("/film/seg{number}.ts");
    let mut origin = Origin::start().await;
    for number in 0..2 * OF_EACH {
        origin = origin.on(&path(number), segment(BODY).hold_head(&gate));
    }
    let shield = behind_proxies(&origin, ClientField::XForwardedFor)
        .origin(|group| group.deadlines.queue = Duration::from_hours(1));
    let shield = shield.start().await;
    let mut viewers = Vec::new();
    for number in 0..2 * OF_EACH {
        let mut viewer = viewer_from(&shield, PROXY).await;
        let address = if number < OF_EACH {
            WELCOME
        } else {
            ALSO_WELCOME
        };
        viewer
            .send(&get(&path(number)).header("X-Forwarded-For", address))
            .await;
        viewers.push(viewer);
    }
    gate.wait_arrived(2 * usize::try_from(OF_EACH).unwrap())
        .await;
    drop(viewers);
    shield
        .wait_gauge(WITHOUT_VIEWERS, |left| left == 2 * OF_EACH)
        .await;
    gate.open();
}

#[tokio::test]
async fn limit_on_connections_of_one_client_does_not_concern_a_proxy() {
    let origin = origin().await;
    let shield = behind_proxies(&origin, ClientField::XForwardedFor)
        .with(|config| config.frontend.limits.connections_per_client_max = 1);
    let shield = shield.start().await;
    let mut first = viewer_from(&shield, OTHER).await;
    first.get(PATH).await.assert_whole(BODY);
    viewer_from(&shield, OTHER).await.wait_closed().await;
    let mut proxies = Vec::new();
    for _ in 0..3 {
        let mut proxy = viewer_from(&shield, PROXY).await;
        proxy.ask(get_for(WELCOME)).await.assert_whole(BODY);
        proxies.push(proxy);
    }
}

#[tokio::test]
async fn access_log_has_the_viewer_and_the_proxy() {
    let folder = tempfile::tempdir().unwrap();
    let log = folder.path().join("access.log");
    let origin = origin().await;
    let shield = behind_proxies(&origin, ClientField::XForwardedFor).with(|config| {
        let access_log = &mut config.telemetry.access_log;
        access_log.enabled = true;
        access_log.path = Some(log.clone());
    });
    let shield = shield.start().await;
    let mut proxy = viewer_from(&shield, PROXY).await;
    proxy.ask(get_for(WELCOME)).await.assert_whole(BODY);
    assert_eq!(proxy.ask(get_for(DENIED)).await.status, 403);
    let mut other = viewer_from(&shield, OTHER).await;
    other.ask(get_for(WELCOME)).await.assert_whole(BODY);
    let mut text = String::new();
    eventually("three lines", async || {
        text = std::fs::read_to_string(&log).unwrap_or_default();
        text.lines().count() == 3
    })
    .await;
    let addresses = text.lines().map(|line| {
        let line: serde_json::Value = serde_json::from_str(line).expect("JSON");
        (line["peer"].clone(), line["proxy"].clone())
    });
    let mut addresses: Vec<_> = addresses.collect();
    addresses.sort_by_key(|(peer, _)| peer.to_string());
    let expected = [
        ("127.0.0.9".into(), serde_json::Value::Null),
        (WELCOME.into(), "127.0.0.1".into()),
        (DENIED.into(), "127.0.0.1".into()),
    ];
    assert_eq!(addresses, expected);
}
