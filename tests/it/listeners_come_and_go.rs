//! A reload opens listeners and closes others: nobody is cut, a listener that stays refuses nobody,
//! and an address that cannot be had changes nothing.

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};

use rustls::version::{TLS12, TLS13};
use tokio::net::{TcpStream, UnixStream};

use crate::support::content::noise;
use crate::support::frames::{self, DATA, END_STREAM, FrameViewer, GOAWAY};
use crate::support::operated::{Operated, PATH};
use crate::support::patience::within;
use crate::support::viewer::{Identity, TlsViewer, Viewer};
use crate::support::{Gate, Origin, eventually, get, segment};

const SLOW: &str = "/live/slow.ts";
const SLOW_LENGTH: usize = 96 << 10;

/// Two addresses of this machine, for listeners that come and go.
const FIRST: &str = "127.0.0.2";
const SECOND: &str = "127.0.0.3";

fn listener(address: &str) -> String {
    format!("[[listener]]\nlisten = \"{address}\"\n")
}

/// A listener on a port that the system chooses.
fn on(host: &str) -> String {
    listener(&format!("{host}:0"))
}

/// An origin with [`PATH`], and with [`SLOW`], of which half waits for the gate.
async fn origin(gate: &Gate) -> (Origin, bytes::Bytes) {
    let body = noise(1, SLOW_LENGTH);
    let half = SLOW_LENGTH / 2;
    let slow = segment("").content_length(SLOW_LENGTH as u64);
    let slow = slow.send(body.slice(..half)).hold(gate);
    let slow = slow.send(body.slice(half..));
    let object = segment("whole").cache_control("max-age=600");
    let origin = Origin::start().await.on(PATH, object).on(SLOW, slow);
    (origin, body)
}

/// A program with a listener on [`FIRST`], and its address.
async fn listening_on_first(origin: Origin, more: &str) -> (Operated, SocketAddr) {
    let mut reloaded = Operated::in_front_of(origin, more).await;
    reloaded.change(&format!("{}{more}", on(FIRST))).await;
    let address = reloaded.log.listener(FIRST).await;
    (reloaded, address)
}

async fn is_refused(address: SocketAddr) -> bool {
    let connected = within("an answer", TcpStream::connect(address)).await;
    connected.is_err()
}

async fn assert_served(address: SocketAddr) {
    let mut viewer = Viewer::connect(address).await;
    viewer.get(PATH).await.assert_whole("whole");
}

#[tokio::test]
async fn reload_opens_a_listener_and_closes_it_without_a_cut() {
    let gate = Gate::new();
    let (origin, body) = origin(&gate).await;
    let (reloaded, address) = listening_on_first(origin, "").await;
    let mut kept = Viewer::connect(address).await;
    kept.get(PATH).await.assert_whole("whole");
    let download = Viewer::connect(address).await.begin(get(SLOW)).await;
    let mut http2 = FrameViewer::connect(address).await;
    let request = frames::request(1, "GET", SLOW, true);
    let windows = [0, 1].map(|stream| frames::window_update(stream, 1 << 20));
    http2.send(&[&[request][..], &windows].concat()).await;
    http2.read_until(|frame| frame.kind == DATA).await;
    let mut elsewhere = reloaded.program.viewer().await;
    elsewhere.get(PATH).await.assert_whole("whole");

    let report = reloaded.change("").await;
    assert!(is_refused(address).await);
    assert_eq!(report["needs_restart"], 0, "{report}");
    assert_eq!(report["changes"][0]["difference"], "removed", "{report}");
    assert_eq!(report["changes"][0]["effect"], "live", "{report}");
    kept.wait_closed().await;
    let goaway = http2.read_until(|frame| frame.kind == GOAWAY).await;
    assert_eq!(goaway.expect("a GOAWAY").error_code(), 0);
    gate.open();
    download.finish().await.assert_whole(&body);
    let last = http2.read_until(|frame| frame.kind == DATA && frame.flags & END_STREAM != 0);
    assert!(last.await.is_some(), "the rest of the body");
    // The listener that stays is not concerned.
    let answer = elsewhere.get(PATH).await;
    answer.assert_whole("whole");
    assert_eq!(answer.header("connection"), None);
}

