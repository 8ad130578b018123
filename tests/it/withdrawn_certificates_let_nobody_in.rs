//! An authority that is withdrawn, or added, holds for everyone: for connections that are open, for
//! sessions of before, by a new file and by a reload; and a broken file changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustls::version::{TLS12, TLS13};
use seawall::frontend::ClientAuthority;

use crate::support::authority::Authority;
use crate::support::frames::{Frame, FrameViewer, GOAWAY, HEADERS, request};
use crate::support::metrics::{ABORTED, ACCESS_REFUSED, VIEWER_EVENTS};
use crate::support::operated::{Operated, PATH};
use crate::support::viewer::{ClientIdentity, Identity, TlsViewer, Viewer};
use crate::support::{Gate, Origin, Shield, eventually, segment};

const BODY: &str = "whole";
const EDGE: &str = "edge.cdn.example";

async fn origin() -> Origin {
    let reply = segment(BODY).cache_control("max-age=600");
    Origin::start().await.on(PATH, reply)
}

fn ca_file(folder: &Path) -> PathBuf {
    folder.join("clients.pem")
}

fn required(folder: &Path) -> ClientAuthority {
    ClientAuthority {
        ca: ca_file(folder),
        is_required: true,
    }
}

#[tokio::test]
async fn new_file_of_authorities_holds_for_open_connections_too() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let folder = folder.path();
    let identity = Identity::new("media.test", folder);
    let old = Authority::new(&ca_file(folder)).issue_to(EDGE);
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .with(|config| {
            let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
            tls.client = Some(required(folder));
        });
    let shield = shield.start().await;
    let with = |client: &ClientIdentity| {
        TlsViewer::new_trusting(shield.address(), &identity).with_certificate(client.clone())
    };
    let mut kept = with(&old).h1().await;
    kept.get(PATH).await.assert_whole(BODY);
    let mut kept2 = FrameViewer::over(with(&old).h2_wire().await).await;

    let new = Authority::new(&ca_file(folder)).issue_to(EDGE);
    eventually("the new authority", async || !with(&new).is_refused().await).await;
    assert!(with(&old).is_refused().await);
    kept.wait_closed().await;
    let goaway = kept2.read_until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.expect("a GOAWAY").error_code(), 0);

    // The same in another file ends no connection, and neither does what is no certificate.
    let mut kept = with(&new).h1().await;
    kept.get(PATH).await.assert_whole(BODY);
    let text = fs::read(ca_file(folder)).unwrap();
    for content in [&text[..], b"half a certifi", b""] {
        fs::write(ca_file(folder), content).unwrap();
        let checks = with(&new).h2().await;
        checks.get(PATH).await.assert_whole(BODY);
        assert!(with(&old).is_refused().await);
        let answer = kept.get(PATH).await;
        answer.assert_whole(BODY);
        assert_eq!(answer.header("connection"), None);
    }
}

/// `:status: 200` in HPACK.
const OK: u8 = 0x88;

/// Whether the request on this stream is served.
async fn is_served(viewer: &mut FrameViewer, stream: u32) -> bool {
    viewer.send(&[request(stream, "GET", PATH, true)]).await;
    let is_head = |frame: &Frame| frame.kind == HEADERS && frame.stream == stream;
    let head = viewer.read_until(is_head).await.expect("a response");
    head.payload[0] == OK
}

/// Nobody has to acknowledge that an HTTP/2 connection ends, and h2 takes streams until then.
#[tokio::test]
async fn http2_viewer_who_stays_is_not_served() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let folder = folder.path();
    let identity = Identity::new("media.test", folder);
    let client = Authority::new(&ca_file(folder)).issue_to(EDGE);
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .with(|config| {
            let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
            tls.client = Some(required(folder));
        });
    let mut shield = shield.start().await;
    let viewer = TlsViewer::new_trusting(shield.address(), &identity).with_certificate(client);
    let mut staying = FrameViewer::over(viewer.h2_wire().await).await;
    for stream in [1, 3, 5] {
        assert!(is_served(&mut staying, stream).await, "{stream}");
    }
    let ca = folder.join("others.pem");
    Authority::new(&ca);
    let is_required = true;
    shield.reload(|config| {
        let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
        tls.client = Some(ClientAuthority { ca, is_required });
    });
    for stream in [7, 9, 11] {
        assert!(!is_served(&mut staying, stream).await, "{stream}");
    }
    let refused = [("event", "head_refused")];
    assert_eq!(shield.counter(VIEWER_EVENTS, &refused).await, 3);
}

