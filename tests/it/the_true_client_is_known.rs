//! Behind proxies that are trusted, access rules, limits and the log concern the viewer whom they
//! name; nobody else can choose an address.

use std::time::Duration;

use seawall_policy::{ClientField, TrustedProxies};
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};

use crate::support::metrics::{REPEATED, VIEWER_EVENTS, WITHOUT_VIEWERS};
use crate::support::patience::within;
use crate::support::shield::{Builder, address_list};
use crate::support::viewer::{Ask, H2Viewer, Identity, TlsViewer, Viewer};
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

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// Behind proxies on 127.0.0.0/30 and on a Unix socket; [`DENIED`] may not enter.
fn behind_proxies(origin: &Origin, field: ClientField) -> Builder {
    let trusted_proxies = TrustedProxies {
        addresses: Some(address_list(&["127.0.0.0/30", "unix"])),
        field,
    };
    Shield::in_front_of(origin)
        .with(|config| config.rules.trusted_proxies = trusted_proxies)
        .route(|route| route.access.deny = Some(address_list(&["192.0.2.66/32"])))
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
    let mut http1 = shield.viewer_from(PROXY).await;
    let http2 = shield.h2_viewer_from(PROXY).await;
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
    let mut http1 = shield.viewer_from(PROXY).await;
    let http2 = shield.h2_viewer_from(PROXY).await;
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
    let only_welcome = |shield: Builder| {
        shield.route(|route| route.access.allow = Some(address_list(&["192.0.2.1/32"])))
    };
    let shield = behind_proxies(&origin, ClientField::XForwardedFor);
    let shield = only_welcome(shield).start().await;
    let mut proxy = shield.viewer_from(PROXY).await;
    let mut other = shield.viewer_from(OTHER).await;
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
    let mut tcp = shield.viewer_from(PROXY).await;
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
        let mut viewer = shield.viewer_from(PROXY).await;
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
    let mut first = shield.viewer_from(OTHER).await;
    first.get(PATH).await.assert_whole(BODY);
    shield.viewer_from(OTHER).await.wait_closed().await;
    let mut proxies = Vec::new();
    for _ in 0..3 {
        let mut proxy = shield.viewer_from(PROXY).await;
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
    let mut proxy = shield.viewer_from(PROXY).await;
    proxy.ask(get_for(WELCOME)).await.assert_whole(BODY);
    assert_eq!(proxy.ask(get_for(DENIED)).await.status, 403);
    let mut other = shield.viewer_from(OTHER).await;
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

/// The header of a version for a TCP connection of a viewer.
fn proxy_header(version: u8, viewer: &str) -> Vec<u8> {
    if version == 1 {
        return format!("PROXY TCP4 {viewer} 192.0.2.99 4711 80\r\n").into();
    }
    let viewer: std::net::Ipv4Addr = viewer.parse().expect("an address");
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&viewer.octets());
    header.extend_from_slice(&[192, 0, 2, 99, 0x12, 0x67, 0, 80]);
    header
}

/// One listener that demands a header from [`PROXY`] or a Unix socket; [`DENIED`] may not enter.
fn with_proxy_protocol(origin: &Origin) -> Builder {
    Shield::in_front_of(origin)
        .with(|config| {
            let listener = &mut config.frontend.listeners[0];
            listener.proxy_protocol = Some(address_list(&["127.0.0.1/32", "unix"]));
        })
        .route(|route| route.access.deny = Some(address_list(&["192.0.2.66/32"])))
}

/// A connection that a proxy has opened for a viewer.
async fn proxied(shield: &Shield, header: &[u8]) -> TcpStream {
    let mut stream = shield.stream_from(PROXY).await;
    let sent = within("room for the header", stream.write_all(header)).await;
    sent.expect("the shield reads the header");
    stream
}

#[tokio::test]
async fn proxy_protocol_names_the_viewer_over_http1_http2_and_tls() {
    let origin = origin().await;
    let plain = with_proxy_protocol(&origin).start().await;
    let folder = tempfile::tempdir().unwrap();
    let identity = Identity::new("media.test", folder.path());
    let tls = with_proxy_protocol(&origin).with_tls(&[&identity]);
    let tls = tls.start().await;
    for version in [1, 2] {
        for (viewer, status) in [(WELCOME, 200), (DENIED, 403)] {
            let header = proxy_header(version, viewer);
            let mut http1 = Viewer::over(proxied(&plain, &header).await);
            let http2 = H2Viewer::over(proxied(&plain, &header).await, "http").await;
            let secure = TlsViewer::new_trusting(tls.address(), &identity);
            let secure = secure.with_proxy_header(&header).h2().await;
            for _ in 0..4 {
                assert_eq!(http1.get(PATH).await.status, status, "{viewer}");
                assert_eq!(http2.get(PATH).await.status, status, "{viewer}");
                assert_eq!(secure.get(PATH).await.status, status, "{viewer}");
            }
        }
    }
    assert_eq!(origin.hits(PATH), 2, "one fetch of each shield");
}

#[tokio::test]
async fn proxy_protocol_is_read_in_pieces_and_over_a_unix_socket() {
    let folder = tempfile::tempdir().unwrap();
    let socket = folder.path().join("viewers.sock");
    let origin = origin().await;
    let shield = with_proxy_protocol(&origin).on_unix(socket.clone());
    let shield = shield.with(|config| {
        let proxies = config.frontend.listeners[0].proxy_protocol.clone();
        config.frontend.listeners[1].proxy_protocol = proxies;
    });
    let shield = shield.start().await;
    for version in [1, 2] {
        let header = proxy_header(version, DENIED);
        for split in 1..header.len() {
            let mut stream = proxied(&shield, &header[..split]).await;
            tokio::task::yield_now().await;
            let rest = [&header[split..], b""].concat();
            stream.write_all(&rest).await.expect("the shield reads on");
            assert_eq!(Viewer::over(stream).get(PATH).await.status, 403);
        }
        let mut unix = UnixStream::connect(&socket).await.expect("a connection");
        // The first request follows in the same packet.
        let request = format!("GET {PATH} HTTP/1.0\r\nHost: media.test\r\n\r\n");
        let bytes = [&header[..], request.as_bytes()].concat();
        unix.write_all(&bytes).await.expect("the shield reads it");
        let mut unix = Viewer::over(unix);
        assert_eq!(unix.receive(&get(PATH)).await.status, 403);
    }
}

#[tokio::test]
async fn connection_without_the_header_is_closed_and_counted() {
    let origin = origin().await;
    let shield = with_proxy_protocol(&origin).start().await;
    let refused = [("event", "refused_proxy")];
    for (count, bytes) in [
        &b"GET / HTTP/1.1\r\nHost: media.test\r\n\r\n"[..],
        b"PROXY TCP4 192.0.2.1\r\n",
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\xff\xff",
        b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    ]
    .into_iter()
    .enumerate()
    {
        let mut viewer = shield.viewer_from(PROXY).await;
        viewer.send_raw(bytes).await;
        viewer.wait_closed().await;
        let counted = shield.counter(VIEWER_EVENTS, &refused).await;
        assert_eq!(counted, count as u64 + 1);
    }
    // A header from anybody else is not even read.
    let mut other = shield.viewer_from(OTHER).await;
    other.wait_closed().await;
    assert_eq!(shield.counter(VIEWER_EVENTS, &refused).await, 5);
    assert_eq!(origin.hits(PATH), 0);
}

#[tokio::test]
async fn header_that_does_not_end_is_cut_at_its_deadline() {
    let origin = origin().await;
    let shield = with_proxy_protocol(&origin)
        .with(|config| config.frontend.limits.head_timeout = Duration::from_millis(50));
    let shield = shield.start().await;
    for begun in [&b""[..], b"PROXY TCP4 192", b"\r\n\r\n\0\r\nQUIT\n\x21"] {
        let mut viewer = Viewer::over(proxied(&shield, begun).await);
        viewer.wait_closed().await;
    }
    let timeouts = [("event", "head_timeout")];
    assert_eq!(shield.counter(VIEWER_EVENTS, &timeouts).await, 3);
}

#[tokio::test]
async fn proxy_that_speaks_for_itself_has_the_address_of_its_socket() {
    let origin = origin().await;
    let shield = with_proxy_protocol(&origin)
        .route(|route| route.access.allow = Some(address_list(&["127.0.0.1/32"])));
    let shield = shield.start().await;
    for local in [&b"PROXY UNKNOWN\r\n"[..], b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0"] {
        let mut viewer = Viewer::over(proxied(&shield, local).await);
        viewer.get(PATH).await.assert_whole(BODY);
    }
    let named = proxied(&shield, &proxy_header(2, WELCOME)).await;
    assert_eq!(Viewer::over(named).get(PATH).await.status, 403);
}

#[tokio::test]
async fn limit_on_connections_counts_the_viewer_that_the_header_names() {
    let origin = origin().await;
    let shield = with_proxy_protocol(&origin)
        .with(|config| config.frontend.limits.connections_per_client_max = 1);
    let shield = shield.start().await;
    let mut viewers = Vec::new();
    for address in [WELCOME, ALSO_WELCOME] {
        let mut viewer = Viewer::over(proxied(&shield, &proxy_header(1, address)).await);
        viewer.get(PATH).await.assert_whole(BODY);
        viewers.push(viewer);
    }
    let second = proxied(&shield, &proxy_header(2, WELCOME)).await;
    Viewer::over(second).wait_closed().await;
    let refused = [("event", "refused_client")];
    assert_eq!(shield.counter(VIEWER_EVENTS, &refused).await, 1);
    viewers.clear();
    shield
        .wait_gauge("seawall_viewer_connections_open", |open| open == 0)
        .await;
    let again = proxied(&shield, &proxy_header(1, WELCOME)).await;
    Viewer::over(again).get(PATH).await.assert_whole(BODY);
}
