//! Support for the frontend's tests: recorded requests, certificates, and a server with scripted
//! responses.

use std::sync::Arc;
use std::time::{Duration, Instant};

use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::{ServerContext, serve_plain};
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::{
    BoundListener, CertificateFiles, Frontend, Handler, Limits, ListenAddress, Listener,
    RequestRecorder, Tls,
};
use crate::proxy::{ResponseBody, ViewerRequest, ViewerResponse};
use crate::telemetry::{Outcome, RequestRecord};
use seawall_manifest::Kind;

/// The records of finished requests.
#[derive(Clone, Default)]
pub(super) struct Tales(Arc<Mutex<Vec<RequestRecord>>>);

impl Tales {
    pub(super) fn teller(&self) -> RequestRecorder {
        let tales = self.0.clone();
        Arc::new(move |tale| tales.lock().push(tale.clone()))
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn take(&self) -> Vec<RequestRecord> {
        std::mem::take(&mut *self.0.lock())
    }
}

pub(super) fn tale(arrived: Instant) -> RequestRecord {
    RequestRecord {
        outcome: Outcome::Hit,
        kind: Kind::Segment,
        ..RequestRecord::begun(arrived)
    }
}

pub(super) fn answer(arrival: &ViewerRequest, body: ResponseBody) -> ViewerResponse {
    let tale = tale(arrival.arrived);
    ViewerResponse {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        held: None,
        body,
        part_of: None,
        record: tale,
    }
}

/// Certificates in a temporary directory.
pub(super) struct Purse(tempfile::TempDir);

impl Purse {
    pub(super) fn new() -> Purse {
        Purse(tempfile::tempdir().unwrap())
    }

    pub(super) fn make(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let made = rcgen::generate_simple_self_signed(names).unwrap();
        let files = self.files(file);
        std::fs::write(&files.certificate, made.cert.pem()).unwrap();
        std::fs::write(&files.key, made.signing_key.serialize_pem()).unwrap();
        files
    }

    pub(super) fn certificate(&self, file: &str) -> CertificateDer<'static> {
        CertificateDer::from_pem_file(self.files(file).certificate).unwrap()
    }

    fn files(&self, file: &str) -> CertificateFiles {
        CertificateFiles {
            certificate: self.0.path().join(format!("{file}.pem")),
            key: self.0.path().join(format!("{file}.key")),
        }
    }
}

/// A handler whose responses are never in memory.
struct Script<A>(A);

impl<A, F> Handler for Script<A>
where
    A: Fn(ViewerRequest) -> F + Send + Sync + 'static,
    F: Future<Output = ViewerResponse> + Send + 'static,
{
    fn try_answer(&self, _: ViewerRequest) -> Option<ViewerResponse> {
        None
    }

    fn answer(&self, arrival: ViewerRequest) -> impl Future<Output = ViewerResponse> + Send {
        (self.0)(arrival)
    }
}

/// A handler whose responses are in memory if the script has a body for them. hyper sends the
/// others, which are empty.
pub(super) struct AtHand<A>(pub(super) A);

impl<A> Handler for AtHand<A>
where
    A: Fn(&ViewerRequest) -> Option<ResponseBody> + Send + Sync + 'static,
{
    fn try_answer(&self, arrival: ViewerRequest) -> Option<ViewerResponse> {
        let mut answer = answer(&arrival, (self.0)(&arrival)?);
        let name = HeaderName::from_static("at-hand");
        answer.headers.insert(name, HeaderValue::from(1));
        Some(answer)
    }

    async fn answer(&self, arrival: ViewerRequest) -> ViewerResponse {
        let body = (self.0)(&arrival).unwrap_or(ResponseBody::Empty);
        answer(&arrival, body)
    }
}

