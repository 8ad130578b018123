//! A route that demands a certificate lets nobody in who has none of the right name, also where a
//! response is sent again; and a listener refuses certificates that nobody it trusts has issued.

use std::path::Path;

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair};
use rcgen::{CertifiedIssuer, SanType, date_time_ymd};
use rustls::version::{TLS12, TLS13};
use seawall::frontend::ClientAuthority;
use seawall_policy::RequiredCertificate;
use tempfile::TempDir;

use crate::support::metrics::{ACCESS_REFUSED, REPEATED, VIEWER_EVENTS};
use crate::support::shield::Builder;
use crate::support::viewer::{ClientIdentity, Identity, TlsViewer, Viewer};
use crate::support::{Origin, Shield, eventually, segment};

const PATH: &str = "/live/seg1.ts";
const BODY: &str = "0123456789";
const EDGE: &str = "edge.cdn.example";

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

/// An authority that issues certificates to viewers.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    /// Its own certificate is written into the file.
    fn new(file: &Path) -> Authority {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name = DistinguishedName::new();
        params
            .distinguished_name
            .push(DnType::CommonName, "authority");
        let authority = CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap());
        let authority = Authority(authority.unwrap());
        let new = file.with_extension("new");
        std::fs::write(&new, authority.0.as_ref().pem()).unwrap();
        std::fs::rename(&new, file).unwrap();
        authority
    }

    fn issue(&self, change: impl FnOnce(&mut CertificateParams)) -> ClientIdentity {
        let mut params = CertificateParams::new(Vec::<String>::new()).unwrap();
        params.distinguished_name = DistinguishedName::new();
        change(&mut params);
        let key = KeyPair::generate().unwrap();
        let certificate = params.signed_by(&key, &self.0).unwrap();
        ClientIdentity::new(certificate.der().clone(), &key.serialize_der())
    }

    fn issue_to(&self, name: &str) -> ClientIdentity {
        let name = SanType::DnsName(name.try_into().unwrap());
        self.issue(|params| params.subject_alt_names = vec![name])
    }
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
        .route(|route| route.access.client_certificate = Some(named))
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
        authority.issue(|params| common(params, EDGE)),
    ];
    let other_name = SanType::DnsName("other.example".try_into().unwrap());
    let refused = [
        authority.issue_to("other.example"),
        authority.issue_to(&format!("x.{EDGE}")),
        authority.issue(|_| ()),
        // With names of its own kind, the common name is only a text.
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
        let mut refused = vec![Some(stranger.issue_to(EDGE)), Some(expired)];
        if is_required {
            refused.push(None);
        }
        let mut count = 0;
        for client in refused {
            for version in [&TLS12, &TLS13] {
                let viewer = TlsViewer::new_trusting(shield.address(), &identity);
                let viewer = viewer.with_version(version);
                let viewer = match &client {
                    Some(client) => viewer.with_certificate(client.clone()),
                    None => viewer,
                };
                assert!(viewer.is_refused().await, "{version:?}");
                count += 1;
            }
        }
        let failed = [("event", "handshake_failed")];
        assert_eq!(shield.counter(VIEWER_EVENTS, &failed).await, count);
        let welcome = TlsViewer::new_trusting(shield.address(), &identity);
        let welcome = welcome.with_certificate(authority.issue_to(EDGE));
        welcome.h1().await.get(PATH).await.assert_whole(BODY);
    }
}

#[tokio::test]
async fn authorities_are_read_again_when_their_file_changes() {
    let origin = origin().await;
    let (shield, authority, identity, folder) = guarded(&origin, true);
    let shield = shield.start().await;
    let with = |client: ClientIdentity| {
        TlsViewer::new_trusting(shield.address(), &identity).with_certificate(client)
    };
    let old = authority.issue_to(EDGE);
    with(old.clone())
        .h1()
        .await
        .get(PATH)
        .await
        .assert_whole(BODY);
    let file = folder.path().join("clients.pem");
    let new = Authority::new(&file).issue_to(EDGE);
    eventually("the new authority", async || {
        !with(new.clone()).is_refused().await
    })
    .await;
    assert!(with(old.clone()).is_refused().await);
    // What is no certificate changes nothing.
    std::fs::write(&file, "half a certifi").unwrap();
    with(new).h2().await.get(PATH).await.assert_whole(BODY);
    assert!(with(old).is_refused().await);
}

#[tokio::test]
async fn any_certificate_of_the_authority_enters_where_none_is_named() {
    let origin = origin().await;
    let (shield, authority, identity, _folder) = guarded(&origin, false);
    let shield = shield.route(|route| {
        route.access.client_certificate = Some(RequiredCertificate::Any);
    });
    let shield = shield.start().await;
    let viewer = || TlsViewer::new_trusting(shield.address(), &identity);
    let anyone = viewer().with_certificate(authority.issue(|_| ()));
    anyone.h1().await.get(PATH).await.assert_whole(BODY);
    anyone.h2().await.get(PATH).await.assert_whole(BODY);
    assert_eq!(viewer().h1().await.get(PATH).await.status, 403);
}