/// Nor does a request in progress keep the connection for ever.
#[tokio::test]
async fn http2_viewer_who_stays_is_cut() {
    const HELD: &str = "/live/held.ts";
    let (gate, folder) = (Gate::new(), tempfile::tempdir().unwrap());
    let held = segment(BODY).hold_head(&gate);
    let (origin, folder) = (origin().await.on(HELD, held), folder.path());
    let identity = Identity::new("media.test", folder);
    Authority::new(&ca_file(folder));
    let shield = Shield::in_front_of(&origin)
        .with_tls(&[&identity])
        .with(|config| config.drain_max = Duration::from_millis(300));
    let mut shield = shield.start().await;
    let viewer = TlsViewer::new_trusting(shield.address(), &identity);
    let mut staying = FrameViewer::over(viewer.h2_wire().await).await;
    staying.send(&[request(1, "GET", HELD, true)]).await;
    gate.wait_arrived(1).await;
    shield.reload(|config| {
        let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
        tls.client = Some(required(folder));
    });
    staying.read_rest().await;
    let cut = [("event", "cut_at_drain")];
    assert_eq!(shield.counter(VIEWER_EVENTS, &cut).await, 1);
    let drain = [("cause", "drain")];
    assert_eq!(shield.counter(ABORTED, &drain).await, 1);
}

/// Resumed sessions have the certificate of before.
#[tokio::test]
async fn session_of_before_skips_no_verification() {
    let (origin, folder) = (origin().await, tempfile::tempdir().unwrap());
    let folder = folder.path();
    let identity = Identity::new("media.test", folder);
    for version in [&TLS12, &TLS13] {
        let client = Authority::new(&ca_file(folder)).issue_to(EDGE);
        let shield = Shield::in_front_of(&origin).with_tls(&[&identity]);
        let mut shield = shield.start().await;
        let viewer = || {
            let viewer = TlsViewer::new_trusting(shield.address(), &identity);
            viewer.with_version(version).keeping_sessions()
        };
        let (without, with) = (viewer(), viewer().with_certificate(client.clone()));
        for viewer in [&without, &with] {
            viewer.h1().await.get(PATH).await.assert_whole(BODY);
            // Where nobody needs a certificate, sessions are resumed: this is what would be wrong.
            let (mut viewer, is_resumed) = viewer.h1_and_resumed().await;
            assert!(is_resumed, "{version:?}");
            viewer.get(PATH).await.assert_whole(BODY);
        }
        shield.reload(|config| {
            let tls = config.frontend.listeners[0].tls.as_mut().unwrap();
            tls.client = Some(required(folder));
        });
        assert!(without.is_refused().await, "{version:?}");
        for _ in 0..3 {
            let (mut viewer, is_resumed) = with.h1_and_resumed().await;
            assert!(!is_resumed, "{version:?}");
            viewer.get(PATH).await.assert_whole(BODY);
        }
        Authority::new(&ca_file(folder));
        eventually("another authority", async || with.is_refused().await).await;
        let invalid = [("event", "certificate_invalid")];
        assert!(shield.counter(VIEWER_EVENTS, &invalid).await > 0);
    }
}

/// A program with its folder, a certificate for its listener, and a file of authorities.
struct Guarded {
    operated: Operated,
    address: SocketAddr,
    identity: Identity,
    authority: Authority,
    ca: PathBuf,
}

impl Guarded {
    async fn start() -> Guarded {
        let mut operated = Operated::start("").await;
        let folder = operated.program.folder().to_owned();
        let on = "[[listener]]\nlisten = \"127.0.0.2:0\"\n";
        operated.change(on).await;
        let address = operated.log.listener("127.0.0.2").await;
        let ca = folder.join("clients.pem");
        Guarded {
            operated,
            address,
            identity: Identity::new("media.test", &folder),
            authority: Authority::new(&ca),
            ca,
        }
    }

    /// The listener with TLS and these keys of it, and everything else.
    fn text(&self, keys: &str, more: &str) -> String {
        let (certificate, key) = (&self.identity.certificate_file, &self.identity.key_file);
        let pair = format!(
            "{{ certificate = \"{}\", key = \"{}\" }}",
            certificate.display(),
            key.display()
        );
        format!(
            "[[listener]]\nlisten = \"{}\"\ntls = {{ certificates = [{pair}]{keys} }}\n{more}",
            self.address
        )
    }

    fn with_ca(&self, more: &str) -> String {
        self.text(&format!(", client_ca = \"{}\"", self.ca.display()), more)
    }

    fn viewer(&self) -> TlsViewer<'_> {
        TlsViewer::new_trusting(self.address, &self.identity)
    }

    fn edge(&self) -> TlsViewer<'_> {
        let client = self.authority.issue_to(EDGE);
        self.viewer().with_certificate(client)
    }
}

const NAMED: &str = "[[route]]\nrequire_certificate = { names = [\"edge.cdn.example\"] }\n";