/// Whoever waits for a response has it, with the word that it is the last one.
#[tokio::test]
async fn response_in_progress_says_close() {
    let gate = Gate::new();
    let held = segment("held").hold_head(&gate);
    let origin = Origin::start().await.on(PATH, held);
    let (reloaded, address) = listening_on_first(origin, "").await;
    let mut viewer = Viewer::connect(address).await;
    viewer.send(&get(PATH)).await;
    reloaded.origin.wait_hits(PATH, 1).await;
    reloaded.change("").await;
    gate.open();
    let answer = viewer.receive(&get(PATH)).await;
    answer.assert_whole("held");
    assert_eq!(answer.header("connection"), Some("close"));
    viewer.wait_closed().await;
}

/// Also those whom no worker has accepted yet: closing a socket resets them.
#[tokio::test]
async fn connections_that_came_before_the_reload_are_served() {
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    assert_served(address).await;
    let mut viewers = Vec::new();
    for _ in 0..200 {
        let mut viewer = Viewer::connect(address).await;
        viewer.send(&get(PATH)).await;
        viewers.push(viewer);
    }
    reloaded.change("").await;
    for viewer in &mut viewers {
        viewer.receive(&get(PATH)).await.assert_whole("whole");
    }
    assert!(is_refused(address).await);
}

#[tokio::test]
async fn address_that_is_taken_changes_nothing() {
    let other_program = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let taken = other_program.local_addr().unwrap();
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let folder = reloaded.program.file().parent().unwrap();
    let new = folder.join("new.sock");
    // The connection to the origin, which is kept for later requests, is there from now on.
    assert_served(address).await;
    let before = reloaded.program.descriptors();
    // More often than connections of a moment ago may have been counted.
    for order in 0..6 {
        let mut added = [
            listener(&format!("unix:{}", new.display())),
            listener(&taken.to_string()),
        ];
        added.rotate_left(order % 2);
        let text = format!("{}[[route]]\nx_cache = true", added.concat());
        let error = reloaded.change_refused(&text).await;
        let named = format!("cannot listen on {taken}: another program listens there already");
        assert!(error.contains(&named), "{error}");
        assert!(!new.exists(), "what was opened for it is closed");
        // The listener that the file does not have any more is still there.
        assert_served(address).await;
        assert_eq!(reloaded.object().await.header("x-cache"), None);
    }
    eventually("no descriptor to be left", async || {
        reloaded.program.descriptors() <= before
    })
    .await;
}

/// The kernel gives an address to one only, and closing first could not be undone.
#[tokio::test]
async fn address_that_its_own_listener_covers_is_refused_with_advice() {
    let (mut reloaded, _) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    reloaded.change(&on("0.0.0.0")).await;
    let all = reloaded.log.listener("0.0.0.0").await;
    let one = format!("{SECOND}:{}", all.port());
    let error = reloaded.change_refused(&listener(&one)).await;
    let advice = format!("remove {all} by one reload, and add {one} by the next");
    assert!(error.contains(&advice), "{error}");
    let one: SocketAddr = one.parse().unwrap();
    assert_served(one).await;
    // As it advises.
    reloaded.change("").await;
    assert!(is_refused(one).await);
    reloaded.change(&listener(&one.to_string())).await;
    assert_served(one).await;
}

#[tokio::test]
async fn one_address_twice_is_refused() {
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let twice = listener(&address.to_string()).repeat(2);
    let error = reloaded.change_refused(&twice).await;
    assert!(error.contains("two listeners share the address"), "{error}");
    assert_served(address).await;
}

#[tokio::test]
async fn file_of_a_removed_unix_socket_is_removed() {
    let gate = Gate::new();
    let (origin, body) = origin(&gate).await;
    let reloaded = Operated::in_front_of(origin, "").await;
    let path = reloaded.program.file().parent().unwrap().join("other.sock");
    let more = listener(&format!("unix:{}", path.display()));
    for round in 0..3 {
        reloaded.change(&more).await;
        let mut viewer = Viewer::connect_unix(&path).await;
        viewer.get(PATH).await.assert_whole("whole");
        let download = Viewer::connect_unix(&path).await.begin(get(SLOW)).await;
        reloaded.change("").await;
        assert!(!path.exists(), "round {round}");
        viewer.wait_closed().await;
        gate.open();
        download.finish().await.assert_whole(&body);
    }
    // Another server's file is not removed.
    reloaded.change(&more).await;
    fs::remove_file(&path).unwrap();
    let _other = tokio::net::UnixListener::bind(&path).unwrap();
    reloaded.change("").await;
    assert!(UnixStream::connect(&path).await.is_ok());
}

