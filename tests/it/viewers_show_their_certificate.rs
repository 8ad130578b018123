//! A route that demands a certificate lets nobody in who has none of the right name, also where a
//! response is sent again; and a listener refuses certificates that nobody it trusts has issued.

use std::sync::Arc;

use rcgen::{CertificateParams, DnType, ExtendedKeyUsagePurpose, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use seawall::frontend::ClientAuthority;
use seawall_policy::{AccessRules, RequiredCertificate};
use tempfile::TempDir;

use crate::support::authority::Authority;
use crate::support::metrics::{ACCESS_REFUSED, REPEATED, VIEWER_EVENTS};
use crate::support::shield::{Builder, address_list};
use crate::support::viewer::{ClientIdentity, Identity, TlsViewer, Viewer};
use crate::support::{Origin, Shield, eventually, get, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";
const EDGE: &str = "edge.cdn.example";

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// Over TLS, and on a Unix socket without it; only [`EDGE`] may enter.
fn guarded(origin: &Origin, is_required: bool) -> (Builder, Authority, Identity, TempDir) {
    let folder = tempfile::tempdir().unwrap();
    let ca = folder.path().join("clients.pem");
    let authority = Authority::new(&ca);
    let identity = Identity::new("media.test", folder.path());
    let named =
        RequiredCertificate::Named([EDGE.to_owned(), "spiffe://cdn/edge".to_owned()].into());
    let shield = Shield::in_front_of(origin)
        .with_tls(&[&identity])
        .on_unix(folder.path().join("viewers.sock"))
        .route(|route| route.access.require_certificate = Some(named))
        .with(|config| {
            let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
            tls.client = Some(ClientAuthority { ca, is_required });
        });
    (shield, authority, identity, folder)
}

#[tokio::test]
async fn only_certificates_of_the_right_name_enter() {
    let origin = origin().await;
    let (shield, authority, identity, folder) = guarded(&origin, false);
    let shield = shield.start().await;
    let with = |client: ClientIdentity| {
        TlsViewer::new_trusting(shield.address(), &identity).with_certificate(client)
    };
    let uri = SanType::URI("spiffe://cdn/edge".try_into().unwrap());
    let common = |params: &mut CertificateParams, name: &str| {
        params.distinguished_name.push(DnType::CommonName, name);
    };
    let welcome = [
        authority.issue_to(EDGE),
        authority.issue(|params| params.subject_alt_names = vec![uri]),
    ];
    let other_name = SanType::DnsName("other.example".try_into().unwrap());
    let refused = [
        authority.issue_to("other.example"),
        authority.issue_to(&format!("x.{EDGE}")),
        authority.issue(|_| ()),
        // The common name is only a text.
        authority.issue(|params| common(params, EDGE)),
        authority.issue(|params| {
            params.subject_alt_names = vec![other_name];
            common(params, EDGE);
        }),
    ];
    let mut first = with(authority.issue_to(EDGE)).h1().await;
    let first2 = with(authority.issue_to(EDGE)).h2().await;
    eventually("repeated responses over both protocols", async || {
        let before = shield.counter(REPEATED, &[]).await;
        first.get(PATH).await.assert_whole(BODY);
        first2.get(PATH).await.assert_whole(BODY);
        shield.counter(REPEATED, &[]).await == before + 2
    })
    .await;
    for client in welcome {
        with(client.clone())
            .h1()
            .await
            .get(PATH)
            .await
            .assert_whole(BODY);
        with(client).h2().await.get(PATH).await.assert_whole(BODY);
    }
    let mut count = 0;
    for client in refused {
        let (mut http1, http2) = (with(client.clone()).h1().await, with(client).h2().await);
        for _ in 0..3 {
            http1.get(PATH).await.assert_is(403, "access denied\n");
            http2.get(PATH).await.assert_is(403, "access denied\n");
            count += 2;
        }
    }
    let without = TlsViewer::new_trusting(shield.address(), &identity);
    let mut unix = Viewer::connect_unix(&folder.path().join("viewers.sock")).await;
    let (mut http1, http2) = (without.h1().await, without.h2().await);
    for _ in 0..3 {
        http1.get(PATH).await.assert_is(403, "access denied\n");
        http2.get(PATH).await.assert_is(403, "access denied\n");
        unix.get(PATH).await.assert_is(403, "access denied\n");
        count += 3;
    }
    let by_certificate = [("reason", "certificate")];
    assert_eq!(shield.counter(ACCESS_REFUSED, &by_certificate).await, count);
    assert_eq!(origin.hits(PATH), 1);
}

#[tokio::test]
async fn certificate_that_is_not_valid_ends_the_connection() {
    let origin = origin().await;
    for is_required in [false, true] {
        let (shield, authority, identity, folder) = guarded(&origin, is_required);
        let shield = shield.start().await;
        let stranger = Authority::new(&folder.path().join("stranger.pem"));
        let expired = authority.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName(EDGE.try_into().unwrap())];
            params.not_after = date_time_ymd(2020, 1, 1);
        });
        let early = authority.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName(EDGE.try_into().unwrap())];
            params.not_before = date_time_ymd(2100, 1, 1);
        });
        let of_servers = authority.issue(|params| {
            params.subject_alt_names = vec![SanType::DnsName(EDGE.try_into().unwrap())];
            params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth];
        });
        let invalid = [stranger.issue_to(EDGE), expired, early, of_servers];
        let mut refused: Vec<_> = invalid.into_iter().map(Some).collect();
        if is_required {
            refused.push(None);
        }
        for client in refused {
            for version in [&TLS12, &TLS13] {
                let viewer = TlsViewer::new_trusting(shield.address(), &identity);
                let viewer = viewer.with_version(version);
                let viewer = match &client {
                    Some(client) => viewer.with_certificate(client.clone()),
                    None => viewer,
                };
                assert!(viewer.is_refused().await, "{version:?}");
            }
        }
        let missing = if is_required { 2 } else { 0 };
        for (event, count) in [
            ("certificate_invalid", 8),
            ("certificate_missing", missing),
            ("handshake_failed", 0),
        ] {
            let counted = shield.counter(VIEWER_EVENTS, &[("event", event)]).await;
            assert_eq!(counted, count, "{event}");
        }
        let welcome = TlsViewer::new_trusting(shield.address(), &identity);
        let welcome = welcome.with_certificate(authority.issue_to(EDGE));
        welcome.h1().await.get(PATH).await.assert_whole(BODY);
    }
}

