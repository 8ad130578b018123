//! A shield whose viewers need no sockets, in front of a small origin.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use seawall::config::Config;
use seawall::frontend::{Frontend, RequestRecorder, StreamServer};
use seawall::proxy::{AccessControl, ActiveShield, ShieldParts};
use seawall::telemetry::{MetricRegistry, Telemetry};
use seawall_policy::Route;
use seawall_upstream::Origin;
use tokio::runtime::{Builder, Runtime};
use tokio::task::JoinSet;

use crate::viewer::Viewer;

/// A shield and what its workers need.
pub(crate) struct InProcess {
    pub(crate) shield: Arc<ActiveShield>,
    frontend: Arc<Frontend>,
}

/// A thread that serves viewers.
pub(crate) struct Worker {
    runtime: Runtime,
    server: Arc<StreamServer<Arc<ActiveShield>>>,
}

impl InProcess {
    /// Starts the origin on a thread and builds the shield.
    pub(crate) fn start() -> InProcess {
        InProcess::with_rules(|_| ())
    }

    /// The same with routes that are changed first.
    pub(crate) fn with_rules(change: impl Fn(&mut Route)) -> InProcess {
        let origin = start_origin();
        let mut config = expect(Config::single(&format!("http://{origin}"), Vec::new()).ok());
        for route in &mut config.rules.routes {
            change(Arc::make_mut(route));
        }
        // The access log costs more than a hit; a benchmark of hits is about hits.
        config.telemetry.access_log = seawall::telemetry::AccessLogSettings::default();
        let runtime = current_thread();
        let _context = runtime.enter();
        let origins = config.origins.into_iter().map(|settings| {
            let resolver = Arc::new(|_: &str, _: u16| Ok(Vec::new()));
            Arc::new(expect(Origin::new(settings, resolver).ok()))
        });
        let mut registry = MetricRegistry::default();
        let routes: Vec<Arc<str>> = config
            .rules
            .routes
            .iter()
            .map(|route| Arc::clone(&route.name))
            .collect();
        let telemetry = Telemetry::new(&config.telemetry, &routes, &mut registry);
        let access = expect(AccessControl::read(&config.rules).ok());
        InProcess {
            shield: ActiveShield::new(ShieldParts {
                origins: origins.collect(),
                rules: config.rules,
                cache: config.cache,
                settings: config.proxy,
                telemetry: Arc::new(expect(telemetry.ok())),
                access,
            }),
            frontend: Arc::new(expect(Frontend::new(config.frontend.limits, 1).ok())),
        }
    }

    /// A worker for the current thread.
    pub(crate) fn worker(&self) -> Worker {
        let telemetry = Arc::clone(self.shield.load().telemetry());
        let recorder: RequestRecorder = Arc::new(move |record| telemetry.record(record));
        Worker {
            runtime: current_thread(),
            server: Arc::new(StreamServer::new(
                &self.frontend,
                Arc::clone(&self.shield),
                recorder,
            )),
        }
    }
}

impl Worker {
    /// Serves a viewer that sends these requests on one connection.
    pub(crate) fn serve(&self, requests: Vec<Vec<u8>>) {
        self.serve_all(vec![requests]);
    }

    /// Serves viewers at the same time, each with its requests on a connection of its own.
    pub(crate) fn serve_all(&self, viewers: Vec<Vec<Vec<u8>>>) {
        let served = self.runtime.block_on(async {
            let mut tasks = JoinSet::new();
            for requests in viewers {
                let server = Arc::clone(&self.server);
                tasks.spawn(async move { server.serve(Viewer::sending(requests)).await });
            }
            tasks.join_all().await
        });
        assert!(served.iter().all(Result::is_ok), "it has room");
    }
}

/// A GET as a CDN sends it, with further header lines.
pub(crate) fn get(target: &str, lines: &str) -> Vec<u8> {
    let host = "Host: live.example.com\r\nUser-Agent: Amazon CloudFront\r\n";
    let cdn = "X-Amz-Cf-Id: q7-Jb2yq5F4w0V\r\nVia: 2.0 x.cloudfront.net (CloudFront)\r\n";
    format!("GET {target} HTTP/1.1\r\n{host}{cdn}Accept-Encoding: gzip\r\n{lines}\r\n").into_bytes()
}

fn expect<T>(made: Option<T>) -> T {
    match made {
        Some(made) => made,
        None => panic!("the benchmark's own settings are valid"),
    }
}

fn current_thread() -> Runtime {
    expect(Builder::new_current_thread().enable_all().build().ok())
}

/// Answers every request on its own thread per connection, until the process ends: `/playlist/…`
/// with a playlist, `/stale/…` with a segment that is stale at once and may be served stale, all
/// else with a segment of 1 KiB. It leaves a second request for `/stale/…` without an answer, so
/// that one refresh is in progress all the time, however fast the machine is.
fn start_origin() -> SocketAddr {
    let listener = expect(TcpListener::bind("127.0.0.1:0").ok());
    let address = expect(listener.local_addr().ok());
    std::thread::spawn(move || {
        for connection in listener.incoming().flatten() {
            std::thread::spawn(move || answer_all(connection));
        }
    });
    address
}

static HAS_SENT_STALE: AtomicBool = AtomicBool::new(false);

fn answer_all(mut connection: TcpStream) -> Option<()> {
    let mut received = Vec::new();
    loop {
        let mut buffer = [0; 4096];
        let count = connection
            .read(&mut buffer)
            .ok()
            .filter(|count| *count > 0)?;
        received.extend_from_slice(&buffer[..count]);
        while let Some(end) = received.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
            let head = String::from_utf8_lossy(&received[..end]).into_owned();
            received.drain(..end + 4);
            if head.contains("/stale/") && HAS_SENT_STALE.swap(true, Ordering::Relaxed) {
                continue;
            }
            connection.write_all(&response(&head)).ok()?;
        }
    }
}

fn response(head: &str) -> Vec<u8> {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (lifetime, content_type, body) = if target.starts_with("/playlist/") {
        ("max-age=3600", "application/vnd.apple.mpegurl", playlist())
    } else if target.starts_with("/stale/") {
        (
            "max-age=0, stale-while-revalidate=3600",
            "video/mp2t",
            segment(),
        )
    } else {
        ("max-age=3600", "video/mp2t", segment())
    };
    let length = body.len();
    let fields = format!("Content-Type: {content_type}\r\nContent-Length: {length}\r\n");
    let head =
        format!("HTTP/1.1 200 OK\r\nCache-Control: {lifetime}\r\nETag: \"1\"\r\n{fields}\r\n");
    [head.into_bytes(), body].concat()
}

fn segment() -> Vec<u8> {
    vec![b's'; 1 << 10]
}

/// On demand, so that nothing is refreshed in the background.
pub(crate) fn playlist() -> Vec<u8> {
    let mut text = "#EXTM3U\n#EXT-X-VERSION:6\n#EXT-X-TARGETDURATION:6\n".to_owned();
    text.extend(
        (0..32)
            .map(|number| format!("#EXTINF:6.000,\nvideo_1080p_6000k_segment_{number:043}.ts\n")),
    );
    (text + "#EXT-X-ENDLIST\n").into_bytes()
}