#[tokio::test]
async fn reload_adds_and_withdraws_authorities() {
    let guarded = Guarded::start().await;
    let operated = &guarded.operated;
    operated.change(&guarded.text("", "")).await;
    let mut anyone = guarded.viewer().h1().await;
    anyone.get(PATH).await.assert_whole(BODY);
    let mut anyone2 = FrameViewer::over(guarded.viewer().h2_wire().await).await;

    let report = operated.change(&guarded.with_ca("")).await;
    assert_eq!(report["needs_restart"], 0, "{report}");
    assert!(guarded.viewer().is_refused().await);
    guarded.edge().h1().await.get(PATH).await.assert_whole(BODY);
    guarded.edge().h2().await.get(PATH).await.assert_whole(BODY);
    // Those who are connected without a certificate do not stay.
    anyone.wait_closed().await;
    let goaway = anyone2.read_until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.expect("a GOAWAY").error_code(), 0);

    let mut edge = guarded.edge().h1().await;
    edge.get(PATH).await.assert_whole(BODY);
    let optional = guarded.with_ca(NAMED);
    let optional = optional.replace("pem\" }", "pem\", client_certificates = \"optional\" }");
    operated.change(&optional).await;
    let mut anyone = guarded.viewer().h1().await;
    anyone.get(PATH).await.assert_is(403, "access denied\n");
    guarded.edge().h1().await.get(PATH).await.assert_whole(BODY);

    // The rule stays, and nobody is asked any more: nobody may enter.
    operated.change(&guarded.text("", NAMED)).await;
    let mut edge = guarded.edge().h1().await;
    edge.get(PATH).await.assert_is(403, "access denied\n");
    operated.change(&guarded.text("", "")).await;
    edge.get(PATH).await.assert_whole(BODY);
    guarded
        .viewer()
        .h1()
        .await
        .get(PATH)
        .await
        .assert_whole(BODY);
}

/// A connection has what it has shown, whatever settings come: a route that begins to require a
/// certificate requires it of everyone who is connected.
#[tokio::test]
async fn rule_that_a_reload_adds_holds_for_open_connections() {
    let guarded = Guarded::start().await;
    let keys = format!(
        ", client_ca = \"{}\", client_certificates = \"optional\"",
        guarded.ca.display()
    );
    guarded.operated.change(&guarded.text(&keys, "")).await;
    let (mut anyone, anyone2) = (guarded.viewer().h1().await, guarded.viewer().h2().await);
    let (mut edge, edge2) = (guarded.edge().h1().await, guarded.edge().h2().await);
    for _ in 0..5 {
        anyone.get(PATH).await.assert_whole(BODY);
        anyone2.get(PATH).await.assert_whole(BODY);
    }
    guarded.operated.change(&guarded.text(&keys, NAMED)).await;
    for _ in 0..5 {
        edge.get(PATH).await.assert_whole(BODY);
        edge2.get(PATH).await.assert_whole(BODY);
        anyone.get(PATH).await.assert_is(403, "access denied\n");
        anyone2.get(PATH).await.assert_is(403, "access denied\n");
    }
}

#[tokio::test]
async fn broken_file_of_authorities_changes_nothing_and_says_what_to_do() {
    let mut guarded = Guarded::start().await;
    let text = guarded.with_ca("");
    guarded.operated.change(&text).await;
    let mut edge = guarded.edge().h1().await;
    edge.get(PATH).await.assert_whole(BODY);
    fs::write(&guarded.ca, "half a certifi").unwrap();
    let log = &mut guarded.operated.log;
    let line = log
        .read_until("the previous certificates stay in use")
        .await;
    for words in ["clients.pem", "it contains no certificate", "in PEM form"] {
        assert!(line.contains(words), "{words}: {line}");
    }
    let error = guarded.operated.change_refused(&text).await;
    assert!(error.contains("clients.pem"), "{error}");
    assert!(error.contains("in PEM form"), "{error}");
    fs::remove_file(&guarded.ca).unwrap();
    let error = guarded.operated.change_refused(&text).await;
    assert!(error.contains("clients.pem"), "{error}");
    let answer = edge.get(PATH).await;
    answer.assert_whole(BODY);
    assert_eq!(answer.header("connection"), None);
    guarded.edge().h2().await.get(PATH).await.assert_whole(BODY);
    assert!(guarded.viewer().is_refused().await);
}

/// Without TLS nobody has a certificate.
#[tokio::test]
async fn rule_without_tls_admits_nobody() {
    let guarded = Guarded::start().await;
    let plain = format!("[[listener]]\nlisten = \"{}\"\n{NAMED}", guarded.address);
    guarded.operated.change(&plain).await;
    for _ in 0..5 {
        let mut viewer = Viewer::connect(guarded.address).await;
        viewer.get(PATH).await.assert_is(403, "access denied\n");
        let mut viewer = guarded.operated.program.viewer().await;
        viewer.get(PATH).await.assert_is(403, "access denied\n");
    }
    let metrics = guarded
        .operated
        .ask_admin(crate::support::get("/metrics"))
        .await;
    let line = format!("{ACCESS_REFUSED}{{reason=\"certificate\"}} 10");
    assert!(metrics.text().contains(&line));
}