/// The folder of a program's file, for certificates.
fn folder(reloaded: &Operated) -> PathBuf {
    reloaded.program.file().parent().unwrap().to_owned()
}

fn tls(address: SocketAddr, identity: &Identity, more: &str) -> String {
    let path = |path: &Path| path.display().to_string();
    let (certificate, key) = (path(&identity.certificate_file), path(&identity.key_file));
    format!(
        "{}tls = {{ certificates = [{{ certificate = \"{certificate}\", key = \"{key}\" }}]{more} }}\n",
        listener(&address.to_string())
    )
}

#[tokio::test]
async fn tls_of_a_listener_that_stays_changes_for_new_connections() {
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let (one, other) = (
        Identity::new("one.example", &folder(&reloaded)),
        Identity::new("other.example", &folder(&reloaded)),
    );
    let mut plain = Viewer::connect(address).await;
    plain.get(PATH).await.assert_whole("whole");
    let report = reloaded.change(&tls(address, &one, "")).await;
    assert_eq!(report["needs_restart"], 0, "{report}");
    // The connection of before goes on.
    let answer = plain.get(PATH).await;
    assert_eq!(answer.header("connection"), None);
    let viewer = TlsViewer::new_trusting(address, &one).with_version(&TLS12);
    let mut before = viewer.h1().await;
    before.get(PATH).await.assert_whole("whole");

    reloaded
        .change(&tls(address, &other, ", tls12 = false"))
        .await;
    before.get(PATH).await.assert_whole("whole");
    let viewer = TlsViewer::new_trusting(address, &other).with_version(&TLS13);
    viewer.h1().await.get(PATH).await.assert_whole("whole");
    let refused = TcpStream::connect(address).await.unwrap();
    let mut refused = Viewer::over(refused);
    refused.send(&get(PATH)).await;
    refused.wait_closed().await;

    fs::write(&one.certificate_file, "half a certi").unwrap();
    let error = reloaded.change_refused(&tls(address, &one, "")).await;
    assert!(error.contains("one.example.crt"), "{error}");
    viewer.h1().await.get(PATH).await.assert_whole("whole");
    reloaded.change(&listener(&address.to_string())).await;
    assert_served(address).await;
}

#[tokio::test]
async fn proxy_protocol_of_a_listener_that_stays_changes_for_new_connections() {
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let mut before = Viewer::connect(address).await;
    before.get(PATH).await.assert_whole("whole");
    let behind = format!(
        "{}proxy_protocol = {{ from = [\"127.0.0.1\"] }}\n",
        listener(&address.to_string())
    );
    reloaded.change(&behind).await;
    before.get(PATH).await.assert_whole("whole");
    let mut viewer = Viewer::connect(address).await;
    viewer.send(&get(PATH)).await;
    viewer.wait_closed().await;
    let mut viewer = Viewer::connect(address).await;
    let header = b"PROXY TCP4 192.0.2.1 192.0.2.2 1234 80\r\n";
    viewer.send_raw(header).await;
    viewer.get(PATH).await.assert_whole("whole");
    reloaded.change(&listener(&address.to_string())).await;
    viewer.get(PATH).await.assert_whole("whole");
    assert_served(address).await;
}

#[tokio::test]
async fn what_exceeds_drain_max_is_cut_and_counted() {
    let (origin, body) = origin(&Gate::new()).await;
    let (mut reloaded, address) =
        listening_on_first(origin, "[server]\ndrain_max = \"1ms\"\n").await;
    let mut download = Viewer::connect(address).await.begin(get(SLOW)).await;
    let half = SLOW_LENGTH / 2;
    assert_eq!(download.read(half).await, body.slice(..half));
    let mut kept = reloaded.program.viewer().await;
    kept.get(PATH).await.assert_whole("whole");
    reloaded.change("[server]\ndrain_max = \"1ms\"\n").await;
    download.finish().await.assert_cut(&body);
    let cut = format!("cut 1 connection of {address} that did not finish in time");
    reloaded.log.read_until(&cut).await;
    let metrics = reloaded.ask_admin(get("/metrics")).await;
    let sample = "\nseawall_viewer_events_total{event=\"cut_at_drain\"} 1\n";
    assert!(metrics.text().contains(sample), "{}", metrics.text());
    kept.get(PATH).await.assert_whole("whole");
}

