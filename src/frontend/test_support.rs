//! Support for the frontend's tests: recorded requests, certificates, and a server with scripted
//! responses.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use parking_lot::Mutex;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::connection::serve_plain;
use super::connection_state::ConnectionState;
use super::connection_table::ConnectionTable;
use super::server_context::ServerContext;
use super::{
    BoundListener, CertificateFiles, Frontend, Handler, Limits, ListenAddress, Listener,
    RequestRecorder, Tls,
};
use crate::proxy::{MemoryAnswer, ResponseBody, ViewerRequest, ViewerResponse};
use crate::telemetry::{Outcome, RequestRecord};
use seawall_manifest::Kind;

/// The records of finished requests.
#[derive(Clone, Default)]
pub(super) struct RequestRecords(Arc<Mutex<Vec<RequestRecord>>>);

impl RequestRecords {
    pub(super) fn recorder(&self) -> RequestRecorder {
        let records = self.0.clone();
        Arc::new(move |record| records.lock().push(record.clone()))
    }

    pub(super) fn count(&self) -> usize {
        self.0.lock().len()
    }

    pub(super) fn take(&self) -> Vec<RequestRecord> {
        std::mem::take(&mut *self.0.lock())
    }
}

pub(super) fn record(arrived: Instant) -> RequestRecord {
    RequestRecord {
        outcome: Outcome::Hit,
        kind: Kind::Segment,
        ..RequestRecord::begin(arrived)
    }
}

pub(super) fn answer(request: &ViewerRequest, body: ResponseBody) -> ViewerResponse {
    let record = record(request.arrived);
    ViewerResponse {
        status: StatusCode::OK,
        headers: HeaderMap::new(),
        stored: None,
        body,
        part_of: None,
        repeat: None,
        record,
        meter: None,
    }
}

/// Certificates in a temporary directory.
pub(super) struct CertificateDirectory(tempfile::TempDir);

impl CertificateDirectory {
    pub(super) fn new() -> CertificateDirectory {
        CertificateDirectory(tempfile::tempdir().unwrap())
    }