/// Serves one connection without a socket, so that a test can pause the clock.
pub(super) fn serve_wire(
    limits: Limits,
    wire: DuplexStream,
    body: fn() -> ResponseBody,
) -> (Arc<ConnectionTable>, Tales) {
    let (limits, tales) = (Arc::new(limits), Tales::default());
    let roll = ConnectionTable::new(&limits);
    let answers = AtHand(move |_: &ViewerRequest| Some(body()));
    let house = ServerContext::new(answers, tales.teller(), limits, roll.clone());
    let gauge = Arc::new(ConnectionState::new(tales.teller(), None, false, None));
    tokio::spawn(serve_plain(house, wire, gauge));
    (roll, tales)
}

/// A running frontend.
pub(super) struct Scene {
    pub(super) edge: Arc<Frontend>,
    pub(super) tales: Tales,
    pub(super) address: std::net::SocketAddr,
}

impl Scene {
    pub(super) fn start<A, F>(limits: Limits, tls: Option<Tls>, answer: A) -> Scene
    where
        A: Fn(ViewerRequest) -> F + Send + Sync + 'static,
        F: Future<Output = ViewerResponse> + Send + 'static,
    {
        Scene::serve(limits, tls, Script(answer))
    }

    pub(super) fn serve<A: Handler>(limits: Limits, tls: Option<Tls>, answers: A) -> Scene {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let door = BoundListener::bind(&Listener { address, tls }).unwrap();
        let ListenAddress::Tcp(address) = *door.address() else {
            unreachable!()
        };
        let edge = Arc::new(Frontend::new(limits).unwrap());
        let tales = Tales::default();
        let (serving, teller) = (edge.clone(), tales.teller());
        tokio::spawn(async move { serving.serve(door, answers, teller).await.unwrap() });
        Scene {
            edge,
            tales,
            address,
        }
    }

    /// One scene where hyper answers, and one where the fast path does.
    pub(super) fn in_both_lanes(limits: Limits, body: fn() -> ResponseBody) -> [Scene; 2] {
        [
            Scene::with_body(limits.clone(), body),
            Scene::serve(limits, None, AtHand(move |_: &ViewerRequest| Some(body()))),
        ]
    }

    /// A scene whose responses have this body.
    pub(super) fn with_body(limits: Limits, body: fn() -> ResponseBody) -> Scene {
        Scene::start(limits, None, move |arrival| async move {
            answer(&arrival, body())
        })
    }
}

impl Drop for Scene {
    fn drop(&mut self) {
        self.edge.abort();
    }
}

/// Longer than any successful step takes.
const PATIENCE: Duration = Duration::from_secs(10);

/// Waits until a condition holds; the test fails if it never does.
pub(super) async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, waiting).await.expect(what);
}

/// A viewer that sends raw bytes.
pub(super) struct Viewer(pub(super) TcpStream);

impl Viewer {
    pub(super) async fn meet(scene: &Scene) -> Viewer {
        Viewer(TcpStream::connect(scene.address).await.unwrap())
    }

    pub(super) async fn say(&mut self, words: &str) {
        self.0.write_all(words.as_bytes()).await.unwrap();
    }

    /// Reads up to and including these bytes.
    pub(super) async fn hear_until(&mut self, words: &str) -> String {
        let mut heard = Vec::new();
        let hearing = async {
            while !heard.ends_with(words.as_bytes()) {
                match self.0.read_u8().await {
                    Ok(byte) => heard.push(byte),
                    Err(_) => break,
                }
            }
        };
        timeout(PATIENCE, hearing)
            .await
            .expect("the answer never came");
        String::from_utf8_lossy(&heard).into_owned()
    }

    /// Reads to the end; the second value is whether the connection was closed cleanly.
    pub(super) async fn hear_out(&mut self) -> (String, bool) {
        let mut heard = Vec::new();
        let end = timeout(PATIENCE, self.0.read_to_end(&mut heard))
            .await
            .expect("no end");
        (String::from_utf8_lossy(&heard).into_owned(), end.is_ok())
    }
}