/// What workers remember of a listener goes with it.
#[tokio::test]
async fn memory_of_a_removed_listener_is_given_back() {
    let (reloaded, address) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let remembered = async || {
        let metrics = reloaded.ask_admin(get("/metrics")).await;
        let name = "\nseawall_repeated_response_bytes ";
        let (_, rest) = metrics.text().split_once(name).expect("a sample");
        let value = rest.lines().next().expect("a value");
        value.parse::<f64>().expect("a number") > 0.0
    };
    let mut viewer = Viewer::connect(address).await;
    for _ in 0..5 {
        viewer.get(PATH).await.assert_whole("whole");
    }
    assert!(remembered().await, "a repeated response");
    reloaded.change("").await;
    viewer.wait_closed().await;
    eventually("nothing to be remembered", async || !remembered().await).await;
}

/// Viewers of a listener that stays, while another one moves.
struct Audience {
    ends: Arc<AtomicBool>,
    served: Arc<AtomicUsize>,
    tasks: tokio::task::JoinSet<()>,
}

impl Audience {
    fn watch(address: SocketAddr) -> Audience {
        let ends = Arc::new(AtomicBool::new(false));
        let served: Arc<AtomicUsize> = Arc::default();
        let mut tasks = tokio::task::JoinSet::new();
        for viewer in 0..4 {
            let (ends, served) = (Arc::clone(&ends), Arc::clone(&served));
            tasks.spawn(async move {
                let mut kept = Viewer::connect(address).await;
                while !ends.load(Ordering::Relaxed) {
                    if viewer % 2 == 0 {
                        kept = Viewer::connect(address).await;
                    }
                    let answer = kept.get(PATH).await;
                    answer.assert_whole("whole");
                    assert_eq!(answer.header("connection"), None);
                    served.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        Audience {
            ends,
            served,
            tasks,
        }
    }

    async fn end(self) -> usize {
        self.ends.store(true, Ordering::Relaxed);
        within("the viewers to end", self.tasks.join_all()).await;
        self.served.load(Ordering::Relaxed)
    }
}

#[tokio::test]
async fn listener_moves_fifty_times_and_the_other_refuses_nobody() {
    let (mut reloaded, first) = listening_on_first(origin(&Gate::new()).await.0, "").await;
    let stays = on("127.0.0.1");
    reloaded.change(&format!("{}{stays}", on(FIRST))).await;
    let staying = reloaded.log.listener("127.0.0.1").await;
    let second = SocketAddr::new(SECOND.parse().unwrap(), first.port());
    assert_served(staying).await;
    let audience = Audience::watch(staying);
    let before = reloaded.program.descriptors();
    for round in 0..50 {
        let (here, gone) = if round % 2 == 0 {
            (second, first)
        } else {
            (first, second)
        };
        reloaded
            .change(&format!("{}{stays}", listener(&here.to_string())))
            .await;
        assert_served(here).await;
        assert!(is_refused(gone).await, "round {round}");
    }
    let served = audience.end().await;
    assert!(served > 50, "{served} responses in 50 reloads");
    eventually("no descriptor to be left", async || {
        reloaded.program.descriptors() <= before
    })
    .await;
}

#[tokio::test]
async fn new_listener_is_closed_by_a_drain_as_all_others() {
    let gate = Gate::new();
    let (origin, body) = origin(&gate).await;
    let (mut reloaded, address) = listening_on_first(origin, "").await;
    let on_first = Viewer::connect(address).await.begin(get(SLOW)).await;
    reloaded.change(&on(SECOND)).await;
    let second = reloaded.log.listener(SECOND).await;
    let on_second = Viewer::connect(second).await.begin(get(SLOW)).await;
    reloaded.program.signal("TERM");
    eventually("the listener to close", async || is_refused(second).await).await;
    gate.open();
    for download in [on_first, on_second] {
        download.finish().await.assert_whole(&body);
    }
    assert_eq!(reloaded.program.wait_end().await, Some(0));
}