    pub(super) fn make(&self, file: &str, names: &[&str]) -> CertificateFiles {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let certificate = rcgen::generate_simple_self_signed(names).unwrap();
        let files = self.files(file);
        std::fs::write(&files.certificate, certificate.cert.pem()).unwrap();
        std::fs::write(&files.key, certificate.signing_key.serialize_pem()).unwrap();
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

/// One handler for all workers.
impl<H: Handler> Handler for Arc<H> {
    fn try_answer(&self, request: ViewerRequest) -> MemoryAnswer {
        H::try_answer(self, request)
    }

    fn answer(&self, request: ViewerRequest) -> impl Future<Output = ViewerResponse> + Send {
        H::answer(self, request)
    }
}

/// A handler whose responses are never in memory.
struct Script<A>(A);

impl<A, F> Handler for Script<A>
where
    A: Fn(ViewerRequest) -> F + Send + Sync + 'static,
    F: Future<Output = ViewerResponse> + Send + 'static,
{
    fn try_answer(&self, _: ViewerRequest) -> MemoryAnswer {
        MemoryAnswer::Unknown
    }

    fn answer(&self, request: ViewerRequest) -> impl Future<Output = ViewerResponse> + Send {
        (self.0)(request)
    }
}

/// A handler whose responses are in memory if the script has a body for them. hyper sends the
/// others, which are empty.
pub(super) struct FromMemory<A>(pub(super) A);

impl<A> Handler for FromMemory<A>
where
    A: Fn(&ViewerRequest) -> Option<ResponseBody> + Send + Sync + 'static,
{
    fn try_answer(&self, request: ViewerRequest) -> MemoryAnswer {
        let Some(body) = (self.0)(&request) else {
            return MemoryAnswer::Unknown;
        };
        let mut response = answer(&request, body);
        let name = HeaderName::from_static("from-memory");
        response.headers.insert(name, HeaderValue::from(1));
        MemoryAnswer::Respond(response)
    }

    async fn answer(&self, request: ViewerRequest) -> ViewerResponse {
        let body = (self.0)(&request).unwrap_or(ResponseBody::Empty);
        answer(&request, body)
    }
}

/// What serves this body from memory.
pub(super) fn context_with_body(
    limits: Limits,
    records: &RequestRecords,
    body: fn() -> ResponseBody,
) -> Arc<ServerContext<impl Handler>> {
    let limits = Arc::new(limits);
    let connections = ConnectionTable::new(&limits);
    let handler = FromMemory(move |_: &ViewerRequest| Some(body()));
    ServerContext::new(handler, records.recorder(), limits, connections)
}

/// Serves one connection without a socket, so that a test can pause the clock.
pub(super) fn serve_duplex(
    limits: Limits,
    transport: DuplexStream,
    body: fn() -> ResponseBody,
) -> (Arc<ConnectionTable>, RequestRecords) {
    let records = RequestRecords::default();
    let context = context_with_body(limits, &records, body);
    let connections = context.connections.clone();
    let connection = Arc::new(ConnectionState::new(records.recorder(), None, false, None));
    let guard = connections.admit(None, tokio::time::Instant::now());
    let guard = guard.unwrap_or_else(|event| panic!("{event:?}"));
    guard.register(&connection);
    tokio::spawn(async move {
        let _until_closed = guard;
        serve_plain(context, transport, connection).await;
    });
    (connections, records)
}

/// A worker thread that hangs, until the test lets it go on.
pub(super) struct Hang {
    pub(super) has_begun: AtomicBool,
    pub(super) end: Barrier,
}

impl Hang {
    pub(super) fn new() -> Arc<Hang> {
        Arc::new(Hang {
            has_begun: AtomicBool::new(false),
            end: Barrier::new(2),
        })
    }
}

/// A running frontend.
pub(super) struct TestServer {
    pub(super) frontend: Arc<Frontend>,
    pub(super) records: RequestRecords,
    pub(super) address: std::net::SocketAddr,
}

impl TestServer {
    pub(super) fn start<A, F>(limits: Limits, tls: Option<Tls>, respond: A) -> TestServer
    where
        A: Fn(ViewerRequest) -> F + Send + Sync + 'static,
        F: Future<Output = ViewerResponse> + Send + 'static,
    {
        TestServer::serve(limits, tls, Script(respond))
    }

    pub(super) fn serve<A: Handler>(limits: Limits, tls: Option<Tls>, handler: A) -> TestServer {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = BoundListener::bind(&Listener {
            address,
            tls,
            proxy_protocol: None,
        })
        .unwrap();
        let ListenAddress::Tcp(address) = *listener.address() else {
            unreachable!()
        };
        let frontend = Arc::new(Frontend::new(limits, 1).unwrap());
        frontend.open(vec![listener]).unwrap();
        let records = RequestRecords::default();
        let (server_frontend, recorder) = (frontend.clone(), records.recorder());
        let handler = Arc::new(handler);
        tokio::spawn(async move { server_frontend.serve(0, handler, recorder).await });
        TestServer {
            frontend,
            records,
            address,
        }
    }

    /// A server with this many workers, each on a thread of its own. Responses name the thread. A
    /// request for `/hang` blocks its thread.
    pub(super) fn with_workers(count: usize, hang: &Arc<Hang>) -> TestServer {
        let address = ListenAddress::Tcp("127.0.0.1:0".parse().unwrap());
        let listener = BoundListener::bind(&Listener {
            address,
            tls: None,
            proxy_protocol: None,
        })
        .unwrap();
        let ListenAddress::Tcp(address) = *listener.address() else {
            unreachable!()
        };
        let frontend = Arc::new(Frontend::new(Limits::default(), count).unwrap());
        frontend.open(vec![listener]).unwrap();
        let records = RequestRecords::default();
        for worker in 0..count {
            let (frontend, recorder, hang) = (frontend.clone(), records.recorder(), hang.clone());
            std::thread::spawn(move || {
                let name = format!("{:?};", std::thread::current().id());
                let body = Bytes::from(name);
                let handler = FromMemory(move |request: &ViewerRequest| {
                    if request.uri.path() == "/hang" {
                        hang.has_begun.store(true, Ordering::Release);
                        hang.end.wait();
                    }
                    Some(ResponseBody::Whole(Some(body.clone())))
                });
                let mut runtime = tokio::runtime::Builder::new_current_thread();
                let runtime = runtime.enable_all().build().unwrap();
                runtime.block_on(frontend.serve(worker, Arc::new(handler), recorder));
            });
        }
        TestServer {
            frontend,
            records,
            address,
        }
    }

    /// One server where hyper answers, and one where the fast path does.
    pub(super) fn on_both_paths(limits: Limits, body: fn() -> ResponseBody) -> [TestServer; 2] {
        [
            TestServer::with_body(limits.clone(), body),
            TestServer::serve(
                limits,
                None,
                FromMemory(move |_: &ViewerRequest| Some(body())),
            ),
        ]
    }

    /// A server whose responses have this body.
    pub(super) fn with_body(limits: Limits, body: fn() -> ResponseBody) -> TestServer {
        TestServer::start(limits, None, move |request| async move {
            answer(&request, body())
        })
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        self.frontend.abort();
    }
}

/// Longer than any successful step takes.
const WAIT_MAX: Duration = Duration::from_secs(10);

/// Waits until a condition holds; the test fails if it never does.
pub(super) async fn until(condition: &str, is_true: impl Fn() -> bool) {
    let waiting = async {
        while !is_true() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(WAIT_MAX, waiting).await.expect(condition);
}

/// A viewer that sends raw bytes.
pub(super) struct Viewer(pub(super) TcpStream);

impl Viewer {
    pub(super) async fn connect(server: &TestServer) -> Viewer {
        Viewer(TcpStream::connect(server.address).await.unwrap())
    }

    pub(super) async fn send(&mut self, text: &str) {
        self.0.write_all(text.as_bytes()).await.unwrap();
    }

    /// Reads up to and including these bytes.
    pub(super) async fn read_until(&mut self, text: &str) -> String {
        let mut received = Vec::new();
        let reading = async {
            while !received.ends_with(text.as_bytes()) {
                match self.0.read_u8().await {
                    Ok(byte) => received.push(byte),
                    Err(_) => break,
                }
            }
        };
        timeout(WAIT_MAX, reading)
            .await
            .expect("the response never came");
        String::from_utf8_lossy(&received).into_owned()
    }

    /// Reads to the end; the second value is whether the connection was closed cleanly.
    pub(super) async fn read_to_end(&mut self) -> (String, bool) {
        let mut received = Vec::new();
        let end = timeout(WAIT_MAX, self.0.read_to_end(&mut received))
            .await
            .expect("the connection did not end");
        (String::from_utf8_lossy(&received).into_owned(), end.is_ok())
    }
}