#[tokio::test]
async fn any_certificate_of_the_authority_enters_where_none_is_named() {
    let origin = origin().await;
    let (shield, authority, identity, _folder) = guarded(&origin, false);
    let shield = shield.route(|route| {
        route.access.require_certificate = Some(RequiredCertificate::Any);
    });
    let shield = shield.start().await;
    let viewer = || TlsViewer::new_trusting(shield.address(), &identity);
    let anyone = viewer().with_certificate(authority.issue(|_| ()));
    anyone.h1().await.get(PATH).await.assert_whole(BODY);
    anyone.h2().await.get(PATH).await.assert_whole(BODY);
    assert_eq!(viewer().h1().await.get(PATH).await.status, 403);
}

/// The others on the same listener stay open to everyone, also where responses are sent again.
#[tokio::test]
async fn route_that_requires_a_certificate_closes_no_other_route() {
    const OPEN: &str = "/open/seg1.ts";
    let reply = segment(BODY).cache_control("max-age=600");
    let origin = origin().await.on(OPEN, reply);
    let (shield, authority, identity, _folder) = guarded(&origin, false);
    let shield = shield.with(|config| {
        let mut open = (*config.rules.routes[0]).clone();
        open.name = "open".into();
        open.path_prefix = "/open".into();
        open.access = AccessRules::default();
        config.rules.routes.insert(0, Arc::new(open));
    });
    let shield = shield.start().await;
    let viewer = || TlsViewer::new_trusting(shield.address(), &identity);
    let edge = viewer().with_certificate(authority.issue_to(EDGE));
    let (mut edge, edge2) = (edge.h1().await, edge.h2().await);
    let (mut anyone, anyone2) = (viewer().h1().await, viewer().h2().await);
    for _ in 0..10 {
        for path in [PATH, OPEN] {
            edge.get(path).await.assert_whole(BODY);
            edge2.get(path).await.assert_whole(BODY);
        }
        anyone.get(OPEN).await.assert_whole(BODY);
        anyone2.get(OPEN).await.assert_whole(BODY);
        // A proxy that reads the path in another way must not open the guarded route either.
        for path in [PATH, "/open/../live/seg1.ts", "/open/%2e%2e/live/seg1.ts"] {
            assert_ne!(anyone.get(path).await.status, 200, "{path}");
            assert_ne!(anyone2.get(path).await.status, 200, "{path}");
        }
    }
    assert!(shield.counter(REPEATED, &[]).await > 0, "none was repeated");
    assert_eq!((origin.hits(PATH), origin.hits(OPEN)), (1, 1));
}

#[tokio::test]
async fn certificate_behind_a_load_balancer_is_that_of_the_viewer() {
    let origin = origin().await;
    let (shield, authority, identity, _folder) = guarded(&origin, false);
    let shield = shield.with(|config| {
        config.frontend.listeners[0].proxy_protocol = Some(address_list(&["127.0.0.0/8"]));
    });
    let shield = shield.start().await;
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 443\r\n";
    let viewer = || TlsViewer::new_trusting(shield.address(), &identity).with_proxy_header(header);
    let edge = viewer().with_certificate(authority.issue_to(EDGE));
    edge.h1().await.get(PATH).await.assert_whole(BODY);
    edge.h2().await.get(PATH).await.assert_whole(BODY);
    assert_eq!(viewer().h1().await.get(PATH).await.status, 403);
    assert_eq!(viewer().h2().await.get(PATH).await.status, 403);
}

/// Whatever a request says of itself is no certificate.
#[tokio::test]
async fn header_that_names_a_certificate_is_none() {
    let origin = origin().await;
    let (shield, _, identity, _folder) = guarded(&origin, false);
    let shield = shield.start().await;
    let viewer = TlsViewer::new_trusting(shield.address(), &identity);
    let mut http1 = viewer.h1().await;
    for name in [
        "Client-Cert",
        "X-Client-Cert",
        "X-SSL-Client-S-DN",
        "X-Forwarded-Client-Cert",
    ] {
        let ask = get(PATH).header(name, &format!("CN={EDGE}"));
        http1.ask(ask).await.assert_is(403, "access denied\n");
    }
}
